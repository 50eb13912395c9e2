"""Faults as they really come: signals, full disks, limits of the system, clients that misbehave."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import client, gate, pool, running, store

__all__ = ["client", "gate", "pool", "running", "store"]


@pytest.fixture(autouse=True)
def nothing_left_in_the_runtime_folder(no_process_left: None, home: Path) -> Iterator[None]:
    """But the lock, and the sockets of engines and the claims of programs that a test has killed: the next
    program removes those."""
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "llama-tui"
    yield
    if folder.is_dir():
        left = [path for path in folder.iterdir() if path.name != "lock" and path.suffix != ".answer"]
        assert not [path.name for path in left if not path.is_socket()]


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives the engines that start from now on a limit, as `ulimit` takes it."""

    def limit(flags: str) -> None:
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nulimit {flags} || exit 99\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return limit


class SmallDisk:
    """A file system of a few hundred KB at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, spare: int = 0) -> None:
        """Take all room but some bytes of it, which are rounded to pages."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        if spare:
            with self._ballast.open("rb+") as file:
                file.truncate(max(0, self._ballast.stat().st_size - spare))

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink()

    def forbid_writing(self) -> None:
        """Make it read-only."""
        _mount("none", self.path, _OPTIONS, _READ_ONLY | _REMOUNT)


_OPTIONS = "size=512k,nr_inodes=64"
_READ_ONLY, _REMOUNT, _DETACH = 1, 32, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: Path, options: str, flags: int = 0) -> None:
    if _libc.mount(source.encode(), os.fsencode(target), b"tmpfs", flags, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk that can be filled; only root can have one."""
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("only root may mount a file system, on Linux")
    path = tmp_path / "disk"
    path.mkdir()
    try:
        _mount("none", path, _OPTIONS)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield SmallDisk(path)
    finally:
        _libc.umount2(os.fsencode(path), _DETACH)
