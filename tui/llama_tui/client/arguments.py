"""What may be passed to the client, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from llama_tui.engine.protocol import Message, ToolCall
from llama_tui.errors import LlamaTuiError
from llama_tui.settings.params import BY_NAME
from llama_tui.settings.values import Kind, Value

MAX_CHOICES = 128

_ROLES = ("system", "developer", "user", "assistant", "tool")
_LIKE = 0.6
_FIELDS = {"assistant": ("tool_calls", "reasoning_content"), "tool": ("tool_call_id",)}


class BadArgument(LlamaTuiError, TypeError):
    """An argument that the client does not take, or cannot use."""

    def __str__(self) -> str:
        """With the hint, since Python shows nothing else of an error."""
        return f"{self.message}. {self.hint}" if self.hint else self.message


def parameters(given: Mapping[str, object], kinds: Iterable[Kind], others: Iterable[str] = ()) -> dict[str, Value]:
    """The parameters of the table among keyword arguments. None, for one that always has a value,
    is as if it were not given, and a single text does for a list of texts.

    Raises `BadArgument` for a name that is none of them nor of `others`, which only help to find
    the nearest, and `BadValue` for a value that is not allowed.
    """
    known = [name for name, param in BY_NAME.items() if param.kind in kinds]
    checked: dict[str, Value] = {}
    for name, value in given.items():
        if name not in known:
            raise _unknown(name, [*known, *others])
        param = BY_NAME[name]
        if value is None and not param.none_word:
            continue
        single = param.type == "strings" and isinstance(value, str)
        checked[name] = param.check((value,) if single else value)
    return checked


def _unknown(name: str, known: Iterable[str]) -> BadArgument:
    from difflib import get_close_matches

    if name == "model_dir":
        return BadArgument("model_dir is for the whole client", "Pass it as Client(model_dir=...)")
    near = get_close_matches(name, sorted(known), n=1, cutoff=_LIKE)
    hint = f"Did you mean {near[0]}?" if near else "The README lists every parameter"
    return BadArgument(f"There is no argument {name!r}", hint)


def conversation(messages: object) -> tuple[Message, ...]:
    """The messages of a request; raises `BadArgument`, which names the one that is wrong."""
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise BadArgument("messages must be a list", 'Write messages=[{"role": "user", "content": "..."}]')
    items = cast("Sequence[object]", messages)
    if not items:
        raise BadArgument("messages is empty", "Give at least one message of the user")
    return tuple(_message(number, item) for number, item in enumerate(items))


def _message(number: int, item: object) -> Message:
    where = f"messages[{number}]"
    if isinstance(item, msgspec.Struct):  # the message of a response, sent back as it came
        answered = cast("dict[str, object]", msgspec.to_builtins(item))
        item = {key: value for key, value in answered.items() if value not in (None, [])}
    if not isinstance(item, Mapping):
        raise BadArgument(f"{where} is {kind_of(item)}, not a dictionary", 'It needs "role" and "content"')
    fields = cast("Mapping[str, object]", item)
    role, content = fields.get("role"), fields.get("content")
    if role not in _ROLES:
        raise BadArgument(f'{where}["role"] is {role!r}', f"It must be one of {', '.join(_ROLES)}")
    refuse_unknown(fields, ("role", "content", "name", *_FIELDS.get(role, ())), where)
    calls = _calls(where, fields.get("tool_calls"))
    reasoning, tool_call_id, name = (_text(fields, key, where) for key in ("reasoning_content", "tool_call_id", "name"))
    if role == "tool" and not tool_call_id:
        raise BadArgument(f'{where}["tool_call_id"] is missing', "It must be the id of the call whose result this is")
    known = "system" if role == "developer" else role
    return Message(known, _content(where, content, missing=bool(calls)), reasoning, calls, tool_call_id, name)


def _content(where: str, content: object, *, missing: bool) -> str:
    """The text of a message, or of its parts."""
    if content is None and missing:
        return ""
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        parts = [_part(part) for part in cast("Sequence[object]", content)]
        texts = [part for part in parts if part is not None]
        if len(texts) < len(parts):
            raise BadArgument(f'{where}["content"] has a part that is no text', "Pictures and sound are not supported")
        return "\n".join(texts)
    if not isinstance(content, str):
        raise BadArgument(f'{where}["content"] is {kind_of(content)}', "It must be a text")
    return content


def _part(part: object) -> str | None:
    if not isinstance(part, Mapping):
        return None
    fields = cast("Mapping[str, object]", part)
    text = fields.get("text")
    return text if fields.get("type") == "text" and isinstance(text, str) else None


def _text(fields: Mapping[str, object], key: str, where: str) -> str:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise BadArgument(f'{where}["{key}"] is {kind_of(value)}', "It must be a text")
    return value or ""


def _calls(where: str, calls: object) -> tuple[ToolCall, ...]:
    """The calls of an earlier answer: as they came in the response, or as dictionaries."""
    if calls is None:
        return ()
    if isinstance(calls, str | bytes) or not isinstance(calls, Sequence):
        raise BadArgument(f'{where}["tool_calls"] is {kind_of(cast("object", calls))}', "It must be a list")
    found: list[ToolCall] = []
    for number, item in enumerate(cast("Sequence[object]", calls)):
        call: object = msgspec.to_builtins(item) if isinstance(item, msgspec.Struct) else item
        fields = fields_of(call)
        described = fields_of(fields.get("function"))
        id, name, arguments = fields.get("id"), described.get("name"), described.get("arguments")
        if not (isinstance(id, str) and isinstance(name, str) and isinstance(arguments, str | Mapping)):
            raise BadArgument(
                f'{where}["tool_calls"][{number}] is no call',
                'Write {"id": "...", "type": "function", "function": {"name": "...", "arguments": "{...}"}}',
            )
        given = arguments if isinstance(arguments, str) else dict(cast("Mapping[str, Any]", arguments))
        found.append(ToolCall(id, name, given))
    return tuple(found)


def fields_of(value: object) -> Mapping[str, object]:
    """A dictionary; an empty one for what is none."""
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def refuse_unknown(fields: Mapping[str, object], known: Iterable[str], where: str) -> None:
    """Raise `BadArgument` for the first field that is none of those that are known."""
    allowed = [*known]
    if more := sorted(str(key) for key in fields if key not in allowed):
        raise BadArgument(f"{where} has a field {more[0]!r}", f"It may have {', '.join(allowed)}")


def choices(n: object) -> int:
    """How many answers are wanted; raises `BadArgument`."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_CHOICES:
        raise BadArgument(f"n is {n!r}", f"It must be a whole number from 1 to {MAX_CHOICES}")
    return n


def model_name(model: object) -> str:
    """The name of a model as text, a path too; raises `BadArgument`."""
    if isinstance(model, Path):
        return str(model.absolute())
    if not isinstance(model, str):
        raise BadArgument(f"model is {kind_of(model)}", "It must be the name or the path of a model")
    return model


def kind_of(value: object) -> str:
    """What a value is, in words."""
    name = type(value).__name__
    return "missing" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
