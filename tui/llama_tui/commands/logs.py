"""`llama-tui logs`: what engines and llama.cpp printed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from llama_tui.commands.output import say
from llama_tui.commands.shell import Exit, command
from llama_tui.engine.logs import logs_of, model_of
from llama_tui.errors import ModelNameError
from llama_tui.paths import Paths
from llama_tui.settings.layers import model_keys

_POLL_SECONDS = 0.2
_BLOCK = 64 * 1024
_EPILOG = """\
examples:
  llama-tui logs                     the engine that printed last
  llama-tui logs guide -n 200
  llama-tui logs qwen3-8b-q4_k_m -f  go on until ctrl+c

Exit codes: 0 shown, 2 wrong arguments, 3 no such log, 130 interrupted."""


def parser() -> argparse.ArgumentParser:
    """The arguments of `logs`."""
    made = command("logs", "[NAME] [-n LINES] [-f]", "Show the end of an engine's log.", _EPILOG)
    made.add_argument("name", metavar="NAME", nargs="?", help="the model; left out: the log that was written last")
    made.add_argument("-n", "--lines", type=_count, default=50, metavar="LINES", help="how many lines (default: 50)")
    made.add_argument("-f", "--follow", action="store_true", help="show what is printed from now on, too")
    return made


def main(arguments: Sequence[str]) -> int:
    """Show a log; returns the exit code."""
    given = parser().parse_args(arguments)
    log = _log(Paths.default().logs, given.name)
    say(f"==> {log}", error=True)
    shown = 0
    with log.open("rb") as file:
        text = _tail(file.read(), given.lines)
        shown = file.tell()
    _print(text)
    if given.follow:
        for piece in _growth(log, shown):
            _print(piece)
    return Exit.OK


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("it must be 0 or more")
    return number


def _log(folder: Path, name: str | None) -> Path:
    """The log of a model, the latest of several; raises `ModelNameError`."""
    every = logs = logs_of(folder)
    if name is not None:
        wanted = model_keys(name)[0]
        logs = [log for log in logs if model_of(log).casefold() == wanted or log.stem == name]
    if not logs:
        known = sorted({model_of(log) for log in every})
        raise ModelNameError(
            f'There is no log of "{name}" in {folder}' if name else f"There is no log in {folder}",
            f"There are logs of {', '.join(known)}." if known else "Logs begin with the first model that is loaded.",
        )
    return logs[0]


def _tail(data: bytes, lines: int) -> bytes:
    return b"".join(data.splitlines(keepends=True)[-lines:]) if lines else b""


def _print(text: bytes) -> None:
    """A pipe gets the bytes as they are."""
    if sys.stdout.isatty():
        say(text.decode("utf-8", "replace"), end="")
        return
    while text:
        text = text[os.write(sys.stdout.fileno(), text) :]


def _growth(log: Path, shown: int) -> Iterator[bytes]:
    """What is written behind `shown` bytes; a log that was put aside goes on in a new file."""
    file = log.open("rb")
    file.seek(shown)
    try:
        while True:
            if piece := file.read(_BLOCK):
                yield piece
                continue
            try:
                moved = log.stat().st_ino != os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                moved = False
            if moved:
                file.close()
                file = log.open("rb")
            else:
                time.sleep(_POLL_SECONDS)
    finally:
        file.close()
