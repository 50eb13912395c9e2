"""The command line: opens the terminal program with a model and parameters."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from llama_tui.errors import LlamaTuiError
from llama_tui.paths import Paths
from llama_tui.settings.params import PARAMS
from llama_tui.settings.store import SettingsStore
from llama_tui.settings.values import Param, Value

_DESCRIPTION = """\
Chat with local GGUF models in the terminal. Without MODEL: the model of last time, or the built-in
guide. MODEL is a path (llama-cpp//path/to.gguf), or a name in the model folder (llama-cpp/name.gguf,
or just name)."""

_EPILOG = """\
examples:
  llama-tui                                 open with the last model, or the guide
  llama-tui qwen3-8b-q4_k_m --n-ctx 8192    a model of the model folder, a larger context
  llama-tui ./model.gguf --n-gpu-layers -1  a file, all layers on the GPU

Parameters may also stand in config.toml and in the environment as LLAMA_TUI_<NAME>; see README.md."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit: 0 after a normal end, 1 after an error, 2 for bad arguments."""
    if sys.platform == "win32":
        _fail(LlamaTuiError("llama-tui does not run on Windows itself.", "Use it inside WSL."))
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    model = given.pop("model")
    given.pop("version")
    try:
        flags = {name: _flag_value(name, text) for name, text in given.items() if text is not None}
    except LlamaTuiError as error:
        parser.exit(2, f"llama-tui: {error.message}\n{error.hint}\n")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        _fail(LlamaTuiError("llama-tui needs a terminal.", "Run it without redirecting its input or output."))
    if os.environ.get("TERM", "") in ("", "dumb"):
        _fail(
            LlamaTuiError(
                "This terminal cannot draw (TERM is dumb or not set).", "Set TERM, for example to xterm-256color."
            )
        )
    _run(model, flags)


def _run(model: str | None, flags: dict[str, Value]) -> None:
    from llama_tui.ui.app import LlamaTui

    paths = Paths.default()
    settings = SettingsStore(paths, os.environ, flags)
    settings.load()
    app = LlamaTui(paths, settings, model)
    farewell = app.run()
    if farewell and farewell.still_loaded:
        names = ", ".join(farewell.still_loaded)
        print(f"Still loaded, to unload themselves when they are no longer used: {names}", file=sys.stderr)
    sys.exit(app.return_code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llama-tui",
        usage="llama-tui [MODEL] [--PARAMETER VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name or path of a GGUF file")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    groups: dict[str, argparse._ArgumentGroup] = {}  # pyright: ignore[reportPrivateUsage]
    for param in PARAMS:
        if param.group not in groups:
            groups[param.group] = parser.add_argument_group(param.group)
        group = groups[param.group]
        group.add_argument(param.flag, dest=param.name, metavar=_metavar(param), help=_help(param))
    return parser


class _Version(argparse.Action):
    """Reading the installed version takes as long as a tenth of the start: only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print it and exit."""
        from importlib.metadata import version

        print(f"llama-tui {version('llama-tui')}")
        parser.exit()


def _metavar(param: Param) -> str:
    return {"int": "N", "float": "X", "bool": "BOOL", "choice": "WORD", "str": "TEXT"}.get(param.type, "LIST")


def _help(param: Param) -> str:
    default = param.format(param.default)
    unit = f" {param.unit}" if param.unit and param.default is not None else ""
    shown = f" (default: {default}{unit})" if default else ""
    allowed = "" if param.type == "str" else f" {param.allowed[0].upper()}{param.allowed[1:]}."
    return f"{param.help}{allowed}{shown}".replace("%", "%%")


def _flag_value(name: str, text: str) -> Value:
    param = next(param for param in PARAMS if param.name == name)
    try:
        return param.parse(text)
    except LlamaTuiError as error:
        raise LlamaTuiError(f"{param.flag}: {error.message}", error.hint) from error


def _fail(error: LlamaTuiError) -> NoReturn:
    print(f"llama-tui: {error.message}", file=sys.stderr)
    if error.hint:
        print(error.hint, file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
