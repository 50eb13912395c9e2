"""Conversations with an engine, and what the tests look at in them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from llama_tui.chat.conversation import Turn
from llama_tui.chat.events import ChatEvent, TurnEnded, TurnGrew
from llama_tui.chat.session import ChatSession
from llama_tui.chat.store import Store
from llama_tui.chat.workbench import Workbench
from llama_tui.engine.devices import Machine
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.errors import NoRoom
from llama_tui.paths import Paths
from llama_tui.settings.params import sampling
from llama_tui.settings.store import SettingsStore
from llama_tui.settings.values import Value
from tests.engine.conftest import PATIENCE, load_params

PARAMS = sampling({"temperature": 0.0, "max_tokens": 40})


class Desk:
    """A session with a model, and what is needed to look at what it keeps."""

    def __init__(self, pool: Pool, store: Store, paths: Paths, model: Path) -> None:
        self.session = ChatSession(store)
        self._pool, self._paths, self._model = pool, paths, model

    async def engine(self) -> Engine:
        return await self._pool.acquire("tiny", self._model, load_params(n_ctx=65536))

    def send(self, text: str, params: dict[str, Value] = PARAMS) -> AsyncGenerator[ChatEvent, None]:
        return self.session.send(text, "tiny", self.engine, params)

    def retry(self, params: dict[str, Value] = PARAMS) -> AsyncGenerator[ChatEvent, None]:
        return self.session.retry("tiny", self.engine, params)

    def kept(self) -> list[Turn]:
        """The path as another program would find it in the store."""
        return kept(self._paths, self.session.conversation.id)


def kept(paths: Paths, id: str) -> list[Turn]:
    """The path of a conversation as another program would find it in the store."""
    with contextlib.closing(Store(paths.database)) as other:
        return other.load(id).path()


async def everything(events: AsyncGenerator[ChatEvent, None]) -> list[ChatEvent]:
    """All events of an answer."""
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(events):
        return [event async for event in events]


def grown(events: list[ChatEvent]) -> str:
    """The text that was shown while it came."""
    return "".join(event.text for event in events if isinstance(event, TurnGrew))


def ended(events: list[ChatEvent]) -> Turn:
    """The answer, as it ended."""
    last = events[-1]
    assert isinstance(last, TurnEnded), last
    return last.turn


def a_workbench(paths: Paths, flags: dict[str, Value] | None = None) -> Workbench:
    """A program's workbench, not yet open; its models all fit."""
    settings = SettingsStore(paths, {}, {"n_threads": 1, **({"max_tokens": 60} if flags is None else flags)})
    return Workbench(paths, settings, lambda: None, _nobody_chooses, Machine())


async def _nobody_chooses(error: NoRoom) -> None:
    raise AssertionError(error.message)


@contextlib.asynccontextmanager
async def at_work(bench: Workbench, model: Path) -> AsyncIterator[Workbench]:
    """Opened with a model; its engines end with it."""
    assert await bench.open(str(model)) == []
    yield bench
    for engine in bench.engines:
        await engine.unload()
    await bench.close(unload=True)
