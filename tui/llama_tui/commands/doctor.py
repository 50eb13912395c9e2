"""`llama-tui doctor`: what this installation can do, and what is in its way."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import msgspec

from llama_tui.background import guessed
from llama_tui.colours import has_true_colour
from llama_tui.commands.models import NO_FOLDER
from llama_tui.commands.output import say
from llama_tui.commands.shell import Exit, command, compose
from llama_tui.commands.terminal import Abilities, Answers, Multiplexer, abilities
from llama_tui.control import sanitize
from llama_tui.engine.devices import DeviceMemory, Gpus, ram
from llama_tui.engine.install import install_hint
from llama_tui.errors import LlamaTuiError
from llama_tui.library.scan import scan
from llama_tui.library.units import short_size
from llama_tui.paths import Paths, private
from llama_tui.settings.store import SettingsStore

_EPILOG = """\
examples:
  llama-tui doctor
  llama-tui doctor --json | jq '.[] | select(.state == "problem")'

Exit codes: 0 nothing is in the way, 1 there are problems (marked ✗), 2 wrong arguments."""

_PROBE_SECONDS = 60.0
_PROBE = """
import json, llama_cpp
print(json.dumps({
    "version": llama_cpp.__version__,
    "gpu_offload": bool(llama_cpp.llama_supports_gpu_offload()),
    "mmap": bool(llama_cpp.llama_supports_mmap()),
    "mlock": bool(llama_cpp.llama_supports_mlock()),
    "system": llama_cpp.llama_print_system_info().decode("utf-8", "replace"),
}))
"""
_BROKEN = "`llama-tui models` says what is wrong with each."
_MARKS = {"fine": "✓", "note": "·", "problem": "✗"}


class Build(msgspec.Struct, frozen=True):
    """What the installed llama-cpp-python says of itself."""

    version: str
    gpu_offload: bool
    mmap: bool
    mlock: bool
    system: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `hint` says what to do about it."""

    area: str
    state: Literal["fine", "note", "problem"]
    text: str
    hint: str = ""


def parser() -> argparse.ArgumentParser:
    """The arguments of `doctor`."""
    made = command("doctor", "[--json]", "Check the installation, the GPUs, the folders and the terminal.", _EPILOG)
    made.add_argument("--json", action="store_true", help="write one JSON array of findings")
    return made


def main(arguments: Sequence[str]) -> int:
    """Print the report; returns the exit code."""
    given = parser().parse_args(arguments)
    findings = list(_findings())
    if given.json:
        say(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        area = ""
        for finding in findings:
            if finding.area != area:
                area = finding.area
                say(area)
            say(f"  {_MARKS[finding.state]} {finding.text}")
            for line in finding.hint.splitlines():
                say(f"      {line}")
    return Exit.FAILED if any(finding.state == "problem" for finding in findings) else Exit.OK


def _findings() -> Iterator[Finding]:
    paths, settings = compose()
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Finding("program", "fine", f"llama-tui {metadata.version('llama-tui')}, {python}")
    build = probe()
    yield from _build(build)
    layers = settings.values()["n_gpu_layers"]
    yield from gpus(Gpus().read(), build, layers, os.environ)
    memory = ram()
    free = short_size(memory.total - memory.used)
    yield Finding("memory", "fine", f"RAM: {free} of {short_size(memory.total)} free")
    yield from _folders(paths, settings)
    yield from terminal(_asked(os.environ))
    if not settings.problems:
        there = "" if paths.config_file.exists() else " (not there; `llama-tui config init` begins it)"
        yield Finding("settings", "fine", f"{paths.config_file}{there}")
    for problem in settings.problems:
        yield Finding("settings", "problem", problem.message, problem.hint)


def _asked(environ: Mapping[str, str]) -> Abilities:
    try:
        return abilities(environ, sys.stdin.fileno(), sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something without a descriptor
        return Abilities(environ.get("TERM", ""), environ=environ)


def probe() -> Build | str:
    """What the installed build can do, or why it cannot be used. In a process of its own: it may crash."""
    try:
        done = subprocess.run(
            (sys.executable, "-c", _PROBE), capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"importing it took longer than {_PROBE_SECONDS:.0f} s"
    lines = done.stdout.splitlines()
    try:
        return msgspec.json.decode(lines[-1] if lines else "", type=Build)
    except msgspec.DecodeError:
        said = done.stderr.strip().splitlines()
        return said[-1] if said else f"it ended with exit code {done.returncode}"


def _build(build: Build | str) -> Iterator[Finding]:
    area = "llama-cpp-python"
    if isinstance(build, str):
        yield Finding(area, "problem", f"cannot be used: {build}", install_hint())
        return
    yield Finding(area, "fine", f"version {build.version}, GPU offload: {'yes' if build.gpu_offload else 'no'}")
    yield Finding(area, "note", " ".join(build.system.split()))


def gpus(
    found: Sequence[DeviceMemory], build: Build | str, n_gpu_layers: object, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """The GPUs that NVML shows, and why they are not used."""
    for gpu in found:
        free = short_size(gpu.total - gpu.used)
        yield Finding("GPUs", "fine", f"{gpu.label}: {free} of {short_size(gpu.total)} free")
    offload = isinstance(build, Build) and build.gpu_offload
    if not found:
        hidden = environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None:
            yield Finding("GPUs", "note", f"no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES is {hidden!r})")
        else:
            more = "; the build can use a GPU of another kind" if offload else ""
            yield Finding("GPUs", "note", f"no NVIDIA GPU or no driver{more}")
    elif isinstance(build, str):
        return
    elif not offload:
        yield Finding("GPUs", "problem", "not used: llama-cpp-python was built without GPU support", install_hint())
    elif n_gpu_layers == 0:
        yield Finding(
            "GPUs",
            "note",
            "not used: n_gpu_layers is 0",
            'Set n_gpu_layers = "auto" in config.toml: as many layers as fit.',
        )


def _folders(paths: Paths, settings: SettingsStore) -> Iterator[Finding]:
    for folder in settings.model_dirs():
        if folder.is_dir():
            files = scan([folder])
            broken = sum(1 for file in files if file.problem)
            count = len(files) - broken
            unusable = f", {broken:,} that cannot be used" if broken else ""
            told = f"models: {folder} ({count:,} GGUF model{'' if count == 1 else 's'}{unusable})"
            yield Finding("folders", "note" if broken else "fine", told, _BROKEN if broken else "")
        else:
            yield Finding("folders", "note", f"models: {folder} does not exist", NO_FOLDER)
    try:
        private(paths.runtime)
    except LlamaTuiError as error:
        yield Finding("folders", "problem", error.message, error.hint)
    else:
        yield Finding("folders", "fine", f"sockets: {paths.runtime}")
    for what, folder in (("conversations", paths.data), ("logs", paths.logs)):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if os.access(there, os.W_OK):
            yield Finding("folders", "fine", f"{what}: {folder}")
        else:
            yield Finding("folders", "problem", f"{what}: {there} cannot be written", "Check its owner and mode.")


def terminal(able: Abilities) -> Iterator[Finding]:
    """What the terminal says of itself, and what its variables say."""
    area, environ, answers = "terminal", able.environ, able.answers
    if able.term in ("", "dumb"):
        yield Finding(area, "problem", f"TERM is {able.term or 'not set'}: the terminal program cannot draw",
                      "Set TERM, for example to xterm-256color.")  # fmt: skip
    else:
        told = has_true_colour(environ)
        really = answers is not None and answers.true_colour is True
        colours = "16 million colours" if told or really else "256 colours" if "256" in able.term else "16 or fewer"
        hint = "" if told else "The terminal has true colour: " if really else "If your terminal has true colour: "
        yield Finding(area, "fine" if told else "note", f"TERM is {sanitize(able.term)}: {colours}",
                      f"{hint}export COLORTERM=truecolor" if hint else "")  # fmt: skip
    if environ.get("NO_COLOR"):
        yield Finding(area, "note", "NO_COLOR is set")
    yield from _between(able.multiplexer)
    if "SSH_CONNECTION" in environ or "SSH_TTY" in environ:
        yield Finding(area, "note", "over SSH: copying goes through the terminal (OSC 52)",
                      "If nothing arrives in your clipboard, allow OSC 52 in the terminal's settings.")  # fmt: skip
    yield from _background(able)
    if answers is None:
        yield Finding(area, "note", "not asked: standard input and output are no terminal of this program's own")
    elif not answers.answered:
        yield Finding(area, "note", "it does not answer questions about itself")
    else:
        yield from _answered(answers)


def _answered(answers: Answers) -> Iterator[Finding]:
    area = "terminal"
    if answers.version:
        yield Finding(area, "fine", f"it calls itself {sanitize(answers.version)}")
    if answers.kitty_keys:
        yield Finding(area, "fine", "kitty keyboard protocol: shift+enter makes a new line")
    else:
        yield Finding(area, "note", "no kitty keyboard protocol: a new line is ctrl+j, not shift+enter")
    whole = "fine" if answers.synchronized else "note"
    yield Finding(area, whole, f"synchronized output (mode 2026): {'yes' if answers.synchronized else 'no'}")
    if answers.copies:
        yield Finding(area, "fine", "OSC 52: programs may write its clipboard")
    else:
        yield Finding(area, "note", "OSC 52: it does not say whether programs may write its clipboard",
                      "Try ctrl+y in a chat; many terminals allow it without saying so.")  # fmt: skip


def _background(able: Abilities) -> Iterator[Finding]:
    if able.answers and able.answers.background:
        yield Finding("terminal", "fine", f"its background is {able.answers.background}")
    elif found := guessed(able.environ):
        yield Finding("terminal", "note", f"its background is {found}, as COLORFGBG says")
    elif able.answers:
        yield Finding("terminal", "note", "it does not tell whether its background is light or dark",
                      'If it is light: theme = "dawn".')  # fmt: skip


def _between(found: Multiplexer | None) -> Iterator[Finding]:
    if found is None:
        return
    if found.name == "screen":
        yield Finding("terminal", "note", "inside GNU screen, which passes on no copying (OSC 52)",
                      "Use tmux with `set -g set-clipboard on`, or select with the terminal.")  # fmt: skip
    elif found.set_clipboard == "on":
        yield Finding("terminal", "fine", "inside tmux, set-clipboard is on")
    else:
        word = f", set-clipboard is {found.set_clipboard}" if found.set_clipboard else ""
        yield Finding("terminal", "note", f"inside tmux{word}",
                      "Copying needs `set -g set-clipboard on` in tmux.conf.")  # fmt: skip
