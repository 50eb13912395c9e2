"""An engine that is killed, crashes or hangs, whatever it is doing: told, kept, and done again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from llama_tui.chat.events import ChatEvent, TurnGrew, TurnWaits
from llama_tui.chat.session import ChatSession
from llama_tui.chat.store import Store
from llama_tui.engine import engine as engine_module
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Token
from llama_tui.errors import EngineDied
from llama_tui.paths import Paths
from llama_tui.settings.params import sampling
from llama_tui.ui.widgets.loaded import LoadedPane
from llama_tui.ui.widgets.models import ModelRow
from tests.engine.conftest import HELLO, PATIENCE, answered, collect, first, gone, load_params, ready, until
from tests.engine.desk import ended, grown
from tests.ui.program import leave, program

SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGSTOP)
PATIENT = 3 * PATIENCE
ENDLESS = sampling({"temperature": 0.0, "ignore_eos": True, "max_tokens": 30000})


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped engine never answers: how long it is waited for is not what is tried here."""
    monkeypatch.setattr(engine_module, "_STOP_SECONDS", 0.5)
    monkeypatch.setattr(engine_module, "_HEED_SECONDS", 0.5)


class Victim:
    """A conversation with an engine of its own that gets a signal."""

    def __init__(self, pool: Pool, store: Store, model: Path, number: signal.Signals) -> None:
        self.pool, self.model, self.number = pool, model, number
        self.session = ChatSession(store)
        self.params = load_params(n_ctx=65536 - 256 * number)

    async def engine(self) -> Engine:
        return await self.pool.acquire("tiny", self.model, self.params)

    def send(self, text: str) -> AsyncGenerator[ChatEvent, None]:
        return self.session.send(text, "tiny", self.engine, ENDLESS)

    async def hurt(self) -> None:
        """Send the signal; an engine that only stands still is then stopped as a person does it."""
        os.kill((await self.engine()).pid, self.number)
        if self.number == signal.SIGSTOP:
            await self.session.stop()

    async def while_loading(self) -> list[ChatEvent]:
        task = asyncio.create_task(self.all(self.send("hello")))
        engine = await self.engine()
        await until(lambda: engine.state and engine.state.queued == 1, PATIENT)
        await self.hurt()
        return await task

    async def while_queued(self) -> list[ChatEvent]:
        other = (await self.engine()).generate("other", HELLO, ENDLESS)
        await first(other, Token)
        events: list[ChatEvent] = []
        async for event in self.send("hello"):
            events.append(event)
            if isinstance(event, TurnWaits) and event.doing.startswith("waiting"):
                await self.hurt()
        with pytest.raises(EngineDied, match=r"generating|did not stop"):
            await collect(other, PATIENT)
        return events

    async def while_prefilling(self) -> list[ChatEvent]:
        await ready(await self.engine())
        events: list[ChatEvent] = []
        async for event in self.send("z" * 48_000):
            if _reads(event) and not any(map(_reads, events)):
                await self.hurt()
            events.append(event)
        return events

    async def while_generating(self) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        hurt = False
        async for event in self.send("hello"):
            events.append(event)
            if not hurt and isinstance(event, TurnGrew) and event.n_tokens > 50:
                hurt = True
                await self.hurt()
        return events

    @staticmethod
    async def all(events: AsyncGenerator[ChatEvent, None]) -> list[ChatEvent]:
        return [event async for event in events]


def _reads(event: ChatEvent) -> bool:
    return isinstance(event, TurnWaits) and event.doing == "reading"


DOING = {
    "loading": "loading",
    "queued": "the request waited",
    "prefilling": "reading the prompt",
    "generating": "generating",
}


@pytest.mark.parametrize("phase", DOING)
async def test_an_answer_says_what_ended_it_and_keeps_what_came(
    phase: str, pool: Pool, store: Store, tiny_model: Path, gate: Path
) -> None:
    if phase != "loading":
        gate.touch()
    victims = [Victim(pool, store, tiny_model, number) for number in SIGNALS]
    async with asyncio.timeout(PATIENT):
        told = await asyncio.gather(*(getattr(victim, f"while_{phase}")() for victim in victims))
    gate.touch()
    for victim, events in zip(victims, told, strict=True):
        answer = ended(events)
        stopped = victim.number == signal.SIGSTOP
        assert answer.ending == ("cancelled" if stopped else "died"), (victim.number, answer)
        assert answer.content == grown(events)
        assert bool(answer.content) == (phase == "generating")
        assert answer.trouble
        words = "did not stop" if stopped else f"({victim.number.name}) while {DOING[phase]}"
        assert words in answer.trouble.message
        assert answer.trouble.hint
        assert store.load(victim.session.conversation.id).path()[-1] == answer
    await answered(await victims[0].engine())


async def test_at_rest_it_is_told_or_found_out(pool: Pool, store: Store, tiny_model: Path) -> None:
    victims = [Victim(pool, store, tiny_model, number) for number in SIGNALS]
    engines = await asyncio.gather(*(victim.engine() for victim in victims))
    for number, engine in zip(SIGNALS, engines, strict=True):
        os.kill((await ready(engine)).pid, number)
    for number, engine in zip(SIGNALS, engines, strict=True):
        if number == signal.SIGSTOP:
            assert engine.alive
            assert await engine.unload()
            assert engine.condition == "unloaded"
            assert gone(engine.pid)
            continue
        await until(lambda engine=engine: engine.condition == "died" and gone(engine.pid))
        assert engine.error
        assert number.name in engine.error.message
        assert engine.error.hint
    await answered(await victims[0].engine())


async def test_one_that_stands_still_is_shown_as_such_before_it_is_asked(
    paths: Paths, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_SILENT_SECONDS", 2.0)
    app = program(paths, str(tiny_model))
    async with app.run_test(size=(120, 40)):
        await until(lambda: (engine := app.workbench.engine) and engine.condition == "ready")
        engine = app.workbench.engine
        assert engine

        def shown() -> str:
            return str(app.main.query_one(LoadedPane).render())

        def row() -> ModelRow:
            return next(row for row in app.main.side.rows() if row.condition == "ready")

        await until(lambda: "tiny" in shown() and "not responding" not in shown())
        assert not row().silent
        os.kill(engine.pid, signal.SIGSTOP)
        await until(lambda: "not responding" in shown())
        assert row().silent
        assert engine.alive
        os.kill(engine.pid, signal.SIGCONT)
        await until(lambda: "not responding" not in shown())
        assert not row().silent
        await leave(app)
