"""`llama-tui bench`, as people and scripts use it: real engines, a real terminal."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from llama_tui.paths import Paths
from tests.e2e.terminal import Terminal
from tests.e2e.test_shell import ENDLESS, engines, shell, started, until

SHORT = ("--prompt-tokens", "80", "--answer-tokens", "8", "--repetitions", "2")
FOR_EVER = ("--n-threads", "1", "--answer-tokens", "8", "--repetitions", "1000000")


def nothing_left(paths: Paths) -> bool:
    return not engines(paths) and not list(paths.runtime.glob("bench-*"))


def test_a_sweep_as_json_beside_an_engine_at_work(paths: Paths) -> None:
    with started("run", "guide", "Hi", *ENDLESS) as other:
        assert other.stdout and other.stdout.read(1)
        (busy,) = engines(paths)
        done = shell("bench", "guide", "--n-threads", "1", "--n-batch", "512,1024", "--n-ctx", "512", *SHORT, "--json")
        assert engines(paths) == [busy]
        other.send_signal(signal.SIGINT)
        other.communicate(timeout=30)
    shell("stop", "--all")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"llama-tui: guide ({busy.pid}) is busy: the figures suffer.\n"
    *results, best = map(json.loads, done.stdout.splitlines())
    assert [result["params"]["n_batch"] for result in results] == [512, 1024]
    for result in results:
        assert result["others_busy"] and not result["error"]
        assert all(70 <= count <= 90 for count in result["prompt_tokens"])
        for figure in ("prefill", "decode", "first_token_seconds"):
            assert len(result[figure]) == 2 and all(value > 0 for value in result[figure])
        assert result["load_seconds"] > 0 and result["private_bytes"] > 1_000_000
    assert best["type"] == "best" and best["decode"]["n_batch"] in (512, 1024)


def test_plain_rows_in_a_pipe_also_of_what_cannot_be_loaded(paths: Paths, tiny_model: Path) -> None:
    # A V cache that is quantized needs flash attention: llama.cpp refuses the first.
    values = ("--n-threads", "1", "--type-v", "q8_0", "--flash-attn", "off,on", "--n-ctx", "512")
    done = shell("bench", str(tiny_model), *values, *SHORT)
    assert done.returncode == 0
    head, refused, measured, *best = done.stdout.splitlines()
    assert head.split()[:3] == ["FLASH_ATTN", "PREFILL", "DECODE"]
    assert refused.split() == ["off", "failed"]
    assert measured.split()[0] == "on" and measured.count("±") == 3
    assert best == []  # of one there is no best
    assert "flash" in done.stderr.lower()
    assert "\x1b" not in done.stdout + done.stderr
    assert nothing_left(paths)


def test_layers_for_a_gpu_that_is_not_there_are_told_of_once(paths: Paths) -> None:
    done = shell("bench", "guide", "--n-threads", "1", "--n-ctx", "512,1024", "--n-gpu-layers", "7", *SHORT, "--json")
    assert done.returncode == 0
    assert done.stderr.startswith("n_gpu_layers = 7 does nothing for guide")
    assert done.stderr.count("\n") == 1
    assert nothing_left(paths)


def test_ctrl_c_keeps_the_row_and_leaves_no_engine(paths: Paths) -> None:
    with Terminal("bench", "guide", *FOR_EVER, columns=80) as terminal:
        terminal.wait_for(lambda text: bool(re.search(r"1/1 · ([3-9]|\d\d+) of 1000000", text)))
        terminal.send("\x03")
        assert terminal.wait() == 130
        screen = terminal.text
    assert "PREFILL" in screen and screen.count("±") == 3
    assert "1/1" not in screen
    until(lambda: nothing_left(paths), "the engine is gone")


def test_it_is_bounded_in_time(paths: Paths) -> None:
    done = shell("bench", "guide", *FOR_EVER, "--max-seconds", "1")
    assert done.returncode in (0, 1)  # whether one answer was complete by then
    assert done.stderr == "llama-tui: stopped after 1 s (--max-seconds).\n"
    assert nothing_left(paths)


def test_a_model_that_is_not_there() -> None:
    done = shell("bench", "nobody")
    assert done.returncode == 3 and 'There is no model "nobody"' in done.stderr
    assert done.stdout == ""
