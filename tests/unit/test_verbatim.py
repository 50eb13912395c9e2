"""Text that is shown as it is: units of a bounded length, the same however the text came."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import split_graphemes
from textual.selection import Selection

from llama_tui.ui.entry import Entry
from llama_tui.ui.log import Log
from llama_tui.ui.selecting import selected_text
from llama_tui.ui.text import Row
from llama_tui.ui.verbatim import CHARACTERS, VerbatimSplitter
from llama_tui.ui.view import BLOCK_LIMIT

PIECES = st.sampled_from(
    ["x" * 3000, "word " * 700, "\n", "\n" * 50, "a line\n" * 30, "我们" * 900, "👩‍👩‍👧" * 400, "  ", "e\u0301" * 999]
)


@settings(max_examples=80, deadline=None)
@given(pieces=st.lists(PIECES, max_size=12))
def test_units_are_bounded_and_hold_the_text_however_it_came(pieces: list[str]) -> None:
    text = "".join(pieces)
    whole = VerbatimSplitter(text).units
    grown = VerbatimSplitter()
    for piece in pieces:
        first = grown.feed(piece)
        assert first >= len(grown.units) - 2 - len(piece) // CHARACTERS - 1
    if text:
        assert grown.units == whole
    joined = "".join(unit.source + ("\n" if unit.joint is None else unit.joint) for unit in whole)
    assert joined == (text + "\n" if text else "")
    assert all(len(unit.source) <= 2 * CHARACTERS for unit in whole)
    ends = [sum(len(u.source) + 1 - (u.joint == "") for u in whole[: n + 1]) for n in range(len(whole) - 1)]
    cuts = {end for end, unit in zip(ends, whole, strict=False) if unit.joint is not None}
    assert cuts <= {start for start, _, _ in split_graphemes(text.replace("\n", "x"))[0]}


LONG = {
    "letters": "abcdefgh" * 5000,
    "words": "word " * 9000,
    "tabs": "a\tb" * 9000,
    "wide": "我们" * 20_000,
    "most": "x" * 260_000,
}


@pytest.mark.parametrize("name", LONG)
def test_a_line_without_end_is_shown_as_it_is_and_is_one_line_when_it_is_copied(name: str) -> None:
    text = "**begun** " + LONG[name].strip()
    assert len(text) > BLOCK_LIMIT
    grown = log_of("")
    for at in range(0, len(text), 7001):
        grown.feed("a", text[at : at + 7001])
    grown.settle()
    fresh = log_of(text)
    assert rows(grown) == rows(fresh)
    fresh.settle()
    copied = selected_text(fresh, Selection(None, None)).strip("\n").removesuffix("…")
    assert re.sub(r"\s+", "", copied) == re.sub(r"\s+", "", text)
    assert "\n" not in copied


def test_a_growing_line_is_cut_into_parts_that_are_rendered_once() -> None:
    log = log_of("")
    for _ in range(200):
        log.feed("a", "abcdefgh" * 1000)
        log.settle()
    view = log.views[0]
    before = [id(view.rows(part)) for part in range(1, view.count - 3)]
    log.feed("a", "abcdefgh" * 1000)
    log.settle()
    assert [id(view.rows(part)) for part in range(1, view.count - 4)] == before[: view.count - 5]


def log_of(text: str) -> Log:
    log = Log()
    log.show([Entry(key="a", role="assistant", text=text, streaming=True)])
    log.resize(60, 20)
    log.settle()
    return log


def rows(log: Log) -> list[Row]:
    view = log.views[0]
    return [row for part in range(view.count) for row in view.rows(part)]
