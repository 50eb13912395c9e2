"""A table of Markdown, laid out for the width that there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from rich.segment import Segment
from rich.style import Style

from llama_tui.ui.look import Look
from llama_tui.ui.text import Row, Span, cells, width_of, wrap

Align = Literal["left", "center", "right"]

GAP = " │ "
NARROWEST = 4
"""Cells a column needs to be one; with less for each, rows are shown as lists."""


class Cell(Struct, frozen=True):
    """Lines of spans: more than one where the cell has hard breaks."""

    lines: tuple[tuple[Span, ...], ...]

    @property
    def width(self) -> int:
        """Cells of its longest line."""
        return max((sum(cells(text) for text, _ in line) for line in self.lines), default=0)

    @property
    def word(self) -> int:
        """Cells of its longest word, below which wrapping cuts words."""
        words = (word for line in self.lines for word in "".join(text for text, _ in line).split())
        return max(map(cells, words), default=0)


def table(
    cols: Sequence[Align], head: Sequence[Cell], body: Sequence[Sequence[Cell]], width: int, look: Look
) -> list[Row]:
    """The rows of a table: aligned columns, or one list for each of its rows where they cannot fit."""
    count = len(cols)
    room = width - len(GAP) * (count - 1)
    if room < NARROWEST * count:
        return _lists(head, body, width, look)
    widths = _widths([[row[index] for row in (head, *body)] for index in range(count)], room)
    rule = Row([Segment("─┼─".join("─" * size for size in widths), look.rule)])
    rows = _line(cols, head, widths, look)
    rows.append(rule)
    tall = any(len(_line(cols, cells_, widths, look)) > 1 for cells_ in body)
    for index, cells_ in enumerate(body):
        if tall and index:
            rows.append(Row([Segment("┈┼┈".join("┈" * size for size in widths), look.rule)]))
        rows += _line(cols, cells_, widths, look)
    return rows


def _widths(columns: list[list[Cell]], room: int) -> list[int]:
    """Cells for each column. What is missing is taken from the widest, words are cut last."""
    widths = [max(1, *(cell.width for cell in column)) for column in columns]
    floors = [
        min(wide, max(NARROWEST, *(cell.word for cell in column))) for wide, column in zip(widths, columns, strict=True)
    ]
    for least in (floors, [min(wide, NARROWEST) for wide in widths]):
        while sum(widths) > room:
            spare = [index for index, wide in enumerate(widths) if wide > least[index]]
            if not spare:
                break
            widest = max(spare, key=widths.__getitem__)
            others = [widths[index] for index in spare if widths[index] < widths[widest]]
            target = max(least[widest], max(others, default=0), widths[widest] - (sum(widths) - room))
            widths[widest] = min(target, widths[widest] - 1)
    return widths


def _line(cols: Sequence[Align], row: Sequence[Cell], widths: list[int], look: Look) -> list[Row]:
    """One row of the table, as many screen rows as its tallest cell needs."""
    wrapped = [
        [made for line in cell.lines for made in wrap(line, width)] for cell, width in zip(row, widths, strict=True)
    ]
    rows: list[Row] = []
    for index in range(max(map(len, wrapped), default=0)):
        segments: list[Segment] = []
        for column, (lines, width, align) in enumerate(zip(wrapped, widths, cols, strict=True)):
            if column:
                segments.append(Segment(GAP, look.rule))
            content = lines[index].segments if index < len(lines) else []
            spare = max(0, width - width_of(content))
            before = {"left": 0, "center": spare // 2, "right": spare}[align]
            segments += _blank(before, look.text) + content + _blank(spare - before, look.text)
        rows.append(Row(segments))
    return rows


def _blank(width: int, style: Style) -> list[Segment]:
    return [Segment(" " * width, style)] if width else []


def _lists(head: Sequence[Cell], body: Sequence[Sequence[Cell]], width: int, look: Look) -> list[Row]:
    """Every row as lines of "heading: value", for tables with more columns than the width can hold."""
    rows: list[Row] = []
    for index, line in enumerate(body):
        if index:
            rows.append(Row([Segment("┈" * width, look.rule)]))
        for title, cell in zip(head, line, strict=True):
            label = title.lines[0] if title.lines else ()
            first, *more = cell.lines or ((),)
            rows += wrap([*label, (": ", look.muted), *first], width)
            for spans in more:
                rows += wrap(spans, width)
    return rows
