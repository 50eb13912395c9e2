"""Where a command's words go: the answer to standard output, what happens to standard error."""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable

from llama_tui.control import Sanitizer, one_line, sanitize

_CLEAR = "\r\x1b[K"


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """Print for whoever reads. A pipe gets the text as it is, a terminal without its control
    characters: names of files, answers and logs are written by others."""
    stream = sys.stderr if error else sys.stdout
    print(sanitize(text) if stream.isatty() else text, end=end, file=stream, flush=True)


def column(text: str, width: int, *, right: bool = False) -> str:
    """Filled up with blanks to a width in the terminal's cells, of which wide characters take two."""
    gap = " " * (width - cells(text))
    return gap + text if right else text + gap


def cells(text: str) -> int:
    """How many of the terminal's cells it takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cropped(text: str, width: int) -> str:
    """As much of a line as so many cells hold."""
    if cells(text) <= width:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, width)


class Outlet:
    """Standard output behind a thread, so that a slow reader holds up neither the event loop nor a
    signal. `on_broken` is called in the loop when the reader has closed the pipe."""

    def __init__(self, on_broken: Callable[[], None]) -> None:
        self._pieces: queue.SimpleQueue[bytes | asyncio.Future[None]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._on_broken = on_broken
        self._broken = False
        self._fd = sys.stdout.fileno()
        self._safe = Sanitizer() if sys.stdout.isatty() else None
        self._ends_line = True
        threading.Thread(target=self._write_all, name="output", daemon=True).start()

    def text(self, text: str) -> None:
        """Write text, soon."""
        if self._safe:
            text = self._safe.feed(text)
        if text:
            self._ends_line = text.endswith("\n")
            self._pieces.put(text.encode("utf-8", "replace"))

    def end_line(self) -> None:
        """End the last line, if it is not ended."""
        if not self._ends_line:
            self.text("\n")

    async def drain(self, seconds: float | None = None) -> None:
        """Wait until all is written, for at most that long."""
        written: asyncio.Future[None] = self._loop.create_future()
        self._pieces.put(written)
        await asyncio.wait([written], timeout=seconds)

    def _write_all(self) -> None:
        while True:
            piece = self._pieces.get()
            if isinstance(piece, asyncio.Future):
                self._tell(_finish, piece)
            elif not self._broken:
                self._write(piece)

    def _write(self, piece: bytes) -> None:
        try:
            while piece:
                piece = piece[os.write(self._fd, piece) :]
        except OSError:
            self._broken = True
            self._tell(self._on_broken)

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def _finish(written: asyncio.Future[None]) -> None:
    if not written.done():
        written.set_result(None)


class Narrator:
    """Says on standard error what goes on, where that is a terminal; else nothing but warnings."""

    def __init__(self) -> None:
        self._speaks = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._shown = False
        self._hushed = False

    def status(self, text: str) -> None:
        """Show what is going on now, in place of what was shown before."""
        if self._speaks and not self._hushed:
            self._shown = True
            width = shutil.get_terminal_size().columns - 1
            print(f"{_CLEAR}{cropped(one_line(text), width)}", end="", file=sys.stderr, flush=True)

    def hush(self) -> None:
        """Take the status away: the answer begins, perhaps on the same terminal."""
        self.clear()
        self._hushed = True

    def clear(self) -> None:
        """Take the status away; another may come."""
        if self._shown:
            print(_CLEAR, end="", file=sys.stderr, flush=True)
        self._shown = False

    def line(self, text: str) -> None:
        """Say something that stays."""
        if self._speaks:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Say something that whoever reads standard error must know, terminal or not."""
        self.clear()
        say(text, error=True)
