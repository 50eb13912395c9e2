"""What an engine took is given back when it ends, however it ends, and nobody says so too early.

The kernel takes a process's memory back with the process. What outlives it are files in memory
(`/dev/shm`, a temporary folder on a tmpfs) and System V segments, so these are looked for as well; pages
of the model's file are nobody's once no process maps it. The system's own figure of free memory says
nothing of one process among many.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from llama_tui.commands import stop
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.engine.process import listens
from tests.engine.conftest import HELLO, collect, end_of, load_params, ready, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")

MIB = 2**20
_SEGMENTS = Path("/proc/sysvipc/shm")
_IN_MEMORY = ("/dev/shm/", "/run/shm/")


def members(leader: int) -> list[psutil.Process]:
    """The living processes of an engine's session: it leads one of its own."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def files_of(process: psutil.Process) -> set[str]:
    """The files that a process maps or has open."""
    maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in maps if len(line.split(maxsplit=5)) > 5} | {
        file.path for file in process.open_files()
    }


def segments(pids: set[int]) -> list[str]:
    """The System V segments that these processes have made."""
    rows = _SEGMENTS.read_text().splitlines()[1:] if _SEGMENTS.exists() else []
    return [row for row in rows if int(row.split()[4]) in pids]


def private(process: psutil.Process) -> int:
    """A process's own memory in bytes: /proc/PID/status, RssAnon."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


async def by_unloading(engine: Engine) -> None:
    """As the terminal program does."""
    assert await engine.unload()


async def by_stop(engine: Engine) -> None:
    """As the shell does, from outside of the program that started it."""
    assert await asyncio.to_thread(stop.main, [str(engine.pid)]) == 0


async def by_its_idle_timeout(engine: Engine) -> None:
    """By itself."""
    await engine.configure(0.1)
    await until(lambda: engine.condition == "unloaded")
    assert engine.end_reason == "idle"
    await until(lambda: not members(engine.pid))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files of what is started now."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.parametrize("end", [by_unloading, by_stop, by_its_idle_timeout], ids=lambda way: way.__name__)
@pytest.mark.parametrize("mmap", [True, False], ids=["mapped", "read"])
async def test_all_of_it_is_back(
    end: Callable[[Engine], Awaitable[None]], mmap: bool, pool: Pool, tiny_model: Path, temporary: Path
) -> None:
    # Two blocks of 64 wide keys and values in 16 bits: 64 MiB of KV cache.
    engine = await ready(await pool.acquire("tiny", tiny_model, load_params(n_ctx=131072, use_mmap=mmap)))
    answer = collect(engine.generate("g", HELLO, {"max_tokens": 3, "ignore_eos": True}))
    assert end_of(await answer).completion_tokens == 3
    await until(lambda: engine.state and engine.state.phase == "ready")

    held = members(engine.pid)
    pids = {process.pid for process in held}
    (own,) = (process for process in held if process.pid == engine.pid)
    assert len(held) > 1, "a process of its own runs the chat template"
    assert engine.state
    said = engine.state.memory.private
    assert said
    assert said == pytest.approx(private(own), rel=0.1)
    assert said > sum(buffer.kv for buffer in engine.state.memory.buffers) >= 64 * MIB
    files = {file for process in held for file in files_of(process)}
    assert (str(tiny_model) in files) is mmap

    await end(engine)
    assert not members(engine.pid), "a process outlives what was said of its end"
    assert not [file for file in files if file.startswith(_IN_MEMORY) and Path(file).exists()]
    assert not segments(pids)
    assert list(temporary.iterdir()) == []
    assert not listens(engine.place.socket)
    await until(lambda: pool.engines == ())
