"""What may be passed to the client, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from llama_tui.engine.protocol import Message
from llama_tui.errors import LlamaTuiError
from llama_tui.settings.params import BY_NAME
from llama_tui.settings.values import Kind, Value

MAX_CHOICES = 128

_ROLES = ("system", "user", "assistant")
_LIKE = 0.6
_FIELDS = {"role", "content"}


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
    if not isinstance(item, Mapping):
        raise BadArgument(f"{where} is {_kind(item)}, not a dictionary", 'It needs "role" and "content"')
    fields = cast("Mapping[str, object]", item)
    if more := sorted(str(key) for key in fields.keys() - _FIELDS):
        raise BadArgument(f"{where} has a field {more[0]!r}", 'Only "role" and "content" are supported')
    role, content = fields.get("role"), fields.get("content")
    if role not in _ROLES:
        raise BadArgument(f'{where}["role"] is {role!r}', f"It must be one of {', '.join(_ROLES)}")
    if not isinstance(content, str):
        raise BadArgument(f'{where}["content"] is {_kind(content)}', "It must be a text")
    return Message(role, content)


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
        raise BadArgument(f"model is {_kind(model)}", "It must be the name or the path of a model")
    return model


def _kind(value: object) -> str:
    name = type(value).__name__
    return "missing" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
