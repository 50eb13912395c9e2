"""Conversations with a real engine: kept while they stream, whole after the worst."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llama_tui.chat.conversation import Conversation
from llama_tui.chat.events import (
    ChatEvent,
    NotKept,
    SendRefused,
    TurnAdded,
    TurnEnded,
    TurnGrew,
    TurnNoticed,
    TurnWaits,
)
from llama_tui.chat.session import ChatSession
from llama_tui.chat.store import Store
from llama_tui.chat.workbench import Workbench
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.errors import ContextOverflow, LoadFailed
from llama_tui.library.names import named
from llama_tui.library.scan import Headers, ModelFile
from llama_tui.paths import Paths
from llama_tui.settings.params import sampling
from tests.engine.conftest import PATIENCE, load_params, ready, until
from tests.engine.desk import PARAMS, Desk, a_workbench, at_work, ended, everything, grown, kept
from tests.ggufs import CHATML, write_tiny_llama

LONG = sampling({"temperature": 0.0, "ignore_eos": True, "max_tokens": 4000})


@pytest.fixture
def desk(pool: Pool, store: Store, paths: Paths, tiny_model: Path) -> Desk:
    return Desk(pool, store, paths, tiny_model)


class TestSend:
    async def test_question_and_answer_are_kept(self, desk: Desk) -> None:
        events = await everything(desk.send("hello there"))
        answer = ended(events)
        assert [type(event) for event in events[:3]] == [TurnAdded, TurnAdded, TurnWaits]
        assert answer.content == grown(events) != ""
        assert answer.ending == "length"
        assert answer.figures
        assert (answer.figures.completion_tokens, answer.figures.n_ctx) == (40, 65536)
        assert answer.seed is not None
        assert answer.model == "tiny"
        assert [(turn.role, turn.content) for turn in desk.kept()] == [
            ("user", "hello there"),
            ("assistant", answer.content),
        ]
        assert desk.kept()[-1] == answer
        assert desk.session.answering is None

    async def test_the_next_question_knows_the_conversation(self, desk: Desk) -> None:
        first = ended(await everything(desk.send("hello there")))
        second = ended(await everything(desk.send("and then?")))
        assert first.figures
        assert second.figures
        assert second.figures.reused_tokens >= first.figures.prompt_tokens
        assert len(desk.kept()) == 4

    async def test_the_system_prompt_is_told(self, desk: Desk) -> None:
        plain = ended(await everything(desk.send("hello", {**PARAMS, "max_tokens": 1})))
        told = ended(await everything(desk.retry({**PARAMS, "max_tokens": 1, "system_prompt": "You are a llama."})))
        assert plain.figures
        assert told.figures
        assert told.figures.prompt_tokens > plain.figures.prompt_tokens + 5

    async def test_is_in_the_store_within_a_second(self, desk: Desk) -> None:
        seen: list[tuple[float, int]] = []
        checked = 0
        last: list[ChatEvent] = []
        async with contextlib.aclosing(desk.send("hello", LONG)) as events:
            async for event in events:
                last = [event]
                if isinstance(event, TurnGrew):
                    now = time.monotonic()
                    seen.append((now, len(event.text) + (seen[-1][1] if seen else 0)))
                    if len(seen) % 10 == 0:
                        due = max((length for at, length in seen if at <= now - 1.0), default=0)
                        turn = desk.kept()[-1]
                        assert turn.ending is None
                        assert len(turn.content) >= due
                        checked += due > 0
        assert checked >= 1
        assert ended(last).ending == "length"

    async def test_stopping_keeps_what_came(self, desk: Desk) -> None:
        events: list[ChatEvent] = []
        async with asyncio.timeout(PATIENCE):
            async for event in desk.send("hello", LONG):
                events.append(event)
                if isinstance(event, TurnGrew) and event.n_tokens > 1:
                    await desk.session.stop()
        answer = ended(events)
        assert answer.ending == "cancelled"
        assert answer.content == grown(events) != ""
        assert desk.kept()[-1] == answer

    async def test_stopping_while_the_model_loads(self, desk: Desk, gate: Path) -> None:
        task = asyncio.create_task(everything(desk.send("hello")))
        await until(lambda: desk.session._engine)  # pyright: ignore[reportPrivateUsage]
        await desk.session.stop()
        answer = ended(await task)
        assert (answer.ending, answer.content) == ("cancelled", "")
        gate.touch()
        assert ended(await everything(desk.retry())).ending == "length"


class TestReasoning:
    async def test_is_kept_apart_from_the_answer(self, pool: Pool, store: Store, paths: Paths, tmp_path: Path) -> None:
        path = write_tiny_llama(tmp_path / "thinker.gguf", chat_template=CHATML + "<think>\n")
        desk = Desk(pool, store, paths, path)
        events = await everything(desk.send("hello there"))
        answer = ended(events)
        assert answer.content == ""
        assert answer.reasoning == grown(events).strip() != ""
        assert answer.figures
        assert answer.figures.reasoning_tokens == answer.figures.completion_tokens == 40
        assert {event.kind for event in events if isinstance(event, TurnGrew)} == {"reasoning"}
        assert desk.kept()[-1] == answer

    async def test_a_template_that_cannot_is_told_of(
        self, pool: Pool, store: Store, paths: Paths, tmp_path: Path
    ) -> None:
        path = write_tiny_llama(tmp_path / "picky.gguf", chat_template="{{ raise_exception('I said no') }}")
        events = await everything(Desk(pool, store, paths, path).send("hello there"))
        (notice,) = (event for event in events if isinstance(event, TurnNoticed))
        assert "I said no" in notice.text
        assert ended(events).content


class TestStopped:
    @pytest.mark.parametrize("steps", range(8))
    async def test_a_stop_is_heeded_whenever_it_comes(self, desk: Desk, steps: int) -> None:
        """In every step of the loop between an engine's being there and the first event."""
        await ready(await desk.engine())
        stopping: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()

        def stop(left: int) -> None:
            if left:
                loop.call_soon(stop, left - 1)
            else:
                stopping.append(asyncio.ensure_future(desk.session.stop()))

        async def acquire() -> Engine:
            engine = await desk.engine()
            stop(steps)
            return engine

        assert ended(await everything(desk.session.send("hello", "tiny", acquire, LONG))).ending == "cancelled"
        await asyncio.gather(*stopping)


class TestRefused:
    async def test_a_prompt_that_is_too_long_leaves_nothing(self, desk: Desk, store: Store) -> None:
        text = "q" * 66_000
        events = await everything(desk.send(text))
        refused = events[-1]
        assert isinstance(refused, SendRefused)
        assert refused.text == text
        assert isinstance(refused.error, ContextOverflow)
        assert refused.error.prompt_tokens > 66_000
        added = tuple(event.turn.id for event in events if isinstance(event, TurnAdded))
        assert set(refused.removed) == set(added)
        assert desk.session.conversation.path() == []
        assert store.list() == []
        await everything(desk.send("hello"))
        assert [listed.title for listed in store.list()] == ["hello"]

    async def test_what_was_there_before_stays(self, desk: Desk) -> None:
        await everything(desk.send("hello"))
        before = desk.kept()
        assert isinstance((await everything(desk.send("q" * 66_000)))[-1], SendRefused)
        assert desk.kept() == desk.session.conversation.path() == before
        assert ended(await everything(desk.send("shorter"))).ending == "length"


class TestTrouble:
    async def test_an_engine_that_dies_leaves_its_answer_so_far(self, desk: Desk) -> None:
        events: list[ChatEvent] = []
        async with asyncio.timeout(PATIENCE):
            async for event in desk.send("hello", LONG):
                events.append(event)
                if isinstance(event, TurnGrew) and event.n_tokens > 200:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill((await desk.engine()).pid, signal.SIGKILL)
        answer = ended(events)
        assert answer.ending == "died"
        assert answer.content == grown(events) != ""
        assert answer.trouble
        assert "SIGKILL" in answer.trouble.message
        assert answer.trouble.log
        assert answer.trouble.hint
        assert desk.kept()[-1] == answer
        again = ended(await everything(desk.retry()))
        assert again.ending == "length"

    async def test_a_model_that_cannot_be_loaded(self, desk: Desk, tmp_path: Path) -> None:
        bad = tmp_path / "bad.gguf"
        bad.write_text("not a model")
        desk._model = bad  # pyright: ignore[reportPrivateUsage]
        answer = ended(await everything(desk.send("hello")))
        assert answer.ending == "failed"
        assert answer.trouble
        assert "could not load" in answer.trouble.message
        assert desk.kept()[-1] == answer

    async def test_a_file_that_is_gone(self, desk: Desk, tmp_path: Path) -> None:
        desk._model = tmp_path / "gone.gguf"  # pyright: ignore[reportPrivateUsage]
        answer = ended(await everything(desk.send("hello")))
        assert answer.ending == "failed"
        assert answer.trouble
        assert "gone.gguf" in answer.trouble.message

    async def test_a_store_that_fails_does_not_stop_the_answer(self, desk: Desk, store: Store) -> None:
        store.close()
        events = await everything(desk.send("hello"))
        assert ended(events).ending == "length"
        assert ended(events).content
        assert any(isinstance(event, NotKept) for event in events)


class TestRetry:
    async def test_makes_another_answer_beside_the_last(self, desk: Desk) -> None:
        first = ended(await everything(desk.send("hello", sampling({"seed": 1, "max_tokens": 20, "temperature": 2.0}))))
        second = ended(await everything(desk.retry(sampling({"seed": 2, "max_tokens": 20, "temperature": 2.0}))))
        conversation = desk.session.conversation
        assert conversation.siblings(second) == [first, second]
        assert first.content != second.content
        assert (first.seed, second.seed) == (1, 2)
        assert [turn.id for turn in desk.kept()] == [turn.id for turn in conversation.path()]
        assert await desk.session.step(second, -1)
        assert desk.kept()[-1] == first
        assert not await desk.session.step(first, -1)

    async def test_an_empty_conversation_has_nothing_to_retry(self, desk: Desk) -> None:
        assert await everything(desk.retry()) == []


PROGRAM = """
import asyncio, sys, time
from pathlib import Path
from llama_tui.chat.events import TurnGrew
from llama_tui.chat.session import ChatSession
from llama_tui.chat.store import Store
from llama_tui.engine.pool import Pool
from llama_tui.paths import Paths
from llama_tui.settings.params import sampling
from tests.engine.conftest import load_params

async def main():
    paths = Paths.default()
    session = ChatSession(Store(paths.database))
    print(session.conversation.id, flush=True)
    pool = Pool(paths, lambda engine: None)
    params = sampling({"temperature": 0.0, "ignore_eos": True, "max_tokens": 6000})
    acquire = lambda: pool.acquire("tiny", Path(sys.argv[1]), load_params(n_ctx=65536))
    length = 0
    async for event in session.send("hello", sys.argv[1], acquire, params):
        if isinstance(event, TurnGrew):
            length += len(event.text)
            print(time.monotonic(), length, flush=True)

asyncio.run(main())
"""


class TestKilledProgram:
    @pytest.fixture
    async def orphan(self, tiny_model: Path) -> AsyncIterator[tuple[str, list[tuple[float, int]], float]]:
        """A conversation whose program was killed in the middle of an answer: its id, when it had
        shown how much, and when it was killed."""
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(tiny_model), stdout=asyncio.subprocess.PIPE
        )
        assert program.stdout
        shown: list[tuple[float, int]] = []
        async with asyncio.timeout(PATIENCE):
            id = (await program.stdout.readline()).decode().strip()
            while not shown or shown[-1][0] - shown[0][0] < 1.2:
                at, length = (await program.stdout.readline()).split()
                shown.append((float(at), int(length)))
            killed = time.monotonic()
            program.kill()
            rest = (await program.stdout.read()).splitlines()
            await program.wait()
        shown += [(float(at), int(length)) for at, length in (line.split() for line in rest if line.count(b" ") == 1)]
        yield id, shown, killed

    async def test_loses_at_most_a_second_and_gets_the_rest_from_the_engine(
        self, orphan: tuple[str, list[tuple[float, int]], float], pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        id, shown, killed = orphan
        turns = kept(paths, id)
        partial = turns[-1]
        assert partial.ending is None
        assert len(partial.content) >= max(length for at, length in shown if at <= killed - 1)

        await pool.scan()
        (engine,) = pool.engines
        with contextlib.closing(Store(paths.database)) as store:
            session = ChatSession(store, store.load(id))
            whole = ended(await everything(session.resume(partial, engine)))
            assert whole.ending == "length"
            assert whole.figures
            assert whole.figures.completion_tokens == 6000
            assert whole.content.startswith(partial.content)
            assert kept(paths, id)[-1] == whole
            # The answer is the one that an undisturbed program would have had.
            again = Conversation.new()
            undisturbed = ChatSession(store, again)
            params = sampling({"temperature": 0.0, "ignore_eos": True, "max_tokens": 6000})
            same = ended(
                await everything(
                    undisturbed.send(
                        "hello", "tiny", lambda: pool.acquire("tiny", tiny_model, load_params(n_ctx=65536)), params
                    )
                )
            )
            assert same.content == whole.content

    async def test_an_engine_that_is_gone_by_then_takes_nothing_of_what_was_kept(
        self, orphan: tuple[str, list[tuple[float, int]], float], pool: Pool, paths: Paths
    ) -> None:
        id, _, _ = orphan
        partial = kept(paths, id)[-1]
        await pool.scan()
        (engine,) = pool.engines
        os.kill(engine.pid, signal.SIGKILL)
        with contextlib.closing(Store(paths.database)) as store:
            session = ChatSession(store, store.load(id))
            answer = ended(await everything(session.resume(partial, engine)))
        assert answer.ending == "died"
        assert answer.content.startswith(partial.content)
        assert kept(paths, id)[-1].content == answer.content


class TestWorkbench:
    @pytest.fixture
    async def bench(self, paths: Paths, tiny_model: Path) -> AsyncIterator[Workbench]:
        async with at_work(a_workbench(paths), tiny_model) as bench:
            yield bench

    async def test_sends_and_finds_the_conversation_again(self, bench: Workbench, paths: Paths) -> None:
        answer = ended(await everything(bench.send("hello")))
        assert answer.ending in ("stop", "length")
        assert bench.engine
        assert bench.engine.alive
        again = a_workbench(paths)
        assert await again.open(None) == []
        assert again.conversation.path() == bench.conversation.path()
        assert again.current
        assert bench.current
        assert again.current.path == bench.current.path
        await again.close(unload=True)
        assert bench.engine.alive

    async def test_a_changed_load_parameter_waits_for_the_reload(self, bench: Workbench) -> None:
        engine = await ready(await bench.load())
        assert not bench.reload_pending
        assert await bench.set("n_ctx", 512) is None
        assert bench.reload_pending
        assert await bench.load() is engine
        other = await ready(await bench.reload())
        assert not engine.alive
        assert other.state
        assert other.state.model
        assert other.state.model.n_ctx == 512
        assert not bench.reload_pending

    async def test_the_idle_timeout_acts_at_once(self, bench: Workbench) -> None:
        engine = await ready(await bench.load())
        assert await bench.set("idle_timeout", 77.0) is None
        assert not bench.reload_pending
        await until(lambda: engine.state and engine.state.idle_seconds_left and engine.state.idle_seconds_left <= 77)

    async def test_closes_an_answer_whose_engine_is_gone(self, bench: Workbench, paths: Paths) -> None:
        events = bench.send("hello")
        async with asyncio.timeout(PATIENCE):
            async for event in events:
                if isinstance(event, TurnGrew):
                    break
        await events.aclose()
        open_turn = bench.conversation.path()[-1]
        assert open_turn.ending is None
        assert bench.engine
        await bench.engine.unload()
        again = a_workbench(paths)
        await again.open(None)
        (event,) = await everything(again.resume())
        assert isinstance(event, TurnEnded)
        assert event.turn.ending == "interrupted"
        assert event.turn.content == open_turn.content != ""
        await again.close(unload=True)

    async def test_a_broken_database_leaves_a_working_program(self, paths: Paths, tiny_model: Path) -> None:
        paths.database.parent.mkdir(parents=True)
        paths.database.write_text("notes, not a database " * 99)
        bench = a_workbench(paths)
        (problem,) = await bench.open(str(tiny_model))
        assert "not a database" in problem.message
        assert ended(await everything(bench.send("hello"))).content
        for engine in bench.engines:
            await engine.unload()
        await bench.close(unload=True)

    async def test_a_model_that_cannot_be_loaded_is_replaced_by_the_next(
        self, bench: Workbench, tmp_path: Path, tiny_model: Path
    ) -> None:
        assert bench.current
        good = bench.current
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(tiny_model.read_bytes()[:-1])
        other = a_file(bench, broken)
        await bench.choose(other)
        failed = ended(await everything(bench.send("hello")))
        assert failed.ending == "failed"
        assert failed.trouble
        await bench.choose(good)
        assert ended(await everything(bench.retry())).ending in ("stop", "length")


def a_file(bench: Workbench, path: Path) -> ModelFile:
    return named(str(path), bench.settings.model_dirs(), Headers())


def test_errors_of_loading_are_errors_of_the_engine() -> None:
    from llama_tui.errors import EngineError

    assert issubclass(LoadFailed, EngineError)
