"""Engines that hang, are kept, or outlive the program, as the commands and the program treat them."""

from __future__ import annotations

import json
from pathlib import Path

from llama_tui.paths import Paths
from tests.e2e.terminal import Terminal
from tests.e2e.test_program import CTRL_Q, ENDLESS, ENTER, answers
from tests.e2e.test_shell import engines, listed, shell, until


def end(paths: Paths) -> None:
    for process in engines(paths):
        process.kill()


def test_a_frozen_engine_is_listed_explained_and_stopped(paths: Paths) -> None:
    try:
        assert shell("run", "guide", "Hi", "--max-tokens", "2").returncode == 0
        (engine,) = engines(paths)
        engine.suspend()
        (row,) = listed()
        assert (row["pid"], row["name"], row["state"]) == (engine.pid, "guide", "not answering")
        assert row["private_bytes"] > 0
        assert "not answering" in shell("ps").stdout
        kept = shell("keep", "guide")
        assert kept.returncode == 1
        assert "does not answer" in kept.stderr and f"llama-tui stop {engine.pid}" in kept.stderr
        assert "llama_context" in shell("logs", "guide").stdout
        stopped = shell("stop", "guide")
        assert stopped.stdout == f"stopped guide ({engine.pid})\n"
        assert not engines(paths)
    finally:
        end(paths)


def test_keep_pins_and_off_lets_go(paths: Paths) -> None:
    try:
        assert shell("keep", "guide").returncode == 3
        shell("run", "guide", "Hi", "--max-tokens", "2")
        (engine,) = engines(paths)
        assert shell("keep", "guide").stdout == f"keeping guide ({engine.pid})\n"
        (row,) = listed()
        assert (row["kept"], row["idle_seconds_left"]) == (True, None)
        assert shell("ps").stdout.rstrip().endswith("kept")
        assert shell("keep", str(engine.pid), "--off").stdout == f"no longer keeping guide ({engine.pid})\n"
        (row,) = listed()
        assert row["kept"] is False and 0 < row["idle_seconds_left"] <= 300
    finally:
        end(paths)


def test_run_loads_beside_what_runs_or_in_its_place(paths: Paths) -> None:
    try:
        for more, count in (((), 1), (("--n-ctx", "512"), 2), (("--n-ctx", "1024", "--replace"), 1)):
            assert shell("run", "guide", "Hi", "--max-tokens", "2", *more).returncode == 0
            until(lambda count=count: len(engines(paths)) == count, f"{count} engines")
        (row,) = listed()
        assert row["n_ctx"] == 1024
    finally:
        end(paths)


def test_a_quit_says_what_it_ended(paths: Paths, tiny_model: Path) -> None:
    with Terminal("tiny", "--model-dir", str(tiny_model.parent)) as terminal:
        terminal.wait_for("●")
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0
        assert "Unloaded: tiny" in terminal.text
    assert not engines(paths)


def test_a_quit_that_keeps_leaves_the_answer_to_its_engine_and_the_next_start_has_it(
    paths: Paths, tiny_model: Path
) -> None:
    options = ("--model-dir", str(tiny_model.parent), "--on-quit", "keep", *ENDLESS)
    try:
        with Terminal("tiny", *options) as terminal:
            terminal.wait_for("A new chat with")
            terminal.send("go on" + ENTER)
            terminal.wait_for(lambda text: "tok/s" in text)
            terminal.send(CTRL_Q)
            assert terminal.wait() == 0
            assert "Still loaded: tiny" in terminal.text and "llama-tui stop tiny" in terminal.text
        (before, ending) = answers(paths)[-1]
        assert before and ending is None
        assert [row["state"] for row in listed()] == ["busy"]
        with Terminal("tiny", *options) as terminal:
            terminal.wait_for("esc stops the answer")
            terminal.escape()
            terminal.wait_for("stopped by you")
            terminal.send(CTRL_Q)
            assert terminal.wait() == 0
        (after, ending) = answers(paths)[-1]
        assert after.startswith(before) and len(after) > len(before) and ending == "cancelled"
    finally:
        end(paths)


def test_doctor_asks_the_terminal(paths: Paths) -> None:
    with Terminal("doctor", answers=False) as terminal:
        terminal.wait_for("it does not answer questions about itself")
        assert terminal.wait() in (0, 1)
        assert b"\x1b[c" in terminal.raw and b"\x1b[?2026$p" in terminal.raw
    piped = shell("doctor", "--json")
    assert "\x1b" not in piped.stdout
    assert any("not asked" in finding["text"] for finding in json.loads(piped.stdout))
