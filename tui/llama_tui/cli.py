"""The command line: opens the terminal program with a model and parameters, or runs a command."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any, NoReturn

from llama_tui.colours import declare
from llama_tui.commands import COMMANDS
from llama_tui.commands.flags import add_parameters, parameters
from llama_tui.crash import crash
from llama_tui.errors import LlamaTuiError
from llama_tui.paths import Paths
from llama_tui.settings.store import SettingsStore
from llama_tui.settings.values import Value

_DESCRIPTION = """\
Chat with local GGUF models in the terminal. Without MODEL: the model of last time, or the built-in
guide. MODEL is a path (llama-cpp//path/to.gguf), or a name in the model folder (llama-cpp/name.gguf,
or just name)."""

_EPILOG = """\
commands (each has --help with an example):
{commands}

examples:
  llama-tui                                 open with the last model, or the guide
  llama-tui qwen3-8b-q4_k_m --n-ctx 8192    a model of the model folder, a larger context
  llama-tui ./model.gguf --n-gpu-layers -1  a file, all layers on the GPU
  llama-tui run guide "How do I quit?"      an answer without the terminal program

A model whose name is a command's is opened with its prefix: llama-tui llama-cpp/run.

Parameters may also stand in config.toml and in the environment as LLAMA_TUI_<NAME>; see README.md."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit: 0 after a normal end, 1 after an error, 2 for bad arguments."""
    if sys.platform == "win32":
        _fail(LlamaTuiError("llama-tui does not run on Windows itself.", "Use it inside WSL."))
    _open_missing_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        sys.exit(_run_command(words[0], words[1:]))
    parser = top_parser()
    given = vars(parser.parse_args(words))
    model = given["model"]
    try:
        flags = parameters(given)
    except LlamaTuiError as error:
        parser.exit(2, f"llama-tui: {error.message}\n{error.hint}\n")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal and not sys.stderr.isatty():
        os.dup2(1, 2)  # Textual draws on standard error: with `2>log` the screen would stay black
    if not terminal or sys.__stderr__ is None:
        _fail(LlamaTuiError("llama-tui needs a terminal.", "Run it without redirecting its input or output."))
    if os.environ.get("TERM", "") in ("", "dumb"):
        _fail(
            LlamaTuiError(
                "This terminal cannot draw (TERM is dumb or not set).", "Set TERM, for example to xterm-256color."
            )
        )
    declare(os.environ)
    _measure(os.environ)
    _run(model, flags)


def _measure(environ: MutableMapping[str, str]) -> None:
    """Leave the size to the terminal, where it knows one: an exported COLUMNS or LINES would hold for ever, through
    every resize. A serial line has no size of its own, and is what they are for."""
    if all(os.get_terminal_size(2)):
        for name in ("COLUMNS", "LINES"):
            environ.pop(name, None)


def _open_missing_streams() -> None:
    """Standard streams that were closed before the start, as by `>&-`, lead nowhere from here on. Their
    descriptors must not go to the next file or socket that is opened: it would get what is printed."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", errors="replace", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", errors="replace", closefd=False)


def _run_command(name: str, words: list[str]) -> int:
    """Run a command of the shell; its exit code."""
    from llama_tui.commands.shell import exit_code, report

    command = importlib.import_module(f"llama_tui.commands.{name}")
    try:
        return int(command.main(words))
    except LlamaTuiError as error:
        report(error)
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has enough; Python's own last flush must not complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(model: str | None, flags: dict[str, Value]) -> None:
    # What is made while the program starts stays: to look for garbage in it takes a tenth of the time.
    gc.disable()
    import_asyncio()
    from llama_tui.commands.output import say
    from llama_tui.ui.app import LlamaTui

    paths = Paths.default()
    try:
        settings = SettingsStore(paths, os.environ, flags)
        settings.load()
        app = LlamaTui(paths, settings, model)
        farewell = app.run()
    except LlamaTuiError as error:
        _fail(error)
    except Exception as error:
        _fail(crash(paths.crash_log, error))
    if app.crash:
        _fail(app.crash)
    with contextlib.suppress(OSError):  # a terminal that is gone hears nothing
        for line in farewell.lines() if farewell else ():
            say(line, error=True)
    sys.exit(app.return_code or 0)


def import_asyncio() -> None:
    """Import asyncio as Pythons without OpenSSL have it: its encrypted streams, which a terminal program on Unix
    sockets never opens, would take a tenth of all memory at the start. `import ssl` works as ever afterwards."""
    if "asyncio" not in sys.modules and "ssl" not in sys.modules:
        sys.modules["ssl"] = None  # pyright: ignore[reportArgumentType]
        try:
            importlib.import_module("asyncio")
        finally:
            del sys.modules["ssl"]


def top_parser() -> argparse.ArgumentParser:
    """The arguments of `llama-tui` without a command."""
    parser = argparse.ArgumentParser(
        prog="llama-tui",
        usage="llama-tui [MODEL] [--PARAMETER VALUE ...] | llama-tui COMMAND ...",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(commands="\n".join(f"  {name:<12}{what}" for name, what in COMMANDS.items())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name or path of a GGUF file")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    add_parameters(parser)
    return parser


class _Version(argparse.Action):
    """Reading the installed version takes as long as a tenth of the start: only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it and exit."""
        from importlib.metadata import version

        print(f"llama-tui {version('llama-tui')}")
        parser.exit()


def _fail(error: LlamaTuiError) -> NoReturn:
    from llama_tui.commands.shell import report

    report(error)
    sys.exit(1)


if __name__ == "__main__":
    main()
