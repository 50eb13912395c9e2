"""What the rows of a part say as running text: wrapped lines whole, without what frames them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llama_tui.control import sanitize
from llama_tui.ui.blocks import Unit, parser
from llama_tui.ui.markdown import language_of
from llama_tui.ui.text import Row, expand_tabs, graphemes
from llama_tui.ui.view import EntryView

BLOCK = 200_000
"""Characters that are searched at a time."""

AHEAD = 200
"""Characters of a next part that are known of a line that goes on there; longer texts are not looked for."""


class Stretch(NamedTuple):
    """Characters of a row."""

    row: int
    start: int
    end: int


class Passage:
    """The text of some rows, and where each row begins in it."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._starts: list[int] = []
        said: list[str] = []
        offset = 0
        for row in rows:
            text = row.text
            text = text[row.lead : len(text) - row.tail]
            text = text.rstrip() + "\n" if row.joint is None else text + row.joint
            self._starts.append(offset)
            said.append(text)
            offset += len(text)
        self.text = "".join(said)

    def stretches(self, start: int, end: int) -> Iterator[Stretch]:
        """The characters of rows that show a piece of the text: whole ones, where letters are drawn as one."""
        index = self.row(start)
        while index < len(self._rows) and self._starts[index] < end:
            row = self._rows[index]
            text = row.text
            shift = row.lead - self._starts[index]
            first, last = max(row.lead, start + shift), min(len(text) - row.tail, end + shift)
            if first < last:
                yield Stretch(index, *graphemes(text, first, last))
            index += 1

    def row(self, offset: int) -> int:
        """The row that shows a character of the text."""
        return bisect_right(self._starts, offset) - 1


def said(view: EntryView, index: int) -> str:
    """The text of a part as `Passage` has it. What is shown as it is need not be wrapped for that, nor
    code coloured."""
    unit = view.unit(index)
    if unit is not None and unit.kind == "plain":
        *whole, last = sanitize(unit.source).split("\n")
        return _as_it_is(whole) + (_as_it_is([last]) if unit.joint is None else expand_tabs(last) + unit.joint)
    if unit is not None and unit.kind in ("fence", "code_block"):
        return _code(unit)
    return Passage(view.rows(index)).text


def ahead(view: EntryView, index: int) -> str:
    """How the last line of a part goes on in the next one; "" where it ends."""
    unit = view.unit(index)
    following = view.unit(index + 1) if unit is not None and unit.joint is not None else None
    return expand_tabs(sanitize(following.source[:AHEAD]).split("\n")[0])[:AHEAD] if following else ""


def _code(unit: Unit) -> str:
    token = parser().parse(unit.source)[0]
    language = language_of(token.info)
    return _as_it_is([*([language] if language else []), *token.content.removesuffix("\n").split("\n")])


def _as_it_is(lines: Sequence[str]) -> str:
    return "".join(expand_tabs(line).rstrip() + "\n" for line in lines)


def found(pattern: re.Pattern[str], text: str, ahead: str) -> list[tuple[int, int]]:
    """Where the matches are that begin in a text, which may end in what is `ahead` of it."""
    spans = (match.span() for match in pattern.finditer(text + ahead))
    return [(start, end) for start, end in spans if start < len(text)]


def counted(pattern: re.Pattern[str], length: int, text: str, ahead: str = "") -> Iterator[int]:
    """How often a pattern of so many characters is found, block by block: each takes a moment."""
    if ahead:
        yield len(found(pattern, text, ahead))
        return
    start = 0
    while start < len(text):
        count, end = 0, 0
        for match in pattern.finditer(text, start, start + BLOCK):
            count, end = count + 1, match.end()
        yield count
        start = max(start + BLOCK - length + 1, end)
