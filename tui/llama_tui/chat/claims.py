"""Which answers are being made: a lock for each, which goes with its program however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from llama_tui.errors import LlamaTuiError
from llama_tui.paths import private

_SUFFIX = ".answer"


class Claims:
    """The answers of this program, as others can see them: files in the runtime folder. Where there can be
    none, nobody else knows of an answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        self._swept = False

    def take(self, turn_id: str) -> bool:
        """Say that this program makes an answer; False where another one that lives does."""
        if turn_id in self._held:
            return True
        path = self._path(turn_id)
        try:
            private(self._folder)
            self._sweep()
            while (descriptor := _locked(path)) is None:
                pass  # whoever had it has just let go of it
        except BlockingIOError:
            return False
        except (OSError, LlamaTuiError):
            return True
        self._held[turn_id] = descriptor
        return True

    def drop(self, turn_id: str) -> None:
        """The answer is not made by this program any more."""
        descriptor = self._held.pop(turn_id, None)
        if descriptor is not None:
            _give_up(self._path(turn_id), descriptor)

    def _sweep(self) -> None:
        """Take away, once, what programs that were killed have left."""
        if self._swept:
            return
        self._swept = True
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                if (descriptor := _locked(path)) is not None:
                    _give_up(path, descriptor)

    def _path(self, turn_id: str) -> Path:
        return self._folder / f"{turn_id}{_SUFFIX}"


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of a file; None where the file was taken away meanwhile. Raises
    `BlockingIOError` where another program holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _give_up(path: Path, descriptor: int) -> None:
    """Take away a file and its lock."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    os.close(descriptor)
