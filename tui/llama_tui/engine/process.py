"""Engine processes: where one listens, starting it, and sweeping away the socket of a dead one."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
from msgspec import Struct

from llama_tui.engine.logs import open_log
from llama_tui.engine.protocol import VERSION, EngineSpec
from llama_tui.errors import LlamaTuiError
from llama_tui.paths import SOCKET_PATH_LIMIT, Paths, ensure, private
from llama_tui.settings.params import load_identity
from llama_tui.settings.values import Value

_BACKLOG = 1024
_LOCK_SECONDS = 5.0
_POLL_SECONDS = 0.01

_SPIN = "1000"
"""How often llama.cpp's threads look, at the end of every operation, whether the others are done, before
they sleep (libgomp's GOMP_SPINCOUNT). By libgomp's own measure they look for milliseconds, and where another
process has one of the cores, an engine of two threads writes 7 tokens a second in place of 220; where all
cores are free, the difference is lost in the noise."""


class EnginePlace(Struct, frozen=True):
    """Where the engine of one file with one set of load parameters listens and logs.

    `model` is absolute but not resolved: llama.cpp finds the other shards by this one's name.
    """

    model: Path
    socket: Path
    log: Path


def engine_place(paths: Paths, model: Path, params: dict[str, Value]) -> EnginePlace:
    """The same file with the same parameters has the same place, whoever asks.

    A file that was replaced (another size or time of change) is another file. Raises OSError where
    it is not there, `LlamaTuiError` where the socket's path would be too long.
    """
    found = model.stat()
    identity = [VERSION, str(model.resolve()), found.st_size, found.st_mtime_ns, load_identity(params)]
    # A hash of the identity: `hashlib` would bring OpenSSL, a twelfth of all memory at the start.
    digest = random.Random(msgspec.json.encode(identity)).randbytes(8).hex()
    path = paths.runtime / f"{digest}.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise LlamaTuiError(
            f"The path of the engine's socket is too long: {path}",
            f"A Unix socket's path may have {SOCKET_PATH_LIMIT} bytes: set XDG_RUNTIME_DIR to a shorter folder.",
        )
    return place_of_socket(paths, path, model)


def place_of_socket(paths: Paths, path: Path, model: Path) -> EnginePlace:
    """The place that belongs to a socket; its name is all that the log's is made from."""
    log = paths.logs / f"{model.stem[:80]}-{path.stem}.log"
    return EnginePlace(model.absolute(), path, log)


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
    async with _locked(paths.runtime):
        if await asyncio.to_thread(listens, place.socket):
            return None
        _clear(place.socket)
        with socket.socket(socket.AF_UNIX) as listening, open_log(place.log) as log:
            listening.bind(str(place.socket))
            listening.listen(_BACKLOG)
            process = subprocess.Popen(  # noqa: ASYNC220 - it returns in milliseconds
                (sys.executable, "-m", "llama_tui.worker", str(listening.fileno()), msgspec.json.encode(spec).decode()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listening.fileno(),),
                start_new_session=True,
                env=_environment(),
            )
    return EngineProcess(process)


def _environment() -> dict[str, str]:
    # The order that nvidia-smi shows; without it the same number names another GPU.
    ours = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONUNBUFFERED": "1"}
    if os.environ.get("OMP_WAIT_POLICY"):
        return {**os.environ, **ours}
    return {"GOMP_SPINCOUNT": _SPIN, **os.environ, **ours}


@contextlib.asynccontextmanager
async def _locked(runtime: Path) -> AsyncGenerator[None]:
    """Hold the lock of a runtime directory, which takes milliseconds; raises `LlamaTuiError` where
    somebody else keeps it."""
    path = runtime / "lock"
    deadline = time.monotonic() + _LOCK_SECONDS
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LlamaTuiError(
                        f"Another program has held {path} for more than {_LOCK_SECONDS:g} s",
                        f"`fuser {path}` tells which: a llama-tui that hangs there can be ended.",
                    ) from None
            await asyncio.sleep(_POLL_SECONDS)
        yield


def _clear(path: Path) -> None:
    """Remove the socket of an engine that died; raises `LlamaTuiError` for what is none of ours."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LlamaTuiError(
            f"No engine can listen at {path}: {error.strerror}", f"Run `rm -r {path}` and load the model again."
        ) from error


def listens(path: Path) -> bool:
    """Whether an engine takes connections there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # too busy to take one more, not gone
    return True


async def remove_stale(path: Path) -> None:
    """Remove the socket of an engine that died, if nobody listens there."""
    async with _locked(path.parent):
        if not await asyncio.to_thread(listens, path):
            _clear(path)
