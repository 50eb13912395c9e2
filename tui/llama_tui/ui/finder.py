"""Finds a text in the entries of a log, by and by, so that keys stay live in the longest conversation.

What is searched is what a person sees: Markdown as it is rendered, lines that are wrapped as one. An
entry that was not in view is rendered for that once. Titles, figures and folded thoughts are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

from llama_tui.ui.blocks import Unit
from llama_tui.ui.entry import Entry
from llama_tui.ui.log import Log
from llama_tui.ui.passage import Passage, counted, said
from llama_tui.ui.text import Row, painted
from llama_tui.ui.view import EntryView

_MARKED = 200
"""Parts whose marked rows are kept."""


class Match(NamedTuple):
    """The `nth` match of a part of an entry, counted from 0."""

    key: str
    part: int
    nth: int


class _Text(NamedTuple):
    """What a part says, and the unit and source of which it does."""

    unit: Unit | None
    source: str
    text: str


@dataclass(slots=True)
class _Read:
    """What is known of an entry: the texts of its parts, and how many matches those hold that hold any."""

    entry: Entry
    width: int
    texts: list[_Text]
    counts: dict[int, int] | None = None


class Finder:
    """The matches in a log, and which of them is the current one.

    `seek` begins; `step` is called until nothing is left to do, and after `again`. The current
    match is the first one below the place where the search began, else the last one above it.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.sought = ""
        self._pattern: re.Pattern[str] | None = None
        self._reads: dict[str, _Read] = {}
        self._marked: dict[tuple[str, int], tuple[list[Row], int | None, list[Row]]] = {}
        self._from = log.first_in_view()
        self._wish = 0  # matches to go on by, as soon as they are known
        self._work: Iterator[None] | None = None
        self.current: Match | None = None
        self.wrapped = 0  # the way that led over the end of the log, to its other one
        self.stale = False  # something of the log is another since it was searched

    @property
    def busy(self) -> bool:
        """Whether there is more to search."""
        return self._work is not None

    @property
    def total(self) -> int:
        """Matches that are known."""
        return sum(sum(read.counts.values()) for read in self._reads.values() if read.counts)

    @property
    def number(self) -> int:
        """Which of them is the current one, from 1; 0 without one."""
        number = 0
        for view in self._log.views if self.current else ():
            counts = self._counts(view.entry.key)
            if self.current and view.entry.key == self.current.key:
                return number + sum(counts[part] for part in counts if part < self.current.part) + self.current.nth + 1
            number += sum(counts.values())
        return 0

    def seek(self, text: str) -> None:
        """Look for another text. An upper-case letter in it makes the case count."""
        flags = re.IGNORECASE if text == text.lower() else re.NOFLAG
        self.sought = text
        self._pattern = re.compile(re.escape(text), flags) if text else None
        for read in self._reads.values():
            read.counts = None
        self._marked.clear()
        self._wish = 0
        self.current, self.wrapped = None, 0
        self._work = self._search() if text else None

    def again(self) -> None:
        """Search what is another by now; what is known of the rest is kept."""
        self.stale = False
        if self._pattern:
            self._work = self._search()

    def step(self, seconds: float) -> bool:
        """Search for about so long. Whether the current match is another one then."""
        before, until = self.current, monotonic() + seconds
        while self._work:
            try:
                next(self._work)
            except StopIteration:
                self._work = None
            if monotonic() >= until:
                break
        return self.current != before

    def go(self, by: int) -> None:
        """Make the next match the current one, or the one before; as soon as it is known."""
        self.wrapped = 0
        if self.current:
            self._wish += by
            self._advance()
            if self._wish:
                self._work = self._search()

    # Searching

    def _search(self) -> Iterator[None]:
        """Count what is not counted: from the place down, then up, but first what the next match waits for."""
        views = list(self._log.views)
        keys = {view.entry.key: index for index, view in enumerate(views)}
        for gone in self._reads.keys() - keys.keys():
            del self._reads[gone]
        if self.current and self.current.key not in keys:
            self.current = None
        if self.current is None:
            self._wish = 0
        if self.current and self._wish:
            at = keys[self.current.key]
            way = [*views[at:], *views[:at]] if self._wish > 0 else [*views[at::-1], *views[:at:-1]]
            for view in way:
                yield from self._count(view)
                self._advance()
                if not self._wish:
                    break
            self._wish = 0
        at = keys.get(self._from[0], 0)
        for view in views[at:]:
            yield from self._count(view)
            self._choose(view, first=True)
        for view in views[at::-1]:
            yield from self._count(view)
            self._choose(view, first=False)

    def _count(self, view: EntryView) -> Iterator[None]:
        """Count the matches of an entry, unless that is done."""
        entry, width, pattern = view.entry, view.width, self._pattern
        old = self._reads.get(entry.key)
        if old and (old.entry.role != entry.role or old.width != width):
            old = None
        if pattern is None or (old and old.entry is entry and old.counts is not None):
            return
        texts: list[_Text] = []
        counts: dict[int, int] = {}
        for text in iter(old.texts) if old and old.entry is entry and old.texts else self._texts(view, old):
            texts.append(text)
            yield
            for count in counted(pattern, len(self.sought), text.text):
                if count:
                    counts[len(texts)] = counts.get(len(texts), 0) + count
                    yield
            if view.entry is not entry:
                break  # it has grown meanwhile, and is counted again
        self._reads[entry.key] = _Read(entry, width, texts, counts)
        if self.current and self.current.key == entry.key and self.current.nth >= counts.get(self.current.part, 0):
            self.current = None

    def _texts(self, view: EntryView, old: _Read | None) -> Iterator[_Text]:
        """What the parts of an entry say that are searched: of an error what to do about it as well."""
        shown = view if view.is_open else view.anew()
        for part in range(1, shown.count - (view.entry.role != "error")):
            unit = shown.unit(part)
            known = old.texts[part - 1] if old and part <= len(old.texts) else None
            if known is None or unit is None or known.unit is not unit or known.source is not unit.source:
                known = _Text(unit, unit.source if unit else "", said(shown, part))
            yield known

    def _counts(self, key: str) -> dict[int, int]:
        read = self._reads.get(key)
        return read.counts or {} if read else {}

    # The current match

    def _choose(self, view: EntryView, *, first: bool) -> None:
        """Take a match of an entry if there is none yet."""
        key, part, row = self._from
        counts = self._counts(view.entry.key)
        if self.current or not counts:
            return
        if not first:
            last = max(counts)
            self.current = Match(view.entry.key, last, counts[last] - 1)
        elif view.entry.key != key:
            self.current = Match(view.entry.key, min(counts), 0)
        else:
            rows = self._rows(view, part) if part in counts else []
            below = [Match(key, part, nth) for nth, at in enumerate(rows) if at >= row]
            below += [Match(key, other, 0) for other in sorted(counts) if other > part]
            self.current = below[0] if below else None

    def _advance(self) -> None:
        """Go on as far as is wished for, as far as everything on the way is counted."""
        while self._wish and self.current and (found := self._beside(self.current, 1 if self._wish > 0 else -1)):
            self.current = found
            self._wish -= 1 if self._wish > 0 else -1

    def _beside(self, match: Match, by: int) -> Match | None:
        """The match before or behind one; None if something on the way is not counted."""
        key, part, nth = match
        counts = self._counts(key)
        if 0 <= nth + by < counts.get(part, 0):
            return Match(key, part, nth + by)
        views = self._log.views
        at = index = self._log.index(key) or 0
        others = [other for other in counts if (other - part) * by > 0]
        while not others:
            index = (index + by) % len(views)
            if index == (0 if by > 0 else len(views) - 1):
                self.wrapped = by
            if not self._known(views[index]):
                return None
            key = views[index].entry.key
            others = list(self._counts(key))
            if index == at and not others:
                return None
        part = (min if by > 0 else max)(others)
        return Match(key, part, 0 if by > 0 else self._counts(key)[part] - 1)

    def _known(self, view: EntryView) -> bool:
        """Whether the matches of an entry are counted."""
        read = self._reads.get(view.entry.key)
        return read is not None and read.counts is not None

    # What is shown of it

    def show(self) -> None:
        """Bring the current match into view."""
        if self.current is None:
            return
        index = self._log.index(self.current.key)
        if index is not None:
            rows = self._rows(self._log.views[index], self.current.part)
            self._log.reveal(index, self.current.part, rows[self.current.nth] if self.current.nth < len(rows) else 0)

    def mark(self, view: EntryView, part: int) -> list[Row]:
        """The rows of a part with its matches marked. They are kept, so that they are painted once."""
        rows, key = view.rows(part), view.entry.key
        current = self.current.nth if self.current and self.current[:2] == (key, part) else None
        known = self._marked.get((key, part))
        if known and known[0] is rows and known[1] == current:
            return known[2]
        if len(self._marked) > _MARKED:
            self._marked.clear()
        made = rows
        if self._pattern and part and (part < view.count - 1 or view.entry.role == "error"):
            passage = Passage(rows)
            made = list(rows)
            found = [(match.span(), self._log.look.found) for match in self._pattern.finditer(passage.text)]
            if current is not None and current < len(found):  # last, as an emoji of several may hold another one
                found.append((found[current][0], self._log.look.found_now))
            for span, style in found:
                for row, start, end in passage.stretches(*span):
                    made[row] = made[row]._replace(segments=painted(made[row].segments, start, end, style))
        self._marked[key, part] = rows, current, made
        return made

    def _rows(self, view: EntryView, part: int) -> list[int]:
        """The row on which each match of a part begins."""
        passage = Passage(view.rows(part))
        found = self._pattern.finditer(passage.text) if self._pattern else ()
        return [passage.row(match.start()) for match in found]
