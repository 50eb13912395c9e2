"""The shell's door without engines: arguments, help, settings, completion, the doctor's words."""

from __future__ import annotations

import importlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from llama_tui.cli import main, top_parser
from llama_tui.commands import COMMANDS, doctor
from llama_tui.commands.config import commented
from llama_tui.commands.doctor import Build
from llama_tui.commands.engines import clock
from llama_tui.commands.flags import combinations
from llama_tui.commands.output import cropped
from llama_tui.commands.shell import Exit, exit_code, table
from llama_tui.commands.terminal import Abilities, Answers, Multiplexer
from llama_tui.engine.devices import DeviceMemory
from llama_tui.errors import BadModelFile, ContextOverflow, EngineDied, LoadFailed, MissingLlamaCpp, ModelNameError
from llama_tui.paths import Paths
from llama_tui.settings.params import PARAMS
from llama_tui.settings.store import SettingsStore

BUILD = Build("0.3.36", gpu_offload=False, mmap=True, mlock=True, system="CPU : AVX2 = 1")
GPU = DeviceMemory("CUDA0", "GPU0", 80 * 1024**3, 56 * 1024**3)


def run(*arguments: str) -> int:
    """The exit code of a command line in this process."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_each_has_an_example(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(name, "--help") == 0
        said = capsys.readouterr().out
        assert said.startswith(f"usage: llama-tui {name}")
        assert f"examples:\n  llama-tui {name}" in said or f" llama-tui {name} " in said

    def test_the_program_s_own_names_every_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--help") == 0
        said = capsys.readouterr().out
        for name, what in COMMANDS.items():
            assert name in said and what in said

    def test_run_has_every_parameter_and_the_exit_codes(self) -> None:
        said = importlib.import_module("llama_tui.commands.run").parser().format_help()
        for param in PARAMS:
            assert (param.flag in said) == (param.name not in ("theme", "on_quit"))
        assert "130" in said and "exit codes:" in said

    def test_a_model_with_a_command_s_name_is_opened_by_its_prefix(self) -> None:
        given = top_parser().parse_args(["llama-cpp/run"])
        assert given.model == "llama-cpp/run"
        assert "llama-tui llama-cpp/run" in top_parser().format_help()


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["run", "guide", "hello", "--temperature", "9"], "--temperature: temperature cannot be"),
            (["run", "guide", "hello", "--nonsense"], "unrecognized arguments: --nonsense"),
            (["run"], "required: MODEL"),
            (["stop"], "name an engine, or give --all"),
            (["stop", "x", "--all"], "name an engine, or give --all"),
            (["config", "path", "guide"], "`config path` takes nothing more"),
            (["config", "edit"], "invalid choice"),
            (["completion", "tcsh"], "invalid choice"),
            (["logs", "-n", "-5"], "it must be 0 or more"),
            (["bench", "guide", "--n-threads", "2,none"], "--n-threads: n_threads cannot be 'none'"),
            (["bench", "guide", "--repetitions", "0"], "it must be a whole number of 1 or more"),
            (["bench", "guide", "--temperature", "1"], "unrecognized arguments"),
        ],
    )
    def test_wrong_ones_are_told_and_end_with_2(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(*arguments) == Exit.USAGE
        assert said in capsys.readouterr().err

    def test_a_sweep_is_every_combination_of_what_stands_between_commas(self) -> None:
        given = {"model": "guide", "n_threads": "1,auto,1", "use_mmap": "true,no", "tensor_split": "1,1", "n_ctx": None}
        assert combinations(given) == [
            {"n_threads": threads, "use_mmap": mmap, "tensor_split": (1.0, 1.0)}
            for threads in (1, None)
            for mmap in (True, False)
        ]
        assert combinations({"model": "guide"}) == [{}]

    def test_bench_has_every_load_parameter(self) -> None:
        said = importlib.import_module("llama_tui.commands.bench").parser().format_help()
        for param in PARAMS:
            assert (f"  {param.flag} " in said) == (
                (param.kind == "load" and param.name != "idle_timeout") or param.name == "model_dir"
            )

    def test_errors_have_codes(self) -> None:
        assert exit_code(ModelNameError("")) == exit_code(BadModelFile("")) == 3
        assert exit_code(LoadFailed("")) == exit_code(MissingLlamaCpp("")) == 4
        assert exit_code(ContextOverflow("", "", 5, 4)) == 5
        assert exit_code(EngineDied("", "", ())) == 1


@pytest.mark.parametrize("name", ["llama_tui.cli", *(f"llama_tui.commands.{name}" for name in COMMANDS)])
def test_no_command_imports_the_terminal_program(name: str) -> None:
    code = f"import sys, {name}; print(sorted({{'textual', 'rich', 'llama_cpp'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("words", [["models"], ["run", "nothing", "hi"], []])
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_leads_nowhere(words: list[str], closed: str, tmp_path: Path) -> None:
    tried = tmp_path / "descriptors"
    code = (
        "import atexit, os, pathlib, llama_tui.cli;"
        f"found = pathlib.Path({str(tried)!r});"
        "atexit.register(lambda: found.write_text(str([bool(os.fstat(fd)) for fd in range(3)])));"
        f"llama_tui.cli.main({words!r})"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], check=False, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1, 3)
    assert tried.read_text() == "[True, True, True]"


def test_figures_stand_under_their_heads() -> None:
    lines = table(("NAME", "PID"), [("a", "12345"), ("longer", "7")], frozenset({"PID"})).splitlines()
    assert lines == ["NAME      PID", "a       12345", "longer      7"]
    # The terminal's cells count: two for a Chinese character, none for a combining accent.
    rows = [("千问3-8b", "1"), ("pa\u0302te\u0301-7b", "22"), ("plain", "3")]
    assert table(("NAME", "PID"), rows, frozenset({"PID"})).splitlines() == [
        "NAME      PID",
        "千问3-8b    1",
        "pa\u0302te\u0301-7b    22",
        "plain       3",
    ]
    assert [cropped("千问3-8b", width) for width in (8, 3, 2)] == ["千问3-8b", "千 ", "千"]
    assert [clock(0), clock(62.4), clock(3725)] == ["0:00", "1:02", "1:02:05"]


class TestLogs:
    def test_the_latest_or_the_one_of_a_name(self, paths: Paths, capfd: pytest.CaptureFixture[str]) -> None:
        assert run("logs") == Exit.NO_MODEL
        assert "Logs begin with the first model" in capfd.readouterr().err
        paths.logs.mkdir(parents=True)
        (paths.logs / "a-b-0123456789abcdef.log").write_text("one\ntwo\nthree\n")
        (paths.logs / "guide-0123456789abcdef.log").write_text("four\nfive")
        assert run("logs", "llama-cpp/folder/A-b.gguf", "-n", "2") == 0
        assert capfd.readouterr().out == "two\nthree\n"
        assert run("logs", "guide") == 0
        assert capfd.readouterr().out == "four\nfive"
        assert run("logs", "guid") == Exit.NO_MODEL
        assert "There are logs of a-b, guide." in capfd.readouterr().err


class TestConfig:
    def test_init_writes_what_changes_nothing_and_never_twice(
        self, paths: Paths, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("config", "init") == 0
        assert capsys.readouterr().out.strip() == str(paths.config_file)
        paths.config_file.write_text(paths.config_file.read_text() + "n_ctx = 4096\n")
        assert run("config", "init") == Exit.FAILED
        assert paths.config_file.read_text().endswith("n_ctx = 4096\n")

    def test_every_setting_of_it_is_valid_once_its_mark_is_taken_away(self, paths: Paths) -> None:
        lines = [line.removeprefix("#") if line[1:2].isalpha() else line for line in commented().splitlines()]
        paths.config.mkdir(parents=True)
        paths.config_file.write_text("\n".join(lines))
        store = SettingsStore(paths, {}, {})
        store.load()
        assert store.problems == []
        assert {name: setting.origin for name, setting in store.resolve().items()} == dict.fromkeys(
            (param.name for param in PARAMS), "config"
        )
        assert all(
            setting.value == param.default for param, setting in zip(PARAMS, store.resolve().values(), strict=True)
        )

    def test_show_has_origins_and_problems(
        self, paths: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths.config.mkdir(parents=True)
        paths.config_file.write_text("top_k = 9\n[models.guide]\ntemperature = 0.1\n")
        monkeypatch.setenv("LLAMA_CPP_N_CTX", "512")
        assert run("config", "show", "guide") == 0
        rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
        assert rows["top_k"] == ["9", "config.toml"]
        assert rows["temperature"] == ["0.1", "config.toml"]
        assert rows["n_ctx"] == ["512", "LLAMA_CPP_N_CTX"]
        assert rows["top_p"] == ["0.95", "default"]
        assert run("config", "show", "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["temperature"] == {"value": 0.7, "origin": "default", "source": ""}
        paths.config_file.write_text("top_k = 'many'\n")
        assert run("config", "show") == Exit.FAILED
        assert "config.toml, line 1: top_k cannot be 'many'" in capsys.readouterr().err


def _read_until(terminal: int, wanted: list[str], seconds: float = 60) -> None:
    """Read what a terminal shows until it has shown some texts, one after the other."""
    in_order = re.compile(".*?".join(map(re.escape, wanted)), re.DOTALL)
    shown, deadline = "", time.monotonic() + seconds
    while not in_order.search(shown):
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536).decode("utf-8", "replace")


class TestCompletion:
    def complete(self, *words: str) -> set[str]:
        """What bash offers for the last of these words."""
        script = subprocess.run(
            [sys.executable, "-m", "llama_tui", "completion", "bash"], check=True, capture_output=True, text=True
        ).stdout
        quoted = " ".join(f"'{word}'" for word in ("llama-tui", *words))
        asked = f"\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _llama_tui; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        done = subprocess.run(
            ["bash", "-c", script + asked], check=True, capture_output=True, text=True, cwd="/proc/self"
        )
        return set(done.stdout.split())

    @pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
    def test_bash(self) -> None:
        assert {"run", "ps", "doctor"} <= self.complete("")
        assert self.complete("run", "guide", "--temp") == {"--temperature"}
        assert self.complete("run", "guide", "--flash-attn", "o") == {"on", "off"}
        assert {"show", "path", "init"} <= self.complete("config", "")
        assert self.complete("ps", "--") == {"--help", "--json"}
        assert "--version" in self.complete("--")
        assert self.complete("kee") == {"keep"}
        assert self.complete("keep", "--") == {"--help", "--off"}
        assert self.complete("run", "guide", "--repl") == {"--replace"}
        assert self.complete("bench", "guide", "--max") == {"--max-seconds"}

    OFFERS = (
        ("run --temp", "--temperature"),
        ("config ", "init path show"),
        ("run --flash-attn ", "auto off on"),
        ("keep --", "--help --off"),
        ("stop wonder", "wonder"),
    )

    @pytest.fixture
    def installed(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
        """A folder with the command, which finds a model, and the scripts of the shells."""
        folder = home / "bin"
        folder.mkdir()
        (folder / "llama-tui").write_text(f'#!/bin/sh\nexec {sys.executable} -m llama_tui "$@"\n')
        (folder / "llama-tui").chmod(0o755)
        (home / "llama_models").mkdir()
        (home / "llama_models" / "wonder.gguf").touch()
        for shell in ("zsh", "fish"):
            assert run("completion", shell) == 0
            (folder / shell).write_text(capsys.readouterr().out)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.chdir(folder)
        return folder

    @pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
    def test_fish(self, installed: Path) -> None:
        for words, offers in self.OFFERS:
            done = subprocess.run(
                ["fish", "--no-config", "-c", f"source {installed}/fish; complete -C 'llama-tui {words}'"],
                check=True,
                capture_output=True,
                text=True,
            )
            assert {line.split()[0] for line in done.stdout.splitlines()} >= set(offers.split()), words

    @pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
    def test_zsh(self, installed: Path) -> None:
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "COLUMNS": "200"})
        try:
            begin = "PROMPT=; autoload -Uz compinit; compinit -u -D; bindkey '^X' list-choices"
            os.write(terminal, f"{begin}; source {installed}/zsh; print REA''DY\n".encode())
            _read_until(terminal, ["READY"])
            for words, offers in self.OFFERS:
                # What is offered stands below what was typed, which is then taken away.
                os.write(terminal, f"llama-tui {words}\x18".encode())
                _read_until(terminal, [f"llama-tui {words}", *offers.split(), f"llama-tui {words}"])
                os.write(terminal, b"\x15")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(terminal)

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_is_whole(self, shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("completion", shell) == 0
        script = capsys.readouterr().out
        for param in PARAMS:
            assert (param.flag if shell != "fish" else f"-l {param.flag[2:]} ") in script
        if shutil.which(shell):
            (tmp_path / "script").write_text(script)
            subprocess.run([shell, "-n", tmp_path / "script"], check=True)


class TestDoctor:
    def test_why_a_gpu_is_not_used(self) -> None:
        def said(*arguments: object) -> list[tuple[str, str]]:
            return [(finding.state, finding.text) for finding in doctor.gpus(*arguments)]  # type: ignore[arg-type]

        able = msgspec.structs.replace(BUILD, gpu_offload=True)
        assert said([], BUILD, 0, {}) == [("note", "no NVIDIA GPU or no driver")]
        assert "CUDA_VISIBLE_DEVICES is ''" in said([], BUILD, 0, {"CUDA_VISIBLE_DEVICES": ""})[0][1]
        assert said([GPU], BUILD, -1, {})[0] == ("fine", "GPU0: 24G of 80G free")
        assert said([GPU], BUILD, -1, {})[1] == ("problem", "not used: llama-cpp-python was built without GPU support")
        assert said([GPU], able, 0, {})[1] == ("note", "not used: n_gpu_layers is 0")
        assert len(said([GPU], able, -1, {})) == 1
        assert len(said([GPU], "no module", -1, {})) == 1

    def test_the_terminal(self) -> None:
        def said(answers: Answers | None = None, between: Multiplexer | None = None, **environ: str) -> str:
            able = Abilities(environ.get("TERM", ""), answers, between, environ)
            return "\n".join(f"{f.state}: {f.text} {f.hint}" for f in doctor.terminal(able))

        assert "fine: TERM is xterm-256color: 16 million colours" in said(TERM="xterm-256color", COLORTERM="truecolor")
        assert "256 colours" in said(TERM="xterm-256color")
        assert "fine: TERM is alacritty: 16 million colours" in said(TERM="alacritty")
        assert "problem: TERM is not set" in said()
        assert "note: inside tmux, set-clipboard is external" in said(None, Multiplexer("tmux", "external"))
        assert "fine: inside tmux, set-clipboard is on" in said(None, Multiplexer("tmux", "on"))
        assert "passes on no copying" in said(None, Multiplexer("screen"))
        assert "OSC 52" in said(TERM="xterm", SSH_TTY="/dev/pts/1")
        assert "not asked" in said(TERM="xterm")
        assert "does not answer" in said(Answers(), TERM="xterm")
        whole = said(Answers(True, "odd\x1b[2J 1", True, True, True, True), TERM="xterm-256color")
        assert "odd␛[2J 1" in whole and "\x1b" not in whole
        assert "The terminal has true colour: export COLORTERM" in whole
        assert "synchronized output (mode 2026): yes" in whole and "programs may write its clipboard" in whole

    def test_a_whole_report(self, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
        paths.config.mkdir(parents=True)
        paths.config_file.write_text("n_ctxx = 1\n")
        assert run("doctor") == Exit.FAILED
        said = capsys.readouterr().out
        assert "✗" in said and "There is no setting n_ctxx" in said and "Do you mean n_ctx?" in said
        assert "llama_models does not exist" in said
        paths.config_file.unlink()
        assert run("doctor", "--json") == 0
        findings = json.loads(capsys.readouterr().out)
        assert {"program", "llama-cpp-python", "GPUs", "memory", "folders", "terminal", "settings"} == {
            finding["area"] for finding in findings
        }

    def test_a_broken_file_is_no_model(
        self, paths: Paths, guide_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        models = tmp_path / "shelf"
        models.mkdir()
        (models / "whole.gguf").write_bytes(guide_model.read_bytes())
        (models / "half.gguf").write_bytes(guide_model.read_bytes()[:1000])
        paths.config.mkdir(parents=True)
        paths.config_file.write_text(f'model_dir = "{models}"\n')
        assert run("doctor") == 0
        assert f"models: {models} (1 GGUF model, 1 that cannot be used)" in capsys.readouterr().out

    def test_a_build_that_cannot_be_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = tmp_path / "llama_cpp"
        package.mkdir()
        (package / "__init__.py").write_text('raise OSError("libcudart.so.12: cannot open shared object file")')
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        assert doctor.probe() == "OSError: libcudart.so.12: cannot open shared object file"
