"""A terminal that takes nothing for a while: keys act, and what it shows then is the newest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llama_tui.paths import Paths
from tests.e2e.terminal import Terminal
from tests.ui.scripted import ScriptedEngine

ESCAPE, CTRL_Q = "\x1b", "\x11"


def until(condition: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_esc_stops_the_answer_while_the_terminal_takes_nothing(paths: Paths, tiny_model: Path) -> None:
    words = [f" word{number}" for number in range(9000)]
    with (
        ScriptedEngine(paths, tiny_model, words, pace=1500) as engine,
        Terminal(str(tiny_model), columns=300, rows=100) as terminal,
    ):
        terminal.wait_for("/ 2,048")
        terminal.send("go\r")
        terminal.wait_for("word60")
        read = len(terminal.raw)
        until(lambda: len(engine.sent) > 4500)
        terminal.send(ESCAPE)  # nothing has been read since: the pty has long been full
        until(lambda: not engine.answering)
        said = len(engine.sent)
        assert said < len(words)
        terminal.wait_for(lambda text: f"word{said - 1}" in text and "stopped" in text)
        assert len(terminal.raw) - read < 100_000, "what was not shown in time was never sent"
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


@pytest.mark.parametrize("paint", ["diff", "full"])
def test_both_ways_to_paint_show_the_same_and_leave_the_terminal_as_it_was(
    paths: Paths, tiny_model: Path, paint: str
) -> None:
    with (
        ScriptedEngine(paths, tiny_model, ["Some **bold** text.\n\n"] * 60),
        Terminal(str(tiny_model), "--paint", paint) as terminal,
    ):
        terminal.wait_for("/ 2,048")
        terminal.send("go\r")
        terminal.wait_for("60 tokens")
        lines = terminal.text.splitlines()
        assert sum("Some bold text." in line for line in lines) >= 10
        assert all(len(line) == 120 for line in lines)
        sides = {(line[29], line[30], line[85]) for line in lines[3:28]}
        assert len(sides) == 1, "the panes stand beside the text as before"
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0
        cursor = terminal.screen.cursor.attrs
        assert (cursor.fg, cursor.bg, cursor.bold, cursor.reverse) == ("default", "default", False, False)


def test_all_is_painted_anew_when_the_program_comes_back_from_the_background(paths: Paths, tiny_model: Path) -> None:
    with ScriptedEngine(paths, tiny_model), Terminal(str(tiny_model)) as terminal:
        terminal.wait_for("/ 2,048")
        os.kill(terminal.pid, signal.SIGTSTP)
        process = psutil.Process(terminal.pid)
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        terminal.screen.reset()
        os.kill(terminal.pid, signal.SIGCONT)
        screen = terminal.wait_for(lambda text: "/ 2,048" in text and "type a message" in text and "Parameters" in text)
        assert {line[0] for line in screen.splitlines()[:39]} <= set("╭│╰")
        terminal.resize(100, 30)
        terminal.wait_for(lambda text: "/ 2,048" in text.splitlines()[29])
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0
