"""More than anybody reads: a paste of 50 MB, an answer that is one line of 10 MB. Nothing of it is lost."""

from __future__ import annotations

from pathlib import Path

from llama_tui.paths import Paths
from tests.e2e.terminal import Terminal
from tests.ui.scripted import ScriptedEngine

CTRL_F, CTRL_Q, BACKSPACE = "\x06", "\x11", "\x7f"
LINE = "a line of a log file, as it is pasted\n"


def test_a_paste_of_50_megabytes_is_a_note_and_the_keys_behind_it_act(paths: Paths, tiny_model: Path) -> None:
    with ScriptedEngine(paths, tiny_model), Terminal(str(tiny_model)) as terminal:
        terminal.wait_for("/ 2,048")
        count = 50_000_000 // len(LINE)
        terminal.send("before ")
        terminal.paste(LINE * count)
        terminal.send(" behind")
        terminal.wait_for(lambda text: f"[text 1: {count + 1:,}" in text and "behind" in text)
        terminal.send(BACKSPACE * (len(" behind") + 1))
        terminal.wait_for(lambda text: "before" in text and "[text" not in text)
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_an_answer_of_one_line_of_10_megabytes_is_shown_found_and_kept(paths: Paths, tiny_model: Path) -> None:
    tokens = ["abcdefgh" * 1250] * 999 + ["needle" + "abcdefgh" * 1250]
    with ScriptedEngine(paths, tiny_model, tokens, pace=400) as engine:
        with Terminal(str(tiny_model)) as terminal:
            terminal.wait_for("/ 2,048")
            terminal.send("go\r")
            terminal.wait_for("abcdefgh")
            terminal.send("typed meanwhile")
            terminal.wait_for("typed meanwhile")
            assert engine.answering
            terminal.wait_for("1,000 tokens")
            terminal.send(CTRL_F + "needle")
            terminal.wait_for("1 of 1")
            terminal.send(CTRL_Q)
            assert terminal.wait() == 0
        with Terminal(str(tiny_model)) as terminal:
            terminal.wait_for("1,000 tokens")
            terminal.send(CTRL_F + "needle")
            terminal.wait_for("1 of 1")
            terminal.send(CTRL_Q)
            assert terminal.wait() == 0
