"""Engine processes: where one listens, starting it, and sweeping away the socket of a dead one."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llama_tui.engine.logs import open_log
from llama_tui.engine.protocol import VERSION, EngineSpec
from llama_tui.errors import LlamaTuiError
from llama_tui.paths import SOCKET_PATH_LIMIT, Paths, ensure, private
from llama_tui.settings.params import load_identity
from llama_tui.settings.values import Value


@dataclass(frozen=True, slots=True)
class EnginePlace:
    """Where the engine of one file with one set of load parameters listens and logs.

    `model` is absolute but not resolved: llama.cpp finds the other shards by this one's name.
    """

    model: Path
    socket: Path
    lock: Path
    log: Path


def engine_place(paths: Paths, model: Path, params: dict[str, Value]) -> EnginePlace:
    """The same file with the same parameters has the same place, whoever asks.

    A file that was replaced (another size or time of change) is another file. Raises OSError where
    it is not there, `LlamaTuiError` where the socket's path would be too long.
    """
    found = model.stat()
    identity = [VERSION, str(model.resolve()), found.st_size, found.st_mtime_ns, load_identity(params)]
    digest = hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:16]
    path = paths.runtime / f"{digest}.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise LlamaTuiError(
            f"The path of the engine's socket is too long: {path}",
            f"A Unix socket's path may have {SOCKET_PATH_LIMIT} bytes: set XDG_RUNTIME_DIR to a shorter folder.",
        )
    return place_of_socket(paths, path, model)


def place_of_socket(paths: Paths, path: Path, model: Path) -> EnginePlace:
    """The place that belongs to a socket; its name is all that the others are made from."""
    log = paths.logs / f"{model.stem[:80]}-{path.stem}.log"
    return EnginePlace(model.absolute(), path, path.with_suffix(".lock"), log)


class EngineProcess:
    """A process that this program has started; others start some too, and those are not ours.

    Not asyncio's own: from Python 3.13 on that kills its process when the event loop goes, and an
    engine outlives the program that started it.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        threading.Thread(target=self._reap, name=f"reap-{process.pid}", daemon=True).start()

    def _reap(self) -> None:
        exit_code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._ended.set_result, exit_code)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def wait(self, seconds: float) -> int | None:
        """Its exit code (negative: the signal), None if it still runs after that time."""
        await asyncio.wait([self._ended], timeout=seconds)
        return self._ended.result() if self._ended.done() else None

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


async def spawn(paths: Paths, place: EnginePlace, spec: EngineSpec) -> EngineProcess | None:
    """Start an engine unless one listens there already (None).

    The parent makes the listening socket and hands it down: clients can connect before the child
    runs, and two programs that start the same engine at once agree through the lock.
    """
    private(paths.runtime)
    ensure(paths.logs)
    with place.lock.open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if _listens(place.socket):
            return None
        place.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening, open_log(place.log) as log:
            listening.bind(str(place.socket))
            listening.listen(128)
            process = subprocess.Popen(  # noqa: ASYNC220 - it returns in milliseconds
                (sys.executable, "-m", "llama_tui.worker", str(listening.fileno()), msgspec.json.encode(spec).decode()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listening.fileno(),),
                start_new_session=True,
                # The order that nvidia-smi shows; without it the same number names another GPU.
                env={**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONUNBUFFERED": "1"},
            )
    return EngineProcess(process)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # too busy to take one more, not gone
    return True


def remove_stale(path: Path) -> None:
    """Remove the socket of an engine that died, if nobody listens there."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _listens(path):
            path.unlink(missing_ok=True)
