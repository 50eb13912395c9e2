"""A stop works in every phase, on engines that hang too; what came before it is kept."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llama_tui.chat.events import ChatEvent, TurnEnded, TurnGrew
from llama_tui.chat.workbench import Workbench
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import AnswerEvent, Message, Token
from llama_tui.errors import EngineDied
from llama_tui.paths import Paths
from llama_tui.settings.values import Value
from tests.engine.conftest import (
    HELLO,
    PATIENCE,
    collect,
    end_of,
    fake_llama_cpp,
    first,
    gone,
    load_params,
    ready,
    real_llama_cpp,
    text_of,
    until,
)
from tests.engine.desk import a_workbench, at_work, grown

ENDLESS: dict[str, Value] = {"ignore_eos": True}


def reached(hang: Path) -> Path:
    """The file that a hanging engine makes."""
    return hang.with_name("reached")


@pytest.fixture
def hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines that start now hang in llama_decode for as long as this file is there: their sockets
    answer, the abort flag is not looked at. The file `reached` beside it tells that one does."""
    hang = tmp_path / "hang"
    source = f"""
        import pathlib, time
        {real_llama_cpp()}
        from llama_cpp import llama_cpp
        decode = llama_cpp.llama_decode
        def llama_decode(*arguments):
            while pathlib.Path({str(hang)!r}).exists():
                pathlib.Path({str(reached(hang))!r}).touch()
                time.sleep(0.005)
            return decode(*arguments)
        llama_cpp.llama_decode = llama_decode
        """
    fake_llama_cpp(tmp_path / "hanging", source, monkeypatch)
    return hang


async def ended(engine: Engine, asked: asyncio.Task[list[AnswerEvent]]) -> None:
    """The engine was ended by the stop, and says so."""
    with pytest.raises(EngineDied, match="tiny did not stop within 1 s and was ended"):
        await asked
    await until(lambda: engine.condition == "died" and gone(engine.pid))


class TestFrozenProcess:
    async def stopped(self, engine: Engine, asked: asyncio.Task[list[AnswerEvent]]) -> None:
        os.kill(engine.pid, signal.SIGSTOP)
        await engine.cancel("g")
        await ended(engine, asked)

    async def test_while_loading(self, pool: Pool, tiny_model: Path, gate: Path) -> None:
        assert not gate.exists()
        engine = await pool.acquire("tiny", tiny_model, load_params())
        asked = asyncio.create_task(collect(engine.generate("g", HELLO, ENDLESS)))
        await until(lambda: engine.state and engine.state.queued == 1)
        await self.stopped(engine, asked)

    async def test_while_queued(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(n_ctx=65536)))
        before = asyncio.create_task(collect(engine.generate("before", HELLO, ENDLESS)))
        asked = asyncio.create_task(collect(engine.generate("g", HELLO, ENDLESS)))
        await until(lambda: engine.state and engine.state.queued == 1)
        await self.stopped(engine, asked)
        await asyncio.wait([before])
        assert isinstance(before.exception(), EngineDied)

    async def test_while_reading_the_prompt(self, pool: Pool, tiny_model: Path, hang: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        hang.touch()
        asked = asyncio.create_task(collect(engine.generate("g", HELLO, ENDLESS)))
        await until(reached(hang).exists)
        await self.stopped(engine, asked)

    async def test_while_generating(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(n_ctx=65536)))
        events = engine.generate("g", HELLO, ENDLESS)
        await first(events, Token)
        await self.stopped(engine, asyncio.create_task(collect(events)))


class TestHungDecode:
    async def test_is_ended_while_it_reads(self, pool: Pool, tiny_model: Path, hang: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        hang.touch()
        asked = asyncio.create_task(collect(engine.generate("g", HELLO, ENDLESS)))
        await until(reached(hang).exists)
        await engine.cancel("g")
        await ended(engine, asked)

    async def test_is_ended_while_it_generates(self, pool: Pool, tiny_model: Path, hang: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(n_ctx=65536)))
        events = engine.generate("g", HELLO, ENDLESS)
        await first(events, Token)
        hang.touch()
        asked = asyncio.create_task(collect(events))
        await until(reached(hang).exists)
        await engine.cancel("g")
        await ended(engine, asked)

    async def test_one_that_only_waits_leaves_the_queue_and_the_engine_lives(
        self, pool: Pool, tiny_model: Path, hang: Path
    ) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        hang.touch()
        running = asyncio.create_task(collect(engine.generate("running", HELLO, {"max_tokens": 2})))
        waiting = asyncio.create_task(collect(engine.generate("waiting", HELLO, ENDLESS)))
        await until(lambda: engine.state and engine.state.queued == 1)
        await engine.cancel("waiting")
        assert end_of(await waiting).reason == "cancelled"
        hang.unlink()
        assert end_of(await running).reason in ("length", "stop")
        assert engine.condition in ("ready", "busy")

    async def test_one_that_is_well_lives_on(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(n_ctx=65536)))
        for number in range(3):
            events = engine.generate(f"g{number}", HELLO, ENDLESS)
            seen = await first(events, Token)
            stopping = asyncio.create_task(engine.cancel(f"g{number}"))
            seen += await collect(events)
            await stopping
            assert end_of(seen).reason == "cancelled"
            assert text_of(seen)
        assert engine.alive
        assert engine.state


class TestSession:
    @pytest.fixture
    async def bench(self, paths: Paths, tiny_model: Path, hang: Path) -> AsyncIterator[Workbench]:
        async with at_work(a_workbench(paths, {"n_ctx": 65536, "ignore_eos": True}), tiny_model) as bench:
            yield bench

    async def test_keeps_what_came_and_says_what_happened(self, bench: Workbench, hang: Path) -> None:
        events: list[ChatEvent] = []
        begun = asyncio.Event()

        async def stop() -> None:
            await begun.wait()
            hang.touch()
            await until(reached(hang).exists)
            await bench.session.stop()

        stopping = asyncio.create_task(stop())
        async with asyncio.timeout(PATIENCE * 2):
            async for event in bench.send("hello"):
                events.append(event)
                if isinstance(event, TurnGrew):
                    begun.set()
        await stopping
        last = events[-1]
        shown = grown(events)
        assert isinstance(last, TurnEnded)
        turn = last.turn
        assert turn.ending == "cancelled"
        assert turn.content == shown != ""
        assert turn.trouble
        assert "did not stop within 1 s" in turn.trouble.message
        assert bench.session.answering is None
        assert bench.engine
        assert bench.engine.condition == "died"
        hang.unlink()
        again = await ready(await bench.load())
        assert end_of(await collect(again.generate("g", (Message("user", "x"),), {"max_tokens": 2})))
