"""The line below the chat log in which a text is typed that is looked for in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from llama_tui.control import one_line
from llama_tui.ui.bindings import actions_of
from llama_tui.ui.finder import Finder
from llama_tui.ui.passage import AHEAD
from llama_tui.ui.widgets.transcript import Transcript

SLICE = 0.004
"""Seconds of searching, and of leaving the processor to the keys and the answer, in turn."""

SAID = 0.25
"""Seconds between two counts that are shown."""

AGAIN = 0.25
"""Seconds after which an answer that grows is searched again."""


class FindField(Input):
    """The text; its keys go from match to match."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "go(1)", "next match", id="find.next"),
        Binding("shift+enter,up", "go(-1)", "match before", id="find.previous"),
        Binding("pageup", "page(-1)", "page up in the chat", show=False, id="find.page_up"),
        Binding("pagedown", "page(1)", "page down in the chat", show=False, id="find.page_down"),
        Binding("escape", "leave", "close, and stay there", id="find.close"),
    ]

    class Left(Message):
        """Nothing is looked for any more."""

    @dataclass
    class Went(Message):
        """To another match: 1 for the next, -1 for the one before."""

        by: int

    @dataclass
    class PageTurned(Message):
        """The user wants to see another page of the log: -1 for up, 1 for down."""

        pages: int

    def __init__(self, keymap: Mapping[str, str]) -> None:
        """`keymap` gives other keys to bindings, by their id."""
        super().__init__(placeholder="find in the chat", compact=True, max_length=AHEAD, select_on_focus=False)
        self.cursor_blink = False
        self._actions = actions_of(self.BINDINGS, keymap)

    async def _on_key(self, event: events.Key) -> None:
        """Act on a key of ours here and now, after the letters that were typed before it."""
        if action := self._actions.get(event.key):
            event.stop()
            event.prevent_default()
            await self.run_action(action)
        else:
            await super()._on_key(event)

    def _on_paste(self, event: events.Paste) -> None:
        """One line of it, as long as can be looked for."""
        event.stop()
        event.prevent_default()
        self.replace(one_line(event.text[:AHEAD]), *self.selection)

    def action_go(self, by: int) -> None:
        """To the next match, or the one before."""
        self.post_message(self.Went(by))

    def action_page(self, pages: int) -> None:
        """Let the log scroll."""
        self.post_message(self.PageTurned(pages))

    def action_leave(self) -> None:
        """Look for nothing any more."""
        self.post_message(self.Left())


class FindBar(Horizontal):
    """The field, and which of how many matches is in view. Searches in slices while it is open."""

    def __init__(self, transcript: Transcript, keymap: Mapping[str, str]) -> None:
        super().__init__()
        self._transcript = transcript
        self._keymap = keymap
        self._finder: Finder | None = None
        self._back: Widget | None = None  # what had the focus before
        self._said_at = 0.0

    def compose(self) -> ComposeResult:
        """A word, the field, the count."""
        yield Static("find ", classes="label")
        yield FindField(self._keymap)
        yield Static("", classes="count", markup=False)

    def on_mount(self) -> None:
        """Not before it is asked for."""
        self.display = False

    @property
    def field(self) -> FindField:
        """Where the text is typed."""
        return self.query_one(FindField)

    @property
    def count(self) -> str:
        """What is said of the matches."""
        return str(self.query_one(".count", Static).content)

    def open(self) -> None:
        """Begin, or type another text."""
        if self._finder is None:
            self._back = self.screen.focused
            self._finder = Finder(self._transcript.chat_log)
            self._transcript.chat_log.marker = self._finder.mark
            self.display = True
        self.screen.set_focus(self.field)  # at once: letters may follow
        self.field.action_select_all()

    def close(self) -> None:
        """Look for nothing any more; the view stays where it is."""
        if self._finder is None:
            return
        self._finder = None
        log = self._transcript.chat_log
        log.marker, log.held = None, False
        self.field.value = ""
        self.display = False
        if self.field.has_focus:
            self.screen.set_focus(self._back if self._back and self._back.focusable else None)
        self._transcript.settle()

    @on(Input.Changed)
    def _seek(self, event: Input.Changed) -> None:
        event.stop()
        if self._finder is None:
            return
        self._finder.seek(event.value)
        self._transcript.settle()
        self._search()

    @on(FindField.Went)
    def _go(self, event: FindField.Went) -> None:
        event.stop()
        if self._finder is None:
            return
        before = self._finder.current
        self._finder.go(event.by)
        if self._finder.current != before:
            self._show()
        self._tell()
        if self._finder.busy:
            self._search()

    @on(FindField.Left)
    def _leave(self, event: FindField.Left) -> None:
        event.stop()
        self.close()

    @on(FindField.PageTurned)
    def _turn_page(self, event: FindField.PageTurned) -> None:
        event.stop()
        self._transcript.page(event.pages)

    def search_again(self) -> None:
        """The log is another; an answer that grows is searched a few times a second."""
        if self._finder and not self._finder.stale:
            self._finder.stale = True
            self._search()

    @work(group="find", exclusive=True)
    async def _search(self) -> None:
        """Search by and by, and show the current match as soon as there is one."""
        finder = self._finder
        while finder and finder is self._finder and (finder.busy or finder.stale):
            if not finder.busy:
                await asyncio.sleep(AGAIN)
                finder.again()
            if finder.step(SLICE):
                self._show()
            if monotonic() - self._said_at > SAID:
                self._tell()
            await asyncio.sleep(SLICE)
        self._tell()

    def _show(self) -> None:
        if self._finder:
            self._finder.show()
            self._transcript.settle()

    def _tell(self) -> None:
        """Say where the current match is; it has a colour of its own if there is none."""
        finder = self._finder
        if finder is None:
            return
        self._said_at = monotonic()
        if not finder.sought:
            said = ""
        elif finder.busy:
            said = f"{finder.total:,} so far …"
        elif finder.current is None:
            said = "no match"
        else:
            around = f"back at the {'top' if finder.wrapped > 0 else 'end'} · " if finder.wrapped else ""
            said = f"{around}{finder.number:,} of {finder.total:,}"
        count = self.query_one(".count", Static)
        if said != self.count:
            count.set_class(said == "no match", "-none")
            count.update(said, layout=False)
