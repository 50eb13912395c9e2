"""The chat log: one widget that paints rows, whatever the number and the length of the messages.

It holds view state only. `Log` knows which rows are in view; this is what ties it to the screen,
the keys and the clock. Rows that have not changed are not painted again, and nothing here makes
Textual lay out the screen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, cast

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from llama_tui.ui.entry import Entry
from llama_tui.ui.fragments import Fragments
from llama_tui.ui.log import Log
from llama_tui.ui.look import Look
from llama_tui.ui.selecting import selected_text, with_selection
from llama_tui.ui.text import Row, cells, pad, width_of

__all__ = ["Entry", "Transcript"]

WHEEL = 3
"""Rows for one step of the mouse's wheel."""

MORE = " ↓ more below · end follows "

_EMPTY = Row([])


class Transcript(ScrollView, can_focus=True, inherit_bindings=False):
    """The messages of a conversation, and what else belongs between them."""

    ALLOW_MAXIMIZE = False
    BLANK = False
    COMPONENT_CLASSES: ClassVar[set[str]] = set(Look.names().values())
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "scroll_up", "up a line", id="chat.up"),
        Binding("down", "scroll_down", "down a line", id="chat.down"),
        Binding("pageup", "page_up", "up a page", id="chat.page_up"),
        Binding("pagedown", "page_down", "down a page", id="chat.page_down"),
        Binding("home", "scroll_home", "to the first message", id="chat.top"),
        Binding("end", "scroll_end", "follow the answer", id="chat.follow"),
    ]

    class Changed(Message):
        """Something else is to be searched."""

    DEFAULT_CSS = """
    Transcript {
        background: $background;
        color: $foreground;
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        padding: 0 0 0 1;
        & .transcript--text { color: $foreground; }
        & .transcript--muted { color: $text-muted; }
        & .transcript--heading { color: $primary; text-style: bold; }
        & .transcript--link { color: $primary; text-style: underline; }
        & .transcript--quote { color: $secondary; }
        & .transcript--bullet { color: $primary; }
        & .transcript--rule { color: $border-blurred; }
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
        & .transcript--found { color: $background; background: $warning; }
        & .transcript--found-now { color: $background; background: $accent; text-style: bold underline; }
        & .transcript--hint { color: $foreground; }
        & .transcript--more { color: $foreground; background: $panel; }
    }
    """

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._log = Log()
        self._look: Look | None = None
        self._restyled = True  # the styles may have changed since the look was made
        self._window: list[Row] = []  # the rows in view, as they were painted
        self._bar: tuple[int, ...] = ()  # what the scrollbar shows
        self._placing = False
        self._painting = False
        self._fragments = Fragments()
        self._timer: Timer | None = None

    # What the screen tells it

    @property
    def chat_log(self) -> Log:
        """The entries as rows, and the place of the view; `settle` shows what was changed of them."""
        return self._log

    @property
    def following(self) -> bool:
        """Whether the end of the log stays in view as it grows."""
        return self._log.following

    @property
    def entries(self) -> list[Entry]:
        """What is shown, less the fragments that wait for the next flush."""
        return self._log.entries

    def show(self, entries: Iterable[Entry]) -> None:
        """Show another conversation, at its end."""
        self._fragments.clear()
        self._log.show(entries)
        self._changed()

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self._log.append(entry)
        self._changed()

    def insert(self, entry: Entry, before: str) -> None:
        """Put an entry before the one of that key."""
        self._log.insert(entry, before)
        self._changed()

    def stream(self, key: str, fragment: str) -> None:
        """Add to the text of an entry. Fragments are gathered and shown a few times a second."""
        self._gather(key, text=fragment)

    def think(self, key: str, fragment: str) -> None:
        """Add to the thought of an entry, as `stream` does to its text."""
        self._gather(key, thought=fragment)

    def _gather(self, key: str, text: str = "", thought: str = "") -> None:
        if not text and not thought:
            return
        self._fragments.add(key, text, thought)
        if self._timer is not None:
            return
        wait = self._fragments.seconds_left()
        if wait <= 0 or not self.is_attached:
            self._flush()
        else:
            self._timer = self.set_timer(wait, self._flush, name="transcript flush")

    def update(self, key: str, **changes: Any) -> None:
        """Change fields of an entry, such as its footer, or `streaming` when it is complete."""
        self._flush()
        self._log.update(key, changes)
        self._changed()

    def drop(self, key: str) -> None:
        """Take an entry out."""
        self._fragments.drop(key)
        self._log.drop(key)
        self._changed()

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._log.following = True
        self.settle()

    def to_question(self, by: int) -> None:
        """Go to the next question below the top of the view, or to the one before."""
        self._log.to_question(by)
        self.settle()

    def page(self, pages: int) -> None:
        """Scroll by pages, each less one row to keep the thread; negative is up."""
        self._scroll_rows(pages * max(1, self._log.height - 1))

    def _flush(self) -> None:
        """Show the fragments that have gathered."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._fragments.flush(self._log, self._changed)

    def _scroll_rows(self, rows: int) -> None:
        self._log.scroll(rows)
        self.settle()

    # What is painted

    def _changed(self) -> None:
        """Show what has changed, and say so to whom searches in it."""
        self.settle()
        if self._log.marker:
            self.post_message(self.Changed())

    def settle(self) -> None:
        """Bring the view in order, tell Textual where it is, and have what differs painted."""
        log = self._log
        if not log.height or not self.is_attached:
            return
        log.settle()
        width = self.scrollable_content_region.width
        total = max(log.tops[-1], log.height)
        # Not by assignment: that would lay out the whole screen for every row that is added.
        self.set_reactive(cast("Reactive[Size]", Widget.virtual_size), Size(width, total))
        self._placing = True
        self.scroll_target_y = self.scroll_y = log.top
        self._placing = False
        self._draw_bar(total, log.height)
        self._paint(width, log.height)

    def _draw_bar(self, total: int, height: int) -> None:
        """Move the scrollbar, where that can be seen: it knows eighths of a row."""
        scale = 8 * height / total
        bar = (height, round(height * scale), round(self._log.top * scale))
        if bar == self._bar or not self.show_vertical_scrollbar:
            return
        self._bar = bar
        self.vertical_scrollbar.window_virtual_size = total
        self.vertical_scrollbar.window_size = height
        self.vertical_scrollbar.position = self._log.top

    def _paint(self, width: int, height: int) -> None:
        """Compare the rows in view with those painted before, and refresh the ones that differ."""
        window = self._log.rows_in_view()
        window += [_EMPTY] * (height - len(window))
        if not self._log.following and self._log.streaming:
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

    def _with_hint(self, row: Row, width: int) -> Row:
        """The lowest row, with the way back to the end of the log at its right."""
        room = width - cells(MORE)
        if room < 0 or self._look is None:
            return row
        strip = Strip(pad(row.segments, width_of(row.segments), width, self._look.text)).crop(0, room)
        return Row([*strip, Segment(MORE, self._look.more)])

    def render_lines(self, crop: Region) -> list[Strip]:
        """Paint; see `render_line` for why this is noted."""
        if self._restyled:
            self._restyle()
        self._painting = True
        try:
            return super().render_lines(crop)
        finally:
            self._painting = False

    def render_line(self, y: int) -> Strip:
        """One row of the screen.

        Textual asks for rows to paint them, and to find out which character the mouse is over; only
        then do the segments need to tell where they stand, which costs more than all the rest.
        """
        row = self._window[y] if y < len(self._window) else _EMPTY
        width = self.scrollable_content_region.width
        style = self._look.text if self._look is not None else self.rich_style
        strip = Strip(pad(row.segments, width_of(row.segments), width, style)).adjust_cell_length(width, style)
        y += self._log.top
        if not self._painting:
            return strip.apply_offsets(0, y)
        selection = self.text_selection
        span = selection.get_span(y) if selection is not None else None
        if span is None:
            return strip
        return with_selection(strip, *span, self.screen.get_component_rich_style("screen--selection"))

    # What Textual tells

    def on_resize(self) -> None:
        """Lay out for another size."""
        region = self.scrollable_content_region
        self._restyle()
        self._log.resize(max(1, region.width - 1), region.height)  # a column of air before the scrollbar
        self._window = []
        self._bar = ()
        self._changed()

    def notify_style_update(self) -> None:
        """Note that the theme may be another. The component classes have its colours only later."""
        super().notify_style_update()
        self._restyled = True
        self.refresh()

    def _restyle(self) -> None:
        """Take the colours of the theme, if they are others than before."""
        self._restyled = False
        look = Look.of(self.get_component_rich_style)
        if look != self._look:
            self._look = look
            self._log.restyle(look)
            self._window = []
            self.settle()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Take over a position that somebody else set: the scrollbar, or a selection that scrolls."""
        if self._log.height != self.scrollable_content_region.height:
            return  # a resize moves the container first; on_resize puts the log where it belongs
        if not self._placing and round(new_value) != self._log.top:
            self._scroll_rows(round(new_value) - self._log.top)

    # Selecting text

    @property
    def allow_select(self) -> bool:
        """Text can be selected with the mouse, although this scrolls as a container does."""
        return True

    def selection_updated(self, selection: Selection | None) -> None:
        """Paint what is selected now."""
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text, and what ends it where more text follows from elsewhere."""
        return selected_text(self._log, selection), "\n"

    # Keys and wheel, all without animation

    def action_scroll_up(self) -> None:
        """Up one row."""
        self._scroll_rows(-1)

    def action_scroll_down(self) -> None:
        """Down one row."""
        self._scroll_rows(1)

    def action_page_up(self) -> None:
        """Up a page."""
        self.page(-1)

    def action_page_down(self) -> None:
        """Down a page."""
        self.page(1)

    def action_scroll_home(self) -> None:
        """To the first message."""
        self._log.to_start()
        self.settle()

    def action_scroll_end(self) -> None:
        """To the end, and stay there."""
        self.follow()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Up by the wheel."""
        event.stop()
        event.prevent_default()
        self._scroll_rows(-WHEEL)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Down by the wheel."""
        event.stop()
        event.prevent_default()
        self._scroll_rows(WHEEL)
