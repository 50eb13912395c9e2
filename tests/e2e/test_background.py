"""Terminals of a light and of a dark background, which answer soon, late or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llama_tui.background import QUESTION
from llama_tui.paths import Paths
from tests.e2e import terminal as terminal_module
from tests.e2e.terminal import COMMAND, Terminal
from tests.ui.scripted import ScriptedEngine

LIGHT = b"\x1b]11;rgb:ffff/ffff/ffff\x1b\\\x1b[?62;22c"
DARK = b"\x1b]11;rgb:0000/0000/0000\x07\x1b[?62;22c"
NIGHT, DAWN, MOSS = "10141a", "f5f1e8", "0f1512"
CTRL_Q = "\x11"


def ground(terminal: Terminal) -> str:
    """The background of the cell right of the pane's title."""
    return terminal.screen.buffer[0][60].bg


def is_asked(terminal: Terminal) -> Callable[[str], bool]:
    return lambda _text: QUESTION.encode() in terminal.raw


@pytest.mark.parametrize("paint", ["diff", "full"])
@pytest.mark.parametrize(("answer", "shows"), [(LIGHT, DAWN), (DARK, NIGHT)])
def test_the_theme_is_as_the_terminal_answers(
    paths: Paths, tiny_model: Path, answer: bytes, shows: str, paint: str
) -> None:
    with ScriptedEngine(paths, tiny_model), Terminal(str(tiny_model), "--paint", paint, answers=False) as terminal:
        terminal.wait_for(is_asked(terminal))
        terminal.send(answer.decode())
        terminal.wait_for(lambda text: "/ 2,048" in text and ground(terminal) == shows)
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_an_answer_that_comes_late_and_in_pieces_is_followed_and_types_nothing(paths: Paths, tiny_model: Path) -> None:
    with ScriptedEngine(paths, tiny_model), Terminal(str(tiny_model), answers=False) as terminal:
        terminal.wait_for("/ 2,048")
        assert ground(terminal) == NIGHT
        terminal.send("he")
        terminal.wait_for("│ he")
        for piece in (LIGHT[:9], LIGHT[9:24], LIGHT[24:], b"llo"):
            terminal.send(piece.decode())
            terminal.pause()
        terminal.wait_for(lambda text: "│ hello " in text and ground(terminal) == DAWN)
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


@pytest.mark.parametrize(
    ("environ", "shows"),
    [({}, NIGHT), ({"COLORFGBG": "0;15"}, DAWN), ({"COLORFGBG": "15;0"}, NIGHT), ({"LLAMA_TUI_THEME": "moss"}, MOSS)],
)
def test_one_that_does_not_answer(paths: Paths, tiny_model: Path, environ: dict[str, str], shows: str) -> None:
    with ScriptedEngine(paths, tiny_model), Terminal(str(tiny_model), env=environ, answers=False) as terminal:
        terminal.wait_for(lambda text: "/ 2,048" in text and ground(terminal) == shows)
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_a_theme_that_was_chosen_stays(paths: Paths, tiny_model: Path) -> None:
    with ScriptedEngine(paths, tiny_model), Terminal(str(tiny_model), "--theme", "moss", answers=False) as terminal:
        terminal.wait_for(is_asked(terminal))
        terminal.send(LIGHT.decode())
        terminal.wait_for("/ 2,048")
        terminal.send("typed")
        terminal.wait_for("│ typed")
        assert ground(terminal) == MOSS
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_an_answer_on_its_way_at_the_end_does_not_reach_the_shell(
    paths: Paths, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = tmp_path / "shell"
    shell.write_text(
        f'#!/bin/bash\n"{COMMAND}" "$@"\nread -rs -n 1 -t 0.3 left && echo "left: $(printf %q "$left")" || echo clean\n'
    )
    shell.chmod(0o755)
    monkeypatch.setattr(terminal_module, "COMMAND", str(shell))
    with ScriptedEngine(paths, tiny_model), Terminal(str(tiny_model), answers=False) as terminal:
        terminal.wait_for(is_asked(terminal))
        terminal.send(CTRL_Q)
        terminal.wait_for(lambda _text: b"\x1b[?2004l" in terminal.raw)  # it has begun to leave
        terminal.send(LIGHT.decode())
        terminal.wait()
        assert "clean" in terminal.text
