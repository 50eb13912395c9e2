"""`llama-tui completion bash|zsh|fish`: a completion script, made from the parsers themselves."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from llama_tui.commands import COMMANDS
from llama_tui.commands.flags import add_parameters
from llama_tui.commands.shell import Exit, command
from llama_tui.settings.params import BY_NAME

_EPILOG = """\
examples:
  llama-tui completion bash > ~/.local/share/bash-completion/completions/llama-tui
  llama-tui completion zsh > "${fpath[1]}/_llama-tui"
  llama-tui completion fish > ~/.config/fish/completions/llama-tui.fish
  source <(llama-tui completion bash)    for this shell alone"""

_MODELS = "llama-tui models --names 2>/dev/null"
_TAKES_MODEL = {"", "run", "bench", "stop", "keep", "logs"}
_WORDS = {"config": ("show", "path", "init"), "completion": ("bash", "zsh", "fish")}


@dataclass(frozen=True, slots=True)
class _Flag:
    names: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...]


def parser() -> argparse.ArgumentParser:
    """The arguments of `completion`."""
    made = command("completion", "(bash | zsh | fish)", "Print a completion script for a shell.", _EPILOG)
    made.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="bash|zsh|fish", help="the shell")
    return made


def main(arguments: Sequence[str]) -> int:
    """Print the script; returns the exit code."""
    given = parser().parse_args(arguments)
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[given.shell](_flags()), end="", flush=True)
    return Exit.OK


def _flags() -> dict[str, list[_Flag]]:
    """The flags of each command, those of `llama-tui` alone under the empty name."""
    plain = argparse.ArgumentParser()
    plain.add_argument("--version", action="store_true", help="show the version and exit")
    add_parameters(plain)
    found = {"": _flags_of(plain)}
    for name in COMMANDS:
        found[name] = _flags_of(importlib.import_module(f"llama_tui.commands.{name}").parser())
    return found


def _flags_of(made: argparse.ArgumentParser) -> list[_Flag]:
    flags: list[_Flag] = []
    for action in made._actions:  # pyright: ignore[reportPrivateUsage] - argparse has no other way to ask
        if not action.option_strings:
            continue
        param = BY_NAME.get(action.dest)
        choices = tuple(param.choices) if param else ()
        if param and param.type == "bool":
            choices = ("true", "false")
        if param and param.none_word and choices:
            choices = (*choices, param.none_word)
        text = param.help if param else (action.help or "")
        flags.append(_Flag(tuple(action.option_strings), text, action.nargs != 0, choices))
    return flags


def _bash(flags: dict[str, list[_Flag]]) -> str:
    lines = [
        "# bash completion of llama-tui",
        "_llama_tui() {",
        '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" command="" words="" models=""',
        f'  if (( COMP_CWORD > 1 )); then case "${{COMP_WORDS[1]}}" in {"|".join(COMMANDS)}) '
        'command="${COMP_WORDS[1]}";; esac; fi',
        "  COMPREPLY=()",
        '  case "$prev" in',
    ]
    every = {name: flag for some in flags.values() for flag in some for name in flag.names}
    lines += [
        f'    {name}) COMPREPLY=($(compgen -W "{" ".join(flag.choices)}" -- "$cur")); return;;'
        for name, flag in every.items()
        if flag.choices
    ]
    # Of other values nothing is known but that file names are often among them.
    plain = [name for name, flag in every.items() if flag.takes_value and not flag.choices]
    lines += [f'    {"|".join(plain)}) COMPREPLY=($(compgen -f -- "$cur")); return;;', "  esac", '  case "$command" in']
    for name, some in flags.items():
        words = " ".join([*(name for flag in some for name in flag.names), *_WORDS.get(name, ())])
        lines.append(f'    "{name}") words="{words}{"" if name else " " + " ".join(COMMANDS)}";;')
    takers = "|".join(f'"{name}"' for name in sorted(_TAKES_MODEL))
    lines += [
        "  esac",
        f'  case "$command" in {takers}) [[ "$cur" == -* ]] || models="$({_MODELS})";; esac',
        '  COMPREPLY=($(compgen -W "$words $models" -- "$cur"))',
        '  [[ "$cur" == -* ]] || COMPREPLY+=($(compgen -f -- "$cur"))',
        "}",
        "complete -o filenames -F _llama_tui llama-tui",
    ]
    return "\n".join(lines) + "\n"


def _zsh(flags: dict[str, list[_Flag]]) -> str:
    lines = ["#compdef llama-tui", "", "_llama_tui_models() {", "  local -a models"]
    lines += [f'  models=("${{(@f)$({_MODELS})}}")', "  compadd -a models", "  _files", "}", "", "_llama_tui() {"]
    lines += ["  local -a commands", "  commands=("]
    lines += [f"    {_quoted(f'{name}:{what}')}" for name, what in COMMANDS.items()]
    lines += ["  )", "  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then"]
    lines += ["    _describe command commands", "    _llama_tui_models", "    return", "  fi", '  case "$words[2]" in']
    for name in [*COMMANDS, ""]:
        lines.append(f"    {name or '*'})")
        if name:
            lines += ["      shift words", "      (( CURRENT-- ))"]
        lines += ["      _arguments \\", *(f"        {spec} \\" for flag in flags[name] for spec in _zsh_specs(flag))]
        rest = f"*:word:({' '.join(_WORDS[name])})" if name in _WORDS else "*:file:_files"
        lines += [f"        {_quoted('*:model:_llama_tui_models' if name in _TAKES_MODEL else rest)}", "      ;;"]
    lines += ["  esac", "}", "", 'if [[ "$funcstack[1]" == "_llama-tui" ]]; then _llama_tui "$@"; '
              "else compdef _llama_tui llama-tui; fi"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _zsh_specs(flag: _Flag) -> list[str]:
    text = flag.help
    for letter in "\\[]:":
        text = text.replace(letter, f"\\{letter}")
    value = ""
    if flag.takes_value:
        value = f":value:({' '.join(flag.choices)})" if flag.choices else ":value:_files"
    return [_quoted(f"{name}[{text}]{value}") for name in flag.names]


def _fish(flags: dict[str, list[_Flag]]) -> str:
    none = f"not __fish_seen_subcommand_from {' '.join(COMMANDS)}"
    lines = ["# fish completion of llama-tui"]
    lines += [
        f"complete -c llama-tui -n '__fish_is_first_arg' -a {name} -d {_quoted(what)}"
        for name, what in COMMANDS.items()
    ]
    for name, some in flags.items():
        when = f"__fish_seen_subcommand_from {name}" if name else none
        for flag in some:
            names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.names)
            value = f" -xa {_quoted(' '.join(flag.choices))}" if flag.choices else " -r" if flag.takes_value else ""
            lines.append(f"complete -c llama-tui -n '{when}' {names}{value} -d {_quoted(flag.help)}")
        if name in _TAKES_MODEL:
            lines.append(f"complete -c llama-tui -n '{when}' -a '({_MODELS})'")
        if name in _WORDS:
            lines.append(f"complete -c llama-tui -n '{when}' -f -a {_quoted(' '.join(_WORDS[name]))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """In single quotes, as zsh, bash and fish all read them."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
