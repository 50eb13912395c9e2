"""The chat log: one widget that paints rows, whatever the number and the length of the messages.

It holds view state only. What is near the view is read and rendered, once; heights elsewhere are
estimates that become exact when they come into view. The place on screen is therefore kept as a
row of a part of an entry, never as a number of rows from the top.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from time import monotonic, thread_time
from typing import Any, ClassVar, NamedTuple, cast

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from llama_tui.ui.entry import MARGIN, Entry, EntryView
from llama_tui.ui.look import Look
from llama_tui.ui.text import Row, cells, pad, width_of

__all__ = ["Entry", "Transcript"]

FLUSHES = 15
"""Times a second that a growing answer is painted at most."""

SHARE = 6
"""A flush that took a while is followed by a pause of this many times as long."""

WHEEL = 3
"""Rows for one step of the mouse's wheel."""

OPEN = 24
"""Entries that stay read and rendered besides those in view."""

MORE = " ↓ more below · end follows "


_EMPTY = Row([])
_PLAIN = Look.of(lambda _: Style.null())
"""What entries are given before the widget has its styles."""


class _Place(NamedTuple):
    """A row of the log that does not move when heights elsewhere change."""

    view: int
    part: int
    row: int


class Transcript(ScrollView, can_focus=True, inherit_bindings=False):
    """The messages of a conversation, and what else belongs between them."""

    BLANK = False
    ALLOW_MAXIMIZE = False
    COMPONENT_CLASSES: ClassVar[set[str]] = set(Look.names().values())
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_up", "Up a line", show=False, id="chat.up"),
        Binding("down", "scroll_down", "Down a line", show=False, id="chat.down"),
        Binding("pageup", "page_up", "Up a page", show=False, id="chat.page_up"),
        Binding("pagedown", "page_down", "Down a page", show=False, id="chat.page_down"),
        Binding("home", "scroll_home", "To the first message", show=False, id="chat.top"),
        Binding("end", "scroll_end", "Follow the answer", show=False, id="chat.follow"),
    ]

    DEFAULT_CSS = """
    Transcript {
        background: $background;
        color: $foreground;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        padding: 0 1 0 1;
        & .transcript--text { color: $foreground; }
        & .transcript--muted { color: $text-muted; }
        & .transcript--heading { color: $primary; text-style: bold; }
        & .transcript--link { color: $primary; text-style: underline; }
        & .transcript--quote { color: $secondary; }
        & .transcript--bullet { color: $primary; }
        & .transcript--rule { color: $foreground 30%; }
        & .transcript--code { color: $accent; background: $panel; }
        & .transcript--code-block { color: $foreground; background: $surface; }
        & .transcript--code-label { color: $text-muted; background: $surface; }
        & .transcript--code-keyword { color: $primary; background: $surface; }
        & .transcript--code-string { color: $success; background: $surface; }
        & .transcript--code-number { color: $warning; background: $surface; }
        & .transcript--code-comment { color: $text-muted; background: $surface; text-style: italic; }
        & .transcript--code-name { color: $accent; background: $surface; }
        & .transcript--user-bar { color: $accent; }
        & .transcript--user-title { color: $accent; text-style: bold; }
        & .transcript--assistant-title { color: $primary; text-style: bold; }
        & .transcript--notice { color: $text-muted; text-style: italic; }
        & .transcript--error { color: $error; }
        & .transcript--error-title { color: $error; text-style: bold; }
        & .transcript--error-bar { color: $error; }
        & .transcript--hint { color: $foreground; }
        & .transcript--more { color: $foreground; background: $panel; }
    }
    """

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._views: list[EntryView] = []
        self._tops: list[int] | None = None
        self._look: Look | None = None
        self._following = True
        self._place = _Place(0, 0, 0)
        self._top = 0  # the row of the log at the top of the screen
        self._placing = False
        self._painting = False
        self._width = 0
        self._pending: dict[str, list[str]] = {}
        self._timer: Timer | None = None
        self._flushed = 0.0  # when, on the monotonic clock
        self._pause = 0.0  # seconds until the next one
        self._bar: tuple[int, ...] = ()
        self._window: list[Row] = []  # the rows in view

    # What the screen tells it

    @property
    def following(self) -> bool:
        """Whether the end of the log stays in view as it grows."""
        return self._following

    @property
    def entries(self) -> list[Entry]:
        """What is shown, less the fragments that wait for the next flush."""
        return [view.entry for view in self._views]

    def show(self, entries: Iterable[Entry]) -> None:
        """Show another conversation, at its end."""
        self._drop_pending()
        self._views = [EntryView(entry, self._width, self._styles()) for entry in entries]
        self._following = True
        self._place = _Place(0, 0, 0)
        self._settle()

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self._views.append(EntryView(entry, self._width, self._styles()))
        self._settle()

    def stream(self, key: str, fragment: str) -> None:
        """Add to the text of an entry. Fragments are gathered and shown a few times a second."""
        if not fragment:
            return
        self._pending.setdefault(key, []).append(fragment)
        if self._timer is not None:
            return
        wait = self._flushed + self._pause - monotonic()
        if wait <= 0 or not self.is_attached:
            self._flush()
        else:
            self._timer = self.set_timer(wait, self._flush, name="transcript flush")

    def update(self, key: str, **changes: Any) -> None:
        """Change fields of an entry, such as its footer, or `streaming` when it is complete."""
        index = self._index(key)
        if index is None:
            return
        self._flush()
        view = self._views[index]
        view.change(replace(view.entry, **changes))
        self._settle()

    def drop(self, key: str) -> None:
        """Take an entry out."""
        index = self._index(key)
        if index is None:
            return
        self._pending.pop(key, None)
        del self._views[index]
        place = self._place
        if index < place.view:
            self._place = place._replace(view=place.view - 1)
        elif index == place.view:
            self._place = _Place(index, 0, 0)
        self._settle()

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._following = True
        self._settle()

    # Where the view is

    def _settle(self) -> None:
        """Make what is in view exact, keep its place, and paint."""
        if not self._width or not self.is_attached:
            return
        height = self.scrollable_content_region.height
        if not self._views:
            self._place = _Place(0, 0, 0)
        elif self._following:
            self._place = self._walk_up(self._end(), height)
        else:
            self._clamp()
            if not self._fills(height):
                self._place = self._walk_up(self._end(), height)
                self._following = True
        self._fills(height)
        self._put()

    def _clamp(self) -> None:
        """Bring the place back to rows that exist."""
        view = min(self._place.view, len(self._views) - 1)
        part = min(self._place.part, self._views[view].count - 1)
        row = min(self._place.row, max(0, self._views[view].part_height(part) - 1))
        self._place = _Place(view, part, row)

    def _end(self) -> _Place:
        """The place below the last row."""
        last = len(self._views) - 1
        part = self._views[last].count - 1
        return _Place(last, part, self._views[last].part_height(part))

    def _walk_up(self, place: _Place, rows: int) -> _Place:
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
                return _Place(0, 0, 0)
            row += self._views[view].part_height(part)
        return _Place(view, part, row)

    def _walk_down(self, place: _Place, rows: int) -> _Place:
        """The place so many rows lower, or the last one."""
        view, part, row = place
        row += rows
        while row >= (height := self._views[view].part_height(part)):
            if part < self._views[view].count - 1:
                part += 1
            elif view < len(self._views) - 1:
                view, part = view + 1, 0
                self._views[view].open()
            else:
                return _Place(view, part, height)
            row -= height
        return _Place(view, part, row)

    def _fills(self, height: int) -> bool:
        """Whether the log has so many rows from the place on. They become exact."""
        if not self._views:
            return False
        last = self._walk_down(self._place, height - 1)
        return last.row < self._views[last.view].part_height(last.part)

    def _heights(self) -> list[int]:
        """The first row of every entry, and the row below the last."""
        if self._tops is None:
            self._tops = list(accumulate((view.height for view in self._views), initial=0))
        return self._tops

    def _put(self) -> None:
        """Tell Textual where the view is, without a layout, and have what differs painted."""
        self._tops = None
        region = self.scrollable_content_region
        total = self._heights()[-1]
        if self._views:
            view = self._views[self._place.view]
            self._top = self._heights()[self._place.view] + view.top(self._place.part) + self._place.row
        else:
            self._top = 0
        size = Size(region.width, max(total, region.height))
        self.set_reactive(cast("Reactive[Size]", Widget.virtual_size), size)
        self._placing = True
        self.scroll_target_y = self.scroll_y = self._top
        self._placing = False
        self._close_far()
        self._draw_bar(total, region.height)
        self._paint(region.width, region.height)

    def _paint(self, width: int, height: int) -> None:
        """Compare the rows in view with those painted before, and refresh the ones that differ."""
        window = self._rows_in_view(height)
        if window and not self._following and any(view.entry.streaming for view in self._views):
            window[-1] = self._with_hint(window[-1], width)
        old, self._window = self._window, window
        if len(old) != len(window):
            self.refresh()
            return
        start = None
        for y in range(height + 1):
            same = y == height or window[y] is old[y] or window[y] == old[y]
            if not same and start is None:
                start = y
            elif same and start is not None:
                self.refresh(Region(0, start, width, y - start))
                start = None

    def _rows_in_view(self, height: int) -> list[Row]:
        """The rows from the place on, as many as the screen has."""
        rows: list[Row] = []
        view, part, row = self._place
        while view < len(self._views) and len(rows) < height:
            rows += self._views[view].rows(part)[row : row + height - len(rows)]
            row = 0
            part += 1
            if part >= self._views[view].count:
                view, part = view + 1, 0
        return rows + [_EMPTY] * (height - len(rows))

    def _with_hint(self, row: Row, width: int) -> Row:
        """The lowest row, with the way back to the end of the log at its right."""
        room = width - cells(MORE)
        if room < 0:
            return row
        strip = Strip(pad(row.segments, width_of(row.segments), width, self._styles().text), None).crop(0, room)
        return Row([*strip, Segment(MORE, self._styles().more)])

    def _draw_bar(self, total: int, height: int) -> None:
        """Move the scrollbar where that can be seen."""
        scale = 8 * height / max(1, total)
        bar = (height, round(height * scale), round(self._top * scale))
        if bar == self._bar or not self.show_vertical_scrollbar:
            return
        self._bar = bar
        scrollbar = self.vertical_scrollbar
        scrollbar.window_virtual_size = max(total, height)
        scrollbar.window_size = height
        scrollbar.position = self._top

    def _close_far(self) -> None:
        """Forget what was rendered for entries that are far from the view."""
        opened = [index for index, view in enumerate(self._views) if view.is_open]
        if len(opened) <= 2 * OPEN:
            return
        opened.sort(key=lambda index: abs(index - self._place.view))
        for index in opened[OPEN:]:
            if not self._views[index].entry.streaming:
                self._views[index].close()

    # What Textual asks and tells

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Take over a position that somebody else set: the scrollbar, or a selection that scrolls."""
        if self._placing or not self._views or round(new_value) == self._top:
            return
        self._scroll_rows(round(new_value) - self._top)

    def _scroll_rows(self, rows: int) -> None:
        """Move by rows: exactly for a short way, by the estimates for a long one."""
        if not self._views or not self._width:
            return
        height = self.scrollable_content_region.height
        if abs(rows) > 4 * height:
            target = max(0, min(self._top + rows, self._heights()[-1] - height))
            view = max(0, min(bisect_right(self._heights(), target) - 1, len(self._views) - 1))
            inside = target - self._heights()[view]
            part = self._views[view].part_at(inside)
            self._place = _Place(view, part, inside - self._views[view].top(part))
            self._clamp()
        elif rows < 0:
            self._place = self._walk_up(self._place, -rows)
        else:
            self._place = self._walk_down(self._place, rows)
        self._following = rows > 0 and not self._fills(height + 1)
        self._settle()

    def on_resize(self) -> None:
        """Lay out for another size; the row at the top stays about where it was."""
        width = self.scrollable_content_region.width
        self._restyle()
        if width != self._width:
            view, part, row = self._place
            old = self._views[view].part_height(part) if self._width and self._views else 1
            self._width = width
            for each in self._views:
                each.resize(width)
            if self._views:
                self._place = _Place(view, part, row * self._views[view].part_height(part) // max(1, old))
        self._window = []
        self._bar = ()
        self._settle()

    def on_unmount(self) -> None:
        """Leave no timer behind."""
        self._drop_pending()

    def notify_style_update(self) -> None:
        """Take the colours of another theme."""
        super().notify_style_update()
        if self._width:
            self._restyle()

    def _restyle(self) -> None:
        look = Look.of(self.get_component_rich_style)
        if look == self._look:
            return
        self._look = look
        for view in self._views:
            view.restyle(look)
        self._window = []
        self._settle()

    def _styles(self) -> Look:
        return self._look or _PLAIN

    def render_lines(self, crop: Region) -> list[Strip]:
        """Paint; see `render_line` for why this is noted."""
        self._painting = True
        try:
            return super().render_lines(crop)
        finally:
            self._painting = False

    def render_line(self, y: int) -> Strip:
        """One row of the screen.

        Textual asks for rows to paint them, and to find out which character the mouse is over; only
        then do the segments need to tell where they stand, which costs more than the rest.
        """
        look = self._styles()
        row = self._window[y] if y < len(self._window) else _EMPTY
        width = self.scrollable_content_region.width
        strip = Strip(pad(row.segments, width_of(row.segments), width, look.text)).adjust_cell_length(width, look.text)
        if not self._painting:
            return strip.apply_offsets(0, self._top + y)
        selection = self.text_selection
        span = selection.get_span(self._top + y) if selection is not None else None
        return strip if span is None else self._selected(strip, *span)

    # Selecting text

    @property
    def allow_select(self) -> bool:
        """Text can be selected with the mouse, although the log is a scrolling container."""
        return True

    def _selected(self, strip: Strip, start: int, end: int) -> Strip:
        """A row with the selected characters in the colours of the selection."""
        text = strip.text.rstrip()
        end = len(text) if end == -1 else min(end, len(text))
        start = max(start, MARGIN)
        if start >= end:
            return strip
        style = self.screen.get_component_rich_style("screen--selection")
        left, right = cells(text[:start]), cells(text[:end])
        before, inside, after = strip.divide([left, right, strip.cell_length])
        return Strip.join([before, Strip(Segment.apply_style(inside, None, style), right - left), after])

    def selection_updated(self, selection: Selection | None) -> None:
        """Paint what is selected now."""
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text without bars and margins, lines that were wrapped made whole again."""
        if not self._views:
            return None
        heights = self._heights()
        first = selection.start.y if selection.start is not None else 0
        last = selection.end.y if selection.end is not None else heights[-1] - 1
        text: list[str] = []
        for y in range(first, min(last, heights[-1] - 1) + 1):
            view = bisect_right(heights, y) - 1
            part = self._views[view].part_at(y - heights[view])
            rows = self._views[view].rows(part)
            offset = y - heights[view] - self._views[view].top(part)
            row = rows[offset] if offset < len(rows) else _EMPTY
            start, end = selection.get_span(y) or (0, 0)
            content = row.text
            text.append(content[max(MARGIN, start) : len(content) if end == -1 else end])
            text.append("\n" if row.joint is None else row.joint)
        return "".join(text[:-1]), "\n"

    # Keys and wheel

    def action_scroll_up(self) -> None:
        """Up one row."""
        self._scroll_rows(-1)

    def action_scroll_down(self) -> None:
        """Down one row."""
        self._scroll_rows(1)

    def action_page_up(self) -> None:
        """Up a page, less one row to keep the thread."""
        self._scroll_rows(1 - self.scrollable_content_region.height)

    def action_page_down(self) -> None:
        """Down a page, less one row."""
        self._scroll_rows(self.scrollable_content_region.height - 1)

    def action_scroll_home(self) -> None:
        """To the first message."""
        self._place = _Place(0, 0, 0)
        self._following = False
        self._settle()

    def action_scroll_end(self) -> None:
        """To the end, and stay there."""
        self.follow()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Up by the wheel, without animation."""
        event.stop()
        event.prevent_default()
        self._scroll_rows(-WHEEL)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Down by the wheel."""
        event.stop()
        event.prevent_default()
        self._scroll_rows(WHEEL)

    # Fragments

    def _flush(self) -> None:
        """Show the fragments that have gathered."""
        self._stop_timer()
        if not self._pending:
            return
        began = thread_time()
        pending, self._pending = self._pending, {}
        for key, fragments in pending.items():
            index = self._index(key)
            if index is not None:
                view = self._views[index]
                view.open()
                view.feed("".join(fragments))
        self._settle()
        self._pause = max(1 / FLUSHES, SHARE * (thread_time() - began))
        self._flushed = monotonic()

    def _drop_pending(self) -> None:
        self._pending.clear()
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _index(self, key: str) -> int | None:
        """Where the entry is: nearly always at the end."""
        for index in range(len(self._views) - 1, -1, -1):
            if self._views[index].entry.key == key:
                return index
        return None
