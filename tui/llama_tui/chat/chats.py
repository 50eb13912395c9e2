"""The kept conversations, and the one that is shown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path

from llama_tui.chat.claims import Claims
from llama_tui.chat.conversation import Conversation, Turn
from llama_tui.chat.events import ChatEvent
from llama_tui.chat.session import ChatSession
from llama_tui.chat.store import Listed, Store
from llama_tui.engine.engine import Engine
from llama_tui.errors import StoreError


class Chats:
    """Owns the store, and the session of one conversation at a time; `begin` before anything else."""

    def __init__(self, database: Path, claims: Claims) -> None:
        self._database = database
        self._claims = claims
        self._store: Store | None = None
        self._session: ChatSession | None = None

    async def begin(self) -> list[StoreError]:
        """Open the store and the latest conversation. Returns what went wrong: what can be read is then
        kept in memory, or an empty conversation shown."""
        problems: list[StoreError] = []
        try:
            self._store = await asyncio.to_thread(Store, self._database)
        except StoreError as error:
            problems.append(error)
            self._store = await asyncio.to_thread(Store.copy_of, self._database)
        conversation = Conversation.new()
        try:
            if latest := await asyncio.to_thread(self._store.latest):
                conversation = await asyncio.to_thread(self._store.load, latest)
        except StoreError as error:
            problems.append(error)
        self._session = ChatSession(self._store, conversation, self._claims)
        return problems

    async def keep(self) -> None:
        """Save what could not be saved before."""
        if self._session and self._store:
            await self._session.keep()

    async def close(self) -> None:
        """Close the store."""
        store, self._store = self._store, None
        if store:
            await asyncio.to_thread(store.close)

    @property
    def session(self) -> ChatSession:
        """The session of the conversation that is shown."""
        assert self._session
        return self._session

    def new(self) -> None:
        """Begin an empty conversation; it is kept with its first message."""
        assert self._store
        self._session = ChatSession(self._store, claims=self._claims)

    async def show(self, id: str) -> None:
        """Show another conversation; raises `StoreError`."""
        assert self._store
        conversation = await asyncio.to_thread(self._store.load, id)
        self._session = ChatSession(self._store, conversation, self._claims)

    async def list(self) -> list[Listed]:
        """Every conversation, the latest first; raises `StoreError`."""
        assert self._store
        return await asyncio.to_thread(self._store.list)

    async def delete(self, id: str, *, restore: bool = False) -> None:
        """Take a conversation out of the list, or bring it back; raises `StoreError`."""
        assert self._store
        await asyncio.to_thread(self._store.restore if restore else self._store.delete, id)

    async def step_answer(self, by: int) -> bool:
        """Show the answer before or after among several; False where there is none."""
        session = self.session
        path = session.conversation.path()
        answer = next((turn for turn in reversed(path) if len(session.conversation.siblings(turn)) > 1), None)
        return answer is not None and await session.step(answer, by)

    async def resume(self, engine_of: Callable[[Turn], Awaitable[Engine | None]]) -> AsyncGenerator[ChatEvent, None]:
        """Fetch what engines went on writing after this conversation's program ended, and close
        the answers whose engine is gone."""
        session = self.session
        for turn in [turn for turn in session.conversation.turns if turn.role == "assistant" and not turn.ending]:
            async with contextlib.aclosing(session.resume_from(turn, partial(engine_of, turn))) as events:
                async for event in events:
                    yield event
