"""What is on its way to the terminal: an outlet that never holds the program up, and how much of what
was written the terminal has worked off."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable

WINDOW = 4096
"""Bytes on their way to the terminal above which no further frame is sent. At 100 kB/s they take 40 ms."""

ASK_EVERY = 1024
"""Bytes after which the terminal is asked for a sign of life."""

PATIENCE = 1.0
"""Seconds after which an answer is no longer waited for."""

QUERY = "\x1b[?2026$p"
"""Asks for the state of synchronized output, which terminals answer in order with what they draw."""

_CHUNK = 4096
_BLOCKED_SECONDS = 0.5


class Outlet:
    """Writes to a terminal in a thread. `drained` is called in that thread when everything that was
    given has been taken by the terminal's device, if `tell` was set; that unsets it."""

    def __init__(self, fd: int, drained: Callable[[], None]) -> None:
        self._fd, self._drained = fd, drained
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closing = self._lost = False
        self.unsent = 0
        self.tell = False
        self._thread = threading.Thread(target=self._run, name="terminal-output", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Hand over; returns at once. What cannot be encoded becomes a question mark."""
        data = text.encode(errors="replace")
        with self._changed:
            if not self._lost:
                self._waiting.append(data)
                self.unsent += len(data)
                self._changed.notify()

    def close(self, seconds: float) -> None:
        """Wait until everything is written, but no longer than that: a stopped terminal takes nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    return
                data = self._waiting.popleft()
            try:
                self._put(data)
            except OSError:
                with self._changed:  # nobody is there any more; the input's end tells the program
                    self._lost = True
                    self._waiting.clear()
                    self.unsent = 0
                return
            with self._changed:
                self.unsent -= len(data)
                tell = self.tell and not self.unsent
                self.tell = self.tell and not tell
            if tell:
                self._drained()

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view[:_CHUNK]) :]
            except BlockingIOError:
                select.select([], [self._fd], [], _BLOCKED_SECONDS)


class Window:
    """How many bytes are on their way, as the terminal's answers tell. The kernel and sshd take megabytes
    at once that a thin link then needs long for: only what comes back from the far end says what is drawn."""

    def __init__(self) -> None:
        self.answers = False
        """Whether the terminal answers `QUERY` at all; without that nothing is known."""
        self._sent = self._asked = self._drawn = 0
        self._marks: deque[tuple[int, float]] = deque()

    @property
    def due(self) -> bool:
        """Whether an answer has not come yet."""
        return bool(self._marks)

    def send(self, size: int, now: float) -> bool:
        """Note bytes that are sent; whether `QUERY` shall follow them."""
        self._sent += size
        if not self.answers or self._sent - self._asked < ASK_EVERY:
            return False
        self._asked = self._sent
        self._marks.append((self._sent, now))
        return True

    def answered(self) -> None:
        """An answer has come: everything before its question is drawn."""
        self.answers = True
        if self._marks:
            self._drawn = self._marks.popleft()[0]

    def is_open(self, now: float) -> bool:
        """Whether another frame may be sent."""
        while self._marks and now - self._marks[0][1] > PATIENCE:
            self.answered()
        return not self.answers or not self._marks or self._sent - self._drawn < WINDOW
