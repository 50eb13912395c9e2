"""Reads calls in a known format from a text."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, cast

from llama_tui.engine.protocol import ToolCall
from llama_tui.worker.toolformat import Envelope, Format, Named, Signature, Tagged
from llama_tui.worker.toolmarks import marks_of, match
from llama_tui.worker.toolvalues import (
    NoValue,
    Relaxed,
    Unfinished,
    property_of,
    read_json,
    resolved,
    skip_space,
    typed,
    types_of,
)

_NAME = re.compile(r"[\w.\-]+")
_FIRST_KEY = re.compile(r'\s*\[?\s*\{\s*"([^"\\]*)"')
_NAME_KEYS = ("name", "tool_name", "function")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")
_OTHER_KEYS = ("id", "type", "tool_call_id")
_ANYTHING: Mapping[str, Any] = {}
_NO_ID = ("", "0", "1", "2", "3")


class Tools:
    """The tools of one request, by name."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self.parameters: dict[str, Mapping[str, Any]] = {}
        for tool in tools:
            function: Mapping[str, Any] = tool.get("function", tool)
            schema: Any = function.get("parameters")
            self.parameters[str(function.get("name", ""))] = (
                cast("dict[str, Any]", schema) if isinstance(schema, dict) else {}
            )

    def __contains__(self, name: str) -> bool:
        return name in self.parameters


def read_calls(format: Format, tools: Tools, text: str, at: int, *, id: str = "") -> tuple[list[ToolCall], int]:
    """The calls whose name (or JSON) stands at a place, one unless they are a list, and where they
    end. Raises `Unfinished` where more text is needed, `NoValue` where there is no call."""
    match format.body:
        case Envelope() as body:
            return _in_envelope(body, tools, text, at, bare=not format.before.strip())
        case Named(middle):
            name, at, named_id = _name(text, at, middle)
            arguments, at = read_json(text, at)
            if not isinstance(arguments, dict):
                raise NoValue
            return [_made(id or named_id, name, cast("dict[str, Any]", arguments))], at
        case Signature(open=open, close=close, assign=assign, quote=quote, raw=raw):
            name, at, _ = _name(text, at, open)
            if name not in tools and not format.native:
                raise NoValue
            arguments, at = Relaxed(assign, quote, raw=raw).read_arguments(text, at, close)
            return [_made(id, name, arguments)], at
        case Tagged() as body:
            name, at, _ = _name(text, at, body.head)
            arguments, at = _TaggedReader(format, body, tools.parameters.get(name, {})).arguments(text, at)
            return [_made(id, name, arguments)], at


def _name(text: str, at: int, after: str) -> tuple[str, int, str]:
    """The name at a place, where what follows it ends, and an id in that."""
    at = skip_space(text, at)
    found = _NAME.match(text, at)
    if at >= len(text) or (found and found.end() == len(text)):
        raise Unfinished
    if not found:
        raise NoValue
    passed = match(text, found.end(), marks_of(after))
    if passed.state == "part":
        raise Unfinished
    if passed.state == "none":
        raise NoValue
    return found[0], passed.end, passed.id


def _made(id: str, name: str, arguments: dict[str, Any]) -> ToolCall:
    id = id if id not in _NO_ID else f"call_{secrets.token_hex(12)}"
    return ToolCall(id, name, json.dumps(arguments, ensure_ascii=False))


# Name and arguments in JSON


def _in_envelope(body: Envelope, tools: Tools, text: str, at: int, *, bare: bool) -> tuple[list[ToolCall], int]:
    first = _FIRST_KEY.match(text, at)
    if bare and first and first[1] not in (body.name, body.arguments, *_NAME_KEYS, *_ARGUMENT_KEYS, *_OTHER_KEYS):
        raise NoValue  # known early, so that other JSON need not wait for its end
    value, end = read_json(text, at)
    items: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    calls = [call for item in items for call in _of(body, tools, item)]
    if not calls or (bare and not all(call.name in tools for call in calls)):
        raise NoValue
    return calls, end


def _of(body: Envelope, tools: Tools, value: object) -> list[ToolCall]:
    """The calls that one JSON value stands for; raises `NoValue` for what is none."""
    if not isinstance(value, dict):
        raise NoValue
    fields = cast("dict[str, Any]", value)
    inner = fields
    if isinstance(fields.get("function"), dict):
        inner = cast("dict[str, Any]", fields["function"])
    name = next((inner[key] for key in (body.name, *_NAME_KEYS) if isinstance(inner.get(key), str)), None)
    if name and not body.by_name:
        keys = (body.arguments, *_ARGUMENT_KEYS)
        arguments: Any = next((inner[key] for key in keys if key in inner), None)
        id = fields.get(body.id or "id")
        return [_made(str(id) if isinstance(id, str) else "", name, _object(arguments))]
    if body.by_name or (fields and all(key in tools for key in fields)):
        return [_made("", key, _object(arguments)) for key, arguments in fields.items()]
    raise NoValue


def _object(arguments: object) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, strict=False) if arguments.strip() else {}
        except (ValueError, RecursionError):
            raise NoValue from None
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise NoValue
    return cast("dict[str, Any]", arguments)


# Arguments between tags


class _TaggedReader:
    """Reads the arguments of one call whose tool has the parameters `schema`."""

    def __init__(self, format: Format, body: Tagged, schema: Mapping[str, Any]) -> None:
        self._body = body
        self._schema = schema
        self._pre = marks_of(body.pre)
        self._post = marks_of(body.post)
        ends = (marks_of(format.between), marks_of(format.after))
        # Few marks tell that no argument follows: they may be the last that come.
        self._ends = tuple(dict.fromkeys(_apart(end, self._pre) for end in ends if end))

    def arguments(self, text: str, at: int) -> tuple[dict[str, Any], int]:
        """The arguments from the first on, and where the last one ends."""
        found: dict[str, Any] = {}
        while not self._ended(text, at):
            following = match(text, at, self._pre)
            if following.state == "part" or (following.state == "none" and self._may_end(text, at)):
                raise Unfinished
            if following.state == "none":
                raise NoValue
            key, value, at = self._argument(text, following.end, self._schema, self._schema)
            found[key] = value
        return found, at

    def _ended(self, text: str, at: int) -> bool:
        return any(match(text, at, end).state == "whole" for end in self._ends)

    def _may_end(self, text: str, at: int) -> bool:
        return any(match(text, at, end).state == "part" for end in self._ends)

    def _argument(self, text: str, at: int, schema: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[str, Any, int]:
        """A key and its value from the key on, and where the value's end mark ends."""
        begin = skip_space(text, at)
        end = text.find(marks_of(self._body.middle)[0], begin)
        if end < 0:
            raise Unfinished
        key = text[begin:end].strip()
        if not key:
            raise NoValue
        middle, is_text = self._body.middle, None
        passed = match(text, end, marks_of(middle))
        if self._body.middle_other != middle:
            is_text = passed.state == "whole"
            if passed.state == "none":
                middle = self._body.middle_other
                passed = match(text, end, marks_of(middle))
        if passed.state == "part":
            raise Unfinished
        if passed.state == "none":
            raise NoValue
        value, at = self._raw_value(text, passed.end, key)
        value = self._trimmed(value, middle)
        part = property_of(schema, key, root)
        if is_text:
            return key, value, at
        if is_text is False and "string" in types_of(part, root):
            return key, self._typed(value, _ANYTHING, root), at
        return key, self._typed(value, part, root), at

    def _raw_value(self, text: str, begin: int, key: str) -> tuple[str, int]:
        """The text up to the end mark after which an argument or nothing follows: the value may hold
        such a mark itself."""
        place = begin
        first = self._post[0]
        while (place := text.find(first, place)) >= 0:
            closed = match(text, place, self._post, key)
            if closed.state == "part":
                break
            if closed.state == "whole":
                if self._ended(text, closed.end) or match(text, closed.end, self._pre).state == "whole":
                    return text[begin:place], closed.end
                if self._may_end(text, closed.end) or match(text, closed.end, self._pre).state == "part":
                    break
            place += 1
        raise Unfinished

    def _trimmed(self, value: str, middle: str) -> str:
        """Without the white space that belongs to the marks."""
        left = middle[len(middle.rstrip()) :]
        right = self._body.post[: len(self._body.post) - len(self._body.post.lstrip())]
        value = value.removeprefix(left) if left else value
        return value.removesuffix(right) if right else value

    def _typed(self, value: str, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
        if self._body.nested and match(value, 0, self._pre).state == "whole":
            return self._nested(value, resolved(schema, root), root)
        if self._body.nested and not value.strip() and (types := types_of(schema, root)) <= {"object", "array"}:
            return {} if "object" in types else [] if types else value
        return typed(value, schema, root)

    def _nested(self, text: str, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
        """An object or a list whose members are between tags in turn."""
        at = 0
        found: list[tuple[str, Any]] = []
        while (begun := match(text, at, self._pre)).state == "whole":
            begin = begun.end
            key_end = text.find(marks_of(self._body.middle)[0], begin)
            if key_end < 0:
                raise NoValue
            key = text[begin:key_end].strip()
            begin = match(text, key_end, marks_of(self._body.middle)).end
            end = self._member_end(text, begin, key)
            at = match(text, end, self._post, key).end
            part = property_of(schema, "" if key == self._body.item else key, root)
            found.append((key, self._typed(text[begin:end], part, root)))
        if skip_space(text, at) < len(text):
            raise NoValue
        is_list = "array" in types_of(schema, root) if types_of(schema, root) else False
        if is_list or {key for key, _ in found} == {self._body.item}:
            return [value for _, value in found]
        return dict(found)

    def _member_end(self, text: str, begin: int, key: str) -> int:
        """Where the end mark of a member begins, members of its name inside it passed over."""
        depth = 0
        place = begin
        while place < len(text):
            opened = match(text, place, (*self._pre, key, *marks_of(self._body.middle)))
            closed = match(text, place, self._post, key)
            if closed.state == "whole" and text.startswith(self._post[0], place):
                if not depth:
                    return place
                depth -= 1
                place = closed.end
            elif opened.state == "whole" and text.startswith(self._pre[0], place):
                depth += 1
                place = opened.end
            else:
                place += 1
        raise NoValue


def _apart(marks: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """The first of some marks, as many as tell them from others."""
    same = 0
    while same < min(len(marks), len(others)) and marks[same] == others[same]:
        same += 1
    return marks[: same + 1]
