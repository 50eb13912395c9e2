"""The shortest way from the cells that a terminal shows to the cells that it should show."""

from __future__ import annotations

from msgspec import Struct

from llama_tui.ui.cells import Row, is_sure
from llama_tui.ui.pen import PLAIN, Pen, change, for_blank, of_blank

_GAP = 4
"""Cells that are rather written again than skipped: a move costs as many bytes."""

_AGAIN = 12
"""Bytes of two changes of the pen from which on a place is rather left out and come back to: these are two moves."""

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

    def draw(self, stroke: Stroke) -> None:
        """Write at its place, with its pen."""
        self.move(stroke.x, stroke.y)
        self.use(for_blank(self.pen or PLAIN, stroke.pen) if stroke.blank else stroke.pen)
        self.out.append(stroke.text)
        self.x = stroke.after

    def draw_cheaply(self, stroke: Stroke) -> bool:
        """Draw what must not wait, or needs hardly another pen than the present one; whether it was drawn."""
        pen = self.pen or PLAIN
        to = for_blank(pen, stroke.pen) if stroke.blank else stroke.pen
        if not stroke.firm and to is not self.pen and len(change(self.pen, to)) + len(change(to, pen)) > _AGAIN:
            return False
        self.draw(stroke)
        return True

    def size(self) -> int:
        """How much is gathered."""
        return sum(map(len, self.out))


class Stroke(Struct):
    """What is written at a place, and the column where it leaves the cursor (None = not known). A `blank` may be
    drawn with any pen that shows it alike; a `firm` one is written after what is left of it."""

    x: int
    y: int
    pen: Pen
    text: str
    after: int | None
    blank: bool = False
    firm: bool = False


def paint(brush: Brush, old: list[Row], new: list[Row], touched: set[int], abilities: Abilities) -> str:
    """What makes the rows `old` look like `new`, which differ in `touched` at most."""
    changes = {y: found for y in sorted(touched) if (found := _changes(old[y], new[y]))}
    scroll = _find_scroll(old, new, changes) if abilities.scrolls and len(changes) >= _SCROLLED else None
    best = _draw(brush, [stroke for y, found in changes.items() for stroke in _strokes(y, found, new[y], abilities)])
    if scroll is not None:
        by = brush.copy()
        moved = _scroll(by, old, *scroll)
        strokes: list[Stroke] = []
        for y in range(len(new)):
            if (y in touched or moved[y] is not old[y]) and (found := _changes(moved[y], new[y])):
                strokes += _strokes(y, found, new[y], abilities)
        head = by.take()
        scrolled = _draw(by, strokes)
        scrolled.out.insert(0, head)
        best = min(best, scrolled, key=Brush.size)
    brush.x, brush.y, brush.pen = best.x, best.y, best.pen
    return best.take()


def _draw(brush: Brush, strokes: list[Stroke]) -> Brush:
    """Draw from left to right and from top to bottom, or pen by pen, whichever is shorter: to come back to
    a place costs less than most changes of colour."""
    in_order = brush.copy()
    for stroke in strokes:
        in_order.draw(stroke)
    by_pen = brush.copy()
    while strokes:
        later = [stroke for stroke in strokes if not by_pen.draw_cheaply(stroke)]
        if len(later) == len(strokes):
            by_pen.draw(later.pop(0))
        strokes = later
    return min(in_order, by_pen, key=Brush.size)


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


def _strokes(y: int, found: list[int], new: Row, abilities: Abilities) -> list[Stroke]:
    """What writes the columns `found` of a row, and what lies between them where that is shorter."""
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
    firm = not all(is_sure(text) for start, end in runs for text in texts[start:end])
    strokes: list[Stroke] = []

    def stroke(x: int, text: str, after: int, *, blank: bool = False) -> None:
        pen, last = pens[x], strokes[-1] if strokes else None
        assert pen is not None
        same = last and (for_blank(last.pen, pen) is last.pen if blank else pen is last.pen and not last.blank)
        if last and same and last.after == x < after:
            last.text += text
        else:
            last = Stroke(x, y, pen, text, x, blank, firm)
            strokes.append(last)
        last.after = after if after < width else None

    for start, end in runs:
        x = start
        while x < end:
            text, pen = texts[x], pens[x]
            stop = x + 1
            if pen is None or not text:
                pass
            elif text == " " and of_blank(pen) is pen and not pen.marks and not pen.link:
                while stop < end and texts[stop] == " " and pens[stop] is pen:
                    stop += 1
                if x >= tail and stop - x > 3 and (abilities.erases or not pen.bg):
                    stroke(x, "\x1b[K", x, blank=True)
                    return strokes
                if abilities.erases and stop - x > (5 if stop == end else 11):
                    stroke(x, f"\x1b[{stop - x}X", x, blank=True)
                else:
                    stroke(x, " " * (stop - x), stop, blank=True)
            elif is_sure(text):
                while stop < width and not texts[stop]:
                    stop += 1
                stroke(x, text, stop)
            else:  # blanks first: whatever its width in this terminal, no old cell shines through
                while stop < width and not texts[stop]:
                    stop += 1
                back = Brush(stop if stop < width else None, y)
                back.move(x, y)
                strokes.append(Stroke(x, y, pen, " " * (stop - x) + back.take() + text, None, firm=True))
            x = stop
    return strokes


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
    middle = (len(changes) - 1) // 2
    left = sorted(found[0] for found in changes.values())[middle]
    right = sorted(found[-1] for found in changes.values())[middle] + 1
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
