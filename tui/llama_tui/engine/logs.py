"""The logs of engines: one file for each place, that an engine and llama.cpp write to, and the
account of an engine's death, which the program that started it writes below its last words."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from llama_tui.errors import EngineDied

_BYTES = 1024 * 1024
_COPIES = 2
_BEGIN = "--- an engine starts ---\n"
_OURS = "--- "
_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 8
_SHOWN_BYTES = 256 * 1024


class LogPart(Struct, frozen=True):
    """What was read of a log: its lines, and where the next part begins."""

    lines: tuple[str, ...]
    end: int


def open_log(path: Path) -> BinaryIO:
    """A log to append to; a large one is put aside first, and the oldest of those is given up."""
    if path.exists() and path.stat().st_size > _BYTES:
        for number in range(_COPIES, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                path.with_suffix(f".log.{number - 1}").replace(path.with_suffix(f".log.{number}"))
        path.replace(path.with_suffix(".log.1"))
    log = path.open("ab", buffering=0)
    with contextlib.suppress(OSError):  # a full disk: the engine can do without a log
        log.write(b"\n" + _BEGIN.encode())
    return log


def log_tail(log: Path) -> tuple[str, ...]:
    """The last lines that llama.cpp printed in the latest engine there. Python's own account of a
    crash is left to the file."""
    latest = _latest(log).partition("Fatal Python error")[0]
    lines = [line.rstrip() for line in latest.splitlines() if line.strip() and not line.startswith(_OURS)]
    return tuple(lines[-_TAIL_LINES:])


def note_death(log: Path, error: EngineDied) -> None:
    """Write the account of an engine's death below its last words, for whoever asks later."""
    said = [error.message, *error.hint.splitlines()]
    with contextlib.suppress(OSError), log.open("a") as file:
        file.write("\n" + "".join(f"{_OURS}{line}\n" for line in said))


def noted_death(log: Path) -> EngineDied | None:
    """The account at the end of a log, None where the latest engine left none."""
    lines = _latest(log).rstrip("\n").splitlines()
    said: list[str] = []
    while lines and lines[-1].startswith(_OURS):
        said.insert(0, lines.pop().removeprefix(_OURS))
    return EngineDied(said[0], "\n".join(said[1:]), log_tail(log)) if said else None


def _latest(log: Path) -> str:
    """The end of what the latest engine of a log printed."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").rpartition(_BEGIN)[2]
    except OSError:
        return ""


def read_log(log: Path, start: int | None = None) -> LogPart:
    """The whole lines of a log behind `start` bytes; without it, or where the log was put aside
    meanwhile, those of its end. Raises OSError."""
    with log.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        fresh = start is None or start > size
        begin = max(0, size - _SHOWN_BYTES) if start is None or fresh else start
        file.seek(begin)
        data = file.read(size - begin)
    whole = data.rpartition(b"\n")[0] + b"\n" if b"\n" in data else b""
    lines = whole.decode("utf-8", "replace").splitlines()
    return LogPart(tuple(lines[1:] if fresh and begin else lines), begin + len(whole))


def logs_of(folder: Path) -> list[Path]:
    """The logs of a folder, the one that was written last first."""
    found: list[tuple[float, Path]] = []
    for log in folder.glob("*.log"):
        with contextlib.suppress(OSError):
            found.append((log.stat().st_mtime, log))
    return [log for _, log in sorted(found, reverse=True)]


def model_of(log: Path) -> str:
    """The model's part of the name of a log, which ends with that of its socket."""
    return log.stem.rpartition("-")[0]
