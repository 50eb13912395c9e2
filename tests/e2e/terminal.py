"""A terminal for the tests: the installed command in a pty, its screen emulated."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

COMMAND = os.environ.get("LLAMA_TUI_COMMAND") or shutil.which("llama-tui", path=str(Path(sys.executable).parent))
"""The command under test; CI sets it once more for the one that the wheel installs."""

# Kitty's keyboard protocol is no part of pyte's terminal: it would print these.
_UNKNOWN = re.compile(rb"\x1b\[[<>=][0-9;]*[a-zA-Z]|\x1b\[\?[0-9;]*\$p")


_ESCAPE_SECONDS = 0.4

ATTRIBUTES_ASKED, ATTRIBUTES = b"\x1b[c", "\x1b[?62;22c"


class Terminal:
    """Runs a command at a size, the installed one or `command`; `wait_for` reads the screen until it
    shows something. It tells its attributes when it is asked, as every terminal does, unless it shall
    be silent."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 120,
        rows: int = 40,
        env: dict[str, str] | None = None,
        command: tuple[str, ...] = (),
        answers: bool = True,
    ) -> None:
        assert COMMAND, "llama-tui is not installed in this environment"
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._answers = answers
        self.exit_code: int | None = None
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            words = command or (COMMAND, *arguments)
            os.execve(words[0], words, {**os.environ, "COLORTERM": "truecolor", **(env or {})})
        self.resize(columns, rows)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait(5)
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as a window manager does."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def attributes(self) -> list[object]:
        """How the terminal treats what is typed."""
        return termios.tcgetattr(self._fd)

    def send(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def paste(self, text: str) -> None:
        """Paste, as a terminal with bracketed paste does."""
        data = memoryview(f"\x1b[200~{text}\x1b[201~".encode())
        while data:
            data = data[os.write(self._fd, data) :]

    def escape(self) -> None:
        """Press Esc, and nothing for as long as a program waits to tell it from Alt with a letter."""
        self.send("\x1b")
        self.pause()

    def pause(self) -> None:
        """Send nothing for longer than the program takes keys to belong together."""
        deadline = time.monotonic() + _ESCAPE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            self.read(left)

    def hang_up(self) -> None:
        """Close the terminal's end, as a lost connection does."""
        os.close(self._fd)

    @property
    def text(self) -> str:
        """The screen as lines."""
        return "\n".join(self.screen.display)

    def wait_for(self, wanted: str | Callable[[str], bool], seconds: float = 60) -> str:
        """Read until the screen holds a text; fails with the screen as it is."""
        shows = (lambda text: wanted in text) if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + seconds
        while not shows(self.text):
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} does not appear within {seconds} s:\n{self.text}"
            assert self.read(min(left, 0.5)), f"the program ended before {wanted!r}:\n{self.text}"
        return self.text

    def read(self, seconds: float) -> bool:
        """Feed what came; False when the program has closed the terminal."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self.raw += data
        if self._answers and ATTRIBUTES_ASKED in data:
            self.send(ATTRIBUTES)
        self.feed(data)
        return bool(data)

    def feed(self, data: bytes) -> None:
        """Draw on the screen, as the program does, or as another that writes to the same terminal."""
        self._stream.feed(_UNKNOWN.sub(b"", data))

    def wait(self, seconds: float = 60) -> int:
        """Read until the program has ended; its exit code, negative for a signal."""
        deadline = time.monotonic() + seconds
        while self.exit_code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.exit_code = os.waitstatus_to_exitcode(status)
                break
            assert time.monotonic() < deadline, f"the program does not end:\n{self.text}"
            with contextlib.suppress(OSError, ValueError):
                self.read(0.05)
        with contextlib.suppress(OSError, ValueError):
            while select.select([self._fd], [], [], 0)[0] and self.read(0):
                pass
        return self.exit_code
