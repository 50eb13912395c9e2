"""The values in tool calls: JSON, what looks like JSON or Python, and bare texts whose type only
the tool's schema knows."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any, cast

_JSON_PART = re.compile(r'"(?:[^"\\]|\\.)*"|["{}\[\]]', re.DOTALL)
_SPACE = re.compile(r"\s*")
_KEY = re.compile(r"[^\s:=,{}\[\]()\"']+")
_WORD = re.compile(r"[^\s,\[\]{}()]+")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_CLOSED = {"{": "}", "[": "]", "(": ")"}
_DEPTH = 64


class Unfinished(Exception):
    """The text ends before the value does."""


class NoValue(Exception):
    """The text is no such value, whatever comes after it."""


def skip_space(text: str, at: int) -> int:
    """The place of the next character that is no white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def read_json(text: str, at: int) -> tuple[Any, int]:
    """The object or list at a place, and where it ends; raises `Unfinished` or `NoValue`."""
    at = skip_space(text, at)
    if at >= len(text):
        raise Unfinished
    if text[at] not in "{[":
        raise NoValue
    open_brackets: list[str] = []
    for part in _JSON_PART.finditer(text, at):
        mark = part[0]
        if mark == '"':
            break
        if mark in ("{", "["):
            open_brackets.append(_CLOSED[mark])
        elif mark in ("}", "]"):
            if open_brackets.pop() != mark:
                raise NoValue
            if not open_brackets:
                return _loads(text[at : part.end()]), part.end()
    raise Unfinished


def _loads(text: str) -> Any:
    try:
        return json.loads(text, strict=False)  # models write line breaks into strings
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python has words for escapes that it does not know
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise NoValue from None


class Relaxed:
    """Reads objects whose keys stand without quotes, and whose strings stand between `quote`, raw
    where that is no quotation mark or `raw` says so, as in `{city:<|"|>Lyon<|"|>}` or
    `(city='Lyon')`. JSON and Python literals are read as well."""

    def __init__(self, assign: str, quote: str, *, raw: bool) -> None:
        self._assign = assign
        self._quote = quote
        self._raw = raw
        # What follows the end of a string; where it is the end of the text, that is not decided.
        self._string_end = re.compile(rf"\s*(?:,\s*[\w.-]+\s*{re.escape(assign)}|[)}}]\s*[],)}}<]|([)}}]\s*)?$)")

    def read_arguments(self, text: str, at: int, close: str) -> tuple[dict[str, Any], int]:
        """The arguments after an opening bracket, and the place after `close`."""
        found: dict[str, Any] = {}
        at = skip_space(text, at)
        while True:
            if at >= len(text):
                raise Unfinished
            if text.startswith(close, at):
                return found, at + len(close)
            key, at = self._key(text, at, self._assign)
            found[key], at = self._argument(text, at)
            at = self._after_item(text, at, close)

    def _argument(self, text: str, at: int) -> tuple[Any, int]:
        at = skip_space(text, at)
        if not self._raw or self._quote not in ("'", '"') or not text.startswith(self._quote, at):
            return self._value(text, at, 0)
        # Quotation marks inside a raw string end it only where another argument, or none, follows.
        begin = end = at + 1
        while (end := text.find(self._quote, end)) >= 0:
            if follows := self._string_end.match(text, end + 1):
                if follows[0].strip() in ("", ")", "}"):
                    raise Unfinished
                return text[begin:end], end + 1
            end += 1
        raise Unfinished

    def _value(self, text: str, at: int, depth: int) -> tuple[Any, int]:
        at = skip_space(text, at)
        if at >= len(text) or (self._quote and self._quote != text[at:] and self._quote.startswith(text[at:])):
            raise Unfinished
        if depth > _DEPTH:
            raise NoValue
        if self._quote and self._quote not in ("'", '"') and text.startswith(self._quote, at):
            begin = at + len(self._quote)
            end = text.find(self._quote, begin)
            if end < 0:
                raise Unfinished
            return text[begin:end], end + len(self._quote)
        match text[at]:
            case "'" | '"':
                return _quoted(text, at)
            case "{":
                return self._object(text, at + 1, depth)
            case "[":
                return self._list(text, at + 1, depth)
            case _:
                return _word(text, at)

    def _object(self, text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = skip_space(text, at)
        while not text.startswith("}", at):
            if at >= len(text):
                raise Unfinished
            key, at = self._key(text, at, ":")
            found[key], at = self._value(text, at, depth + 1)
            at = self._after_item(text, at, "}")
        return found, at + 1

    def _list(self, text: str, at: int, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = skip_space(text, at)
        while not text.startswith("]", at):
            value, at = self._value(text, at, depth + 1)
            found.append(value)
            at = self._after_item(text, at, "]")
        return found, at + 1

    def _key(self, text: str, at: int, assign: str) -> tuple[str, int]:
        if self._quote and text.startswith(self._quote, at):
            key, at = self._value(text, at, 0)
        elif text[at] in "'\"":
            key, at = _quoted(text, at)
        elif bare := _KEY.match(text, at):
            key, at = bare[0], bare.end()
        else:
            raise NoValue
        at = skip_space(text, at)
        if at >= len(text):
            raise Unfinished
        if not text.startswith(assign, at):
            raise NoValue
        return str(key), at + len(assign)

    @staticmethod
    def _after_item(text: str, at: int, close: str) -> int:
        at = skip_space(text, at)
        if at >= len(text):
            raise Unfinished
        if text.startswith(",", at):
            return skip_space(text, at + 1)
        if not text.startswith(close, at):
            raise NoValue
        return at


def _quoted(text: str, at: int) -> tuple[str, int]:
    mark = text[at]
    found = re.compile(rf"{mark}(?:[^{mark}\\]|\\.)*{mark}", re.DOTALL).match(text, at)
    if not found:
        raise Unfinished
    value = _loads(found[0].replace("\n", "\\n") if mark == "'" else found[0])
    return str(value), found.end()


def _word(text: str, at: int) -> tuple[Any, int]:
    found = _WORD.match(text, at)
    if not found:
        raise NoValue
    if found.end() >= len(text):
        raise Unfinished
    if found[0] in _WORDS:
        return _WORDS[found[0]], found.end()
    try:
        return json.loads(found[0]), found.end()
    except (ValueError, RecursionError):
        return found[0], found.end()


def typed(text: str, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """What a bare text stands for where the schema of its parameter is known; `root` holds what a
    reference in it points to. Without a schema what is JSON is read as JSON."""
    types = types_of(schema, root)
    if "string" in types:
        return None if "null" in types and text.strip() in ("null", "None") else text
    stripped = text.strip()
    if stripped in _WORDS:
        return _WORDS[stripped]
    if not stripped and "null" in types:
        return None
    try:
        value = _loads(stripped)
    except NoValue:
        return text
    return text if isinstance(value, str) else value


def types_of(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> set[str]:
    """The names of the JSON types that a schema allows; empty where it does not say."""
    if depth > _DEPTH:
        return set()
    found: set[str] = set()
    if "type" in schema:
        kinds: Any = schema["type"]
        return {str(kind) for kind in cast("list[Any]", kinds)} if isinstance(kinds, list) else {str(kinds)}
    for value in [*_items(schema.get("enum")), *([schema["const"]] if "const" in schema else [])]:
        found.add("string" if isinstance(value, str) else "null" if value is None else "other")
    for name in ("anyOf", "oneOf", "allOf"):
        for part in _items(schema.get(name)):
            if isinstance(part, dict):
                found |= types_of(cast("dict[str, Any]", part), root, depth + 1)
    if "$ref" in schema:
        found |= types_of(resolved(schema, root), root, depth + 1)
    return found


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema, or what its local reference points to."""
    at: Any = root
    for step in str(schema.get("$ref", "")).removeprefix("#/").split("/") if "$ref" in schema else ():
        at = cast("dict[str, Any]", at).get(step) if isinstance(at, dict) else None
    if "$ref" not in schema:
        return schema
    return cast("dict[str, Any]", at) if isinstance(at, dict) else {}


def property_of(schema: Mapping[str, Any], name: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a property, or of a list's items for the name ""; empty where there is none."""
    schema = resolved(schema, root)
    found: Any = schema.get("items") if not name else None
    if name and isinstance(properties := schema.get("properties"), dict):
        found = cast("dict[str, Any]", properties).get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _items(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []
