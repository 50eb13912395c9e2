"""What may lie in the runtime folder, whose that folder is, and engines that stand still."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from llama_tui.engine import engine as engine_module
from llama_tui.engine import pool as pool_module
from llama_tui.engine import process as process_module
from llama_tui.engine.client import EngineClient
from llama_tui.engine.pool import Pool
from llama_tui.engine.process import engine_place
from llama_tui.engine.silent import engine_process
from llama_tui.errors import EngineError, LlamaTuiError
from llama_tui.paths import Paths
from tests.engine.conftest import PATIENCE, answered, gone, load_params, ready, until


def stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def link_to_a_stale_socket(path: Path) -> None:
    stale(path.with_name("other"))
    path.symlink_to(path.with_name("other"))


@pytest.fixture
def place(paths: Paths, tiny_model: Path) -> Path:
    """Where the tiny model's engine will listen."""
    paths.runtime.mkdir(mode=0o700)
    return engine_place(paths, tiny_model, load_params()).socket


class TestInItsPlace:
    @pytest.mark.parametrize("put", [stale, os.mkfifo, Path.touch, link_to_nowhere, link_to_a_stale_socket])
    async def test_what_nobody_serves_is_replaced(
        self, put: Callable[[Path], None], pool: Pool, place: Path, tiny_model: Path
    ) -> None:
        put(place)
        engine = await pool.acquire("tiny", tiny_model, load_params())
        await pool.scan()
        assert pool.engines == (engine,)
        assert place.is_socket() and not place.is_symlink()
        assert await engine.unload()
        assert not place.exists()
        place.with_name("other").unlink(missing_ok=True)

    async def test_a_folder_is_left_alone_and_named(self, pool: Pool, place: Path, tiny_model: Path) -> None:
        place.mkdir()
        (place / "precious").touch()
        await pool.scan()
        with pytest.raises(LlamaTuiError) as caught:
            await pool.acquire("tiny", tiny_model, load_params())
        assert str(place) in caught.value.message
        assert f"rm -r {place}" in caught.value.hint
        (place / "precious").unlink()
        place.rmdir()
        await ready(await pool.acquire("tiny", tiny_model, load_params()))

    async def test_engines_leave_nothing_but_the_lock(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        for n_ctx in (256, 512):
            engine = await pool.acquire("tiny", tiny_model, load_params(n_ctx=n_ctx))
        os.kill(engine.pid, signal.SIGKILL)
        await pool.engines[0].unload()
        await until(lambda: engine.condition == "died")
        await pool.scan()
        assert [path.name for path in paths.runtime.iterdir()] == ["lock"]


class TestFolder:
    async def test_one_that_others_may_enter_is_not_searched(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params())
        paths.runtime.chmod(0o750)
        stranger = Pool(paths, lambda _engine: None)
        with pytest.raises(LlamaTuiError, match="0750") as caught:
            await stranger.scan()
        assert f"chmod 700 {paths.runtime}" in caught.value.hint
        assert stranger.engines == ()
        paths.runtime.chmod(0o700)
        await stranger.scan()
        assert [each.pid for each in stranger.engines] == [engine.pid]
        await stranger.close(unload=False)

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
    async def test_another_ones_is_neither_searched_nor_used(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        paths.runtime.mkdir(mode=0o700)
        stale(paths.runtime / "0123.sock")
        os.chown(paths.runtime, 65534, 65534)
        for attempt in (pool.scan(), pool.acquire("tiny", tiny_model, load_params())):
            with pytest.raises(LlamaTuiError, match="owner 65534") as caught:
                await attempt
            assert f"rm -r {paths.runtime}" in caught.value.hint
            assert "XDG_RUNTIME_DIR" in caught.value.hint
        assert (paths.runtime / "0123.sock").exists()

    def test_the_shell_is_told(self, paths: Paths) -> None:
        paths.runtime.mkdir()
        paths.runtime.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-m", "llama_tui", "ps"], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1
        assert f"chmod 700 {paths.runtime}" in done.stderr


class TestLock:
    async def test_one_that_is_never_released_is_named(
        self, pool: Pool, paths: Paths, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process_module, "_LOCK_SECONDS", 0.1)
        paths.runtime.mkdir(mode=0o700)
        with (paths.runtime / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(LlamaTuiError, match="lock") as caught:
                await pool.acquire("tiny", tiny_model, load_params())
            assert "fuser" in caught.value.hint
        await ready(await pool.acquire("tiny", tiny_model, load_params()))


class TestHangs:
    async def test_who_attaches_is_told_how_to_end_it(
        self, pool: Pool, paths: Paths, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool_module, "_ATTACH_SECONDS", 0.3)
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        os.kill(engine.pid, signal.SIGSTOP)
        other = Pool(paths, lambda _engine: None)
        with pytest.raises(EngineError, match=f"process {engine.pid}") as caught:
            await other.acquire("tiny", tiny_model, load_params())
        assert f"llama-tui stop {engine.pid}" in caught.value.hint
        stopped = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "llama_tui", "stop", str(engine.pid), stdout=asyncio.subprocess.DEVNULL
        )
        assert await stopped.wait() == 0
        await until(lambda: gone(engine.pid))
        again = await other.acquire("tiny", tiny_model, load_params())
        await answered(again)
        await again.unload()
        await other.close(unload=True)

    async def test_a_queue_of_connections_is_waited_for(self, paths: Paths) -> None:
        """More programs at once than the socket takes: the last one waits, and is not refused."""
        paths.runtime.mkdir(mode=0o700)
        path = paths.runtime / "full.sock"
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as before:
            busy.bind(str(path))
            busy.listen(0)
            before.connect(str(path))
            with pytest.raises(EngineError) as caught:
                await EngineClient.connect(path, 0.1)
            assert caught.value.hint
            waiting = asyncio.create_task(EngineClient.connect(path, PATIENCE))
            await asyncio.sleep(0)
            busy.accept()[0].close()
            connected, _ = await asyncio.to_thread(busy.accept)
            assert b'"hello"' in await asyncio.to_thread(connected.recv, 100)
            connected.close()
            with pytest.raises(EngineError):
                await waiting
        path.unlink()


class TestProcessIds:
    async def test_one_that_is_anothers_by_now_is_never_killed(
        self, pool: Pool, paths: Paths, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine_module, "_STOP_SECONDS", 0.2)
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        assert engine_process(engine.pid, engine.spec)
        assert engine_process(engine.pid, msgspec.structs.replace(engine.spec, socket="another")) is None
        assert engine_process(os.getpid(), engine.spec) is None
        other = Pool(paths, lambda _engine: None)
        await other.scan()
        (theirs,) = other.engines
        with subprocess.Popen(["sleep", "60"]) as innocent:  # noqa: ASYNC220 - it is only there
            theirs.pid = innocent.pid
            os.kill(engine.pid, signal.SIGSTOP)
            await theirs.cancel("x")
            assert innocent.poll() is None
            innocent.kill()
        theirs.pid = engine.pid
        await theirs.cancel("x")
        await until(lambda: gone(engine.pid))
        await other.close(unload=False)
