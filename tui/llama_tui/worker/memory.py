"""What this process holds: private and mapped memory, and llama.cpp's buffers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from llama_tui.engine.protocol import Buffer, Memory

_STATUS = Path("/proc/self/status")
_SIZE = re.compile(r"^\S+:\s+(\S+)\s+(model|KV|RS|compute|output) buffer size =\s+([\d.]+) MiB")


def process_memory(buffers: tuple[Buffer, ...]) -> Memory:
    """This process's memory now, in bytes.

    On Linux, RssAnon is the process's own and RssFile the mapped weights, shared with the page
    cache. Elsewhere the two cannot be told apart cheaply, and mapped is unknown.
    """
    if sys.platform == "linux":
        try:
            fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        except OSError:  # no file can be opened any more
            return Memory(private=None, mapped=None, buffers=buffers)
        return Memory(private=_kib(fields.get("RssAnon")), mapped=_kib(fields.get("RssFile")), buffers=buffers)
    return Memory(private=psutil.Process().memory_info().rss, mapped=None, buffers=buffers)


def _kib(field: str | None) -> int | None:
    return int(field.split()[0]) * 1024 if field else None


def bytes_read() -> int | None:
    """Bytes that this process has read from disks, None where the platform does not tell.

    With mmap llama.cpp's own progress stays at 0 until the pages are in; this does not.
    """
    try:
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("read_bytes:"):
                return int(line.split()[1])
    except OSError:
        return None
    return None


def buffers_from_log(lines: Iterable[str]) -> tuple[Buffer, ...]:
    """llama.cpp's buffers as its log tells them, to the 0.01 MiB that it prints."""
    found: dict[str, Buffer] = {}
    for line in lines:
        if not (match := _SIZE.search(line)):
            continue
        name, kind, size = match[1], match[2], round(float(match[3]) * 2**20)
        buffer = found.get(name) or Buffer(name, host=name.startswith("CPU"), weights=0, kv=0, compute=0)
        found[name] = Buffer(
            name=name,
            host=buffer.host,
            weights=buffer.weights + (size if kind == "model" else 0),
            kv=buffer.kv + (size if kind in ("KV", "RS") else 0),
            compute=buffer.compute + (size if kind in ("compute", "output") else 0),
        )
    return tuple(sorted(found.values(), key=lambda buffer: buffer.name))
