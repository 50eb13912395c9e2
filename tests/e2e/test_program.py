"""The installed command, as a person at a terminal has it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llama_tui.paths import Paths
from llama_tui.settings.params import PARAMS
from tests.e2e.terminal import COMMAND, Terminal

READY = "Ask the guide"
ENTER, ESCAPE, F1, F3, F5 = "\r", "\x1b", "\x1bOP", "\x1bOR", "\x1b[15~"
CTRL_L, CTRL_N, CTRL_O, CTRL_P, CTRL_Q, CTRL_Y = "\x0c", "\x0e", "\x0f", "\x10", "\x11", "\x19"
ENDLESS = ("--ignore-eos", "true", "--n-ctx", "32768")
RESTORED = b"\x1b[?1049l"


def engines_of(paths: Paths) -> list[psutil.Process]:
    """The engines whose sockets are in these folders."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(paths.runtime) in " ".join((process.info["cmdline"] or [])[-1:])
    ]


def end_engines(paths: Paths) -> None:
    for process in engines_of(paths):
        process.kill()


def answers(paths: Paths) -> list[tuple[str, str | None]]:
    """Content and ending of every answer in the database, the oldest first."""
    with sqlite3.connect(paths.database) as db:
        return db.execute("SELECT content, ending FROM turns WHERE role = 'assistant' ORDER BY created").fetchall()


def test_first_start_asks_a_suggestion_and_answers_from_the_real_model(paths: Paths) -> None:
    with Terminal() as terminal:
        terminal.wait_for(READY)
        terminal.send(ENTER)
        screen = terminal.wait_for(lambda text: "tok/s · first" in text and "stop" in text)
        assert "How do I switch models?" in screen
        assert "ctrl+o" in screen
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0
        assert RESTORED in terminal.raw
    assert not engines_of(paths), "a clean quit ends the engine that only this program used"
    assert [ending for _, ending in answers(paths)] == ["stop"]


def strays(terminal: Terminal) -> bool:
    """Whether the screen shows a red cell, or not all of it scrolls."""
    red = any(cell.bg == "red" for row in terminal.screen.buffer.values() for cell in row.values())
    return red or terminal.screen.margins not in (None, (0, terminal.screen.lines - 1))


@pytest.mark.parametrize("paint", ["diff", "full"])
def test_what_something_else_wrote_is_gone_after_a_redraw(paths: Paths, paint: str) -> None:
    with Terminal("--paint", paint) as terminal:
        terminal.wait_for(READY)
        for keys, shows in (("", "type a message"), (F1, "Everywhere")):
            terminal.send(keys)
            terminal.wait_for(shows)
            terminal.feed(b"\x1b[3;7r" + b"\x1b[9;1H\x1b[41m" + b"stray " * 300)
            assert strays(terminal)
            terminal.send(CTRL_L)
            terminal.wait_for(lambda text: "f1 help" in text and not strays(terminal))
            terminal.wait_for(shows)
        terminal.escape()
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


@pytest.mark.parametrize(("term", "true"), [("foot", True), ("xterm-256color", False)])
def test_the_name_of_a_terminal_tells_its_colours_where_ssh_has_lost_the_variable(
    paths: Paths, term: str, true: bool
) -> None:
    with Terminal(env={"TERM": term, "COLORTERM": ""}) as terminal:
        terminal.wait_for(READY)
        assert (b";2;" in terminal.raw) is true
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_the_conversation_is_there_at_the_next_start(paths: Paths) -> None:
    with Terminal() as terminal:
        terminal.wait_for(READY)
        terminal.send(ENTER)
        terminal.wait_for("tok/s · first")
        terminal.send(CTRL_Q)
        terminal.wait()
    with Terminal() as terminal:
        screen = terminal.wait_for("tok/s · first")
        assert "How do I switch models?" in screen
        terminal.send(CTRL_Q)
        terminal.wait()


def test_ctrl_j_makes_a_line_and_a_paste_of_many_lines_is_one_message(paths: Paths) -> None:
    with Terminal() as terminal:
        terminal.wait_for(READY)
        terminal.send("one\ntwo")
        terminal.wait_for("two")
        terminal.send("\x1b[200~ three\nfour\nfive\x1b[201~")
        terminal.wait_for("five")
        terminal.send(ENTER)
        terminal.wait_for("tok/s · first")
        terminal.send(CTRL_Q)
        terminal.wait()
    with sqlite3.connect(paths.database) as db:
        said = db.execute("SELECT content FROM turns WHERE role = 'user'").fetchall()
    assert said == [("one\ntwo three\nfour\nfive",)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_an_answer_restores_the_terminal_and_loses_nothing(
    paths: Paths, tiny_model: Path, number: signal.Signals
) -> None:
    try:
        with Terminal(
            "tiny", "--model-dir", str(tiny_model.parent), "--ignore-eos", "true", "--n-ctx", "32768"
        ) as terminal:
            terminal.wait_for("A new chat with")
            terminal.send("go on" + ENTER)
            terminal.wait_for("esc stops the answer")
            terminal.wait_for(lambda text: "tok/s" in text)
            os.kill(terminal.pid, number)
            assert terminal.wait() == 128 + number
            said = terminal.raw.rpartition(RESTORED)[2].decode()
            assert f"{number.name} has ended it, the logs are in {paths.logs}" in said.replace("\r\n", "")
            assert "Your chats are kept" in said
        content, ending = answers(paths)[-1]
        assert content, "what had come is kept"
        assert ending is None, "the answer is not called complete"
        assert engines_of(paths), "the engine goes on"
        with Terminal("--model-dir", str(tiny_model.parent)) as terminal:
            terminal.wait_for("esc stops the answer")
            terminal.send(ESCAPE)
            terminal.wait_for("by you")
            terminal.send(CTRL_Q)
            terminal.wait()
        whole, ending = answers(paths)[-1]
        assert ending == "cancelled"
        assert whole.startswith(content)
        assert len(whole) > len(content)
    finally:
        end_engines(paths)


@pytest.mark.parametrize("paint", ["diff", "full"])
def test_a_terminal_that_vanishes_ends_the_program_and_keeps_the_answer(
    paths: Paths, tiny_model: Path, paint: str
) -> None:
    options = ("--model-dir", str(tiny_model.parent), "--ignore-eos", "true", "--n-ctx", "32768", "--paint", paint)
    try:
        with Terminal("tiny", *options) as terminal:
            terminal.wait_for("A new chat with")
            terminal.send("go on" + ENTER)
            terminal.wait_for(lambda text: "tok/s" in text)
            terminal.hang_up()
            terminal.wait()
        assert answers(paths)[-1][0]
    finally:
        end_engines(paths)


def test_an_engine_killed_while_it_answers_is_explained_and_f5_loads_it_again(paths: Paths, tiny_model: Path) -> None:
    with Terminal(
        "tiny", "--model-dir", str(tiny_model.parent), "--ignore-eos", "true", "--n-ctx", "32768"
    ) as terminal:
        terminal.wait_for("A new chat with")
        terminal.send("go on" + ENTER)
        terminal.wait_for(lambda text: "tok/s" in text)
        for process in engines_of(paths):
            process.kill()
        terminal.wait_for("(SIGKILL)")
        terminal.wait_for("f5 loads the model again")
        terminal.wait_for(lambda text: "llama_context" in text or "sched_reserve" in text)  # the log's last lines
        terminal.send(F5)
        terminal.wait_for("●")
        content, ending = answers(paths)[-1]
        assert content and ending == "died"
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_f1_shows_every_key_and_the_switcher_and_palette_open(paths: Paths) -> None:
    with Terminal() as terminal:
        terminal.wait_for(READY)
        terminal.send(F1)
        terminal.wait_for("chat.stop")
        terminal.send(ESCAPE)
        terminal.wait_for(lambda text: "chat.stop" not in text)
        terminal.send(CTRL_O)
        terminal.wait_for("Switch model")
        terminal.send(ESCAPE)
        terminal.wait_for(lambda text: "Switch model" not in text)
        terminal.send(CTRL_P)
        terminal.wait_for("type to search")
        terminal.send("dawn")
        terminal.wait_for("Theme: dawn")
        terminal.send(ENTER)
        terminal.wait_for(lambda text: "Theme: dawn" not in text)
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0
    assert 'theme = "dawn"' in paths.settings_file.read_text()


def test_a_narrow_terminal_folds_the_panes_and_the_same_key_opens_them(paths: Paths) -> None:
    with Terminal(columns=78, rows=24) as terminal:
        screen = terminal.wait_for(READY)
        assert "Parameters" not in screen and "Loaded" not in screen
        terminal.send(F3)
        terminal.wait_for("temperature")
        terminal.send(F3)
        terminal.wait_for(lambda text: "temperature" not in text)
        terminal.resize(120, 40)
        terminal.wait_for(lambda text: "temperature" in text and "Loaded" in text)
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--n-ctx", "5"], "--n-ctx: n_ctx cannot be '5'"),
        (["--temperature", "warm"], "Allowed: a number from 0 to 5."),
        (["--flash-attn", "maybe"], "one of auto, on, off"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_a_bad_flag_is_refused_with_what_is_allowed(arguments: list[str], said: str) -> None:
    assert COMMAND
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_draw_is_refused_with_a_sentence(term: str) -> None:
    with Terminal(env={"TERM": term}) as terminal:
        assert terminal.wait() == 1
        assert b"cannot draw" in terminal.raw


def test_the_terminal_is_believed_more_than_exported_sizes() -> None:
    with Terminal(env={"COLUMNS": "60", "LINES": "18"}) as terminal:
        terminal.wait_for("Parameters")
        terminal.resize(90, 30)
        terminal.wait_for(lambda text: "Parameters" not in text and "f1 help" in text)
        assert "f1 help" in terminal.screen.display[29]
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_without_a_terminal_it_says_so() -> None:
    assert COMMAND
    done = subprocess.run([COMMAND], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "needs a terminal" in done.stderr


def test_version_and_help() -> None:
    assert COMMAND
    assert subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True).stdout.startswith(
        "llama-tui"
    )
    told = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    assert "--n-gpu-layers" in told and "--temperature" in told and "examples:" in told


def test_without_llama_cpp_the_program_opens_and_says_what_to_install(paths: Paths, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "llama_cpp"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text('raise OSError("libcudart.so.12: cannot open shared object file")')
    with Terminal(env={"PYTHONPATH": str(broken.parent)}, rows=60, columns=160) as terminal:
        screen = terminal.wait_for("GGML_VULKAN")
        for wanted in ("libcudart.so.12", "GGML_CUDA=on", "GGML_METAL=on", "GGML_HIP=on", "pip install"):
            assert wanted in screen
        terminal.send(F1)
        terminal.wait_for("chat.stop")
        terminal.send(ESCAPE)
        terminal.wait_for(lambda text: "chat.stop" not in text)
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_keys_can_be_remapped_and_a_bad_one_is_reported(paths: Paths) -> None:
    paths.config.mkdir(parents=True)
    paths.config_file.write_text('[keys]\n"app.help" = "f8"\n"app.hepl" = "f9"\n"chat.new" = "ctrl+banana"\n')
    with Terminal() as terminal:
        screen = terminal.wait_for("ctrl+banana")
        assert "Do you mean app.help?" in screen
        terminal.wait_for("f8 help")
        terminal.send("\x1b[19~")
        terminal.wait_for("chat.stop")
        terminal.send(ESCAPE)
        terminal.wait_for(lambda text: "chat.stop" not in text)
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_keys_in_one_burst_go_where_they_are_meant(paths: Paths, tiny_model: Path) -> None:
    """A slow link delivers many keys at once: none may reach another place than when typed slowly."""
    with Terminal("--model-dir", str(tiny_model.parent)) as terminal:
        terminal.wait_for(READY)
        terminal.send(F3)
        terminal.wait_for(lambda text: "temperature" not in text)
        terminal.send(F3)
        terminal.wait_for("temperature")
        names = [param.name for param in PARAMS if param.kind in ("sampling", "load")]
        terminal.send("\x1b[B" * names.index("temperature"))
        terminal.wait_for("Higher is more varied")
        terminal.send("0.3" + ENTER)
        terminal.wait_for(lambda text: "saved" in text)
        assert "temperature = 0.3" in paths.settings_file.read_text()
        terminal.send(CTRL_O + "tiny" + ENTER)
        terminal.wait_for(lambda text: "▸ tiny" in text and "●" in text)
        with sqlite3.connect(paths.database) as db:
            assert not db.execute("SELECT * FROM turns").fetchall(), "nothing was sent to the model"
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_an_engine_that_hangs_freezes_no_key_and_a_stop_ends_it(paths: Paths, tiny_model: Path) -> None:
    with Terminal("tiny", "--model-dir", str(tiny_model.parent), *ENDLESS) as terminal:
        terminal.wait_for("A new chat with")
        terminal.send("go on" + ENTER)
        terminal.wait_for(lambda text: "tok/s" in text)
        for process in engines_of(paths):
            process.suspend()
        terminal.escape()
        terminal.send("still here")
        terminal.wait_for("still here", seconds=5)
        terminal.wait_for("did not stop within 1 s")
        content, ending = answers(paths)[-1]
        assert content and ending == "cancelled"
        terminal.send(CTRL_Q)
        assert terminal.wait() == 0


def test_a_hung_engine_of_another_program_does_not_hold_up_the_start(paths: Paths, tiny_model: Path) -> None:
    try:
        with Terminal("tiny", "--model-dir", str(tiny_model.parent)) as terminal:
            terminal.wait_for("●")
            os.kill(terminal.pid, signal.SIGHUP)
            terminal.wait()
        for process in engines_of(paths):
            process.suspend()
        with Terminal("--model-dir", str(tiny_model.parent)) as terminal:
            terminal.wait_for(READY, seconds=10)
            terminal.send(ENTER)
            terminal.wait_for("tok/s · first", seconds=10)
            terminal.send(CTRL_Q)
            assert terminal.wait() == 0
    finally:
        end_engines(paths)


@pytest.mark.parametrize("redirected", ["2>/dev/null", "2>&-"])
def test_standard_error_elsewhere_leaves_no_black_screen(paths: Paths, redirected: str) -> None:
    command = ("/bin/sh", "-c", f'"$0" -m llama_tui {redirected}', sys.executable)
    with Terminal(command=command) as terminal:
        if redirected == "2>&-":  # where Textual finds nothing to draw on
            terminal.wait_for("llama-tui needs a terminal.")
            assert terminal.wait() == 1
        else:
            terminal.wait_for(READY)
            terminal.send(CTRL_Q)
            assert terminal.wait() == 0
