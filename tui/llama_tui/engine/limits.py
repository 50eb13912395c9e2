"""What the control groups of this process leave it of the host's memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


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
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _levels(root, path, _version_2)
        elif "memory" in controllers.split(","):
            yield from _levels(root / "memory", path, _version_1)


def _levels(mounted: Path, path: str, read: Callable[[Path], Limit]) -> Iterator[Limit]:
    folder = mounted / path.lstrip("/")
    if not folder.is_dir():
        folder = mounted
    for level in (folder, *folder.parents):
        if level == mounted or mounted in level.parents:
            # The root of the hierarchy has no limit, and no file for one.
            with contextlib.suppress(OSError, ValueError, KeyError):
                yield read(level)


def _version_2(folder: Path) -> Limit:
    limits = [(folder / name).read_text().strip() for name in ("memory.max", "memory.high") if (folder / name).exists()]
    cache = _statistics(folder, "inactive_file", "active_file")
    total = min(int(limit) for limit in limits if limit != "max")
    return Limit(total, max(0, int((folder / "memory.current").read_text()) - cache))


def _version_1(folder: Path) -> Limit:
    cache = _statistics(folder, "total_inactive_file", "total_active_file")
    used = int((folder / "memory.usage_in_bytes").read_text())
    return Limit(int((folder / "memory.limit_in_bytes").read_text()), max(0, used - cache))


def _statistics(folder: Path, *names: str) -> int:
    found = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return sum(int(found[name]) for name in names)
