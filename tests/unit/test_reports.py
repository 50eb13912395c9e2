"""What a terminal says of itself: understood, and never taken for keys, however it is cut up."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from llama_tui.background import guessed, is_asked, told
from llama_tui.ui.reports import Reports

LIGHT = "\x1b]11;rgb:fafa/f8f8/f1f1\x1b\\"
ATTRIBUTES = "\x1b[?62;22c"


def read(reports: Reports, pieces: list[str], between: float = 0.01) -> str:
    """The keys of pieces that come one after another."""
    keys, now = "", 0.0
    for piece in pieces:
        keys += reports.late(now)
        keys += reports.feed(piece, now)
        now += between
    return keys + reports.late(now + 60)


def asked() -> Reports:
    reports = Reports()
    reports.ask(0.0, background=True)
    return reports


def test_where_the_background_is_not_asked_for_the_last_question_still_is() -> None:
    reports = Reports()
    assert reports.ask(0.0, background=False) == "\x1b[c"
    assert reports.due
    assert reports.feed(ATTRIBUTES, 0.1) == "" and not reports.due


@pytest.mark.parametrize("end", ["\x1b\\", "\x07"])
@pytest.mark.parametrize("at", range(len(LIGHT) + len(ATTRIBUTES) + 6))
def test_an_answer_that_is_cut_anywhere_leaves_the_keys_around_it(at: int, end: str) -> None:
    said = "ab\x1b[A" + LIGHT.replace("\x1b\\", end) + ATTRIBUTES + "c"
    reports = asked()
    assert read(reports, [said[:at], said[at:]]) == "ab\x1b[Ac"
    assert reports.background == "light"
    assert not reports.due


def test_an_answer_that_comes_character_by_character() -> None:
    reports = asked()
    assert read(reports, [*LIGHT, "x", *ATTRIBUTES]) == "x"
    assert reports.background == "light" and not reports.due


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_an_answer_that_comes_late_or_unasked_is_none_of_the_keys(seconds: float) -> None:
    reports = asked() if seconds else Reports()
    assert reports.feed(LIGHT, seconds) + reports.feed(ATTRIBUTES, seconds) + reports.feed("x", seconds) == "x"
    assert reports.background == "light"


@pytest.mark.parametrize(
    "keys",
    ["\x1b", "\x1b]", "\x1b[A", "\x1b[1;5C", "\x1b]1x", "\x1b[?2026;2$y", "\x1b\x1b[B", "\x1b[200~a\x1bb\x1b[201~"],
)
def test_keys_stay_what_they_are(keys: str) -> None:
    for reports in (asked(), Reports()):
        assert read(reports, [keys, "x"]) == keys + "x"
        assert read(reports, [*keys, "x"]) == keys + "x"


def test_escape_is_held_back_for_a_moment_while_an_answer_is_due_and_else_not_at_all() -> None:
    reports = asked()
    assert reports.feed("\x1b", 1.0) == ""
    waits = reports.wait(1.0)
    assert waits == pytest.approx(0.1)
    assert reports.late(1.05) == ""
    assert reports.late(1.2) == "\x1b"
    assert reports.wait(2.0) is None
    assert reports.feed("\x1b", 3600.0) == "\x1b"
    assert Reports().feed("\x1b", 0.0) == "\x1b"


@pytest.mark.parametrize(
    ("colour", "means"),
    [
        ("rgb:1010/1414/1a1a", "dark"),
        ("rgb:ffff/ffff/ffff", "light"),
        ("rgb:f/f/f", "light"),
        ("rgb:000/fff/000", "light"),
        ("rgb:0000/0000/ffff", "dark"),
        ("rgba:fafa/fafa/fafa/ffff", "light"),
        ("RGB:70/70/70", "dark"),
        ("rgb:80/80/80", "light"),
        ("#fdf6e3", "light"),
        ("#002b36", "dark"),
        ("", None),
        ("?", None),
        ("rgb:12345/0/0", None),
        ("rgb:g/g/g", None),
    ],
)
def test_colours(colour: str, means: str | None) -> None:
    assert told(colour) == means


@pytest.mark.parametrize(
    ("variable", "means"),
    [
        ("15;0", "dark"),
        ("0;15", "light"),
        ("0;default;7", "light"),
        ("7;8", "dark"),
        ("", None),
        ("0;x", None),
        ("0;99", None),
    ],
)
def test_what_colorfgbg_says(variable: str, means: str | None) -> None:
    assert guessed({"COLORFGBG": variable}) == means
    assert guessed({}) is None


@pytest.mark.parametrize(
    ("environ", "whether"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "screen-256color", "TMUX": "/tmp/t,1,0"}, True),
        ({"TERM": "tmux-256color"}, True),
        ({"TERM": "screen"}, False),
        ({"TERM": "xterm", "STY": "1.pts"}, False),
        ({"TERM": "linux"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_who_is_asked(environ: Mapping[str, str], whether: bool) -> None:
    assert is_asked(environ) == whether
