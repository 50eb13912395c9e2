"""Questions to a terminal: a real pty, and terminals that answer in all the ways that there are."""

from __future__ import annotations

import os
import pty
import select
import termios
import threading
from collections.abc import Iterator

import pytest

from llama_tui.commands.terminal import Answers, Multiplexer, abilities, ask, multiplexer

PATIENT = 10.0
"""Seconds that a terminal of a test may take; one that is silent is given less."""

ATTRIBUTES = b"\x1b[?62;22c"
BACKGROUND = b"\x1b]11;rgb:ffff/f8f8/e7e7\x07"
ALL = (
    BACKGROUND
    + b"\x1bP>|kitty(0.42)\x1b\\\x1b[?0u\x1b[?2026;2$y\x1bP1$r0;48:2:1:2:3m\x1b\\\x1bP1+r4D73=5c45\x1b\\\x1b[?62;52;c"
)


@pytest.fixture
def line() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: what shows, and what the program reads and writes."""
    shows, reads = pty.openpty()
    yield shows, reads
    os.close(shows)
    os.close(reads)


def asked(line: tuple[int, int], answer: bytes, quiet: float) -> tuple[Answers, bytes]:
    """What `ask` made of a terminal that gives this answer, and what it was asked."""
    shows, reads = line
    heard = b""

    def terminal() -> None:
        nonlocal heard
        while not heard.endswith(b"\x1b8"):
            if not select.select([shows], [], [], PATIENT)[0]:
                return
            heard += os.read(shows, 4096)
        for at in range(0, len(answer), 7):  # in pieces, as a slow line brings them
            os.write(shows, answer[at : at + 7])

    thread = threading.Thread(target=terminal)
    thread.start()
    before = termios.tcgetattr(reads)
    try:
        answers = ask(reads, reads, quiet)
    finally:
        thread.join()
    assert termios.tcgetattr(reads) == before
    return answers, heard


def left(line: tuple[int, int]) -> bool:
    """Whether something waits to be read by whoever comes next."""
    return bool(select.select([line[1]], [], [], 0)[0])


def test_one_that_answers_everything(line: tuple[int, int]) -> None:
    answers, heard = asked(line, ALL, PATIENT)
    assert answers == Answers(True, "kitty(0.42)", True, True, True, True, "light")
    assert not left(line)
    assert heard.count(b"\x1b[c") == 1


def test_one_that_knows_nothing_new_is_not_waited_for(line: tuple[int, int]) -> None:
    answers, _ = asked(line, ATTRIBUTES, PATIENT * 100)
    assert answers == Answers(True, "", False, False, None, None)
    assert not left(line)


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        (b"\x1b[?2026;0$y", "synchronized", False),
        (b"\x1b[?2026;4$y", "synchronized", False),
        (b"\x1bP1$r0;48;5;16m\x1b\\", "true_colour", False),
        (b"\x1bP1$r48;2;1;2;3m\x1b\\", "true_colour", True),
        (b"\x1bP1$r0;48:2::1:2:3m\x1b\\", "true_colour", True),
        (b"\x1bP0+r4d73\x1b\\", "copies", None),
        (b"\x1b]11;rgb:00/00/00\x1b\\", "background", "dark"),
        (b"typed meanwhile", "version", ""),
    ],
)
def test_what_an_answer_means(line: tuple[int, int], said: bytes, field: str, value: object) -> None:
    answers, _ = asked(line, said + ATTRIBUTES, PATIENT)
    assert getattr(answers, field) == value


def test_one_that_is_silent(line: tuple[int, int]) -> None:
    assert asked(line, b"", 0.05)[0] == Answers()
    assert not left(line)


def test_one_that_is_cut_off_leaves_nothing_behind(line: tuple[int, int]) -> None:
    assert asked(line, ALL[:30], 0.2)[0] == Answers()
    assert not left(line)


def test_what_is_no_terminal_is_not_asked() -> None:
    reads, writes = os.pipe()
    try:
        assert abilities({"TERM": "xterm"}, reads, writes).answers is None
        os.set_blocking(reads, False)
        with pytest.raises(BlockingIOError):
            os.read(reads, 1)
    finally:
        os.close(reads)
        os.close(writes)


def test_what_stands_between(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert multiplexer({}) is None
    assert multiplexer({"STY": "1.pts"}) == Multiplexer("screen")
    folder = tmp_path_factory.mktemp("bin")
    path = {"TMUX": "/tmp/x,1,0", "PATH": f"{folder}:/usr/bin:/bin"}
    monkeypatch.setenv("PATH", path["PATH"])
    for told, word in (("external", "external"), ("odd", "")):
        (folder / "tmux").write_text(f"#!/bin/sh\necho {told}\n")
        (folder / "tmux").chmod(0o755)
        assert multiplexer(path) == Multiplexer("tmux", word)
