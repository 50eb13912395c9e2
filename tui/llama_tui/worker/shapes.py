"""The shapes in which a conversation is offered to a chat template, the truest first.

Templates disagree about nearly everything beyond plain turns: whether there is a system role,
whether roles must alternate, whether a call's arguments are an object or its JSON, whether the
content beside a call is empty or missing, whether a content is a text or a list of parts, how long
an id is. Each shape answers these questions in another way that some real template wants.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from llama_tui.engine.protocol import Message, ToolCall

Turn = dict[str, Any]
Tools = Sequence[dict[str, Any]]


class Arguments(dict[str, Any]):
    """A call's arguments as an object that turns into its JSON where a template prints it or adds
    it to a text, as those do that expect the JSON."""

    def __str__(self) -> str:
        return json.dumps(self, ensure_ascii=False)

    def __add__(self, text: str) -> str:
        return str(self) + text

    def __radd__(self, text: str) -> str:
        return text + str(self)


class Parts(list[dict[str, str]]):
    """A content as a list of parts that turns into its text where a template prints it whole."""

    def __str__(self) -> str:
        return "".join(part["text"] for part in self)


@dataclass(frozen=True, slots=True)
class _Style:
    """How calls are written: arguments as objects or as text, and the content beside them."""

    objects: bool = True
    beside: str | None = ""
    short_ids: bool = False


# Short ids of nine letters are what Mistral's templates insist on.
_STYLES = (
    _Style(),
    _Style(beside=None),
    _Style(objects=False),
    _Style(short_ids=True),
    _Style(objects=False, beside=None, short_ids=True),
)


def shapes(messages: Sequence[Message], tools: Tools) -> Iterator[tuple[list[Turn], Tools]]:
    """Every shape of a conversation with the tools that go with it, the truest first. The last
    ones tell of tools and calls in words, for templates that know neither."""
    speaks_of_tools = bool(tools) or any(message.tool_calls or message.role == "tool" for message in messages)
    for style in _STYLES if speaks_of_tools else _STYLES[:1]:
        for turns in _arranged([_turn(message, style) for message in messages]):
            yield turns, tools
    if any(len(message.tool_calls) > 1 for message in messages):
        # Some templates show one call a turn, and some models make no more.
        for style in _STYLES:
            for turns in _arranged([_turn(message, style) for message in _one_by_one(messages)]):
                yield turns, tools
    for turns in _arranged([_turn(message, _STYLES[0]) for message in messages]):
        yield [_in_parts(turn) for turn in turns], tools
    if speaks_of_tools:
        for turns in _arranged([_turn(message, _STYLES[0]) for message in in_words(messages, tools)]):
            yield turns, ()


def shows(prompt: str, messages: Sequence[Message], tools: Tools) -> bool:
    """Whether a prompt holds what it should: templates drop what they do not know without a word."""
    for message in messages:
        if message.role in ("system", "user", "tool") and not _holds(prompt, message.content):
            return False
        if not all(_shows_call(prompt, call) for call in message.tool_calls):
            return False
    named = collections.Counter(call.name for message in messages for call in message.tool_calls)
    offered = {str(_function(tool).get("name", "")) for tool in tools}
    if any(prompt.count(name) < times + (name in offered) for name, times in named.items()):
        return False
    return all(_shows_tool(prompt, tool) for tool in tools)


def in_words(messages: Sequence[Message], tools: Tools) -> list[Message]:
    """The conversation with its tools, calls and results as plain text."""
    said: list[Message] = []
    if tools:
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        said.append(
            Message(
                "system",
                f"You can call these tools:\n<tools>\n{listed}\n</tools>\n"
                'To call one, answer with <tool_call>{"name": NAME, "arguments": OBJECT}</tool_call>.',
            )
        )
    for message in messages:
        if message.role == "tool":
            said.append(Message("user", f"<tool_response>\n{message.content}\n</tool_response>"))
        elif message.tool_calls:
            calls = [f"<tool_call>{_as_json(call)}</tool_call>" for call in message.tool_calls]
            said.append(Message(message.role, "\n".join([*([message.content] if message.content else []), *calls])))
        else:
            said.append(message)
    return said


def _one_by_one(messages: Sequence[Message]) -> list[Message]:
    """The conversation as if each call had been made after the result of the one before it."""
    said: list[Message] = []
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        calls = message.tool_calls
        if len(calls) < 2:
            said.append(message)
            continue
        results: list[Message] = []
        while rest and rest[0].role == "tool":
            results.append(rest.pop(0))
        for place, call in enumerate(calls):
            if place:
                said.append(Message(message.role, tool_calls=(call,)))
            else:
                said.append(msgspec.structs.replace(message, tool_calls=(call,)))
            said += [result for result in results if result.tool_call_id == call.id]
        ids = {call.id for call in calls}
        said += [result for result in results if result.tool_call_id not in ids]
    return said


def _turn(message: Message, style: _Style) -> Turn:
    turn: Turn = {"role": message.role, "content": message.content}
    if message.reasoning:
        # The same thing has four names.
        turn |= dict.fromkeys(("reasoning_content", "reasoning", "thinking", "thought"), message.reasoning)
    if message.name:
        turn["name"] = message.name
    if message.tool_call_id:
        turn["tool_call_id"] = _short(message.tool_call_id) if style.short_ids else message.tool_call_id
    if message.tool_calls:
        turn["content"] = message.content or style.beside
        turn["tool_calls"] = [_call(call, style) for call in message.tool_calls]
    return turn


def _in_parts(turn: Turn) -> Turn:
    """A turn as templates of models that see pictures may want it: its content is a list of parts."""
    return {**turn, "content": Parts([{"type": "text", "text": turn["content"]}] if turn["content"] else [])}


def _call(call: ToolCall, style: _Style) -> Turn:
    arguments = _object(call)
    return {
        "id": _short(call.id) if style.short_ids else call.id,
        "type": "function",
        "function": {
            "name": call.name,
            "arguments": arguments if style.objects and arguments is not None else _text(call),
        },
    }


def _object(call: ToolCall) -> Arguments | None:
    """The arguments as an object; None where they are a text that holds none."""
    if not isinstance(call.arguments, str):
        return Arguments(call.arguments)
    try:
        found: Any = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return Arguments(cast("dict[str, Any]", found)) if isinstance(found, dict) else None


def _text(call: ToolCall) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)


def _as_json(call: ToolCall) -> str:
    arguments = _object(call)
    return json.dumps(
        {"name": call.name, "arguments": call.arguments if arguments is None else arguments}, ensure_ascii=False
    )


def _short(id: str) -> str:
    """Nine letters and digits that stand for an id, the same for the same."""
    return ("".join(letter for letter in id if letter.isascii() and letter.isalnum())[-9:]).rjust(9, "0")


def _arranged(turns: list[Turn]) -> Iterator[list[Turn]]:
    """The turns as they are, with neighbours of one role merged, and without a system role."""
    yield turns
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    merged: list[Turn] = []
    for turn in turns:
        if turn["role"] == "system":
            continue
        if merged and _plain_pair(merged[-1], turn):
            merged[-1] = {**turn, "content": merged[-1]["content"] + "\n\n" + turn["content"]}
        else:
            merged.append(turn)
    yield [{"role": "system", "content": system}, *merged] if system else merged
    if system and merged and merged[0]["role"] == "user":
        first, *rest = merged
        yield [{**first, "content": system + "\n\n" + first["content"]}, *rest]
    elif system:
        yield [{"role": "user", "content": system}, *merged]


def _plain_pair(before: Turn, turn: Turn) -> bool:
    if before["role"] != turn["role"] or turn["role"] == "tool":
        return False
    return "tool_calls" not in before and "tool_calls" not in turn


def _holds(prompt: str, content: str) -> bool:
    """Whether a text is in a prompt, as it is or inside a JSON text. What is JSON itself may have
    been written anew."""
    text = content.strip()
    if text in prompt or json.dumps(text, ensure_ascii=False)[1:-1] in prompt or json.dumps(text)[1:-1] in prompt:
        return True
    return text[:1] in ("{", "[")


def _shows_call(prompt: str, call: ToolCall) -> bool:
    given = _object(call) or Arguments()
    return call.name in prompt and all(_holds(prompt, value) for value in given.values() if isinstance(value, str))


def _shows_tool(prompt: str, tool: dict[str, Any]) -> bool:
    return all(_holds(prompt, str(_function(tool).get(key, ""))) for key in ("name", "description"))


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    return tool.get("function", tool)
