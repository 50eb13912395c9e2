"""What of a conversation is in the store, and what is still to be saved."""

from __future__ import annotations

import asyncio
import contextlib

from llama_tui.chat.conversation import Conversation, Turn
from llama_tui.chat.events import NotKept
from llama_tui.chat.growth import Grown
from llama_tui.chat.store import Store
from llama_tui.errors import StoreError


class Keeper:
    """Saves one conversation. What the store refuses is tried again with whatever is saved next."""

    def __init__(self, store: Store, conversation: Conversation) -> None:
        self._store = store
        self._conversation = conversation
        self._unsaved: dict[str, Turn | Grown] = {}
        self._saved: dict[str, tuple[int, int]] = {}  # characters of the texts of each turn
        self._unkept = False

    async def keep(self, *turns: Turn | Grown) -> NotKept | None:
        """Save, and with it what could not be saved before; a store that goes on failing is told of once.
        Between two calls the texts of a turn only get longer."""
        self._unsaved |= {turn.id: turn for turn in turns}
        pending = tuple(self._unsaved.values())
        lengths = {turn.id: (len(turn.content), len(turn.reasoning)) for turn in pending}
        try:
            await asyncio.to_thread(self._store.save, self._conversation, *pending, saved=self._saved)
        except StoreError as error:
            told, self._unkept = self._unkept, True
            return None if told else NotKept(error)
        for turn in pending:
            if self._unsaved.get(turn.id) is turn:
                del self._unsaved[turn.id]
        self._saved |= lengths
        self._unkept = False
        return None

    async def keep_rest(self) -> None:
        """Save once more what could not be saved before."""
        if self._unsaved:
            await self.keep()

    def keep_at_once(self, turn: Turn) -> None:
        """Save without awaiting anything, for a program that is ending."""
        self._unsaved[turn.id] = turn
        with contextlib.suppress(StoreError):
            self._store.save(self._conversation, *self._unsaved.values(), saved=self._saved)

    async def remove(self, *turns: Turn) -> None:
        """Take turns out of the store, and save them no more."""
        for turn in turns:
            self._unsaved.pop(turn.id, None)
            self._saved.pop(turn.id, None)
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self._store.remove, self._conversation, *turns)

    async def stored(self, turn: Turn) -> Turn | None:
        """A turn as it is in the store now, where another program may have changed it; None where it is not
        to be had."""
        try:
            return await asyncio.to_thread(self._store.turn, turn.id)
        except StoreError:
            return None

    async def adopt_others(self) -> bool:
        """Take in what other programs have added to this conversation; whether there was any."""
        try:
            added = await asyncio.to_thread(self._store.added, self._conversation)
        except StoreError:
            return False
        for turn in added:
            self._conversation.replace(turn)
        return bool(added)
