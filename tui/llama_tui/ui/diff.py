"""The shortest way from the cells that a terminal shows to the cells that it should show."""

from __future__ import annotations

from statistics import median_low

from msgspec import Struct

from llama_tui.ui.cells import Row, is_sure
from llama_tui.ui.pen import PLAIN, Pen, change, for_blank, of_blank

_GAP = 4
"""Cells that are rather written again than skipped: a move costs as many bytes."""

_SCROLLED = 4
"""Changed rows from which on a scroll is looked for."""


class Abilities(Struct, frozen=True):
    """What the terminal can do: erase cells in the present background, scroll a region of rows."""

    erases: bool = True
    scrolls: bool = True


class Brush:
    """Gathers sequences, and knows where they leave the terminal's cursor and pen; None = not known."""

    def __init__(self, x: int | None = None, y: int = 0, pen: Pen | None = None) -> None:
        self.x, self.y, self.pen = x, y, pen
        self.out: list[str] = []

    def copy(self) -> Brush:
        """One that goes on from here, with nothing gathered."""
        return Brush(self.x, self.y, self.pen)

    def take(self) -> str:
        """What was gathered."""
        text = "".join(self.out)
        self.out.clear()
        return text

    def move(self, x: int, y: int) -> None:
        """Put the cursor somewhere."""
        if self.x == x and self.y == y:
            return
        ways = [f"\x1b[{y + 1};{x + 1}H" if x else f"\x1b[{y + 1}H" if y else "\x1b[H"]
        if self.x is not None and self.y == y:
            by = x - self.x
            if by > 0:
                ways.append("\x1b[C" if by == 1 else f"\x1b[{by}C")
            else:
                ways.append("\b" * -by)
                ways.append(f"\x1b[{-by}D")
            if not x:
                ways.append("\r")
        self.out.append(min(ways, key=len))
        self.x, self.y = x, y

    def use(self, pen: Pen) -> None:
        """Draw with a pen from here on."""
        if pen is not self.pen:
            self.out.append(change(self.pen, pen))
            self.pen = pen


def paint(brush: Brush, old: list[Row], new: list[Row], touched: set[int], abilities: Abilities) -> str:
    """What makes the rows `old` look like `new`, which differ in `touched` at most."""
    changes = {y: found for y in sorted(touched) if (found := _changes(old[y], new[y]))}
    scroll = _find_scroll(old, new, changes) if abilities.scrolls and len(changes) >= _SCROLLED else None
    plain = brush.copy()
    for y, found in changes.items():
        _paint_row(plain, y, found, new[y], abilities)
    text = plain.take()
    if scroll is not None:
        by = brush.copy()
        moved = _scroll(by, old, *scroll)
        for y in range(len(new)):
            if (y in touched or moved[y] is not old[y]) and (found := _changes(moved[y], new[y])):
                _paint_row(by, y, found, new[y], abilities)
        scrolled = by.take()
        if len(scrolled) < len(text):
            plain, text = by, scrolled
    brush.x, brush.y, brush.pen = plain.x, plain.y, plain.pen
    return text


def _changes(old: Row, new: Row) -> list[int]:
    """The columns that must be written, in order. Unknown cells of `new` are left as they are."""
    if old is new:
        return []
    found = [
        x
        for x, (was, pen_was, text, pen) in enumerate(zip(old.texts, old.pens, new.texts, new.pens, strict=True))
        if (was != text or (pen_was is not pen and pen_was != pen)) and pen is not None
    ]
    if not found:
        return found
    texts = new.texts
    if not new.ascii or not old.ascii:
        whole = set(found)
        for row in (old, new):
            for x, text in enumerate(row.texts):
                if not is_sure(text):
                    reach = range(x, min(len(texts), x + 2 * len(text)))
                    if not whole.isdisjoint(reach):
                        whole.update(reach)
        for x in list(whole):
            if not texts[x] and x:
                whole.add(x - 1)
            if x + 1 < len(texts) and not texts[x + 1]:
                whole.add(x + 1)
        found = sorted(x for x in whole if new.pens[x] is not None)
    return found


def _paint_row(brush: Brush, y: int, found: list[int], new: Row, abilities: Abilities) -> None:
    """Write the columns `found` of a row, and what lies between them where that is shorter."""
    texts, pens = new.texts, new.pens
    width = len(texts)
    tail = _tail(new)
    start = end = found[0]
    runs: list[tuple[int, int]] = []
    for x in found:
        if x - end > _GAP or not all(_fits(texts[at], pens[at], pens[end - 1]) for at in range(end, x)):
            runs.append((start, end))
            start = x
        end = x + 1
    runs.append((start, end))
    for start, end in runs:
        x = start
        while x < end:
            text, pen = texts[x], pens[x]
            if pen is None or not text:
                x += 1
                continue
            if text == " " and of_blank(pen) is pen and not pen.marks and not pen.link:
                stop = x + 1
                while stop < end and texts[stop] == " " and pens[stop] is pen:
                    stop += 1
                if abilities.erases or not pen.bg:
                    if x >= tail and stop - x > 3:
                        brush.move(x, y)
                        brush.use(for_blank(brush.pen or PLAIN, pen))
                        brush.out.append("\x1b[K")
                        return
                    if abilities.erases and stop - x > (5 if stop == end else 11):
                        brush.move(x, y)
                        brush.use(for_blank(brush.pen or PLAIN, pen))
                        brush.out.append(f"\x1b[{stop - x}X")
                        x = stop
                        continue
                brush.move(x, y)
                brush.use(for_blank(brush.pen or PLAIN, pen))
                brush.out.append(" " * (stop - x))
                brush.x = x = stop
            else:
                brush.move(x, y)
                brush.use(pen)
                cells = 1
                while x + cells < width and not texts[x + cells]:
                    cells += 1
                if is_sure(text):
                    brush.out.append(text)
                    brush.x = x + cells
                else:  # blanks first: whatever its width in this terminal, no old cell shines through
                    brush.out.append(" " * cells)
                    brush.x = x + cells if x + cells < width else None
                    brush.move(x, y)
                    brush.out.append(text)
                    brush.x = None
                x += cells
            if x >= width:
                brush.x = None


def _fits(text: str, pen: Pen | None, present: Pen | None) -> bool:
    """Whether a cell can be written with the present pen, and nothing more than its character."""
    if pen is present:
        return len(text) == 1 and is_sure(text)
    return text == " " and pen is not None and present is not None and for_blank(present, pen) is present


def _tail(row: Row) -> int:
    """The column from which on a row has one kind of blank."""
    last = row.pens[-1]
    if row.texts[-1] != " " or last is None:
        return len(row.texts)
    x = len(row.texts)
    while x and row.texts[x - 1] == " " and row.pens[x - 1] is last:
        x -= 1
    return x


def _find_scroll(old: list[Row], new: list[Row], changes: dict[int, list[int]]) -> tuple[int, int, int] | None:
    """The first and last row of a region, and by how many rows up most of what changed in it has
    moved (negative: down). Only the columns in which most rows changed are looked at: panes beside
    them stay, and are drawn again."""
    left = median_low(found[0] for found in changes.values())
    right = median_low(found[-1] for found in changes.values()) + 1
    first, last = min(changes), max(changes)
    places: dict[str, list[int]] = {}
    for y in range(first, last + 1):
        key = "".join(old[y].texts[left:right])
        if not key.isspace():
            places.setdefault(key, []).append(y)
    votes: dict[int, list[int]] = {}
    for y in changes:
        for place in places.get("".join(new[y].texts[left:right]), ()):
            if place != y:
                votes.setdefault(place - y, []).append(y)
    if not votes:
        return None
    by, rows = max(votes.items(), key=lambda item: len(item[1]))
    top = min(rows) + min(0, by)
    bottom = max(rows) + max(0, by)
    if len(rows) < 2 or any(None in new[y].pens for y in range(top, bottom + 1)):
        return None
    return top, bottom, by


def _scroll(brush: Brush, old: list[Row], top: int, bottom: int, by: int) -> list[Row]:
    """Scroll a region of the terminal; the rows that it shows then."""
    width = len(old[0].texts)
    brush.use(PLAIN)
    region = "" if top == 0 and bottom == len(old) - 1 else f"\x1b[{top + 1};{bottom + 1}r"
    if by > 0:
        brush.out.append(f"{region}\x1b[{bottom + 1}H" + "\n" * by)
    else:
        brush.out.append(f"{region}\x1b[{top + 1}H" + "\x1bM" * -by)
    if region:
        brush.out.append("\x1b[r")
    brush.x = None
    blank = [Row.blank(width) for _ in range(abs(by))]
    inside = old[top : bottom + 1]
    inside = inside[by:] + blank if by > 0 else blank + inside[:by]
    return [*old[:top], *inside, *old[bottom + 1 :]]
