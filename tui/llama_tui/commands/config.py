"""`llama-tui config`: the settings with their origins, and a first config.toml."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import msgspec

from llama_tui.commands.output import say
from llama_tui.commands.shell import Exit, command, compose, report, table
from llama_tui.errors import SettingsError
from llama_tui.paths import Paths, ensure
from llama_tui.settings.params import BY_NAME, PARAMS
from llama_tui.settings.values import Param

_EPILOG = """\
examples:
  llama-tui config show                   what holds for every model
  llama-tui config show qwen3-8b-q4_k_m   what holds for this one
  llama-tui config init                   begin a config.toml, every setting a comment in it
  $EDITOR "$(llama-tui config path)"

Exit codes: 0 all is well, 1 a setting cannot be used or the file is there already, 2 wrong arguments."""

_HEADING = """\
# Settings of llama-tui. The program reads this file and never writes it.
#
# Every line that begins with # is without effect; those here show the defaults. Take the # away to set one.
# Stronger than this file, in this order: what you change in the program's form (settings.toml, beside this
# file), the environment (LLAMA_TUI_<NAME>), flags (--n-ctx 8192).
"""
_TAIL = """
# For one model only, all of the above but the program's own:
#
#    [models."qwen3-8b-q4_k_m"]
#    temperature = 0.3
#
# Keys, by the ids of README.md:
#
#    [keys]
#    "chat.stop" = "f8"
"""


def parser() -> argparse.ArgumentParser:
    """The arguments of `config`."""
    made = command(
        "config", "(show [MODEL] [--json] | path | init)", "Show the settings, or begin a config.toml.", _EPILOG
    )
    made.add_argument("what", choices=("show", "path", "init"), metavar="show|path|init", help="what to do")
    made.add_argument("model", metavar="MODEL", nargs="?", help="for `show`: the model whose settings to show")
    made.add_argument("--json", action="store_true", help="for `show`: write one JSON object")
    return made


def main(arguments: Sequence[str]) -> int:
    """Show or begin the settings; returns the exit code."""
    arguments_parser = parser()
    given = arguments_parser.parse_args(arguments)
    if given.what != "show" and (given.model or given.json):
        arguments_parser.error(f"`config {given.what}` takes nothing more")
    match given.what:
        case "path":
            say(str(Paths.default().config_file))
            return Exit.OK
        case "init":
            return _init(Paths.default())
        case _:
            return _show(given.model, as_json=given.json)


def _show(model: str | None, *, as_json: bool) -> int:
    _, settings = compose()
    found = settings.resolve(model)
    if as_json:
        shown = {
            name: {"value": setting.value, "origin": setting.origin, "source": setting.source}
            for name, setting in found.items()
        }
        say(msgspec.json.format(msgspec.json.encode(shown)).decode())
    else:
        rows = [
            (param.name, _one_line(param.format(found[param.name].value)) or "–", _origin(found[param.name].source))
            for param in PARAMS
        ]
        say(table(("SETTING", "VALUE", "FROM"), rows))
    for problem in settings.problems:
        report(problem)
    return Exit.FAILED if settings.problems else Exit.OK


def _origin(source: str) -> str:
    return source or "default"


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _init(paths: Paths) -> int:
    ensure(paths.config)
    try:
        with paths.config_file.open("x", encoding="utf-8") as file:
            file.write(commented())
    except FileExistsError:
        raise SettingsError(
            f"{paths.config_file} is there already", "It is yours: edit it, or move it away first."
        ) from None
    except OSError as error:
        raise SettingsError(
            f"{paths.config_file} cannot be written: {error.strerror}", "Check the owner and mode of its folder."
        ) from error
    say(str(paths.config_file))
    return Exit.OK


def commented() -> str:
    """A config.toml in which every setting stands as a comment with its default."""
    parts = [_HEADING]
    group = ""
    for param in PARAMS:
        if param.group != group:
            group = param.group
            parts.append(f"\n# --- {group} ---\n")
        parts.append(f"\n# {param.help} {param.allowed[0].upper()}{param.allowed[1:]}.\n#{_setting(param)}\n")
    return "".join([*parts, _TAIL])


def _setting(param: Param) -> str:
    value = BY_NAME[param.name].plain(param.default)
    return f"{param.name} = {json.dumps(value, ensure_ascii=False)}"
