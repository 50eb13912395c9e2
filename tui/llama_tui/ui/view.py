"""One entry of the transcript as rows: a title, its text in parts, what is said below it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, repeat
from typing import Any

from rich.segment import Segment
from rich.style import Style

from llama_tui.control import Sanitizer, one_line, sanitize
from llama_tui.ui.blocks import References, Splitter, Unit
from llama_tui.ui.entry import Entry, Role
from llama_tui.ui.growing import Growing
from llama_tui.ui.look import Look
from llama_tui.ui.markdown import MEASURE, plain, render
from llama_tui.ui.text import Row, cells, expand_tabs, fit, wrap
from llama_tui.ui.verbatim import CHARACTERS, VerbatimSplitter

MARKDOWN_LIMIT = 256_000
"""Characters beyond which a text is shown as it is, without reading it as Markdown."""

BLOCK_LIMIT = 20_000
"""Characters of one block beyond which it is no Markdown that a person wrote, and the text is shown so too."""

SAMPLE = 64_000
"""Characters by which the height of a longer text is guessed."""

_BOUNDED = frozenset({"paragraph", "item", "heading", "blockquote"})
"""Kinds of blocks that are read as a whole whenever they grow."""

THOUGHT_ROWS = 6
"""Rows of a thought that are shown while it comes."""

LOG_ROWS = 6
"""Rows of an engine's last words below an error: on a low screen the error itself stays in view."""

MARGIN = 2
"""Cells left of every row: the bar of a question or an error, or nothing."""

BAR = "▌ "

_Shown = tuple[str, str, int | None, bool, str | None, bool]


class Part:
    """A stretch of rows that is rendered as a whole: the title, a unit of the text, or the foot.

    `height` is exact once the part was rendered for the present width, and estimated before; `shown`
    is what the rows show, while the unit may have grown since.
    """

    __slots__ = ("exact", "height", "rows", "shown", "unit")

    def __init__(self, unit: Unit | None, height: int) -> None:
        self.unit = unit
        self.height = height
        self.rows: list[Row] | None = None
        self.exact = False
        self.shown: _Shown | None = None

    def take_over(self, part: Part) -> None:
        """Keep the rows of a part that shows the same."""
        self.rows, self.height, self.exact, self.shown = part.rows, part.height, part.exact, part.shown


class EntryView:
    """The rows of one entry, rendered part by part as they are looked at.

    Before `open` the text is not read at all, and its height is a guess.
    """

    def __init__(self, entry: Entry, width: int, look: Look) -> None:
        self._entry = entry
        self._fed: list[str] = []  # what was added to its text since
        self._thoughts: list[str] = []  # and to its thought
        self._length = len(entry.text)
        self._width = width
        self._look = look
        self.revision = 0  # another one when the entry is another
        self._sanitizer = Sanitizer()
        self._splitter: Splitter | VerbatimSplitter | None = None
        self._growing: Growing | None = None
        self._references: References = {}
        self._parts: list[Part] = []
        self._tops: list[int] | None = None
        self._height = 0
        self._guess()

    @property
    def entry(self) -> Entry:
        """The entry as it is now. Its text is put together for that: `key` and its like cost nothing."""
        text, thought = "".join([self._entry.text, *self._fed]), "".join([self._entry.thought, *self._thoughts])
        return replace(self._entry, text=text, thought=thought)

    @property
    def key(self) -> str:
        """The entry's."""
        return self._entry.key

    @property
    def role(self) -> Role:
        """The entry's."""
        return self._entry.role

    @property
    def streaming(self) -> bool:
        """Whether the entry is being written."""
        return self._entry.streaming

    @property
    def height(self) -> int:
        """Rows of the whole entry, as far as is known."""
        if self._tops is None and self._parts:
            self._tops = list(accumulate((part.height for part in self._parts), initial=0))
            self._height = self._tops[-1]
        return self._height

    @property
    def width(self) -> int:
        """Cells of every row."""
        return self._width

    @property
    def is_open(self) -> bool:
        """Whether the text was read."""
        return bool(self._parts)

    @property
    def _is_plain(self) -> bool:
        """Whether the text is shown as it is, and all of it: the growing end of such a text looks like the rest."""
        return isinstance(self._splitter, VerbatimSplitter)

    @property
    def count(self) -> int:
        """Parts of the entry."""
        self.open()
        return len(self._parts)

    def open(self) -> None:
        """Read the text, without rendering any of it."""
        if self._parts:
            return
        text = "".join([self._entry.text, *self._fed]) if self._fed else self._entry.text
        self._splitter = None
        # By the length that `feed` goes by: made safe, a text of CR LF is shorter.
        if self.role == "assistant" and self._length <= MARKDOWN_LIMIT:
            self._splitter = Splitter(sanitize(text))
            self._references = self._splitter.references
        if self._splitter is None or _unwieldy(self._splitter.units):
            self._splitter = VerbatimSplitter(text)
        self._parts = [Part(None, 1), *self._parts_of(self._splitter.units), Part(None, 1)]
        self._tops = None

    def close(self) -> None:
        """Forget everything but the height."""
        height = self.height
        self._parts = []
        self._tops = None
        self._splitter = self._growing = None
        self._height = height

    def top(self, index: int) -> int:
        """The row of the entry at which a part begins."""
        assert self.height >= 0
        return self._tops[index] if self._tops is not None else 0

    def part_at(self, row: int) -> int:
        """The part that holds a row."""
        self.open()
        assert self.height >= 0 and self._tops is not None
        return max(0, min(bisect_right(self._tops, row) - 1, len(self._parts) - 1))

    def part_height(self, index: int) -> int:
        """The exact height of a part, which is rendered for it if need be."""
        self.open()
        part = self._parts[index]
        if not part.exact:
            self._render(index)
        return part.height

    def rows(self, index: int) -> list[Row]:
        """The rows of a part."""
        self.open()
        part = self._parts[index]
        if part.rows is None:
            self._render(index)
        return part.rows or []

    def unit(self, index: int) -> Unit | None:
        """The source of a part; None for the title and the foot."""
        self.open()
        return self._parts[index].unit

    def anew(self) -> EntryView:
        """The same entry, of which nothing is read yet."""
        view = EntryView(self._entry, self._width, self._look)
        view._fed, view._thoughts, view._length = [*self._fed], [*self._thoughts], self._length
        return view

    def resize(self, width: int) -> None:
        """Take another width: nothing is known of the heights any more."""
        self._width = width
        self._growing = None
        if not self._parts:
            self._guess()
            return
        heights = self._estimates([part.unit for part in self._parts if part.unit])
        for part in self._parts:
            part.rows, part.exact, part.shown = None, False, None
            part.height = next(heights) if part.unit else part.height
        self._tops = None

    def restyle(self, look: Look) -> None:
        """Take other colours: the heights stay, the rows are made again when they are looked at."""
        self._look = look
        self._growing = None
        for part in self._parts:
            part.rows = part.shown = None

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change fields of the entry. What has not changed is not rendered again."""
        old, self._entry = self._entry, replace(self._entry, **changes)
        self.revision += 1
        same = self.role == old.role
        if "text" in changes:
            same = same and self._says(old.text, self._entry.text)
            self._fed = []
            self._length = len(self._entry.text)
        if "thought" in changes:
            self._thoughts = []
        if not self._parts:
            self._guess()
            return
        if not same or (self.streaming != old.streaming and not self._is_plain):
            self._reread()
        self._forget(0)
        self._forget(len(self._parts) - 1)

    def _says(self, begun: str, text: str) -> bool:
        """Whether what has come so far, the first of it as it `begun`, is a text."""
        offset = 0
        for piece in (begun, *self._fed):
            if not text.startswith(piece, offset):
                return False
            offset += len(piece)
        return offset == len(text)

    def feed(self, fragment: str) -> None:
        """Add to the text. What that costs does not grow with the text."""
        self.open()
        self._fed.append(fragment)
        self._length += len(fragment)
        self.revision += 1
        self._forget(0)
        assert self._splitter is not None
        if isinstance(self._splitter, Splitter):
            first = self._splitter.feed(self._sanitizer.feed(fragment))
            if self._length > MARKDOWN_LIMIT or _unwieldy(self._splitter.units[first:]):
                self._reread()
                return
        else:
            first = self._splitter.feed(fragment)
        self._replace(first, self._parts_of(self._splitter.units[first:]))
        self._refer(self._splitter.references)

    def think(self, fragment: str) -> None:
        """Add to the thought."""
        self.open()
        self._thoughts.append(fragment)
        self.revision += 1
        self._forget(0)

    def _reread(self) -> None:
        """Read the whole text again; units that are the same keep their rows."""
        known = {part.shown: part for part in self._parts[1:-1]}
        self._parts = []
        self._growing = None
        self._sanitizer = Sanitizer()
        references = self._references
        self.open()
        if self._splitter is None or _targets(references) == _targets(self._splitter.references):
            for index, part in enumerate(self._parts):
                if part.unit is not None and (same := known.get(self._shown(index, part.unit))):
                    part.take_over(same)

    def _replace(self, first: int, parts: list[Part]) -> None:
        """Exchange the parts of the units from one on; what shows the same is kept."""
        old = self._parts[first + 1 : -1]
        self._parts[first + 1 : -1] = parts
        for index, before in enumerate(old[: len(parts)], first + 1):
            part = self._parts[index]
            if part.unit is not None and before.shown == self._shown(index, part.unit):
                part.take_over(before)
            else:
                part.height = before.height
        self._tops = None

    def _refer(self, references: References) -> None:
        """Render again what a link target that has become known may change."""
        if _targets(references) != _targets(self._references):
            for index, part in enumerate(self._parts):
                if part.unit is not None and "[" in part.unit.source:
                    self._forget(index)
        self._references = references

    def _forget(self, index: int) -> None:
        part = self._parts[index]
        part.rows, part.exact, part.shown = None, False, None

    def _parts_of(self, units: Sequence[Unit]) -> list[Part]:
        return [Part(unit, height) for unit, height in zip(units, self._estimates(units), strict=True)]

    def _guess(self) -> None:
        entry, length = self._entry, self._length
        lines = entry.text.count("\n", 0, SAMPLE) * max(SAMPLE, length) // SAMPLE
        width = max(1, self._width - MARGIN)
        self._height = 3 + lines + length // width + len(entry.log) + bool(entry.footer)

    def _estimates(self, units: Sequence[Unit]) -> Iterator[int]:
        """The height that each is likely to have: those of a very long text are taken to be like the first."""
        if len(units) * CHARACTERS > SAMPLE and isinstance(self._splitter, VerbatimSplitter):
            return repeat(self._estimate(units[0]), len(units))
        return map(self._estimate, units)

    def _estimate(self, unit: Unit) -> int:
        width = max(1, self._width - MARGIN)
        if unit.kind in _BOUNDED:
            width = min(width, MEASURE)
        return sum(1 + len(line) // width for line in unit.source.rstrip("\n").split("\n")) + unit.blank

    def _render(self, index: int) -> None:
        """Make the rows of a part, and with them its height exact."""
        part = self._parts[index]
        if part.unit is not None:
            rows = self._text(index, part.unit)
        elif index == 0:
            rows = self._head()
        else:
            rows = self._foot()
        part.rows = rows
        part.exact = True
        part.shown = self._shown(index, part.unit) if part.unit else None
        if part.height != len(rows):
            part.height = len(rows)
            self._tops = None

    def _text(self, index: int, unit: Unit) -> list[Row]:
        width = max(1, self._width - MARGIN)
        look = self._look
        if unit.kind == "plain":
            style = {"user": look.text, "assistant": look.text, "notice": look.notice, "error": look.error}
            measure = width if self.role == "assistant" else min(width, MEASURE)
            rows = plain(sanitize(unit.source), measure, style[self.role])
            rows[-1] = rows[-1]._replace(joint=unit.joint)
            return self._beside(rows)
        last = index == len(self._parts) - 2
        if self.streaming and last and self._splitter is not None:
            self._growing = self._growing or Growing(width, look)
            rows = self._growing.rows(unit, self._references, self._splitter.fence_open)
        else:
            code = self._growing.closed(unit) if self._growing else None
            rows = render(unit, self._references, width, look, code)
        return self._beside([Row([]), *rows] if rows and self._gap(index, unit) else rows)

    def _gap(self, index: int, unit: Unit) -> bool:
        """Whether an empty row sets a unit apart from what is above."""
        if not unit.blank and unit.kind not in ("heading", "hr"):
            return False
        return any(part.unit is not None and part.unit.kind != "empty" for part in self._parts[1:index])

    def _shown(self, index: int, unit: Unit) -> _Shown:
        """What a unit's rows depend on."""
        return unit.source, unit.kind, unit.number, unit.continued, unit.joint, self._gap(index, unit)

    def _beside(self, rows: list[Row]) -> list[Row]:
        """The rows with the bar of the entry's role left of them."""
        bars: dict[str, tuple[str, Style]] = {"user": (BAR, self._look.user_bar), "error": (BAR, self._look.error_bar)}
        text, style = bars.get(self.role, (" " * MARGIN, self._look.text))
        bar = Segment(text, style)
        return [row.beside(bar) for row in rows]

    def _head(self) -> list[Row]:
        entry, look = self._entry, self._look
        if not entry.title:
            return []
        styles = {
            "user": look.user_title,
            "assistant": look.assistant_title,
            "notice": look.notice,
            "error": look.error_title,
        }
        width = max(1, self._width - MARGIN)
        place = f"‹ {entry.siblings[0]}/{entry.siblings[1]} ›" if entry.siblings else ""
        title = fit(one_line(entry.title), width - (cells(place) + 1 if place else 0))
        segments = [Segment(title, styles[entry.role])]
        if place:
            segments.append(Segment(" " * (width - cells(title) - cells(place)), look.text))
            segments.append(Segment(place, look.muted))
        rows = [Row(segments)]
        if entry.thought or self._thoughts:
            rows += self._thought(width)
        elif entry.streaming and not self._length:
            rows.append(Row([Segment("…", look.muted)]))
        return self._beside(rows)

    def _thought(self, width: int) -> list[Row]:
        """The last rows of what the model thinks; once it answers, how much it has thought."""
        entry, style = self._entry, self._look.muted
        if self._length or not entry.streaming:
            count = f" for {entry.thought_tokens:,} token{'s' * (entry.thought_tokens != 1)}"
            return [Row([Segment(fit(f"thought{count if entry.thought_tokens else ''}", width), style)])]
        end = ""
        for piece in (*reversed(self._thoughts), entry.thought):
            end = piece[-THOUGHT_ROWS * width :] + end
            if len(end) >= THOUGHT_ROWS * width:
                break
        lines = sanitize(end[-THOUGHT_ROWS * width :]).split("\n")
        rows = [row for line in lines for row in wrap([(expand_tabs(line), style)], width)]
        return rows[-THOUGHT_ROWS:]

    def _foot(self) -> list[Row]:
        entry, look = self._entry, self._look
        width = max(1, self._width - MARGIN)
        unit = self._parts[-2].unit
        below_panel = unit is not None and unit.kind in ("fence", "code_block", "table")
        rows: list[Row] = [Row([])] if below_panel and entry.footer else []
        if entry.hint:
            rows += plain(sanitize(entry.hint), min(width, MEASURE), look.hint)
        log = [row for text in entry.log for row in plain(sanitize(text), width, look.muted)]
        if len(log) > LOG_ROWS:
            log = [Row([Segment(fit("… all of it is in the engine's log", width), look.muted)]), *log[1 - LOG_ROWS :]]
        rows += log
        if entry.footer:
            rows += wrap([(one_line(entry.footer), look.muted)], width)
        return [*self._beside(rows), Row([])]


def _unwieldy(units: Sequence[Unit]) -> bool:
    """Whether a block is too long to be read as Markdown."""
    return any(len(unit.source) > BLOCK_LIMIT and unit.kind in _BOUNDED for unit in units)


def _targets(references: References) -> dict[str, str]:
    """Where links lead, by their labels."""
    return {label: str(reference["href"]) for label, reference in references.items()}
