"""A terminal that only notes when which bytes came; what they drew is found out afterwards.

Emulating a screen while a program is measured would take the core that it needs. `TimedTerminal`
answers the queries that modern terminals answer, and can take bytes as slowly as a thin link does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte

_ANSWERS = (
    (re.compile(rb"\x1b\[\?2026\$p"), b"\x1b[?2026;2$y"),
    (re.compile(rb"\x1b\[\?2048\$p"), b"\x1b[?2048;0$y"),
    (re.compile(rb"\x1b\]11;\?(?:\x07|\x1b\\)"), b"\x1b]11;rgb:0000/0000/0000\x1b\\"),
    (re.compile(rb"\x1b\[0?c"), b"\x1b[?62;22c"),
)
_LONGEST = 24  # bytes of a query

_WHOLE = rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[P_^X][^\x1b]*\x1b\\|[ -/]*[0-OQ-WYZ\\`-~])"
_ENDS_WHOLE = re.compile(_WHOLE + rb"[^\x1b]*\Z", re.DOTALL)
# Colours do not move anything, and pyte prints what it does not know of private modes.
_UNSEEN = re.compile(rb"\x1b(?:\[[0-9;:]*m|\[[<=>?][0-9;:]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


class TimedTerminal:
    """Runs a command in a pty of a size; `bytes_per_second` is what the link to it takes, 0 = all."""

    def __init__(self, command: list[str], env: dict[str, str], columns: int = 120, rows: int = 40) -> None:
        self.columns, self.rows = columns, rows
        self.bytes_per_second = 0
        self.chunks: list[tuple[float, bytes]] = []
        self._tail = b""
        self._free_at = 0.0
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execve(command[0], command, env)

    def __enter__(self) -> TimedTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)

    def send(self, keys: str) -> float:
        """Press keys; the time of it."""
        os.write(self._fd, keys.encode())
        return time.monotonic()

    def paste(self, text: str) -> None:
        """Paste, and take what comes meanwhile, until all is read."""
        data = memoryview(f"\x1b[200~{text}\x1b[201~".encode())
        os.set_blocking(self._fd, False)
        while data:
            readable, writable, _ = select.select([self._fd], [self._fd], [], 1)
            with contextlib.suppress(BlockingIOError):
                if readable:
                    self._take(os.read(self._fd, 65536))
                if writable:
                    data = data[os.write(self._fd, data[:65536]) :]
        os.set_blocking(self._fd, True)

    def read(self, seconds: float, until: Callable[[], object] = lambda: False) -> None:
        """Take what comes for so long, or until a condition holds."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not until():
            busy = self._free_at - time.monotonic()
            if busy > 0:
                time.sleep(min(busy, left))
            elif select.select([self._fd], [], [], min(left, 0.02))[0]:
                self._take(os.read(self._fd, 65536))

    def _take(self, data: bytes) -> None:
        now = time.monotonic()
        if self.bytes_per_second:
            self._free_at = max(now, self._free_at) + len(data) / self.bytes_per_second
        self.chunks.append((now, data))
        seen = self._tail + data
        for query, answer in _ANSWERS:
            for match in query.finditer(seen):
                if match.end() > len(self._tail):
                    os.write(self._fd, answer)
        self._tail = data[-_LONGEST:]

    def bytes_since(self, then: float) -> int:
        """How much came after a time."""
        return sum(len(data) for at, data in self.chunks if at > then)

    def cpu_seconds(self) -> float:
        """What the program has used, without the processes it has started."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def replay(self) -> Iterator[tuple[float, pyte.Screen]]:
        """The screen after every read, with its time; `dirty` has the rows that the read changed."""
        screen = pyte.Screen(self.columns, self.rows)
        stream = pyte.ByteStream(screen)
        carry = b""
        for at, data in self.chunks:
            whole = carry + data
            carry = b""
            cut = whole.rfind(b"\x1b")
            if cut >= 0 and not _ENDS_WHOLE.match(whole, cut):
                whole, carry = whole[:cut], whole[cut:]
            screen.dirty.clear()
            stream.feed(_UNSEEN.sub(b"", whole))
            yield at, screen

    def screen(self) -> str:
        """What the screen shows now."""
        screens = list(self.replay())
        return "\n".join(screens[-1][1].display) if screens else ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until the screen shows a text; raises `TimeoutError` with the screen if it does not."""
        deadline = time.monotonic() + seconds
        seen = -1
        while True:
            if seen != len(self.chunks):
                seen = len(self.chunks)
                if text in self.screen():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} does not appear:\n{self.screen()}")
            self.read(0.1)
