"""Flags made from the table of parameters."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Collection, Mapping

from llama_tui.errors import LlamaTuiError
from llama_tui.settings.params import BY_NAME, PARAMS
from llama_tui.settings.values import Param, Value


def add_parameters(parser: argparse.ArgumentParser, leave_out: Collection[str] = (), *, variants: bool = False) -> None:
    """Give a parser a flag for each parameter, in the groups of the table. With `variants` a flag
    says that it takes several values, which `combinations` reads."""
    groups: dict[str, argparse._ArgumentGroup] = {}  # pyright: ignore[reportPrivateUsage]
    for param in PARAMS:
        if param.name in leave_out:
            continue
        if param.group not in groups:
            groups[param.group] = parser.add_argument_group(param.group)
        metavar = _metavar(param)
        if variants and _varies(param):
            metavar = f"{metavar}[,{metavar}...]"
        groups[param.group].add_argument(param.flag, dest=param.name, metavar=metavar, help=_help(param))


def parameters(given: Mapping[str, object]) -> dict[str, Value]:
    """The parameters among parsed arguments; raises `LlamaTuiError` for a value that is not allowed."""
    return {name: _value(BY_NAME[name], text) for name, text in given.items() if name in BY_NAME and text is not None}


def combinations(given: Mapping[str, object]) -> list[dict[str, Value]]:
    """Every combination of the values between commas among parsed arguments, the last parameter
    changing fastest; raises `LlamaTuiError` for a value that is not allowed."""
    variants: dict[str, list[Value]] = {}
    for name, text in given.items():
        if name in BY_NAME and text is not None:
            param = BY_NAME[name]
            texts = str(text).split(",") if _varies(param) else [str(text)]
            variants[name] = list(dict.fromkeys(_value(param, each) for each in texts))
    return [dict(zip(variants, values, strict=True)) for values in itertools.product(*variants.values())]


def _varies(param: Param) -> bool:
    """Whether a comma can stand between two values: in lists and texts it is part of one."""
    return param.type in ("int", "float", "bool", "choice")


def _metavar(param: Param) -> str:
    return {"int": "N", "float": "X", "bool": "BOOL", "choice": "WORD", "str": "TEXT"}.get(param.type, "LIST")


def _help(param: Param) -> str:
    default = param.format(param.default)
    unit = f" {param.unit}" if param.unit and param.default is not None else ""
    shown = f" (default: {default}{unit})" if default else ""
    allowed = "" if param.type == "str" else f" {param.allowed[0].upper()}{param.allowed[1:]}."
    return f"{param.help}{allowed}{shown}".replace("%", "%%")


def _value(param: Param, text: object) -> Value:
    try:
        return param.parse(str(text))
    except LlamaTuiError as error:
        raise LlamaTuiError(f"{param.flag}: {error.message}", error.hint) from error
