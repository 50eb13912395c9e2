"""How many threads an engine should use: the physical cores that this process may run on, less one where
nothing would be left for who reads its answers."""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


_MANY = 4
"""Cores from which on one is given up: of fewer it would be missed more than a key that waits."""


def default_threads() -> int:
    """The physical cores, or one less where these are all the CPU time there is, and many. llama.cpp's
    threads wait for each other at every layer: one that has to give way to the terminal holds up all, and
    a container's whole quota spent early in a period stops everything in it until the next."""
    cores, quota = physical_cores(), _quota()
    whole = min(len(_usable()), quota or math.inf)
    return cores - 1 if cores >= _MANY and cores >= whole else cores


def physical_cores() -> int:
    """Physical cores within this process's affinity and its cgroup's CPU quota, at least 1.

    Two threads on one core slow llama.cpp down, and so do threads beyond a container's quota;
    `os.cpu_count()` counts both.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return max(1, len(_usable()) // 2)
    cores = {_siblings(cpu) for cpu in _usable()}
    quota = _quota()
    return max(1, min(len(cores), math.ceil(quota)) if quota else len(cores))


def _usable() -> set[int]:
    """The hardware threads that this process may run on."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # macOS
        return set(range(os.cpu_count() or 2))


def _siblings(cpu: int) -> str:
    """The hardware threads that share this one's core, as the kernel writes them."""
    try:
        return (_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> float | None:
    """CPUs that the cgroup grants (v2, then v1), None without a limit."""
    try:
        limit, period = (_own_cgroup() / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int((_CGROUP / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((_CGROUP / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return limit_us / period_us if limit_us > 0 else None


def _own_cgroup() -> Path:
    """This process's folder in the unified hierarchy; inside a container that is the root."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            folder = _CGROUP / line[3:].lstrip("/")
            return folder if (folder / "cpu.max").exists() else _CGROUP
    return _CGROUP
