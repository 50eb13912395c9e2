"""The commands of the shell, as scripts and people use them: real processes, real engines."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llama_tui.paths import Paths
from tests.e2e.terminal import COMMAND, Terminal
from tests.ggufs import write_tiny_llama

QUESTION = "How do I switch models?"
ENDLESS = ("--ignore-eos", "true", "--n-ctx", "32768", "--n-threads", "1")
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def engines_end(paths: Paths, no_process_left: None) -> Iterator[None]:
    """`run` leaves its engine to the idle timeout: these tests do not wait for that."""
    yield
    for process in engines(paths):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def engines(paths: Paths) -> list[psutil.Process]:
    """The engines of this home."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(paths.runtime) in " ".join((process.info["cmdline"] or [])[-1:])
    ]


def shell(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command and what it said."""
    assert COMMAND
    given: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False, **given)


@contextlib.contextmanager
def started(*arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs."""
    assert COMMAND
    process = subprocess.Popen([COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came true: {what}"
        time.sleep(0.02)


def listed() -> list[dict[str, Any]]:
    """What `ps --json` says."""
    return json.loads(shell("ps", "--json").stdout)


def idle() -> bool:
    return [engine["state"] for engine in listed()] == ["ready"]


class TestRun:
    def test_the_answer_alone_is_on_standard_output(self, paths: Paths) -> None:
        done = shell("run", "guide", QUESTION, "--temperature", "0")
        assert done.returncode == 0
        assert "ctrl+o" in done.stdout and done.stdout.endswith("\n")
        assert done.stderr == ""
        (engine,) = engines(paths)
        again = shell("run", "llama-cpp/guide.gguf", QUESTION, "--temperature", "0")
        assert again.stdout == done.stdout
        assert [process.pid for process in engines(paths)] == [engine.pid]

    def test_warnings_are_heard_where_nothing_else_is(self, paths: Paths, home: Path) -> None:
        broken = write_tiny_llama(home / "broken.gguf", chat_template="{{ nothing( }}")
        paths.config_file.parent.mkdir(parents=True)
        paths.config_file.write_text("temperature = 99\n")
        done = shell("run", str(broken), QUESTION, "--n-gpu-layers", "32", "--max-tokens", "2")
        assert done.returncode == 0
        setting, layers, template = done.stderr.splitlines()
        assert "config.toml" in setting and "99" in setting
        assert "n_gpu_layers = 32 does nothing" in layers
        assert "The chat template of" in template

    def test_a_model_that_does_not_fit_is_refused_with_flags_that_would_fit(self) -> None:
        done = shell("run", "guide", QUESTION, "--n-ctx", "16777216", "--type-k", "f32")
        assert done.returncode == 4
        assert "too little" in done.stderr
        offered = [line.split("  (")[0].split() for line in done.stderr.splitlines() if line.startswith("  --n-ctx ")]
        assert offered
        assert 512 <= int(offered[0][1]) < 16777216
        assert listed() == []
        assert shell("run", "guide", "hi", "--n-ctx", "512", "--max-tokens", "3").returncode == 0
        (engine,) = listed()
        held = [sum(buffer[kind] for buffer in engine["buffers"]) for kind in ("weights", "kv")]
        expected = [sum(buffer[kind] for buffer in engine["estimate"]["buffers"]) for kind in ("weights", "kv")]
        # Behind the last tensor of a mapped file there is no padding.
        assert expected[0] - 32 < held[0] <= expected[0]
        assert held[1] == expected[1]
        refused = shell("run", "guide", "hi", "--n-ctx", "1024", "--max-loaded", "1")
        assert refused.returncode == 4
        assert f"llama-tui stop {engine['pid']}" in refused.stderr

    def test_standard_input_is_the_prompt_or_attached_to_it(self) -> None:
        def prompt_tokens(*arguments: str, stdin: str) -> int:
            lines = shell("run", "guide", *arguments, "--json", "--max-tokens", "1", stdin=stdin).stdout.splitlines()
            return json.loads(lines[1])["prompt_tokens"]

        assert shell("run", "guide", "--temperature", "0", stdin=QUESTION).stdout.count("ctrl+o") == 1
        alone = prompt_tokens(stdin="one two three")
        assert prompt_tokens("one two three", stdin="") == alone
        assert prompt_tokens("one two three", stdin="four five six") > alone

    def test_what_was_read_before_the_model_was_unloaded_is_not_read_again(self) -> None:
        def finished() -> dict[str, Any]:
            done = shell("run", "guide", QUESTION * 60, "--json", "--unload", "--max-tokens", "1")
            return json.loads(done.stdout.splitlines()[-1])

        first, again = finished(), finished()
        assert not first["restored"]
        assert again["restored"]
        assert again["reused_tokens"] == again["prompt_tokens"] - 1

    def test_events_as_json(self, paths: Paths) -> None:
        done = shell("run", "guide", QUESTION, "--json", "--temperature", "0")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert events[0]["type"] == "engine" and events[0]["pid"] == engines(paths)[0].pid
        assert events[-1]["type"] == "finished" and events[-1]["reason"] == "stop"
        assert "ctrl+o" in "".join(event["text"] for event in events if event["type"] == "token")

    def test_unload_ends_the_engine_that_it_started_and_no_other(self, paths: Paths) -> None:
        assert shell("run", "guide", "Hi", "--max-tokens", "2", "--unload").returncode == 0
        assert not engines(paths)
        shell("run", "guide", "Hi", "--max-tokens", "2")
        assert shell("run", "guide", "Hi", "--max-tokens", "2", "--unload").returncode == 0
        assert len(engines(paths)) == 1

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (("run", "nobody", "Hi"), 3, 'There is no model "nobody"'),
            (("run", "guid", "Hi"), 3, "Nearest: guide."),
            (("run", "guide"), 2, "There is no prompt."),
            (("run", "guide", "word " * 900, "--n-ctx", "256"), 5, "more than the context of 256"),
        ],
    )
    def test_what_goes_wrong_has_a_code_and_a_sentence(self, arguments: tuple[str, ...], code: int, said: str) -> None:
        done = shell(*arguments)
        assert done.returncode == code
        assert said in done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr

    def test_the_prompt_may_stand_behind_parameters(self) -> None:
        done = shell("run", "guide", "--max-tokens", "3", QUESTION, "--temperature", "0")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()

    def test_errors_are_events_too(self) -> None:
        done = shell("run", "nobody", "Hi", "--json")
        event = json.loads(done.stdout)
        assert (event["type"], event["exit_code"]) == ("error", 3)
        assert "nobody" in event["message"]

    def test_a_build_that_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = tmp_path / "llama_cpp"
        package.mkdir()
        (package / "__init__.py").write_text('raise ImportError("nothing here")')
        before = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), before])))
        done = shell("run", "guide", "Hi")
        assert done.returncode == 4
        assert "GGML_CUDA=on" in done.stderr and "nothing here" in done.stderr

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_a_signal_stops_the_generation_and_keeps_what_came(
        self, number: signal.Signals, code: int, paths: Paths
    ) -> None:
        with started("run", "guide", QUESTION, *ENDLESS) as process:
            assert process.stdout
            first = process.stdout.read(1)
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == code
        assert first and out.endswith(b"\n")
        assert err == b""
        assert len(engines(paths)) == 1
        until(idle, "the engine generates no more")

    def test_a_signal_leaves_the_queue(self) -> None:
        with started("run", "guide", QUESTION, *ENDLESS) as first:
            assert first.stdout
            assert first.stdout.read(1)
            with started("run", "guide", QUESTION, *ENDLESS, "--json") as second:
                assert second.stdout
                events = [json.loads(second.stdout.readline()) for _ in range(2)]
                assert [event["type"] for event in events] == ["engine", "queued"]
                assert events[1]["place"] == 1
                assert [engine["queued"] for engine in listed()] == [1]
                second.send_signal(signal.SIGINT)
                out, _ = second.communicate(timeout=PATIENCE)
                assert second.returncode == 130
            assert json.loads(out) == {"type": "stopped", "exit_code": 130}
            until(lambda: [engine["queued"] for engine in listed()] == [0], "nobody waits")
            assert [engine["state"] for engine in listed()] == ["busy"]

    def test_a_signal_is_heard_while_the_model_loads(
        self, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "llama_cpp"
        package.mkdir()
        (package / "__init__.py").write_text("import time\ntime.sleep(3600)")
        before = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), before])))
        with started("run", "guide", QUESTION, "--unload") as process:
            until(lambda: [engine["state"] for engine in listed()] == ["loading"], "it loads")
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == (b"", b"")
            assert process.returncode == 130
        assert not engines(paths)

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets the size of a pipe")
    def test_a_signal_is_heard_though_nobody_reads(self) -> None:
        reader, writer = os.pipe()
        size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        line = 1000  # more than one has: lines are written whole, so less room than that is none

        def full() -> bool:
            return struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0] > size - line

        try:
            with started("run", "guide", QUESTION, "--json", *ENDLESS, stdout=writer) as process:
                until(full, "the pipe is full")
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE) == 130
        finally:
            os.close(reader)
            os.close(writer)
        until(idle, "the engine generates no more")

    def test_a_broken_pipe_is_quiet_and_stops_the_generation(self) -> None:
        with started("run", "guide", QUESTION, *ENDLESS) as process:
            assert process.stdout and process.stderr
            assert process.stdout.read(1)
            process.stdout.close()
            assert process.wait(PATIENCE) == 141
            assert process.stderr.read() == b""
        until(idle, "the engine generates no more")

    def test_a_terminal_is_told_what_goes_on(self) -> None:
        with Terminal("run", "guide", QUESTION, "--temperature", "0") as terminal:
            screen = terminal.wait_for("tok/s · first")
            assert "ctrl+o" in screen
            assert terminal.wait() == 0
            assert b"loading guide" in terminal.raw
            assert "loading" not in screen


class TestEngines:
    def test_ps_models_logs_stop(self, paths: Paths) -> None:
        assert shell("ps").stdout == "No model is loaded.\n"
        assert json.loads(shell("ps", "--json").stdout) == []
        shell("run", "guide", "Hi", "--max-tokens", "2")
        (process,) = engines(paths)
        (engine,) = listed()
        assert (engine["name"], engine["pid"], engine["n_ctx"]) == ("guide", process.pid, 2048)
        assert engine["private_bytes"] > 1_000_000
        assert 0 < engine["idle_seconds_left"] <= 300
        line = shell("ps").stdout.splitlines()[1].split()
        assert line[:3] == ["guide", str(process.pid), "ready"]
        assert shell("models").stdout.splitlines()[1].split() == ["guide", "4.4M", "4.3M", "Q8_0", "ready"]
        (model,) = json.loads(shell("models", "--json").stdout)
        assert model["pids"] == [process.pid] and model["architecture"] == "llama"
        assert "llama" in shell("logs", "guide").stdout
        assert shell("stop", "nobody").returncode == 3
        done = shell("stop", "guide")
        assert done.stdout == f"stopped guide ({process.pid})\n"
        assert not engines(paths)

    def test_stop_by_pid_and_all(self, paths: Paths) -> None:
        shell("run", "guide", "Hi", "--max-tokens", "2")
        shell("run", "guide", "Hi", "--max-tokens", "2", "--n-ctx", "512")
        one, other = engines(paths)
        assert shell("stop", str(one.pid)).returncode == 0
        assert [process.pid for process in engines(paths)] == [other.pid]
        assert shell("stop", "--all").stdout == f"stopped guide ({other.pid})\n"
        done = shell("stop", "--all")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "No model is loaded.\n")

    def test_logs_go_on_when_followed(self, paths: Paths) -> None:
        paths.logs.mkdir(parents=True)
        log = paths.logs / "m-0123456789abcdef.log"
        log.write_text("first\n")
        with started("logs", "m", "-f") as process:
            assert process.stdout
            assert process.stdout.readline() == b"first\n"
            with log.open("a") as file:
                file.write("second\n")
            assert process.stdout.readline() == b"second\n"
            log.rename(log.with_suffix(".log.1"))
            log.write_text("third\n")
            assert process.stdout.readline() == b"third\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130

    def test_a_model_folder_that_is_not_there_is_told_of(self, tmp_path: Path) -> None:
        done = shell("models", "--model-dir", str(tmp_path / "gone"))
        assert f"{tmp_path / 'gone'} does not exist" in done.stderr
        assert (done.returncode, done.stdout.splitlines()[1].split()[0]) == (0, "guide")

    def test_a_model_folder_of_the_environment(self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLAMA_CPP_MODEL_DIR", str(tiny_model.parent))
        assert "tiny" in shell("models", "--names").stdout.split()
        done = shell("run", "tiny", "Hi", "--max-tokens", "3", "--json")
        assert json.loads(done.stdout.splitlines()[-1])["type"] == "finished"
