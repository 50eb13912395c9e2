"""What a parameter is: its type, its bounds, and how its value is read and shown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Literal, cast

from msgspec import Struct

from llama_tui.errors import SettingsError

Value = None | bool | int | float | str | tuple[str | float, ...]
"""What a parameter can be set to. None stands for what the parameter's `none_word` says."""

Values = Mapping[str, Value]

Kind = Literal["load", "sampling", "app"]
Type = Literal["bool", "int", "float", "str", "choice", "strings", "floats"]

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class BadValue(SettingsError):
    """A value outside what its parameter allows; the message says what is allowed."""


class Param(Struct, frozen=True, kw_only=True):
    """One parameter of the table, declared once and used everywhere.

    `none_word` is what a person writes for None ("auto", "random"); without one the parameter
    always has a value. The items of a list of texts are among `choices`, or match the expression
    `item`, of which `example` is one. `reload` says that a loaded model must be loaded again for a change to act.
    """

    name: str
    kind: Kind
    type: Type
    default: Value
    group: str
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float = 1
    choices: tuple[str, ...] = ()
    item: str = ""
    example: str = '["a", "b"]'
    none_word: str = ""
    reload: bool = False
    variables: tuple[str, ...] = ()
    llama_name: str = ""

    @property
    def env(self) -> tuple[str, ...]:
        """Environment variables that set it, the strongest first."""
        return (f"LLAMA_TUI_{self.name.upper()}", *self.variables)

    @property
    def flag(self) -> str:
        """Its command-line flag."""
        return "--" + self.name.replace("_", "-")

    @property
    def allowed(self) -> str:
        """What it may be, as a phrase: 'a number from 0 to 5' or 'one of auto, on, off'."""
        match self.type:
            case "bool":
                phrase = "true or false"
            case "choice":
                phrase = "one of " + ", ".join(self.choices)
            case "strings":
                phrase = (
                    f"a list of {', '.join(self.choices)}"
                    if self.choices
                    else f"a list of texts, such as {self.example}"
                )
            case "floats":
                phrase = "a list of numbers, such as [1, 1]"
            case "str":
                phrase = "a text"
            case "int" | "float":
                noun = "a whole number" if self.type == "int" else "a number"
                phrase = noun + self._range()
        return f'{phrase}, or "{self.none_word}"' if self.none_word else phrase

    def _range(self) -> str:
        low = None if self.minimum is None else f"{self.minimum:,g}"
        high = None if self.maximum is None else f"{self.maximum:,.10g}"
        if low is not None and high is not None:
            return f" from {low} to {high}"
        if low is not None:
            return f" of {low} or more"
        return f" of at most {high}" if high is not None else ""

    def check(self, value: object) -> Value:
        """A value of TOML or JSON as this parameter's own type; raises `BadValue`, which tells it as it was given."""
        given = value
        if value is None or (self.none_word and value == self.none_word):
            if self.none_word:
                return None
            raise self._bad(value)
        match self.type:
            case "bool":
                good = isinstance(value, bool)
            case "int":
                if isinstance(value, float) and value.is_integer():
                    value = int(value)
                good = isinstance(value, int) and not isinstance(value, bool) and self._within(value)
            case "float":
                if isinstance(value, int) and not isinstance(value, bool):
                    value = float(value)
                good = isinstance(value, float) and self._within(value)
            case "str":
                good = isinstance(value, str)
            case "choice":
                good = value in self.choices
            case "strings":
                items = _items(value)
                good = items is not None and all(isinstance(item, str) and self._fits(item) for item in items)
                value = items
            case "floats":
                items = _items(value)
                good = items is not None and all(
                    isinstance(item, int | float) and not isinstance(item, bool) and item >= 0 for item in items
                )
                value = tuple(float(cast("float", item)) for item in items) if good and items is not None else value
        if not good:
            raise self._bad(given)
        return cast("Value", value)

    def parse(self, text: str) -> Value:
        """What a person typed, or a variable holds, as this parameter's type; raises `BadValue`."""
        word = text.strip()
        if self.none_word and word.lower() in (self.none_word, ""):
            return None
        try:
            match self.type:
                case "bool":
                    return self.check(True if word.lower() in _TRUE else False if word.lower() in _FALSE else word)
                case "int":
                    return self.check(int(word.replace(",", "").replace("_", "")))
                case "float":
                    return self.check(float(word))
                case "str":
                    return self.check(text)
                case "choice":
                    return self.check(word.lower())
                case "strings" | "floats":
                    return self.check(_parse_list(word, numbers=self.type == "floats"))
        except (ValueError, BadValue):
            raise self._bad(text) from None

    def format(self, value: Value) -> str:
        """A value as a person writes it; `parse(format(value)) == value`."""
        if value is None:
            return self.none_word
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            return f"{value:.10g}"
        if isinstance(value, tuple):
            return json.dumps(list(value), ensure_ascii=False) if value else ""
        return str(value)

    def plain(self, value: Value) -> bool | int | float | str | list[str] | list[float]:
        """A value as TOML can hold it: None as its word, a tuple as a list."""
        if value is None:
            return self.none_word
        if isinstance(value, tuple):
            return cast("list[str] | list[float]", list(value))
        return value

    def _fits(self, item: str) -> bool:
        if self.choices:
            return item in self.choices
        return not self.item or re.fullmatch(self.item, item) is not None

    def _within(self, number: float) -> bool:
        if math.isnan(number) or math.isinf(number):
            return False
        return (self.minimum is None or number >= self.minimum) and (self.maximum is None or number <= self.maximum)

    def _bad(self, value: object) -> BadValue:
        shown = value if isinstance(value, str) else json.dumps(value, default=str)
        return BadValue(
            f"{self.name} cannot be {shown!r}" if shown else f"{self.name} cannot be empty", f"Allowed: {self.allowed}."
        )


def _items(value: object) -> tuple[object, ...] | None:
    return tuple(cast("list[object]", value)) if isinstance(value, list | tuple) else None


def _parse_list(word: str, *, numbers: bool) -> list[object]:
    """A JSON list, or items between commas; a text with commas in it needs the JSON form."""
    if word.startswith("["):
        return cast("list[object]", json.loads(word))
    items = [item.strip() for item in word.split(",")] if word else []
    return [float(item) for item in items] if numbers else list(items)
