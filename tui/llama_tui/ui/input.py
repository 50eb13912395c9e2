"""The one place that knows how Textual reads from the terminal: keys are told apart from what the
terminal says of itself, and a terminal that is gone is told to the program.

What is used of Textual's inside is its parser of keys, that its driver runs `run_input_thread` in a
thread and ends it in `disable_input`, and that it writes to its `_file`; `tests/unit/test_driver.py` and
the tests of a terminal that vanishes fail when a new Textual changes that.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys
import threading
import time
from itertools import chain
from typing import TextIO

from textual import constants
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from llama_tui.background import Background, is_asked
from llama_tui.ui.intake import Intake
from llama_tui.ui.reports import Reports

_CHUNK = 4096
_TICK_SECONDS = constants.ESCAPE_DELAY * 1.1
_TICKS = 2
"""Looks, after keys, for one that could have been the beginning of a sequence."""

_ANSWER_SECONDS = 1.0
"""How long answers are waited for at the end."""

_SILENT_SECONDS = 2.0
"""A terminal that has said nothing for this long will not."""


class BackgroundTold(Message):
    """The terminal has said whether its background is light or dark."""

    def __init__(self, background: Background) -> None:
        super().__init__()
        self.background: Background = background


class TerminalGone(Message):
    """Nothing can be read from the terminal any more."""


class Patient:
    """The terminal to write to, as a file that takes everything once the terminal is gone: Textual writes in a
    thread, and would wait for ever for one that ended with an error."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.fileno = file.fileno

    def write(self, text: str) -> None:
        """Write, to nowhere if need be."""
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with contextlib.suppress(OSError):
            self._file.flush()


class AskingDriver(LinuxDriver):
    """Textual's driver, which asks the terminal of itself and reads what it answers."""

    _pipe: tuple[int, int] | None = None
    """Wakes the thread that reads, for it to end."""

    def start_application_mode(self) -> None:
        """Take the terminal, and ask it."""
        self._pipe = os.pipe()
        self._reports = Reports()
        self._told = threading.Condition()
        self._file = Patient(sys.__stderr__ or sys.stderr)
        super().start_application_mode()
        if self.input_tty and is_asked(os.environ):
            self.ask()

    def ask(self) -> None:
        """Ask the terminal, for its background where that may be; what it answers comes as messages."""
        with self._told:
            questions = self._reports.ask(time.monotonic(), background=is_asked(os.environ))
        self.write(questions)

    def disable_input(self) -> None:
        """Read no more. Answers that are on their way are waited for, within reason: whoever reads next,
        most often a shell, would take them for keys."""
        pipe, self._pipe = self._pipe, None
        if pipe and self._key_thread is not None and self._key_thread.is_alive():
            with self._told:
                late = self._reports.asked + _SILENT_SECONDS - time.monotonic()
                self._told.wait_for(lambda: not self._reports.due, max(0.0, min(late, _ANSWER_SECONDS)))
            os.write(pipe[1], b"x")
        super().disable_input()
        for end in pipe or ():
            os.close(end)

    def run_input_thread(self) -> None:
        """Read until `disable_input`, or until the terminal is gone. Wakes up for nothing else."""
        parser = XTermParser(self._debug)
        intake = Intake(parser.feed)
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        assert self._pipe is not None
        wake, _ = self._pipe
        ticks, seconds = 0, None
        while wake not in (ready := select.select([self.fileno, wake], [], [], seconds)[0]):
            data = b""
            if ready:
                with contextlib.suppress(OSError):
                    data = os.read(self.fileno, _CHUNK)
                if not data:
                    self.process_message(TerminalGone())
                    break
            if keys := self._keys(decode(data)):
                ticks = _TICKS
                for message in intake.feed(keys):
                    self.process_message(message)
            for message in chain(() if ready else intake.idle(), parser.tick()):
                self.process_message(message)
            seconds = self._reports.wait(time.monotonic())
            if ticks:
                ticks -= 1
                seconds = min(_TICK_SECONDS, _TICK_SECONDS if seconds is None else seconds)

    def _keys(self, data: str) -> str:
        """What of it are keys; what the terminal said is told to the program."""
        now, reports = time.monotonic(), self._reports
        before = reports.background
        with self._told:
            keys = reports.feed(data, now) if data else reports.late(now)
            self._told.notify_all()
        if reports.background and reports.background != before:
            self.process_message(BackgroundTold(reports.background))
        return keys
