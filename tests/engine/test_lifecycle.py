"""An engine's life: started once, shared by programs, watched, unloaded, idle, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest

from llama_tui.engine.client import EngineClient
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.engine.process import engine_place
from llama_tui.engine.protocol import Token
from llama_tui.errors import BadModelFile, EngineDied, EngineError, LlamaTuiError, LoadFailed
from llama_tui.paths import Paths
from tests.engine.conftest import (
    HELLO,
    a_program,
    answered,
    collect,
    end_of,
    fake_llama_cpp,
    first,
    gone,
    load_params,
    ready,
    until,
)


@pytest.fixture
async def other(paths: Paths) -> AsyncIterator[Pool]:
    """Another program of the same user."""
    async with a_program(paths) as pool:
        yield pool


def session(pid: int) -> int | None:
    """The session of a living process: an engine leads its own."""
    try:
        return None if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE else os.getsid(pid)
    except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
        return None


class TestLoading:
    async def test_to_an_answer_to_the_end(self, pool: Pool, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params())
        assert engine.condition == "loading"
        assert engine.started_here
        assert pool.engines == pool.of_file(tiny_model) == (engine,)
        await answered(engine)  # asked while it loads: it waits, then answers
        await until(lambda: engine.condition == "ready")
        state = engine.state
        assert state
        assert state.model
        assert (state.model.architecture, state.model.n_layer, state.model.n_ctx) == ("llama", 2, 1024)
        assert (state.model.n_ctx_train, state.model.template) == (512, "model")
        assert (state.queued, state.generating, state.clients) == (0, None, 1)
        assert state.n_past > 0
        assert await engine.unload()
        assert gone(engine.pid)
        assert not engine.place.socket.exists()
        assert engine.condition == "unloaded"
        assert pool.engines == ()

    async def test_memory_is_what_llama_cpp_took(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(n_ctx=4096)))
        state = engine.state
        assert state
        size = tiny_model.stat().st_size
        weights = sum(buffer.weights for buffer in state.memory.buffers)
        assert 0.9 * size < weights < size  # all but the header
        n_layer, n_embd, f16 = 2, 64, 2
        assert sum(buffer.kv for buffer in state.memory.buffers) == n_layer * 4096 * 2 * n_embd * f16
        assert sum(buffer.compute for buffer in state.memory.buffers) > 0
        assert all(buffer.host for buffer in state.memory.buffers)
        process = psutil.Process(engine.pid).memory_info()
        assert state.memory.private is not None
        assert state.memory.mapped is not None
        assert state.memory.private + state.memory.mapped == pytest.approx(process.rss, rel=0.2)

    async def test_without_mmap_the_weights_are_its_own(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(use_mmap=False)))
        assert engine.state
        assert all("Mapped" not in buffer.name for buffer in engine.state.memory.buffers)
        await answered(engine)

    @pytest.mark.parametrize(("asked", "made"), [(16, 256), (257, 512), (1000, 1024), (None, 512)])
    async def test_the_context_is_rounded_up(self, pool: Pool, tiny_model: Path, asked: int | None, made: int) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(n_ctx=asked)))
        assert engine.state
        assert engine.state.model
        assert engine.state.model.n_ctx == made

    async def test_one_progress_after_the_other(self, pool: Pool, tiny_model: Path, gate: Path) -> None:
        seen: list[str] = []
        pool = Pool(pool._paths, lambda engine: seen.append(engine.condition))  # pyright: ignore[reportPrivateUsage]
        engine = await pool.acquire("tiny", tiny_model, load_params())
        await until(lambda: engine.state)
        assert engine.state
        assert engine.state.phase == "loading"
        assert engine.state.idle_seconds_left is None
        gate.touch()
        await ready(engine)
        assert [seen[0], seen[-1]] == ["loading", "ready"]
        await pool.close(unload=True)

    async def test_it_gives_way_to_whoever_types(self, pool: Pool, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params())
        await ready(engine)
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        tasks = [int(task.name) for task in Path(f"/proc/{engine.pid}/task").iterdir()]
        assert {os.getpriority(os.PRIO_PROCESS, task) for task in tasks} == {min(19, ours + 3)}
        group = Path(f"/proc/{engine.pid}/autogroup")
        if group.exists():
            assert group.read_text().split()[-1] == str(min(19, ours + 3))
        await pool.close(unload=True)

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            ({}, {"GOMP_SPINCOUNT": "1000"}),
            ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
            ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ],
    )
    async def test_its_threads_do_not_wait_for_one_that_has_lost_its_core(
        self,
        pool: Pool,
        tiny_model: Path,
        monkeypatch: pytest.MonkeyPatch,
        given: dict[str, str],
        wanted: dict[str, str],
    ) -> None:
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        engine = await pool.acquire("tiny", tiny_model, load_params())
        environment = dict(
            line.split("=", 1) for line in Path(f"/proc/{engine.pid}/environ").read_text().split("\0") if "=" in line
        )
        assert {
            name: environment[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in environment
        } == wanted
        await pool.close(unload=True)

    async def test_a_prompt_that_fits_to_the_token(self, pool: Pool, tiny_model: Path) -> None:
        from llama_tui.engine.protocol import Message
        from llama_tui.errors import ContextOverflow

        engine = await pool.acquire("tiny", tiny_model, load_params(n_ctx=256))
        frame = end_of(await collect(engine.generate("a", (Message("user", ""),), {"max_tokens": 1}))).prompt_tokens
        fits = (Message("user", "z" * (255 - frame)),)
        end = end_of(await collect(engine.generate("b", fits, {"ignore_eos": True})))
        assert (end.prompt_tokens, end.completion_tokens, end.reason) == (255, 1, "length")
        with pytest.raises(ContextOverflow, match="256 tokens, 1 more"):
            await collect(engine.generate("c", (Message("user", "z" * (256 - frame)),), {}))
        half = (Message("user", "z" * (156 - frame)),)
        end = end_of(await collect(engine.generate("d", half, {"ignore_eos": True})))
        assert (end.completion_tokens, end.reason) == (100, "length")


class TestSharing:
    async def test_the_same_file_and_parameters_are_one_engine(self, pool: Pool, other: Pool, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params())
        assert await pool.acquire("tiny", tiny_model, load_params()) is engine
        theirs = await other.acquire("tiny", tiny_model, load_params(idle_timeout=7.0))
        assert theirs.pid == engine.pid
        assert not theirs.started_here
        await answered(engine)
        await answered(theirs)

    async def test_other_parameters_are_another(self, pool: Pool, tiny_model: Path) -> None:
        one = await pool.acquire("tiny", tiny_model, load_params())
        two = await pool.acquire("tiny", tiny_model, load_params(n_ctx=512))
        assert one.pid != two.pid
        assert set(pool.of_file(tiny_model)) == {one, two}

    async def test_two_programs_at_once_start_one(self, pool: Pool, other: Pool, tiny_model: Path) -> None:
        engines = await asyncio.gather(
            *(program.acquire("tiny", tiny_model, load_params()) for program in (pool, other, pool, other))
        )
        assert len({engine.pid for engine in engines}) == 1
        assert sum(engine.started_here for engine in set(engines)) == 1

    async def test_one_that_another_program_started_is_found(self, pool: Pool, other: Pool, tiny_model: Path) -> None:
        theirs = await ready(await other.acquire("tiny", tiny_model, load_params()))
        await pool.scan()
        (found,) = pool.engines
        assert (found.pid, found.spec) == (theirs.pid, theirs.spec)
        await pool.scan()
        assert pool.engines == (found,)
        await answered(found)

    async def test_who_leaves_does_not_end_it_for_others(self, pool: Pool, other: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        theirs = await other.acquire("tiny", tiny_model, load_params())
        assert not await engine.unload(unless_shared=True)
        assert engine.state
        engine.state = msgspec.structs.replace(engine.state, clients=1)  # as it was told before the other came
        assert [(one.name, one.why) for one in (await pool.close(unload=True)).stay] == [("tiny", "shared")]
        await answered(theirs)
        assert await theirs.unload(unless_shared=True)
        assert gone(theirs.pid)

    async def test_others_are_told_when_it_is_unloaded(self, pool: Pool, other: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        theirs = await other.acquire("tiny", tiny_model, load_params())
        events = theirs.generate("g", HELLO, {"ignore_eos": True})
        await first(events, Token)
        assert await engine.unload()
        with pytest.raises(EngineError, match="was unloaded while generating") as caught:
            await collect(events)
        assert not isinstance(caught.value, EngineDied)
        await until(lambda: theirs.condition == "unloaded")
        assert other.engines == ()

    async def test_it_outlives_the_program_that_started_it(self, paths: Paths, pool: Pool, tiny_model: Path) -> None:
        program = (
            "import asyncio, sys\n"
            "from pathlib import Path\n"
            "from llama_tui.engine.pool import Pool\n"
            "from llama_tui.paths import Paths\n"
            "from tests.engine.conftest import load_params\n"
            "async def main():\n"
            "    pool = Pool(Paths.default(), lambda engine: None)\n"
            "    engine = await pool.acquire('tiny', Path(sys.argv[1]), load_params())\n"
            "    print(engine.pid)\n"
            "    await pool.close(unload=False)\n"
            "asyncio.run(main())\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, str(tiny_model), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        await pool.scan()
        (engine,) = pool.engines
        assert engine.pid == int(output)
        await answered(engine)
        assert await engine.unload()


class TestEnd:
    async def test_while_loading(self, pool: Pool, tiny_model: Path, gate: Path) -> None:
        assert not gate.exists()
        engine = await pool.acquire("tiny", tiny_model, load_params())
        await until(lambda: engine.state)
        assert await engine.unload()
        assert gone(engine.pid)
        assert engine.condition == "unloaded"
        assert not engine.place.socket.exists()

    async def test_cancelling_an_answer_that_waits_for_the_model(
        self, pool: Pool, tiny_model: Path, gate: Path
    ) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params())
        task = asyncio.create_task(collect(engine.generate("g", HELLO, {})))
        await until(lambda: engine.state and engine.state.queued == 1)
        await engine.cancel("g")
        assert end_of(await task).reason == "cancelled"
        gate.touch()
        await answered(engine)

    async def test_asked_by_a_signal_it_says_goodbye(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        os.kill(engine.pid, signal.SIGTERM)
        await until(lambda: engine.condition == "unloaded")
        assert engine.end_reason == "asked"
        await until(lambda: gone(engine.pid))
        assert not engine.place.socket.exists()

    async def test_one_that_hangs_is_killed(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        os.kill(engine.pid, signal.SIGSTOP)
        assert await engine.unload()
        assert gone(engine.pid)
        assert engine.condition == "unloaded"

    async def test_twice_is_once(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        assert await asyncio.gather(engine.unload(), engine.unload()) == [True, True]
        assert await engine.unload()

    async def test_another_can_start_while_one_ends(self, pool: Pool, other: Pool, tiny_model: Path) -> None:
        pids: set[int] = set()
        for _ in range(3):
            engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
            pids.add(engine.pid)
            _, next_one = await asyncio.gather(
                engine.unload(), other.acquire("tiny", tiny_model, load_params()), return_exceptions=True
            )
            assert isinstance(next_one, Engine), next_one
            if next_one.alive and next_one.pid != engine.pid:
                assert next_one.place.socket.exists()
                await answered(next_one)
                pids.add(next_one.pid)
                await next_one.unload()
        assert len(pids) >= 3


class TestIdle:
    async def test_unused_it_unloads_itself(self, pool: Pool, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params(idle_timeout=0.4))
        await answered(engine)
        used = time.monotonic()
        await until(lambda: engine.condition == "unloaded")
        assert engine.end_reason == "idle"
        assert time.monotonic() - used > 0.35
        await until(lambda: gone(engine.pid))
        assert pool.engines == ()
        # The processes that it started hold memory too.
        await until(lambda: not [one for one in psutil.pids() if session(one) == engine.pid])

    async def test_an_answer_counts_as_use(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(idle_timeout=0.2, n_ctx=65536)))
        began = time.monotonic()
        end = end_of(
            await collect(engine.generate("g", HELLO, {"max_tokens": 2500, "ignore_eos": True, "temperature": 0.0}))
        )
        assert time.monotonic() - began > 0.4
        assert end.completion_tokens == 2500
        await until(lambda: engine.condition == "unloaded")

    async def test_nobody_has_to_watch(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(idle_timeout=0.3)))
        await pool.close(unload=False)
        await until(lambda: gone(engine.pid))
        assert not engine.place.socket.exists()

    async def test_can_be_changed_while_it_runs(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(idle_timeout=0.0)))
        assert engine.state
        assert engine.state.idle_seconds_left is None
        await engine.configure(100)
        await until(lambda: engine.state and engine.state.idle_seconds_left)
        assert engine.state.idle_seconds_left
        assert 90 < engine.state.idle_seconds_left <= 100
        for wrong in (-1.0, 1e12):
            with pytest.raises(EngineError, match="idle_timeout"):
                await engine.configure(wrong)
        await engine.configure(0.1)
        await until(lambda: engine.condition == "unloaded")
        assert engine.end_reason == "idle"


class TestKept:
    async def test_outlives_its_idle_timeout_until_it_is_let_go(
        self, pool: Pool, other: Pool, tiny_model: Path
    ) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(idle_timeout=0.5)))
        await engine.keep(True)
        told = 0

        def count(_engine: Engine) -> None:
            nonlocal told
            told += 1

        watching = Pool(pool._paths, count)  # pyright: ignore[reportPrivateUsage]
        await watching.scan()
        (theirs,) = watching.engines
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 1.5 and told > 5)
        assert theirs.kept and theirs.alive
        assert theirs.state
        assert theirs.state.idle_seconds_left is None
        assert [one.why for one in (await watching.close(unload=False)).stay] == ["kept"]
        await engine.keep(False)
        await until(lambda: engine.condition == "unloaded")
        assert engine.end_reason == "idle"

    async def test_who_started_it_does_not_end_it_by_leaving(self, pool: Pool, other: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        await engine.keep(True)
        await until(lambda: engine.kept)
        parting = await pool.close(unload=True)
        assert [(one.name, one.pid, one.why) for one in parting.stay] == [("tiny", engine.pid, "kept")]
        await other.scan()
        (found,) = other.engines
        assert found.pid == engine.pid
        await answered(found)

    async def test_without_a_timeout_it_stays_and_says_so(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(idle_timeout=0.0)))
        assert engine.state
        assert engine.state.idle_seconds_left is None
        assert not engine.kept
        parting = await pool.close(unload=False)
        assert [one.why for one in parting.stay] == ["forever"]
        await pool.scan()  # for the end of the test

    async def test_a_waiting_request_is_use(self, pool: Pool, tiny_model: Path, gate: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params(idle_timeout=0.2))
        asked = asyncio.create_task(collect(engine.generate("g", HELLO, {"max_tokens": 2, "ignore_eos": True})))
        await until(lambda: engine.state and engine.state.queued == 1)
        gate.touch()
        assert end_of(await asked).completion_tokens == 2

    async def test_replacing_ends_those_with_other_parameters_and_keeps_the_pin(
        self, pool: Pool, other: Pool, tiny_model: Path
    ) -> None:
        old = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        await old.keep(True)
        await other.scan()
        await until(lambda: other.engines[0].kept)
        new = await other.replace("tiny", tiny_model, load_params(n_ctx=512))
        assert gone(old.pid)
        await until(lambda: new.kept)
        assert await other.replace("tiny", tiny_model, load_params(n_ctx=512)) is new


class TestSilent:
    async def test_is_found_by_its_process_and_ended(self, pool: Pool, other: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        os.kill(engine.pid, signal.SIGSTOP)
        await other.scan()
        assert other.engines == ()
        (silent,) = await other.silent()
        assert (silent.pid, silent.spec, silent.place.socket) == (engine.pid, engine.spec, engine.place.socket)
        assert silent.memory.private
        assert await asyncio.to_thread(silent.end, 5.0)
        assert gone(engine.pid)
        await until(lambda: engine.condition == "died")
        assert await other.silent() == ()
        assert silent.end(0.0), "a process that is gone is no trouble"


class TestDeath:
    async def test_while_generating(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(n_ctx=65536)))
        events = engine.generate("g", HELLO, {"ignore_eos": True})
        await first(events, Token)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineDied, match=r"tiny was killed \(SIGKILL\) while generating") as caught:
            await collect(events)
        assert any("MiB" in line for line in caught.value.log)
        assert "memory" in caught.value.hint
        await until(lambda: engine.condition == "died")
        assert pool.engines == (engine,)
        again = await pool.acquire("tiny", tiny_model, load_params(n_ctx=65536))
        assert again.pid != engine.pid
        await answered(again)
        assert pool.engines == (again,)

    async def test_while_loading(self, pool: Pool, tiny_model: Path, gate: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params())
        task = asyncio.create_task(collect(engine.generate("g", HELLO, {})))
        await until(lambda: engine.state and engine.state.queued == 1)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineDied, match=r"was killed \(SIGKILL\) while loading"):
            await task
        await until(lambda: engine.condition == "died")
        assert isinstance(engine.error, EngineDied)
        gate.touch()
        await answered(await pool.acquire("tiny", tiny_model, load_params()))

    async def test_at_rest(self, pool: Pool, other: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        theirs = await ready(await other.acquire("tiny", tiny_model, load_params()))
        os.kill(engine.pid, signal.SIGSEGV)
        await until(lambda: engine.condition == theirs.condition == "died")
        assert engine.error
        assert "crashed: invalid memory access (SIGSEGV) while idle" in engine.error.message
        assert theirs.error
        assert "ended without a word while idle" in theirs.error.message
        pool.dismiss(engine)
        assert pool.engines == ()

    async def test_before_it_could_greet(
        self, pool: Pool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # no interpreter starts with that
        with pytest.raises(EngineDied, match="ended with exit code 1 while starting") as caught:
            await pool.acquire("tiny", tiny_model, load_params())
        assert caught.value.log
        monkeypatch.delenv("PYTHONHOME")
        await answered(await pool.acquire("tiny", tiny_model, load_params()))

    async def test_a_dead_engines_socket_is_replaced(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        place = engine_place(paths, tiny_model, load_params())
        place.socket.parent.mkdir(mode=0o700, parents=True)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(place.socket))
        await answered(await pool.acquire("tiny", tiny_model, load_params()))

    async def test_a_dead_engines_socket_is_swept_away(self, pool: Pool, paths: Paths) -> None:
        paths.runtime.mkdir(mode=0o700)
        path = paths.runtime / "0123.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        await pool.scan()
        assert not path.exists()
        assert pool.engines == ()

    async def test_one_that_does_not_end_in_good_order_is_not_waited_for(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        os.kill(engine.pid, signal.SIGKILL)
        await engine.unload()
        await until(lambda: gone(engine.pid))


class TestCannotStart:
    async def test_a_runtime_folder_that_others_may_enter(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        paths.runtime.mkdir()
        paths.runtime.chmod(0o755)
        with pytest.raises(LlamaTuiError, match="0755") as caught:
            await pool.acquire("tiny", tiny_model, load_params())
        assert "chmod 700" in caught.value.hint

    async def test_a_state_folder_that_cannot_be_made(self, paths: Paths, tiny_model: Path) -> None:
        (paths.state.parent / "file").parent.mkdir(parents=True, exist_ok=True)
        blocked = Paths(paths.config, paths.data, tiny_model / "state", paths.runtime, paths.cache)
        pool = Pool(blocked, lambda _engine: None)
        with pytest.raises(LlamaTuiError) as caught:
            await pool.acquire("tiny", tiny_model, load_params())
        assert caught.value.hint

    async def test_a_file_that_is_gone(self, pool: Pool, tmp_path: Path) -> None:
        with pytest.raises(BadModelFile, match=r"none\.gguf") as caught:
            await pool.acquire("none", tmp_path / "none.gguf", load_params())
        assert caught.value.hint

    async def test_loading_that_takes_too_long(self, pool: Pool, tiny_model: Path, gate: Path) -> None:
        assert not gate.exists()
        engine = await pool.acquire("tiny", tiny_model, load_params(timeout=0.2, idle_timeout=0.2))
        with pytest.raises(LoadFailed, match=r"tiny took longer than 0\.2 s") as caught:
            await collect(engine.generate("g", HELLO, {}))
        assert "timeout" in caught.value.hint
        await until(lambda: engine.condition == "failed")
        await until(lambda: gone(engine.pid))

    async def test_an_engine_that_speaks_another_version(self, pool: Pool, running_elsewhere: Path) -> None:
        from llama_tui.errors import ProtocolError

        with pytest.raises(ProtocolError, match="version"):
            await EngineClient.connect(running_elsewhere)
        await pool.scan()
        assert pool.engines == ()


@pytest.fixture
async def running_elsewhere(paths: Paths) -> AsyncIterator[Path]:
    """A socket where something answers every hello as an engine of another version would."""
    paths.runtime.mkdir(mode=0o700)
    path = paths.runtime / "beef.sock"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readline()
            writer.write(b'{"type":"failed","id":1,"code":"version","message":"This engine speaks version 9"}\n')
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path=path)
    yield path
    server.close()


class TestMissingLlamaCpp:
    @pytest.mark.parametrize(
        "case",
        [
            ("raise OSError('libcudart.so.12: cannot open shared object file')", "libcudart.so.12"),
            ("raise ModuleNotFoundError(\"No module named 'llama_cpp'\")", "No module named 'llama_cpp'"),
            ("raise RuntimeError('Failed to load shared library')", "Failed to load shared library"),
            ("pass", "llama_cpp"),
        ],
    )
    async def test_says_what_the_loader_said_and_how_to_install(
        self, pool: Pool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, str]
    ) -> None:
        from llama_tui.errors import MissingLlamaCpp

        source, said = case
        before = os.environ.get("PYTHONPATH", "")
        fake_llama_cpp(tmp_path / "fake", source, monkeypatch)
        engine = await pool.acquire("tiny", tiny_model, load_params())
        await until(lambda: engine.condition == "failed")
        assert isinstance(engine.error, MissingLlamaCpp)
        assert said in engine.error.message
        for flag in ("GGML_CUDA", "GGML_METAL", "GGML_HIP", "GGML_VULKAN"):
            assert f'CMAKE_ARGS="-D{flag}=on"' in engine.error.hint
        await until(lambda: gone(engine.pid))
        monkeypatch.setenv("PYTHONPATH", before)
        await answered(await pool.acquire("tiny", tiny_model, load_params()))
