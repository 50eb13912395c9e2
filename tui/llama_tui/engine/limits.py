"""What the control groups of this process leave it of the host's memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")

_NO_LIMIT = 2**62
"""Bytes from which on a limit is none: version 1 names the largest number of pages where nobody has set one."""

_MOST = 16384
"""Bytes of a file; the longest are half of it."""


class Limit(Struct, frozen=True):
    """Bytes that a group may use, and those it uses now and cannot give back: its page cache can be dropped."""

    total: int
    used: int

    @property
    def free(self) -> int:
        """What is left."""
        return self.total - self.used


def memory_limits(root: Path = _ROOT, own: Path = _OWN) -> Iterator[Limit]:
    """The limits of this process's group and of every group around it, of both versions of cgroups.

    `own` is the kernel's list of the groups of the process. In a container the folder that it names is
    often not there: what is mounted is then the group itself.
    """
    try:
        lines = kernel_text(str(own)).splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _levels(root, path, _version_2)
        elif "memory" in controllers.split(","):
            yield from _levels(root / "memory", path, _version_1)


def _levels(mounted: Path, path: str, read: Callable[[str], Limit | None]) -> Iterator[Limit]:
    top, name = str(mounted), path.strip("/")
    # A folder that is not there is a host's, as it is seen from a container.
    folder = f"{top}/{name}" if name and os.path.isdir(f"{top}/{name}") else top  # noqa: PTH112
    while len(folder) >= len(top):
        # The root of the hierarchy has no limit, and no file for one.
        with contextlib.suppress(OSError, ValueError, KeyError):
            if limit := read(folder):
                yield limit
        folder = folder.rpartition("/")[0]


def _version_2(folder: str) -> Limit | None:
    total = _NO_LIMIT
    for name in ("memory.max", "memory.high"):
        with contextlib.suppress(FileNotFoundError):
            limit = kernel_text(f"{folder}/{name}").strip()
            total = total if limit == "max" else min(total, int(limit))
    if total >= _NO_LIMIT:
        return None
    cache = _statistics(folder, "inactive_file", "active_file")
    return Limit(total, max(0, int(kernel_text(f"{folder}/memory.current")) - cache))


def _version_1(folder: str) -> Limit | None:
    total = int(kernel_text(f"{folder}/memory.limit_in_bytes"))
    if total >= _NO_LIMIT:
        return None
    cache = _statistics(folder, "total_inactive_file", "total_active_file")
    return Limit(total, max(0, int(kernel_text(f"{folder}/memory.usage_in_bytes")) - cache))


def _statistics(folder: str, *names: str) -> int:
    found = dict(line.split() for line in kernel_text(f"{folder}/memory.stat").splitlines())
    return sum(int(found[name]) for name in names)


def kernel_text(path: str) -> str:
    """A small file of the kernel's. They are read once a second, which this does at a fifth of the usual cost."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.fsdecode(os.read(file, _MOST))
    finally:
        os.close(file)
