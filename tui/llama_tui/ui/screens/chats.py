"""Earlier conversations: open one, delete one, take that back."""

from __future__ import annotations

import datetime
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content

from llama_tui.chat.store import Listed
from llama_tui.chat.workbench import Workbench
from llama_tui.control import one_line
from llama_tui.errors import StoreError
from llama_tui.ui.bindings import KeyTable
from llama_tui.ui.screens.filtered import Entry, FilteredList
from llama_tui.ui.text import column

_TITLE_WIDTH = 44


class ChatList(FilteredList):
    """Answers with the id of the chosen conversation, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", id="chats.close"),
        Binding("ctrl+d", "delete", "delete", id="chats.delete", priority=True),
        Binding("ctrl+z", "restore", "undo", id="chats.restore", priority=True),
    ]

    def __init__(self, workbench: Workbench, keys: KeyTable) -> None:
        help = f"enter open · {keys.said('chats.delete', 'chats.restore', 'chats.close')}"
        super().__init__("Chats", hint="filter by title", nothing="no chats", help=help)
        self._workbench = workbench
        self._deleted: list[str] = []

    def on_mount(self) -> None:
        """Fetch the list."""
        self._fetch()

    @work(group="chats", exclusive=True)
    async def _fetch(self) -> None:
        try:
            chats = await self._workbench.chats.list()
        except StoreError as error:
            self.say(f"{error.message}\n{error.hint}")
        else:
            self.fill([Entry(chat.id, chat.title, _row(chat)) for chat in chats])

    async def action_delete(self) -> None:
        """Take the chat under the cursor out of the list."""
        if (chat := self.entry) and chat.key != self._workbench.conversation.id:
            if await self._change(chat.key, restore=False):
                self._deleted.append(chat.key)
                self.say(f"deleted “{one_line(chat.text)[:30]}”; it can be brought back")
        elif chat:
            self.say("that chat is open: begin another first")

    async def action_restore(self) -> None:
        """Bring back what was deleted last."""
        if self._deleted and await self._change(self._deleted[-1], restore=True):
            self._deleted.pop()
            self.say("brought back")

    async def _change(self, chat: str, *, restore: bool) -> bool:
        try:
            await self._workbench.chats.delete(chat, restore=restore)
        except StoreError as error:
            self.say(f"{error.message}\n{error.hint}")
            return False
        self._fetch()
        return True


def _row(chat: Listed) -> Content:
    title = one_line(chat.title) or "untitled"
    when = datetime.datetime.fromtimestamp(chat.updated).strftime("%Y-%m-%d %H:%M")
    return Content.assemble(column(title, _TITLE_WIDTH), (f" {chat.n_turns:>4}  {when}", "$text-muted"))
