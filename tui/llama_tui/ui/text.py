"""Text wrapped by the cells that it takes on screen. Nothing in here parses markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from rich.cells import cell_len, split_graphemes
from rich.segment import Segment
from rich.style import Style

TAB = 4
"""Cells between tab stops in code and in plain text."""

Span = tuple[str, Style]
"""Text without line ends, and its style."""

_CLOSING = "、。，．：；？！）」』】〉》〕］｝”’…,.;:!?)\\]}"
_WIDE = "\u2e80-\u303e\u3041-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\U00020000-\U0003fffd"
_WORD = re.compile(f"((?:[{_WIDE}]|[^ \t\n{_WIDE}]+)[{_CLOSING}\u0300-\u036f\u3099\u309a]*|)[ \t\n]*")


class Row(NamedTuple):
    """One row of a rendered text, not yet padded to the width of what shows it.

    `joint` is what stands between this row and the next where they are one line of the text that
    was wrapped (a space, or nothing inside a long word); None where the line ends. `lead` and `tail` are
    the characters at its ends that are not of the text: a bar, an indentation, the blanks of a panel.
    """

    segments: list[Segment]
    joint: str | None = None
    lead: int = 0
    tail: int = 0

    @property
    def text(self) -> str:
        """The row without its styles."""
        return "".join(segment.text for segment in self.segments)

    def beside(self, frame: Segment) -> Row:
        """The row right of what frames it."""
        return Row([frame, *self.segments], self.joint, self.lead + len(frame.text), self.tail)


def cells(text: str) -> int:
    """How many cells it takes."""
    return len(text) if text.isascii() else cell_len(text)


def expand_tabs(text: str) -> str:
    """One line with its tabs as spaces, by cells and not by characters."""
    if "\t" not in text:
        return text
    if text.isascii():
        return text.expandtabs(TAB)
    parts: list[str] = []
    column = 0
    for index, part in enumerate(text.split("\t")):
        if index:
            gap = TAB - column % TAB
            parts.append(" " * gap)
            column += gap
        parts.append(part)
        column += cells(part)
    return "".join(parts)


def fit(text: str, width: int) -> str:
    """At most `width` cells of one line, with an ellipsis where something is missing."""
    if cells(text) <= width:
        return text
    return text[: _cut(text, 0, len(text), width - 1)] + "…" if width > 1 else "…"[:width]


def column(text: str, width: int, head: int | None = None) -> str:
    """One line in exactly `width` cells: filled up with blanks, or with an ellipsis after `head` cells
    of it and its end behind that; None: only its beginning."""
    if head is not None and cells(text) > width:
        start = fit(text, head + 1).removesuffix("…")
        tail, room = len(text), width - cells(start) - 1
        for begin, _, size in reversed(split_graphemes(text)[0]):
            room -= size
            if room < 0:
                break
            tail = begin
        text = f"{start}…{text[tail:]}"
    text = fit(text, width)
    return text + " " * (width - cells(text))


def graphemes(text: str, start: int, end: int) -> tuple[int, int]:
    """A range of characters, widened so that it cuts nothing that is drawn as one: a letter and its
    accents, an emoji of several."""
    if text.isascii():
        return start, end
    for first, last, _ in split_graphemes(text)[0]:
        if first < start < last:
            start = first
        if first < end < last:
            end = last
    return start, end


def wrap(spans: Sequence[Span], width: int) -> list[Row]:
    """Break one line between words, and inside a word that is wider than the row."""
    text = "".join(text for text, _ in spans)
    if cells(text) <= width:
        return [Row(_joined(spans))]
    return _slice(spans, text, _words(text, width))


def chop(spans: Sequence[Span], width: int) -> list[Row]:
    """Break one line wherever the row is full, as code wants it."""
    text = "".join(text for text, _ in spans)
    if cells(text) <= width:
        return [Row(_joined(spans))]
    ranges: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = _cut(text, start, len(text), width)
        ranges.append((start, end))
        start = end
    return _slice(spans, text, ranges)


def painted(segments: Iterable[Segment], start: int, end: int, style: Style) -> list[Segment]:
    """The segments with the characters from `start` to `end` in a style, what is bold or italic kept."""
    made: list[Segment] = []
    offset = 0
    for text, before, _ in segments:
        cuts = sorted({0, len(text), *(at - offset for at in (start, end) if 0 < at - offset < len(text))})
        for first, last in pairwise(cuts):
            inside = start <= offset + first < end
            made.append(Segment(text[first:last], (before or Style.null()) + style if inside else before))
        offset += len(text)
    return made


def pad(segments: Iterable[Segment], used: int, width: int, style: Style) -> list[Segment]:
    """The segments, and blanks up to `width` cells."""
    padded = list(segments)
    if used < width:
        padded.append(Segment(" " * (width - used), style))
    return padded


def width_of(segments: Iterable[Segment]) -> int:
    """Cells that segments take together."""
    return sum(cells(segment.text) for segment in segments)


def _words(text: str, width: int) -> list[tuple[int, int]]:
    """Character ranges of the rows, without the spaces at which they were broken."""
    width = max(1, width)
    measure = len if text.isascii() else cell_len
    ranges: list[tuple[int, int]] = []
    start = end = column = 0  # the row's first character, the end of its last word, cells up to here
    for match in _WORD.finditer(text):
        first, stop = match.span(1)
        if stop > first:
            size = measure(match[1])
            if end > start and column + size > width:
                ranges.append((start, end))
                start, column = first, 0
            if column + size > width:  # wider than a row of its own
                size += column
                while size > width:
                    cut = _cut(text, start, stop, width)
                    ranges.append((start, cut))
                    size -= measure(text[start:cut])
                    start = cut
                column = 0
            column += size
            end = stop
        column += match.end() - stop
    ranges.append((start, max(start, end)))
    return ranges


def _cut(text: str, start: int, stop: int, width: int) -> int:
    """Where a row of `width` cells ends that begins at `start`.

    At least one character is taken, so that a row too narrow for it still ends.
    """
    piece = text[start : min(stop, start + 4 * width + 16)]
    if piece.isascii():
        return start + min(len(piece), max(1, width))
    used = taken = 0
    for _, end, size in split_graphemes(piece)[0]:
        if used + size > width and taken:
            break
        used += size
        taken = end
    return start + min(taken, len(piece))


def _slice(spans: Sequence[Span], text: str, ranges: list[tuple[int, int]]) -> list[Row]:
    """Rows from character ranges of the joined text."""
    rows: list[Row] = []
    source = iter(spans)
    piece, style = next(source, ("", Style.null()))
    offset = 0  # where the current piece begins
    for index, (start, end) in enumerate(ranges):
        made: list[Span] = []
        while True:
            low, high = max(start - offset, 0), end - offset
            if low < len(piece) and low < high:
                made.append((piece[low:high], style))
            if high <= len(piece):
                break
            following = next(source, None)
            if following is None:
                break
            offset += len(piece)
            piece, style = following
        last = index == len(ranges) - 1
        rows.append(Row(_joined(made), None if last else text[end : ranges[index + 1][0]]))
    return rows


def _joined(spans: Sequence[Span]) -> list[Segment]:
    """Spans as segments, neighbours of one style together: equal rows are then equal lists."""
    segments: list[Segment] = []
    for text, style in spans:
        if segments and segments[-1].style == style:
            segments[-1] = Segment(segments[-1].text + text, style)
        elif text:
            segments.append(Segment(text, style))
    return segments
