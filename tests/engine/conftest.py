"""Real engines for the tests: a pool of their own each, or one engine that a whole module shares."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from llama_tui.chat.store import Store
from llama_tui.engine.client import EngineClient
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import AnswerEvent, Finished, Message, Token
from llama_tui.paths import Paths
from llama_tui.settings.params import defaults
from llama_tui.settings.values import Value

PATIENCE = 60.0
"""Seconds that anything may take on a busy machine before a test gives up."""

GREEDY: dict[str, Value] = {"temperature": 0.0}

HELLO = (Message("user", "hello there"),)


def load_params(**changes: Value) -> dict[str, Value]:
    """The load parameters of a test's engine, which saves no KV state unless it is told to."""
    return defaults("load") | {"n_threads": 1, "n_ctx": 1024, "kv_state_size": 0.0} | changes


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError("it never came true") from None


async def collect(events: AsyncGenerator[AnswerEvent, None], seconds: float = PATIENCE) -> list[AnswerEvent]:
    """All events of an answer."""
    async with asyncio.timeout(seconds), contextlib.aclosing(events):
        return [event async for event in events]


async def first(events: AsyncGenerator[AnswerEvent, None], kind: type[AnswerEvent]) -> list[AnswerEvent]:
    """The events up to the first of a kind; the rest can still be had."""
    seen: list[AnswerEvent] = []
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            seen.append(event)
            if isinstance(event, kind):
                return seen
    raise AssertionError(f"no {kind.__name__} among {seen}")


def text_of(events: list[AnswerEvent]) -> str:
    """The text of an answer, without its reasoning."""
    return "".join(event.text for event in events if isinstance(event, Token) and event.kind == "answer")


def reasoning_of(events: list[AnswerEvent]) -> str:
    """What the model thought before it answered."""
    return "".join(event.text for event in events if isinstance(event, Token) and event.kind == "reasoning")


def end_of(events: list[AnswerEvent]) -> Finished:
    """How an answer ended."""
    last = events[-1]
    assert isinstance(last, Finished), last
    return last


async def ready(engine: Engine) -> Engine:
    """The engine, as soon as its model is loaded or has failed to."""
    await until(lambda: engine.condition != "loading")
    return engine


async def answered(engine: Engine) -> None:
    """One short answer, to be sure that the engine is well."""
    events = await collect(engine.generate(os.urandom(4).hex(), HELLO, {"max_tokens": 3, "ignore_eos": True}))
    assert end_of(events).completion_tokens == 3


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
async def pool(paths: Paths) -> AsyncIterator[Pool]:
    """A program's engines; those that it started end with the test."""
    async with a_program(paths) as pool:
        yield pool


@pytest.fixture
def store(paths: Paths) -> Iterator[Store]:
    """The conversations of that program."""
    with contextlib.closing(Store(paths.database)) as store:
        yield store


@contextlib.asynccontextmanager
async def a_program(paths: Paths) -> AsyncIterator[Pool]:
    """A pool whose engines end with it, whoever else uses them."""
    pool = Pool(paths, lambda _engine: None)
    try:
        yield pool
    finally:
        for engine in pool.engines:
            await engine.unload()
        await pool.close(unload=True)


@dataclass(frozen=True)
class Running:
    """A tiny model that is loaded, and where it listens."""

    model: Path
    socket: Path
    params: dict[str, Value]


@pytest.fixture(scope="module")
def running(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One engine with a large context for all tests of a module; it is ready, and nobody's."""
    folder = tmp_path_factory.mktemp("m")
    paths = Paths(folder, folder, folder, folder / "r", folder)
    params = load_params(n_ctx=65536, idle_timeout=0.0)

    async def start() -> Path:
        pool = Pool(paths, lambda _engine: None)
        engine = await ready(await pool.acquire("tiny", tiny_model, params))
        assert engine.condition == "ready", engine.error
        await pool.close(unload=False)
        return engine.place.socket

    async def end() -> None:
        client = await EngineClient.connect(socket)
        assert await client.unload()
        await client.close()

    socket = asyncio.run(start())
    yield Running(tiny_model, socket, params)
    asyncio.run(end())


@pytest.fixture
async def client(running: Running) -> AsyncIterator[EngineClient]:
    """A connection to the module's engine."""
    client = await EngineClient.connect(running.socket)
    yield client
    await client.close()


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines that start now go on loading until this file is there."""
    gate = tmp_path / "gate"
    source = f"""
        import pathlib, time
        while not pathlib.Path({str(gate)!r}).exists():
            time.sleep(0.005)
        {real_llama_cpp()}
        """
    fake_llama_cpp(tmp_path / "slow", source, monkeypatch)
    return gate


def real_llama_cpp() -> str:
    """A line for the source of a package in llama_cpp's place: the real one's modules are its own."""
    found = importlib.util.find_spec("llama_cpp")
    assert found
    assert found.submodule_search_locations
    return f"__path__ = {list(found.submodule_search_locations)!r}"


def fake_llama_cpp(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put another package in llama_cpp's place for the engines that start from now on."""
    package = folder / "llama_cpp"
    package.mkdir(parents=True)
    lines = source.strip("\n").splitlines()
    margin = len(lines[0]) - len(lines[0].lstrip())
    (package / "__init__.py").write_text("\n".join(line[margin:] for line in lines))
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([known] if known else [])]))
