"""An error of the program's own, wherever it happens: the terminal is as before, the log says the rest."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from llama_tui.paths import Paths
from tests.e2e import terminal as terminal_module
from tests.e2e.terminal import Terminal
from tests.e2e.test_program import ENDLESS, ENTER, RESTORED, answers, end_engines, engines_of
from tests.ui.scripted import ScriptedEngine

CTRL_L = "\x0c"
PROGRAM = """#!{python}
import asyncio, sys, threading
from llama_tui.ui.app import LlamaTui
from llama_tui.ui.reports import Reports
from llama_tui.ui.widgets.transcript import Transcript
from llama_tui.cli import main

def fail(*_):
    secret = "a local variable"
    raise ValueError("broken [/here]\\x1b]0;title\\x07 " + {where!r})

async def fail_soon(*_):
    fail()

def then(app):
    match {where!r}:
        case "handler":
            fail()
        case "worker":
            app.run_worker(fail_soon())
        case "timer":
            app.main.set_timer(0.01, fail)
        case "frame":
            Transcript.render_line = fail
            app.main.chat.transcript.refresh()

if {where!r} == "start":
    LlamaTui.get_default_screen = fail
elif {where!r} == "mount":
    LlamaTui.on_mount = fail
elif {where!r} == "input":
    feed = Reports.feed
    Reports.feed = lambda reports, data, now: fail() if data == "{key}" else feed(reports, data, now)
LlamaTui.action_redraw = then
main()
"""


def modes(raw: bytes) -> dict[str, bool]:
    """The terminal's modes that were set or reset, as they were left."""
    return {number.decode(): on == b"h" for number, on in re.findall(rb"\x1b\[\?(\d+)([hl])", raw)}


def assert_restored(terminal: Terminal, before: object) -> None:
    left = modes(terminal.raw)
    assert {number for number, on in left.items() if on} <= {"25", "7"}, "the cursor is shown, lines wrap"
    assert left.get("25", True) and left.get("7", True)
    assert terminal.raw.count(b"\x1b[>") == terminal.raw.count(b"\x1b[<u"), "keys are as before"
    assert terminal.attributes() == before


def broken(monkeypatch: pytest.MonkeyPatch, folder: Path, where: str) -> None:
    """Have `Terminal` run a program with a fault."""
    program = folder / "broken"
    program.write_text(PROGRAM.format(python=sys.executable, where=where, key=CTRL_L))
    program.chmod(0o755)
    monkeypatch.setattr(terminal_module, "COMMAND", str(program))


@pytest.mark.parametrize("where", ["handler", "worker", "timer", "frame", "input", "start", "mount"])
def test_the_terminal_is_restored_and_the_log_named(
    paths: Paths, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    broken(monkeypatch, tmp_path, where)
    with ScriptedEngine(paths, tiny_model), Terminal(str(tiny_model), columns=160) as terminal:
        before = terminal.attributes()
        if where not in ("start", "mount"):
            terminal.wait_for("/ 2,048")
            terminal.send(CTRL_L)
        assert terminal.wait() == 1
        assert_restored(terminal, before)
    said = re.sub(rb"\x1b\[[\d;?<]*[a-zA-Z]|\x1b\]22;\w+\x07", b"", terminal.raw.rpartition(RESTORED)[2])
    lines = said.decode().splitlines()
    assert len(lines) == 3, "a person gets no traceback"
    assert lines[0].startswith("llama-tui: An error of its own ended it: ")
    assert str(paths.crash_log) in lines[1]
    log = paths.crash_log.read_text()
    assert "Traceback" in log and "in fail" in log and "broken [/here]" in log
    if where != "input":
        assert f"ValueError: broken [/here]␛]0;title␇ {where}" in lines[0]


def test_an_answer_goes_on_and_what_had_come_is_kept(
    paths: Paths, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        with monkeypatch.context() as patch:
            broken(patch, tmp_path, "handler")
            with Terminal("tiny", "--model-dir", str(tiny_model.parent), *ENDLESS) as terminal:
                before = terminal.attributes()
                terminal.wait_for("A new chat with")
                terminal.send("go on" + ENTER)
                terminal.wait_for(lambda text: "tok/s" in text and "esc stops the answer" in text)
                terminal.send(CTRL_L)
                assert terminal.wait() == 1
                assert_restored(terminal, before)
        content, ending = answers(paths)[-1]
        assert content and ending is None
        assert engines_of(paths), "the engine goes on"
        with Terminal("--model-dir", str(tiny_model.parent)) as terminal:
            terminal.wait_for("esc stops the answer")
            terminal.escape()
            terminal.wait_for("by you")
            terminal.send("\x11")
            assert terminal.wait() == 0
        assert answers(paths)[-1][0].startswith(content)
    finally:
        end_engines(paths)
