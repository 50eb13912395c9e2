"""Earlier conversations: open one, delete one, take that back."""

from __future__ import annotations

import datetime
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from llama_tui.chat.store import Listed
from llama_tui.chat.workbench import Workbench
from llama_tui.control import one_line, sanitize
from llama_tui.errors import StoreError
from llama_tui.ui.bindings import KeyTable
from llama_tui.ui.screens.overlay import Overlay

_TITLE_WIDTH = 44


class ChatList(Overlay[str | None]):
    """Answers with the id of the chosen conversation, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", id="chats.close"),
        Binding("ctrl+d", "delete", "delete", id="chats.delete", priority=True),
        Binding("ctrl+z", "restore", "undo", id="chats.restore", priority=True),
        Binding("down", "move(1)", show=False),
        Binding("up", "move(-1)", show=False),
    ]

    def __init__(self, workbench: Workbench, keys: KeyTable) -> None:
        super().__init__()
        self._help = f"enter open · {keys.said('chats.delete', 'chats.restore', 'chats.close')}"
        self._workbench = workbench
        self._all: list[Listed] = []
        self._shown: list[Listed] = []
        self._deleted: list[str] = []

    def compose(self) -> ComposeResult:
        """A filter, the list, the keys."""
        with Vertical(classes="overlay") as box:
            box.border_title = "Chats"
            yield Input(placeholder="filter by title", compact=True)
            yield OptionList(markup=False)
            yield Static(self._help, classes="keys", markup=False)

    def on_mount(self) -> None:
        """Fetch the list."""
        self.query_one(OptionList).can_focus = False
        self._fetch()

    @work(group="chats", exclusive=True)
    async def _fetch(self) -> None:
        try:
            self._all = await self._workbench.chats.list()
        except StoreError as error:
            self.query_one(".keys", Static).update(sanitize(f"{error.message}\n{error.hint}"))
        self._show()

    def _show(self) -> None:
        words = self.query_one(Input).value.lower().split()
        self._shown = [chat for chat in self._all if all(word in chat.title.lower() for word in words)]
        options = self.query_one(OptionList)
        at = options.highlighted or 0
        options.clear_options()
        options.add_options([Option(_row(chat)) for chat in self._shown])
        options.highlighted = min(at, len(self._shown) - 1) if self._shown else None
        if not self._shown:
            options.add_option(Option(Content.styled("no chats", "$text-muted"), disabled=True))

    @on(Input.Changed)
    def _filter(self, event: Input.Changed) -> None:
        event.stop()
        self._show()

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _open(self) -> None:
        if chat := self._chat:
            self.dismiss(chat.id)

    @property
    def _chat(self) -> Listed | None:
        at = self.query_one(OptionList).highlighted
        return self._shown[at] if at is not None and at < len(self._shown) else None

    def action_move(self, by: int) -> None:
        """Move the cursor while the filter has the focus."""
        options = self.query_one(OptionList)
        if by > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def action_close(self) -> None:
        """Stay where we are."""
        self.dismiss(None)

    async def action_delete(self) -> None:
        """Take the chat under the cursor out of the list."""
        if (chat := self._chat) and chat.id != self._workbench.conversation.id:
            if await self._change(chat.id, restore=False):
                self._deleted.append(chat.id)
                self._say(f"deleted “{one_line(chat.title)[:30]}”; it can be brought back")
        elif chat:
            self._say("that chat is open: begin another first")

    async def action_restore(self) -> None:
        """Bring back what was deleted last."""
        if self._deleted and await self._change(self._deleted[-1], restore=True):
            self._deleted.pop()
            self._say("brought back")

    async def _change(self, chat: str, *, restore: bool) -> bool:
        try:
            await self._workbench.chats.delete(chat, restore=restore)
        except StoreError as error:
            self._say(f"{error.message}\n{error.hint}")
            return False
        self._fetch()
        return True

    def _say(self, text: str) -> None:
        self.query_one(".keys", Static).update(f"{sanitize(text)}\n{self._help}" if text else self._help)


def _row(chat: Listed) -> Content:
    title = one_line(chat.title) or "untitled"
    if len(title) > _TITLE_WIDTH:
        title = title[: _TITLE_WIDTH - 1] + "…"
    when = datetime.datetime.fromtimestamp(chat.updated).strftime("%Y-%m-%d %H:%M")
    return Content.assemble(title.ljust(_TITLE_WIDTH), (f" {chat.n_turns:>4}  {when}", "$text-muted"))
