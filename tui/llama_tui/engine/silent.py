"""Engines that do not answer: stopped, swapped out, or hung so badly that they greet nobody.

What they are is read from their command line, which holds the `EngineSpec`; nothing is asked of them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from llama_tui.engine.process import EnginePlace, place_of_socket
from llama_tui.engine.protocol import EngineSpec, Memory
from llama_tui.paths import Paths

if TYPE_CHECKING:
    import psutil

_WORKER = "llama_tui.worker"
_POLL_SECONDS = 0.01


class SilentEngine(Struct, frozen=True):
    """The process of an engine that listens but does not answer; `memory` is what it holds."""

    spec: EngineSpec
    place: EnginePlace
    pid: int
    memory: Memory

    def end(self, seconds: float) -> bool:
        """Kill the process and wait until it is gone; False if it is still there after some seconds."""
        import psutil

        deadline = time.monotonic() + seconds
        try:
            process = psutil.Process(self.pid)
            if _spec_of(process.cmdline()) != self.spec:
                return True  # it has ended, and its number belongs to another process
            process.kill()
        except psutil.NoSuchProcess:
            return True
        while lives(process):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


def lives(process: psutil.Process) -> bool:
    """Whether a process is still there. Its command line does not tell: the kernel forgets that first, and
    only then begins to give back the memory."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def engine_process(pid: int, spec: EngineSpec) -> psutil.Process | None:
    """The engine's process with that id, if it lives: a number alone may be another's by now, or
    come from another container."""
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE and _spec_of(process.cmdline()) == spec:
            return process
    return None


def silent_engines(paths: Paths, sockets: Iterable[Path]) -> tuple[SilentEngine, ...]:
    """The engine processes of this user that were started for these sockets."""
    import psutil

    wanted = {str(path): path for path in sockets}
    found: list[SilentEngine] = []
    if wanted:
        for process in psutil.process_iter(["cmdline"]):
            spec = _spec_of(process.info["cmdline"] or ())
            if spec and spec.socket in wanted:
                place = place_of_socket(paths, wanted[spec.socket], Path(spec.path))
                with contextlib.suppress(psutil.Error):
                    memory = process.memory_info()
                    shared = getattr(memory, "shared", None)
                    held = Memory(private=memory.rss - (shared or 0), mapped=shared)
                    found.append(SilentEngine(spec, place, process.pid, held))
    return tuple(found)


def _spec_of(command: Sequence[str]) -> EngineSpec | None:
    """What an engine was started with, by its command line; None for any other process."""
    if len(command) < 2 or _WORKER not in command:
        return None
    try:
        return msgspec.json.decode(command[-1], type=EngineSpec)
    except msgspec.MsgspecError:
        return None
