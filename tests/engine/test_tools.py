"""Tools: what a real engine makes of calls, in several formats, and what the client tells of them.

The weights are random, so a grammar makes the calls: the very one that `tool_choice` sets up, or
one of a test's own where the model is not asked to call.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llama_tui import Client, SyncClient
from llama_tui.client import BadArgument, ChatCompletionChunk, ToolCall
from tests import ggufs

ASK = [{"role": "user", "content": "How is the weather?"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "How the weather is.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Lyon", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "What time it is.",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}
FAST: dict[str, Any] = {"n_threads": 1, "max_tokens": 200, "seed": 1}

_TURNS = (
    "{% for t in tools or [] %}[tool]{{ t | tojson }}\n{% endfor %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}{% set f = c.function %}CALL{% endfor %}"
    "{% if m.role == 'tool' %}({{ m.tool_call_id }}){% endif %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
FORMATS = {
    "hermes": '\n<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</tool_call>',
    "bare": '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}',
    "named": "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}",
    "tagged": (
        "\n<tool_call>\n<function={{ f.name }}>{% for k, v in f.arguments.items() %}\n<parameter={{ k }}>\n{{ v }}\n"
        "</parameter>{% endfor %}\n</function>\n</tool_call>"
    ),
    "token": '<|endoftext|>{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}<|im_end|>',
}


def model_of(home: Path, kind: str) -> str:
    """A tiny model whose template writes calls in some format."""
    folder = home / "llama_models"
    folder.mkdir(exist_ok=True)
    ggufs.write_tiny_llama(folder / f"{kind}.gguf", chat_template=_TURNS.replace("CALL", FORMATS[kind]))
    return kind


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client whose engines end with it."""
    client = Client(n_ctx=1024)
    yield client
    await client.close(unload=True)


def check_calls(calls: tuple[ToolCall, ...] | None, names: set[str]) -> None:
    """The calls are of the tools, and their arguments are what the schemas allow."""
    assert calls
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        assert call.function.name in names
        arguments = json.loads(call.function.arguments)
        if call.function.name == "get_weather":
            assert arguments["city"] in ("Lyon", "Rome")
            assert arguments["days"] in range(1, 10)


class TestChoice:
    @pytest.mark.parametrize("kind", ["hermes", "bare", "named", "tagged"])
    async def test_required_calls_a_tool_in_the_models_own_format(self, client: Client, home: Path, kind: str) -> None:
        model = model_of(home, kind)
        for _ in range(2):
            response = await client.chat.completions.create(
                model=model,
                messages=ASK,
                tools=[WEATHER, CLOCK],
                tool_choice="required",
                parallel_tool_calls=False,
                **FAST,
            )
            (choice,) = response.choices
            check_calls(choice.message.tool_calls, {"get_weather", "clock"})
            assert choice.message.tool_calls and len(choice.message.tool_calls) == 1
            assert choice.message.content == ""
            assert choice.finish_reason == "tool_calls"
            assert response.usage.completion_tokens > 5

    async def test_a_named_function_is_called(self, client: Client, home: Path) -> None:
        model = model_of(home, "hermes")
        for tool in (WEATHER, CLOCK):
            name = tool["function"]["name"]
            response = await client.chat.completions.create(
                model=model,
                messages=ASK,
                tools=[WEATHER, CLOCK],
                tool_choice={"type": "function", "function": {"name": name}},
                **FAST,
            )
            check_calls(response.choices[0].message.tool_calls, {name})

    async def test_none_and_auto_answer_in_words(self, client: Client, home: Path) -> None:
        model = model_of(home, "hermes")
        for choice in ("none", "auto"):
            response = await client.chat.completions.create(
                model=model, messages=ASK, tools=[WEATHER], tool_choice=choice, n_threads=1, max_tokens=9
            )
            assert response.choices[0].message.tool_calls is None
            assert response.choices[0].finish_reason == "length"
