"""Texts of a conversation that a template's prompt lacks: some drop what they do not know without a word.

What a person, the system prompt or a tool said must reach the model, and so must what it has answered
itself. Not counted is what models are trained without: earlier thoughts, and words beside a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from llama_tui.engine.protocol import Message

_WORD = re.compile(r"[^\W\d_]{2,}")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_SEARCHED = 200
"""Words of one text that are looked for inside others, as in `nword` of an escaped line break."""

_WHOSE = {
    "system": "the system prompt",
    "user": "what the user says",
    "assistant": "an earlier answer",
    "tool": "a tool's result",
}


def marked(messages: Sequence[Message]) -> list[Message]:
    """The conversation with a text that occurs nowhere else in place of each of its texts: what a
    template makes of it tells which ones it shows, however short they are and however it writes them."""
    return [
        msgspec.structs.replace(message, content=_mark(place)) if message.content.strip() else message
        for place, message in enumerate(messages)
    ]


def lost(prompt: str, messages: Sequence[Message]) -> str:
    """Whose text is not in the prompt that was made of the `marked` messages; "" where none is missing."""
    prompt = prompt.casefold()
    for place, message in enumerate(messages):
        if _counts(message) and _mark(place) not in prompt:
            return _WHOSE[message.role]
    return ""


def shortened(prompt: str, messages: Sequence[Message]) -> str:
    """Whose text is in the prompt without some of its words; "" where none is. Marks, digits, white space
    and the case of letters do not matter, nor whether JSON was written anew."""
    found: set[str] | None = None
    for message in messages:
        text = message.content.strip()
        if not _counts(message) or message.role == "assistant" or text in prompt:
            continue
        if found is None:
            prompt = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), prompt).casefold()
            found = set(_WORD.findall(prompt))
        missing = set(_WORD.findall(_strings(text).casefold())) - found
        if any(word not in prompt for word in sorted(missing)[:_SEARCHED]):
            return _WHOSE[message.role]
    return ""


def _counts(message: Message) -> bool:
    return bool(message.content.strip()) and not message.tool_calls


def _mark(place: int) -> str:
    return f"zq{place}text{place}qz"


def _strings(text: str) -> str:
    """The strings in a JSON text; any other text as it is."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return " ".join(_strings_of(json.loads(text)))
    except (ValueError, RecursionError):
        return text


def _strings_of(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for item in cast("list[Any]", value) for text in _strings_of(item)]
        case dict():
            return [text for key, item in cast("dict[str, Any]", value).items() for text in (key, *_strings_of(item))]
        case _:
            return []
