"""Frames by difference: what the terminal shows is known cell by cell, and only what differs is written.

Textual writes every region that may have changed, whole. A `Painter` is given those frames, draws
them on cells of its own, and says what to write so that the terminal shows the same. Whatever it
does not understand is handed on as it is, and from then on it knows only what is painted anew.
"""

from __future__ import annotations

from llama_tui.ui.cells import Cells, Row
from llama_tui.ui.diff import Abilities, Brush, paint

LEAVE = "\x1b[m\x1b]8;;\x1b\\"
"""Puts the terminal's pen down, for others to write after."""


class Painter:
    """What a terminal of a size shows, and what it should show."""

    def __init__(self, width: int, height: int, abilities: Abilities) -> None:
        self._abilities = abilities
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """The terminal has another size: it may show anything, until frames come for that size."""
        self.size = (width, height)
        self._wanted = Cells(width, height)
        self.forget()

    def forget(self) -> None:
        """The terminal may show anything: what is wanted is written anew."""
        self._shown = [Row.unknown(self.size[0]) for _ in range(self.size[1])]
        self._wanted.touched = {y for y, row in enumerate(self._wanted.rows) if any(row.pens)}
        self._wanted.rows = [row.copy() for row in self._wanted.rows]
        self.lose()

    def lose(self) -> None:
        """Something else was written, which changed no cell: the cursor and the pen are not known."""
        self._brush = Brush()

    def draw(self, frame: str) -> bool:
        """Take a frame; False when it must be written as it is, after `difference`, and all forgotten."""
        return self._wanted.draw(frame)

    def unsure(self) -> None:
        """A frame was written that is not understood: nothing is known, nothing is wanted."""
        self.resize(*self.size)

    def difference(self) -> str:
        """What to write for the terminal to show the last frame; from then on it is taken to do so."""
        wanted, brush = self._wanted, self._brush
        text = paint(brush, self._shown, wanted.rows, wanted.touched, self._abilities)
        for y in wanted.touched:
            self._shown[y] = self._merged(y)
        wanted.touched.clear()
        brush.move(*wanted.cursor)
        return text + brush.take()

    def _merged(self, y: int) -> Row:
        """A row as it is shown now: cells of which nothing is wanted show what they did."""
        shown, wanted = self._shown[y], self._wanted.rows[y]
        if None not in wanted.pens:
            return wanted
        row = wanted.copy()
        for x, pen in enumerate(wanted.pens):
            if pen is None:
                row.texts[x], row.pens[x] = shown.texts[x], shown.pens[x]
        return row
