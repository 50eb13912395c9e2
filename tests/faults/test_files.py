"""Model files that change under an engine, disks that are full or must not be written to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from llama_tui.chat.claims import Claims
from llama_tui.chat.events import ChatEvent, NotKept, TurnEnded, TurnGrew, TurnNoticed, TurnWaits
from llama_tui.chat.session import ChatSession
from llama_tui.chat.store import Store
from llama_tui.chat.workbench import Workbench
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Token
from llama_tui.errors import BadModelFile, EngineDied, LlamaTuiError, LoadFailed, StoreError
from llama_tui.library.names import named
from llama_tui.library.scan import Headers
from llama_tui.paths import Paths
from llama_tui.settings.params import sampling
from llama_tui.settings.store import SettingsStore
from tests.engine.conftest import HELLO, PATIENCE, answered, collect, end_of, first, gone, load_params, ready, until
from tests.engine.desk import Desk, a_workbench, at_work, ended, everything, kept
from tests.faults.conftest import SmallDisk
from tests.ggufs import truncate, write_tiny_llama

LONG = sampling({"temperature": 0.0, "ignore_eos": True, "max_tokens": 3000})
SHORT = sampling({"temperature": 0.0, "max_tokens": 20, "ignore_eos": True})


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model file of the test's own."""
    return Path(shutil.copy(tiny_model, tmp_path / "tiny.gguf"))


@pytest.fixture
async def bench(paths: Paths, model: Path) -> AsyncIterator[Workbench]:
    async with at_work(a_workbench(paths), model) as bench:
        yield bench


class TestModelFile:
    async def test_deleted_while_in_use(self, pool: Pool, model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", model, load_params()))
        model.unlink()
        await answered(engine)
        with pytest.raises(BadModelFile, match=r"tiny\.gguf") as caught:
            await pool.acquire("tiny", model, load_params())
        assert caught.value.hint
        await answered(engine)

    async def test_replaced_while_in_use(self, bench: Workbench, model: Path) -> None:
        """The engine goes on with what it has; loading again takes the new file."""
        before = ended(await everything(bench.send("hello")))
        engine = bench.engine
        assert engine
        write_tiny_llama(model.with_name("new"), n_layer=3).replace(model)
        again = ended(await everything(bench.retry()))
        assert before.ending in ("stop", "length")
        assert again.ending in ("stop", "length")
        assert bench.engine is engine
        new = await ready(await bench.reload())
        assert new.pid != engine.pid
        assert gone(engine.pid)
        assert new.state
        assert new.state.model
        assert new.state.model.n_layer == 3
        assert await bench.reload() is new, "loading again what has not changed does nothing"

    async def test_cut_while_in_use(self, pool: Pool, model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", model, load_params(n_ctx=65536)))
        events = engine.generate("g", HELLO, {"ignore_eos": True})
        await first(events, Token)
        truncate(model, 4096)
        with pytest.raises(EngineDied, match=r"lost a part of its model file \(SIGBUS\) while generating") as caught:
            await collect(events)
        assert "cut short" in caught.value.hint
        assert gone(engine.pid)

    async def test_cut_between_choosing_and_loading_then_mended(
        self, bench: Workbench, model: Path, tiny_model: Path
    ) -> None:
        truncate(model, 100_000)
        answer = ended(await everything(bench.send("hello")))
        assert answer.ending == "failed"
        assert answer.trouble
        assert answer.trouble.hint
        await bench.rescan()
        await bench.choose(named(str(model), bench.settings.model_dirs(), Headers()))
        with pytest.raises(LlamaTuiError, match="cut off"):
            await bench.reload()
        shutil.copy(tiny_model, model)
        assert (await ready(await bench.reload())).condition == "ready"
        assert ended(await everything(bench.retry())).content

    async def test_gone_between_choosing_and_loading(self, bench: Workbench, model: Path) -> None:
        model.unlink()
        answer = ended(await everything(bench.send("hello")))
        assert answer.ending == "failed"
        assert answer.trouble
        assert str(model) in answer.trouble.message
        assert answer.trouble.hint


class TestFullDisk:
    async def test_what_could_not_be_kept_is_kept_later(
        self, small_disk: SmallDisk, pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        paths = replace(paths, data=small_disk.path)
        with contextlib.closing(Store(paths.database)) as store:
            desk = Desk(pool, store, paths, tiny_model)
            await everything(desk.send("one", SHORT))
            small_disk.fill()
            events = await everything(desk.send("two " + "z" * 6_000, SHORT))
            events += await everything(desk.send("three", SHORT))
            told = [event for event in events if isinstance(event, NotKept)]
            assert len(told) == 1, "told once, not at every try"
            assert "full" in told[0].error.message
            assert "disk space" in told[0].error.hint
            assert all(event.turn.ending == "length" for event in events if isinstance(event, TurnEnded))
            assert len(desk.kept()) <= 3
            small_disk.free()
            await everything(desk.send("four", SHORT))
            assert desk.kept() == desk.session.conversation.path()
            assert [turn.content[:5].strip() for turn in desk.kept()[::2]] == ["one", "two z", "three", "four"]

    async def test_what_was_never_kept_is_kept_at_the_end(
        self, small_disk: SmallDisk, paths: Paths, tiny_model: Path
    ) -> None:
        paths = replace(paths, data=small_disk.path)
        bench = a_workbench(paths)
        await bench.open(str(tiny_model))
        small_disk.fill()
        await everything(bench.send("z" * 1_500))
        conversation = bench.conversation
        small_disk.free()
        assert bench.engine
        await bench.engine.unload()
        await bench.close(unload=True)
        assert kept(paths, conversation.id) == conversation.path()

    @pytest.mark.parametrize("spare", [0, 8192], ids=["from the start", "while it is written"])
    async def test_without_its_log_an_engine_works(
        self, spare: int, small_disk: SmallDisk, paths: Paths, tiny_model: Path, model: Path
    ) -> None:
        full = Pool(replace(paths, state=small_disk.path), lambda _engine: None)
        truncate(model, -1)
        small_disk.fill(spare)
        engine = await full.acquire("tiny", tiny_model, load_params())
        await answered(engine)
        with pytest.raises(LoadFailed, match="not within the file bounds"):
            await collect((await full.acquire("broken", model, load_params())).generate("g", HELLO, {}))
        await engine.unload()
        await full.close(unload=True)

    async def test_runtime_folder(self, small_disk: SmallDisk, paths: Paths, tiny_model: Path) -> None:
        runtime = small_disk.path / "r"
        runtime.mkdir(mode=0o700)
        with contextlib.suppress(OSError):
            for number in range(100):
                (small_disk.path / f"file{number}").touch()
        pool = Pool(replace(paths, runtime=runtime), lambda _engine: None)
        with pytest.raises(LlamaTuiError, match="No space left") as caught:
            await pool.acquire("tiny", tiny_model, load_params())
        assert caught.value.hint
        assert not list(runtime.glob("*.sock"))

    def test_settings(self, small_disk: SmallDisk, paths: Paths) -> None:
        settings = SettingsStore(replace(paths, config=small_disk.path), {}, {})
        settings.load()
        settings.save("temperature", 0.5)
        small_disk.fill()
        with pytest.raises(LlamaTuiError, match="No space left") as caught:
            for number in range(400):
                settings.save("system_prompt", "z" * number * 50)
        assert "Free some space" in caught.value.hint
        again = SettingsStore(replace(paths, config=small_disk.path), {}, {})
        again.load()
        assert again.values()["temperature"] == 0.5
        assert again.problems == []
        assert {path.name for path in small_disk.path.iterdir()} == {"settings.toml", "settings.toml.lock", "ballast"}


class TestReadOnly:
    async def test_every_folder_of_the_program(self, small_disk: SmallDisk, paths: Paths, tiny_model: Path) -> None:
        """It opens, shows what was kept, answers in memory if an engine can be had, and says all of it."""
        where = small_disk.path
        paths = replace(paths, config=where / "c", data=where / "d")
        with contextlib.closing(Store(paths.database)) as store:
            desk = Desk(Pool(paths, lambda _engine: None), store, paths, tiny_model)
            desk.session.conversation.ask("kept before")
            store.save(desk.session.conversation, *desk.session.conversation.turns)
        small_disk.forbid_writing()
        bench = a_workbench(paths)
        (problem,) = await bench.open(str(tiny_model))
        assert isinstance(problem, StoreError)
        assert str(paths.database) in problem.message
        assert "rights" in problem.hint
        assert [turn.content for turn in bench.conversation.path()] == ["kept before"]
        assert ended(await everything(bench.send("hello"))).content
        refused = await bench.set("temperature", 0.1)
        assert refused
        assert "Read-only" in refused.message
        assert refused.hint
        assert bench.resolved()["temperature"].value == 0.1
        for engine in bench.engines:
            await engine.unload()
        await bench.close(unload=True)

    async def test_logs(self, small_disk: SmallDisk, paths: Paths, tiny_model: Path) -> None:
        small_disk.forbid_writing()
        pool = Pool(replace(paths, state=small_disk.path / "s"), lambda _engine: None)
        with pytest.raises(LlamaTuiError, match="Read-only") as caught:
            await pool.acquire("tiny", tiny_model, load_params())
        assert str(small_disk.path) in caught.value.message
        assert caught.value.hint


class TestTwoPrograms:
    async def test_on_one_conversation_lose_nothing_and_are_told(
        self, pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        with contextlib.closing(Store(paths.database)) as store, contextlib.closing(Store(paths.database)) as other:
            one, two = Desk(pool, store, paths, tiny_model), Desk(pool, other, paths, tiny_model)
            first = ended(await everything(one.send("first", SHORT)))
            two.session = ChatSession(other, other.load(one.session.conversation.id))
            both = (everything(one.send("from the one", SHORT)), everything(two.send("from the other", SHORT)))
            told = [*await asyncio.gather(*both)]
            told += [await everything(one.send("again", SHORT)), await everything(two.send("again", SHORT))]
            assert all(ended(events).ending == "length" for events in told)
            notices = [[event.text for event in events if isinstance(event, TurnNoticed)] for events in told]
            for mine in (notices[0] + notices[2], notices[1] + notices[3]):
                assert any("Another llama-tui writes in this conversation" in text for text in mine)
            whole = store.load(one.session.conversation.id)
            assert sorted(turn.content for turn in whole.turns if turn.role == "user") == [
                "again",
                "again",
                "first",
                "from the one",
                "from the other",
            ]
            assert all(turn.content and turn.ending for turn in whole.turns if turn.role == "assistant")
            assert {turn.parent for turn in whole.turns if turn.content.startswith("from")} == {first.id}
            # What the other has added is there to step to, without opening the conversation again.
            assert {turn.id for turn in two.session.conversation.turns} == {turn.id for turn in whole.turns}

    async def test_one_that_follows_the_others_answer_has_it_whole(
        self, pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        with contextlib.closing(Store(paths.database)) as store, contextlib.closing(Store(paths.database)) as other:
            desk = Desk(pool, store, paths, tiny_model)
            following: asyncio.Task[list[ChatEvent]] | None = None
            events: list[ChatEvent] = []
            async with asyncio.timeout(3 * PATIENCE):
                async for event in desk.send("hello", LONG):
                    events.append(event)
                    if following is None and isinstance(event, TurnGrew):
                        theirs = Desk(pool, other, paths, tiny_model)
                        theirs.session = ChatSession(other, other.load(desk.session.conversation.id))
                        turn = theirs.session.conversation.path()[-1]
                        assert turn.ending is None
                        engine = await desk.engine()
                        following = asyncio.create_task(everything(theirs.session.resume(turn, engine)))
                assert following
                last = (await following)[-1]
            assert isinstance(last, TurnEnded)
            assert last.turn == ended(events) == desk.kept()[-1]
            assert last.turn.ending == "length"

    async def test_one_that_comes_before_the_answer_has_begun_waits_for_it(
        self, pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        with contextlib.closing(Store(paths.database)) as store, contextlib.closing(Store(paths.database)) as other:
            desk = Desk(pool, store, paths, tiny_model)
            mine = desk.session = ChatSession(store, claims=Claims(paths.runtime))
            may_load, asked = asyncio.Event(), asyncio.Event()

            async def acquire() -> Engine:
                asked.set()
                await may_load.wait()
                return await desk.engine()

            making = asyncio.create_task(everything(mine.send("hello", "tiny", acquire, LONG)))
            await asked.wait()
            theirs = ChatSession(other, other.load(mine.conversation.id), Claims(paths.runtime))
            turn = theirs.conversation.path()[-1]

            async def find() -> Engine | None:
                return await desk.engine() if may_load.is_set() and await (await desk.engine()).knows(turn.id) else None

            seen: list[ChatEvent] = []
            async with asyncio.timeout(PATIENCE):
                async for event in theirs.resume_from(turn, find):
                    seen.append(event)
                    may_load.set()
            assert isinstance(seen[0], TurnWaits)
            assert ended(seen) == ended(await making)
            assert ended(seen).ending == "length"
            assert not list(paths.runtime.glob("*.answer"))

    async def test_one_that_leaves_does_not_stop_the_others_answer(
        self, pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        with contextlib.closing(Store(paths.database)) as store, contextlib.closing(Store(paths.database)) as other:
            desk = Desk(pool, store, paths, tiny_model)
            mine = desk.session = ChatSession(store, claims=Claims(paths.runtime))
            making = asyncio.create_task(everything(desk.send("hello", LONG)))
            await until(mine.last_answer)
            theirs = ChatSession(other, other.load(mine.conversation.id), Claims(paths.runtime))
            following = theirs.resume_from(theirs.conversation.path()[-1], desk.engine)
            async with asyncio.timeout(PATIENCE):
                async for event in following:
                    if isinstance(event, TurnGrew):
                        assert not await theirs.leave()
                        break
            await following.aclose()
            answer = ended(await making)
            assert (answer.ending, answer) == ("length", desk.kept()[-1])

    async def test_one_that_was_closed_meanwhile_is_taken_as_it_is(
        self, pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        with contextlib.closing(Store(paths.database)) as store, contextlib.closing(Store(paths.database)) as other:
            desk = Desk(pool, store, paths, tiny_model)
            theirs: ChatSession | None = None
            async with asyncio.timeout(PATIENCE):
                async for event in desk.send("hello"):
                    if theirs is None and isinstance(event, TurnWaits):
                        theirs = ChatSession(other, other.load(desk.session.conversation.id), Claims(paths.runtime))
            assert theirs
            turn = theirs.conversation.path()[-1]
            assert turn.ending is None

            async def nobody() -> None: ...

            assert ended(await everything(theirs.resume_from(turn, nobody))) == desk.kept()[-1]
            assert desk.kept()[-1].ending == "length"


async def test_a_program_that_ends_while_its_engine_loads_leaves_it_well(
    pool: Pool, paths: Paths, tiny_model: Path, gate: Path
) -> None:
    engine = await pool.acquire("tiny", tiny_model, load_params())
    await engine.leave()
    gate.touch()
    other = Pool(paths, lambda _engine: None)
    await other.scan()
    (theirs,) = other.engines
    await until(lambda: theirs.condition == "ready")
    assert end_of(await collect(theirs.generate(os.urandom(4).hex(), HELLO, {"max_tokens": 2}))).completion_tokens == 2
    await theirs.unload()
    await other.close(unload=True)
