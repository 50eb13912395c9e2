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
from llama_tui.ui.entry import Role
from llama_tui.ui.log import Log
from llama_tui.ui.passage import Passage, ahead, counted, found, said
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
    """What a part says, the unit and source of which it does, and how its last line goes on in the next part."""

    unit: Unit | None
    source: str
    text: str
    ahead: str


class _Overhang(NamedTuple):
    """Characters at the beginning of a part that a match has which begins before it, and whether that is the
    current one."""

    length: int
    current: bool


_State = tuple[int | None, str, _Overhang | None]
"""What the marks in a part depend on besides its rows."""


@dataclass(slots=True)
class _Read:
    """What is known of an entry: the texts of its parts, and how many matches those hold that hold any."""

    revision: int
    role: Role
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
        self._marked: dict[tuple[str, int], tuple[list[Row], _State, list[Row]]] = {}
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
            counts = self._counts(view.key)
            if self.current and view.key == self.current.key:
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
        keys = {view.key: index for index, view in enumerate(views)}
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
        key, revision, width, pattern = view.key, view.revision, view.width, self._pattern
        old = self._reads.get(key)
        if old and (old.role != view.role or old.width != width):
            old = None
        same = old is not None and old.revision == revision
        if pattern is None or (old and same and old.counts is not None):
            return
        texts: list[_Text] = []
        counts: dict[int, int] = {}
        for text in iter(old.texts) if old and same and old.texts else self._texts(view, old):
            texts.append(text)
            yield
            for count in counted(pattern, len(self.sought), text.text, text.ahead):
                if count:
                    counts[len(texts)] = counts.get(len(texts), 0) + count
                    yield
            if view.revision != revision:
                break  # it has grown meanwhile, and is counted again
        self._reads[key] = _Read(revision, view.role, width, texts, counts)
        if self.current and self.current.key == key and self.current.nth >= counts.get(self.current.part, 0):
            self.current = None

    def _texts(self, view: EntryView, old: _Read | None) -> Iterator[_Text]:
        """What the parts of an entry say that are searched: of an error what to do about it as well."""
        shown = view if view.is_open else view.anew()
        for part in range(1, shown.count - (view.role != "error")):
            unit = shown.unit(part)
            known = old.texts[part - 1] if old and part <= len(old.texts) else None
            if known is None or unit is None or known.unit is not unit or known.source is not unit.source:
                known = _Text(unit, unit.source if unit else "", said(shown, part), "")
            yield known._replace(ahead=ahead(shown, part))

    def _counts(self, key: str) -> dict[int, int]:
        read = self._reads.get(key)
        return read.counts or {} if read else {}

    # The current match

    def _choose(self, view: EntryView, *, first: bool) -> None:
        """Take a match of an entry if there is none yet."""
        key, part, row = self._from
        counts = self._counts(view.key)
        if self.current or not counts:
            return
        if not first:
            last = max(counts)
            self.current = Match(view.key, last, counts[last] - 1)
        elif view.key != key:
            self.current = Match(view.key, min(counts), 0)
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
            key = views[index].key
            others = list(self._counts(key))
            if index == at and not others:
                return None
        part = (min if by > 0 else max)(others)
        return Match(key, part, 0 if by > 0 else self._counts(key)[part] - 1)

    def _known(self, view: EntryView) -> bool:
        """Whether the matches of an entry are counted."""
        read = self._reads.get(view.key)
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
        rows, key = view.rows(part), view.key
        current = self._current_in(key, part)
        state = current, ahead(view, part), self._overhang(view, part)
        known = self._marked.get((key, part))
        if known and known[0] is rows and known[1] == state:
            return known[2]
        if len(self._marked) > _MARKED:
            self._marked.clear()
        made = rows
        if self._pattern and part and (part < view.count - 1 or view.role == "error"):
            passage = Passage(rows)
            made = list(rows)
            look = self._log.look
            spans = [(span, look.found) for span in found(self._pattern, passage.text, state[1])]
            if current is not None and current < len(spans):  # last, as an emoji of several may hold another one
                spans.append((spans[current][0], look.found_now))
            if begun := state[2]:
                spans.append(((0, begun.length), look.found_now if begun.current else look.found))
            for span, style in spans:
                for row, start, end in passage.stretches(*span):
                    made[row] = made[row]._replace(segments=painted(made[row].segments, start, end, style))
        self._marked[key, part] = rows, state, made
        return made

    def _current_in(self, key: str, part: int) -> int | None:
        """The number of the current match in a part, if it is there."""
        return self.current.nth if self.current and self.current[:2] == (key, part) else None

    def _overhang(self, view: EntryView, part: int) -> _Overhang | None:
        """What of a match that begins in the part before lies in this one."""
        before = view.unit(part - 1) if part > 1 else None
        if self._pattern is None or before is None or before.joint is None:
            return None
        text = said(view, part - 1)
        spans = found(self._pattern, text, ahead(view, part - 1))
        if not spans or spans[-1][1] <= len(text):
            return None
        return _Overhang(spans[-1][1] - len(text), self._current_in(view.key, part - 1) == len(spans) - 1)

    def _rows(self, view: EntryView, part: int) -> list[int]:
        """The row on which each match of a part begins."""
        passage = Passage(view.rows(part))
        spans = found(self._pattern, passage.text, ahead(view, part)) if self._pattern else []
        return [passage.row(start) for start, _ in spans]
