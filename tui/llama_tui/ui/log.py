"""Which rows of a conversation are in view, and how that changes as it grows and is scrolled.

What is near the view is read and rendered, once; heights elsewhere are estimates that become exact
when they come into view. The place is therefore kept as a row of a part of an entry, never as a
number of rows from the top.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from rich.style import Style

from llama_tui.ui.entry import Entry
from llama_tui.ui.look import Look
from llama_tui.ui.text import Row
from llama_tui.ui.view import EntryView

OPEN = 24
"""Entries near the view that stay read and rendered; twice as many make the others close."""

AHEAD = 3
"""Rows that are kept free below an answer that is being written when the log moves up."""

FAR = 4
"""Screens that are scrolled exactly, by rendering what lies between; beyond, by the estimates."""

_PLAIN = Look.of(lambda _: Style.null())
"""What entries are given before there are styles."""


class _Place(NamedTuple):
    """A row of the log that does not move when heights elsewhere change."""

    view: int
    part: int
    row: int


_TOP = _Place(0, 0, 0)


class Log:
    """The entries, and the place of the view among them. `settle` must follow every change."""

    def __init__(self) -> None:
        self.following = True
        self.top = 0  # the row of the log that is the first in view
        self.height = 0  # rows in view
        self.held = False  # whether the view stays where it is even at the end
        self.marker: Callable[[EntryView, int], list[Row]] | None = None  # the rows of a part, marked
        self._width = 0
        self._look = _PLAIN
        self._views: list[EntryView] = []
        self._tops: list[int] | None = None
        self._place = _TOP

    @property
    def entries(self) -> list[Entry]:
        """What is shown."""
        return [view.entry for view in self._views]

    @property
    def views(self) -> Sequence[EntryView]:
        """The entries as rows."""
        return self._views

    @property
    def look(self) -> Look:
        """The colours."""
        return self._look

    @property
    def streaming(self) -> bool:
        """Whether an answer is being written."""
        return any(view.streaming for view in reversed(self._views))

    @property
    def opened(self) -> int:
        """Entries that are read and rendered."""
        return sum(view.is_open for view in self._views)

    @property
    def tops(self) -> list[int]:
        """The first row of every entry, and the row below the last."""
        if self._tops is None:
            self._tops = list(accumulate((view.height for view in self._views), initial=0))
        return self._tops

    # Changes

    def show(self, entries: Iterable[Entry]) -> None:
        """Replace everything."""
        self._views = [EntryView(entry, self._width, self._look) for entry in entries]
        self._place = _TOP
        self.following = True
        self.held = False

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self._views.append(EntryView(entry, self._width, self._look))

    def insert(self, entry: Entry, before: str) -> None:
        """Put an entry before another one, or at the end where that is not there; the view stays."""
        index = self.index(before)
        if index is None:
            self.append(entry)
            return
        self._views.insert(index, EntryView(entry, self._width, self._look))
        if index <= self._place.view:
            self._place = self._place._replace(view=self._place.view + 1)

    def feed(self, key: str, fragment: str) -> None:
        """Add to the text of an entry, if it is there."""
        index = self.index(key)
        if index is not None:
            self._views[index].feed(fragment)

    def think(self, key: str, fragment: str) -> None:
        """Add to the thought of an entry, if it is there."""
        index = self.index(key)
        if index is not None:
            self._views[index].think(fragment)

    def update(self, key: str, changes: dict[str, Any]) -> None:
        """Change fields of an entry, if it is there."""
        index = self.index(key)
        if index is not None:
            self._views[index].change(changes)

    def drop(self, key: str) -> None:
        """Take an entry out, if it is there."""
        index = self.index(key)
        if index is None:
            return
        del self._views[index]
        if index < self._place.view:
            self._place = self._place._replace(view=self._place.view - 1)
        elif index == self._place.view:
            self._place = _Place(index, 0, 0)

    def resize(self, width: int, height: int) -> None:
        """Take another size; the row at the top stays about where it was."""
        self.height = height
        if width == self._width:
            return
        view, part, row = self._place
        placed = bool(self._views and self._width)
        old = self._views[view].part_height(part) if placed else 1
        self._width = width
        for each in self._views:
            each.resize(width)
        if placed:
            self._place = _Place(view, part, row * self._views[view].part_height(part) // max(1, old))

    def restyle(self, look: Look) -> None:
        """Take other colours."""
        self._look = look
        for view in self._views:
            view.restyle(look)

    def scroll(self, rows: int) -> None:
        """Move by rows: exactly for a short way, by the estimates for a long one."""
        if not self._views or not self._width:
            return
        if abs(rows) > FAR * self.height:
            self._jump(max(0, min(self.top + rows, self.tops[-1] - self.height)))
        elif rows < 0:
            self._place = self._up(self._place, -rows)
        else:
            self._place = self._down(self._place, rows)
        self.following = rows > 0 and not self._fills(self.height + 1)

    def to_start(self) -> None:
        """Go to the first entry and stay there."""
        self._place = _TOP
        self.following = False

    def reveal(self, view: int, part: int, row: int) -> None:
        """Bring a row of a part of an entry into view, and stay there though the log grows."""
        place = _Place(view, part, row)
        self.following, self.held = False, True
        if not self._place <= place < self._down(self._place, self.height):
            self._place = self._up(place, self.height // 3)

    def to_question(self, by: int) -> None:
        """Go to the start of the question that is the next below the top of the view, or the one before."""
        if not self._views:
            return
        asked = [index for index, view in enumerate(self._views) if view.role == "user"]
        if by < 0:
            before = [index for index in asked if _Place(index, 0, 0) < self._place]
            self._place = _Place(before[-1], 0, 0) if before else _TOP
        elif behind := [index for index in asked if index > self._place.view]:
            self._place = _Place(behind[0], 0, 0)
        else:
            self._place = self._end()
        self.following = by > 0 and not self._fills(self.height + 1)

    def settle(self) -> None:
        """Make what is in view exact and keep the place, or the end in view."""
        if not self._width:
            return
        if not self._views:
            self._place = _TOP
        elif not self.following:
            self._clamp()
            if not self._fills(self.height):
                self.following = not self.held
                self._place = self._up(self._end(), self.height) if self.held else self._place
        if self._views and self.following:
            self._follow()
            self._fills(self.height)
        self._close_far()
        self._tops = None
        self.top = self.row_of(self._place) if self._views else 0

    def _follow(self) -> None:
        """Bring the end into view. While an answer is written, a few rows at a time: between two panes
        a terminal cannot scroll, so that each move draws the whole log again, and text that moves
        seldom is read more easily."""
        ahead = min(AHEAD, self.height // 8) if self.streaming else 0
        if ahead:
            self._clamp()  # an answer that is told again from its beginning has fewer rows than before
        if ahead and not self._fills(self.height + 1) and self._fills(self.height - ahead):
            return
        self._place = self._up(self._end(), self.height - ahead)

    # What is in view

    def rows_in_view(self) -> list[Row]:
        """The rows from the place on, as many as there are room and rows for."""
        rows: list[Row] = []
        view, part, row = self._place
        while view < len(self._views) and len(rows) < self.height:
            made = self.marker(self._views[view], part) if self.marker else self._views[view].rows(part)
            rows += made[row : row + self.height - len(rows)]
            row = 0
            part += 1
            if part >= self._views[view].count:
                view, part = view + 1, 0
        return rows

    def row_at(self, y: int) -> Row:
        """A row of the log by its present number."""
        view = max(0, min(bisect_right(self.tops, y) - 1, len(self._views) - 1))
        inside = y - self.tops[view]
        part = self._views[view].part_at(inside)
        rows = self._views[view].rows(part)
        offset = inside - self._views[view].top(part)
        return rows[offset] if offset < len(rows) else Row([])

    def row_of(self, place: _Place) -> int:
        """The present number of a place's row."""
        return self.tops[place.view] + self._views[place.view].top(place.part) + place.row

    def first_in_view(self) -> tuple[str, int, int]:
        """The key of the entry at the top of the view, its part, the row of that."""
        view, part, row = self._place
        return (self._views[view].key, part, row) if view < len(self._views) else ("", 0, 0)

    # Where places are

    def _jump(self, y: int) -> None:
        """Go to a row by its present number."""
        view = max(0, min(bisect_right(self.tops, y) - 1, len(self._views) - 1))
        inside = y - self.tops[view]
        part = self._views[view].part_at(inside)
        self._place = _Place(view, part, inside - self._views[view].top(part))
        self._clamp()

    def _clamp(self) -> None:
        """Bring the place back to a row that exists."""
        view = min(self._place.view, len(self._views) - 1)
        part = min(self._place.part, self._views[view].count - 1)
        row = min(self._place.row, max(0, self._views[view].part_height(part) - 1))
        self._place = _Place(view, part, row)

    def _end(self) -> _Place:
        """The place below the last row."""
        last = len(self._views) - 1
        part = self._views[last].count - 1
        return _Place(last, part, self._views[last].part_height(part))

    def _up(self, place: _Place, rows: int) -> _Place:
        """The place so many rows higher, or the first one. Everything between becomes exact."""
        view, part, row = place
        row -= rows
        while row < 0:
            if part > 0:
                part -= 1
            elif view > 0:
                view -= 1
                part = self._views[view].count - 1
            else:
                return _TOP
            row += self._views[view].part_height(part)
        return _Place(view, part, row)

    def _down(self, place: _Place, rows: int) -> _Place:
        """The place so many rows lower, or the one below the last row."""
        view, part, row = place
        row += rows
        while row >= (height := self._views[view].part_height(part)):
            if part < self._views[view].count - 1:
                part += 1
            elif view < len(self._views) - 1:
                view, part = view + 1, 0
            else:
                return _Place(view, part, height)
            row -= height
        return _Place(view, part, row)

    def _fills(self, height: int) -> bool:
        """Whether there are so many rows from the place on. They become exact."""
        last = self._down(self._place, height - 1)
        return last.row < self._views[last.view].part_height(last.part)

    def _close_far(self) -> None:
        """Forget what was read of entries far from the view."""
        opened = [index for index, view in enumerate(self._views) if view.is_open]
        if len(opened) <= 2 * OPEN:
            return
        opened.sort(key=lambda index: abs(index - self._place.view))
        for index in opened[OPEN:]:
            if not self._views[index].streaming:
                self._views[index].close()

    def index(self, key: str) -> int | None:
        """Where an entry is: nearly always at the end."""
        for index in range(len(self._views) - 1, -1, -1):
            if self._views[index].key == key:
                return index
        return None
