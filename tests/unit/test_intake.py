"""What is typed and what is pasted are told apart, wherever the stream is cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual._xterm_parser import XTermParser
from textual.message import Message

from llama_tui.ui.intake import BURST, END, START, Intake, Paste


class Typed(Message):
    """What would be parsed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


def parse(text: str) -> Iterator[Message]:
    yield Typed(text)


def said(chunks: list[str]) -> list[tuple[str, str]]:
    """Kind and text of all that comes of a stream, neighbours of one kind together."""
    intake = Intake(parse)
    found: list[tuple[str, str]] = []
    for message in [*(made for chunk in chunks for made in intake.feed(chunk)), *intake.idle()]:
        assert isinstance(message, Typed | Paste)
        kind = type(message).__name__
        if found and kind == "Typed" == found[-1][0]:
            found[-1] = (kind, found[-1][1] + message.text)
        else:
            found.append((kind, message.text))
    return found


STREAM = f"ab\x1b[A{START}one\r\ntwo\rthree\x1b[31m\x1b\x00\x07 我{END}c\x1b[{START}{END}\x1b[200x{START}\r{END}d"
WANTED = [
    ("Typed", "ab\x1b[A"),
    ("Paste", "one\ntwo\nthree␛[31m␛␇ 我"),
    ("Typed", "c\x1b["),
    ("Paste", ""),
    ("Typed", "\x1b[200x"),
    ("Paste", "\n"),
    ("Typed", "d"),
]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_pastes_are_whole_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    marks = [STREAM.index(START, at) + 1 for at in (0, STREAM.index("c\x1b["), STREAM.index("\x1b[200x"))]
    if set(marks) & set(edges):
        return  # an escape that comes alone is the key, and Textual's parser waits for the rest
    assert said(chunks) == WANTED


@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_an_answer_of_the_terminal_inside_a_paste_is_none_of_its_text(cuts: list[int]) -> None:
    stream = f"{START}half of it, \x1b[?2026;2$yand the rest{END}"
    edges = [0, *sorted(min(max(cut, 2), len(stream)) for cut in cuts), len(stream)]
    found = said([stream[a:b] for a, b in itertools.pairwise(edges)])
    assert sorted(found) == [("Paste", "half of it, and the rest"), ("Typed", "\x1b[?2026;2$y")]


def test_a_held_beginning_is_given_up_when_nothing_more_comes() -> None:
    intake = Intake(parse)
    assert [message.text for message in intake.feed("x\x1b[20") if isinstance(message, Typed)] == ["x"]
    assert [message.text for message in intake.idle() if isinstance(message, Typed)] == ["\x1b[20"]
    assert not list(intake.idle())


@pytest.mark.parametrize(("keys", "names"), [("a\x1b[A", ["a", "up"]), ("\x1b[15~\r", ["f5", "enter"])])
def test_keys_are_read_as_textual_reads_them(keys: str, names: list[str]) -> None:
    made = list(Intake(XTermParser().feed).feed(keys))
    assert [event.key for event in made if isinstance(event, events.Key)] == names


LINES = "a line of a text\r" * BURST


@pytest.mark.parametrize(
    ("chunks", "wanted"),
    [
        ([LINES[:5000], LINES[5000:], "the end"], [("Paste", LINES.replace("\r", "\n") + "the end")]),
        ([LINES], [("Paste", LINES.replace("\r", "\n")[:-1]), ("Typed", "\r")]),
        ([LINES + "x", "\x1b"], [("Paste", LINES.replace("\r", "\n") + "x"), ("Typed", "\x1b")]),
        ([LINES + "x", f"{START}y{END}"], [("Paste", LINES.replace("\r", "\n") + "x"), ("Paste", "y")]),
        (["\x1b[A" * BURST], [("Typed", "\x1b[A" * BURST)]),
        (["x" * (BURST - 1), "x" * (BURST - 1)], [("Typed", "x" * (2 * BURST - 2))]),
    ],
)
def test_more_text_at_once_than_anybody_types_is_a_paste_without_marks(
    chunks: list[str], wanted: list[tuple[str, str]]
) -> None:
    assert said(chunks) == wanted
