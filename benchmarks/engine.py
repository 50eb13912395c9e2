"""A real engine with one client, as the program has it, and what takes how long there."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from llama_tui.engine.client import EngineClient
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Finished, Message, Started, Token
from llama_tui.paths import APP, Paths
from llama_tui.settings.params import PARAMS, defaults
from llama_tui.settings.values import Value

_LOAD_SECONDS = 300.0
_ORPHAN_SECONDS = 900.0
"""An engine whose benchmark was killed unloads itself after so long; none is left alone for longer meanwhile."""
_LETTERS = "0123456789"
"""Bytes that no merge of the benchmark's model joins: so many letters, so many tokens."""
DIGITS = "root ::= [0-9]+"
"""A grammar whose answers come back as the same tokens when they are part of a prompt."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer was, and how it came about."""

    text: str
    started: Started
    finished: Finished


@contextlib.asynccontextmanager
async def an_engine(model: Path, **load: Value) -> AsyncIterator[LoadedEngine]:
    """An engine in folders of its own, loaded; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="lt") as folder:
        paths = Paths(*(Path(folder) / name / APP for name in "cdsrk"))
        pool = Pool(paths, lambda _engine: None)
        params = defaults("load") | {"idle_timeout": _ORPHAN_SECONDS} | load
        try:
            engine = await pool.acquire("benchmark", model, params)
            async with asyncio.timeout(_LOAD_SECONDS):
                while engine.condition == "loading":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            if engine.error:
                raise engine.error
            yield LoadedEngine(engine, paths, model, params)
        finally:
            for engine in pool.engines:
                await engine.unload()
            await pool.close(unload=True)


class LoadedEngine:
    """Made by `an_engine`. Speeds are tokens per second, times seconds."""

    def __init__(self, engine: Engine, paths: Paths, model: Path, params: dict[str, Value]) -> None:
        self._engine = engine
        self._paths = paths
        self._model = model
        self._params = params
        self._names = (f"benchmark-{number}" for number in itertools.count())
        self._random = random.Random(0)
        self._around = 0

    async def measure_template(self) -> None:
        """Learn how many tokens the chat template puts around a prompt; to be called first."""
        self._around = (await self.answer(self._text(100), max_tokens=1)).started.prompt_tokens - 100

    def _text(self, tokens: int) -> str:
        digits = self._random.choices(_LETTERS, k=tokens)
        return "".join(" " if place % 5 == 4 else digit for place, digit in enumerate(digits))

    async def answer(self, text: str, *before: Message, **params: Value) -> Answer:
        """A whole greedy answer."""
        said: list[str] = []
        started: Started | None = None
        wanted = defaults("sampling") | {"temperature": 0.0, "ignore_eos": True} | params
        async for event in self._engine.generate(next(self._names), (*before, Message("user", text)), wanted):
            match event:
                case Started():
                    started = event
                case Token(text=stretch):
                    said.append(stretch)
                case Finished():
                    assert started
                    return Answer("".join(said), started, event)
                case _:
                    pass
        raise AssertionError("an answer without an end")

    async def prefill(self, count: int) -> float:
        """Speed of a prompt of so many tokens of which the KV cache holds next to nothing."""
        done = await self.answer(self._text(count - self._around), max_tokens=1)
        assert done.started.prompt_tokens == count, done.started
        return (count - done.started.reused_tokens) / done.finished.prefill_seconds

    async def whole_answer(self, count: int) -> tuple[float, float]:
        """Speed of so many tokens after next to none: by wall time, and by the CPU time of the
        engine's process, its side of the socket included."""
        process = psutil.Process(self._engine.pid)
        before = process.cpu_times()
        wall = await self.decode(count)
        after = process.cpu_times()
        return wall, count / (after.user + after.system - before.user - before.system)

    async def decode(self, count: int, depth: int = 0, **params: Value) -> float:
        """Speed of so many tokens after `depth` others (at least the chat template's)."""
        text = ("7777 " * depth)[: max(0, depth - self._around)]
        done = (await self.answer(text, max_tokens=count, **params)).finished
        assert done.completion_tokens == count, done
        assert done.tokens_per_second
        return done.tokens_per_second

    async def two_turns(self, tokens: int) -> tuple[Answer, Answer]:
        """A chat that begins with a prompt of so many tokens, and a short second message."""
        text = self._text(tokens)
        first = await self.answer(text, max_tokens=64, grammar=DIGITS)
        before = Message("user", text), Message("assistant", first.text)
        return first, await self.answer(self._text(20), *before, max_tokens=1)

    async def attach(self) -> float:
        """Time from the call to the engine's Welcome, by a program that has no connection yet."""
        pool = Pool(self._paths, lambda _engine: None)
        began = time.perf_counter()
        engine = await pool.acquire("benchmark", self._model, self._params)
        seconds = time.perf_counter() - began
        assert not engine.started_here
        await pool.close(unload=False)
        return seconds

    async def run_command(self) -> float:
        """Time from the start of `llama-tui run` to the first byte of its answer."""
        variables = {
            "HOME": str(self._paths.config.parent),
            "XDG_CONFIG_HOME": str(self._paths.config.parent),
            "XDG_DATA_HOME": str(self._paths.data.parent),
            "XDG_STATE_HOME": str(self._paths.state.parent),
            "XDG_RUNTIME_DIR": str(self._paths.runtime.parent),
        }
        flags = [
            f"{param.flag}={param.format(self._params[param.name])}"
            for param in PARAMS
            if param.reload and self._params[param.name] != param.default
        ]
        words = ["-m", "llama_tui", "run", str(self._model), "7", "--max-tokens=1", *flags]
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **variables},
        )
        assert process.stdout
        await process.stdout.read(1)
        seconds = time.perf_counter() - began
        await process.communicate()
        assert process.returncode == 0
        return seconds

    async def cancel_while_decoding(self) -> float:
        """Time from the request to the engine's word that it has stopped."""
        return await self._cancel(self._text(100), Token)

    async def cancel_in_prefill(self, tokens: int) -> float:
        """The same at some moment of a long prompt's prefill."""
        return await self._cancel(self._text(tokens), Started, self._random.uniform(0.05, 0.6))

    async def _cancel(self, text: str, after: type[Token] | type[Started], seconds: float = 0.0) -> float:
        name = next(self._names)
        client = await EngineClient.connect(self._engine.place.socket)
        wanted = defaults("sampling") | {"temperature": 0.0, "ignore_eos": True}
        async with contextlib.aclosing(client.generate(name, (Message("user", text),), wanted)) as events:
            async for event in events:
                if isinstance(event, after):
                    break
            await asyncio.sleep(seconds)
            asked = time.perf_counter()
            stopping = asyncio.create_task(client.cancel(name))
            async for event in events:
                if isinstance(event, Finished):
                    assert event.reason == "cancelled", event
            taken = time.perf_counter() - asked
            await stopping
        await client.close()
        return taken
