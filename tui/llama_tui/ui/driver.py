"""The one place that knows how Textual writes to the terminal: frames are taken from it, and written
by difference, as often as is asked for and as the link takes them.

What is used of Textual's inside is `App._display`, which writes one frame through the driver's public
`write`; `tests/unit/test_driver.py` fails when a new Textual changes that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from rich.console import RenderableType
from textual import events
from textual.app import App
from textual.geometry import Size
from textual.message import Message
from textual.messages import TerminalSupportsSynchronizedOutput
from textual.screen import Screen

from llama_tui.ui.diff import Abilities
from llama_tui.ui.input import AskingDriver
from llama_tui.ui.link import QUERY, Outlet, Window
from llama_tui.ui.paint import LEAVE, Painter

HURRY = 0.2
"""Seconds after a key in which frames are not held back: they are what the key has done."""

SYNC_BEGIN, SYNC_END = "\x1b[?2026h", "\x1b[?2026l"
SYNC_ABOVE = 256
"""Bytes of a frame from which on the terminal is asked to show it at once; smaller ones arrive whole."""

CLEAR = f"\x1b[r{LEAVE}\x1b[2J"
"""Lets every row scroll, puts the pen down and empties every cell."""

_CLOSE_SECONDS = 1.0
_LOOK_AGAIN = 0.25

# What leaves cells, cursor and pen as they are: modes, the keyboard protocol, OSC, the bell.
_HARMLESS = re.compile(r"(?:\x1b\[[?<=>][\d;]*\$?[a-zA-Z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x07)*")

Result = TypeVar("Result")


class Painting(Struct, frozen=True):
    """How frames are written: by difference or as Textual does, and how many a second at most."""

    by_difference: bool = True
    frame_rate: int = 15


class PaintedApp(App[Result]):
    """An app whose frames go through a `TerminalDriver`, where there is a terminal to go to."""

    def __init__(self, painting: Painting) -> None:
        super().__init__(driver_class=TerminalDriver if painting.by_difference else AskingDriver)
        self.painting = painting
        self.terminal: TerminalDriver | None = None

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        if self.terminal is None:
            super()._display(screen, renderable)  # pyright: ignore[reportUnknownMemberType]
        else:
            with self.terminal.frame():
                super()._display(screen, renderable)  # pyright: ignore[reportUnknownMemberType]

    def on_resize(self, event: events.Resize) -> None:
        """After a change of size a terminal may show anything."""
        if self.terminal is not None:
            self.terminal.resized(event.size)

    def action_redraw(self) -> None:
        """Paint every cell from nothing: another program may have written to the terminal."""
        if self.terminal is not None:
            self.terminal.clear()
        elif self._driver is not None:
            self._driver.write(CLEAR)
        self.refresh()


class TerminalDriver(AskingDriver):
    """Textual's driver, whose output never holds the program up and whose frames are differences."""

    def __init__(
        self, app: App[Any], *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)  # pyright: ignore[reportUnknownMemberType]
        painting = Painting()
        if isinstance(app, PaintedApp):
            app.terminal = self
            painting = app.painting
        self._program = app
        self._period = 1 / painting.frame_rate
        self._clock = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._outlet: Outlet | None = None
        self._window = Window()
        self._painter = Painter(*app.size, abilities(os.environ))
        self._frame: list[str] | None = None
        self._synchronized = False
        self._timer: asyncio.TimerHandle | None = None
        self._next = self._hurry_until = 0.0

    # The terminal's modes, as Textual sets them

    def start_application_mode(self) -> None:
        """Take the terminal, at the start and when the program comes back from the background."""
        if self._outlet is None:
            fd = (sys.__stderr__ or sys.stderr).fileno()
            self._outlet = Outlet(fd, lambda: self._from_thread(self._go_on))
        self._window = Window()
        self._painter.forget()
        super().start_application_mode()
        self._from_thread(self._go_on)

    def stop_application_mode(self) -> None:
        """Leave the terminal as it was found."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pipe and self._window.due:
            self.ask()  # what is answered last: then nothing is on its way any more
        self.write(LEAVE)
        super().stop_application_mode()

    def close(self) -> None:
        """Wait for what is on its way, within reason."""
        if self._outlet is not None:
            self._outlet.close(_CLOSE_SECONDS)
            self._outlet = None
        super().close()

    def process_message(self, message: Message) -> None:
        """Look at what the terminal says, in the thread that reads it."""
        if isinstance(message, TerminalSupportsSynchronizedOutput):
            first = not self._window.answers
            self._from_thread(self._answered)
            if not first:
                return  # an answer to a question of ours
        elif isinstance(message, events.InputEvent | events.Paste) and not isinstance(message, events.MouseMove):
            self._from_thread(self._hurry)
        super().process_message(message)

    def _from_thread(self, act: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._clock.call_soon_threadsafe(act)

    # Writing

    def write(self, data: str) -> None:
        """Write, or gather what belongs to a frame."""
        if self._frame is not None and threading.get_ident() == self._thread:
            self._frame.append(data)
        elif self._outlet is not None:
            if not _HARMLESS.fullmatch(data):
                self._painter.lose()
            self._outlet.write(data)

    @contextlib.contextmanager
    def frame(self) -> Generator[None]:
        """What is written inside is one frame."""
        self._frame = []
        try:
            yield
        finally:
            text, self._frame = "".join(self._frame), None
            if text:
                self._show(text)

    def resized(self, size: Size) -> None:
        """Take the terminal to show anything, at this size; what was wanted at the same size is written anew."""
        if self._painter.size == tuple(size):
            self._painter.forget()
            self._go_on()
        else:
            self._painter.resize(*size)

    def clear(self) -> None:
        """Empty the terminal, which then shows nothing of what is wanted."""
        if self._outlet is not None:
            self._outlet.write(CLEAR)
        self._painter.unsure()

    def _show(self, frame: str) -> None:
        self._synchronized = frame.startswith(SYNC_BEGIN)
        if self._painter.size != tuple(self._program.size):
            self._painter.resize(*self._program.size)
        if self._painter.draw(frame):
            self._go_on()
        elif self._outlet is not None:
            self._outlet.write(self._painter.difference() + LEAVE + frame)
            self._painter.unsure()

    # Pace

    def _hurry(self) -> None:
        self._hurry_until = self._clock.time() + HURRY

    def _answered(self) -> None:
        self._window.answered()
        if self._timer is not None:
            self._go_on()

    def _go_on(self) -> None:
        """Send what is wanted by now, or see to it that this is looked at again."""
        if self._outlet is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.time()
        # One frame may follow another at once; on average there are as many as were asked for.
        due = now if now < self._hurry_until else self._next - self._period
        if self._outlet.unsent or not self._window.is_open(now):
            self._outlet.tell = True
            due = now + _LOOK_AGAIN
        if due > now:
            self._timer = self._clock.call_at(due, self._go_on)
        else:
            self._send(self._outlet, now)

    def _send(self, outlet: Outlet, now: float) -> None:
        text = self._painter.difference()
        if not text:
            return
        if self._synchronized and len(text) >= SYNC_ABOVE:
            text = f"{SYNC_BEGIN}{text}{SYNC_END}"
        if self._window.send(len(text), now):
            text += QUERY
        outlet.write(text)
        self._next = max(now, self._next) + self._period


def abilities(environ: Mapping[str, str]) -> Abilities:
    """What the terminal can do, by its name: regions that scroll are as old as the VT100, but GNU screen, and what
    names itself so without being tmux, erases in its own background in place of the present one."""
    name = environ.get("TERM", "")
    multiplexed = name.startswith(("screen", "tmux")) and "TMUX" not in environ
    known = name not in ("", "dumb", "unknown", "vt52")
    return Abilities(erases=known and not multiplexed and "STY" not in environ, scrolls=known)
