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
from llama_tui.errors import EngineError
from tests import ggufs

ASK = [{"role": "user", "content": "How is the weather?"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "How the weather is.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Lyon", "Rome"]}, "days": {"type": "integer"}},
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
    "pythonic": (
        "<|list|>[{{ f.name }}({% for k, v in f.arguments.items() %}{{ k }}={{ v | pprint }}"
        "{{ ', ' if not loop.last }}{% endfor %})]<|end_list|>"
    ),
    "braces": (
        "<call>{{ f.name }}{% raw %}{{% endraw %}{% for k, v in f.arguments | dictsort %}{{ k }}:"
        '{{ "#" ~ v ~ "#" if v is string else v | tojson }}'
        "{{ ',' if not loop.last }}{% endfor %}{% raw %}}{% endraw %}</call>"
    ),
    "token": '<|im_start|>{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}',
}

HARMONY = (
    "{{ (tools or []) | tojson }}{% for m in messages %}<|start|>{{ m.role }}{% if m.tool_calls %}"
    "{% set f = m.tool_calls[0].function %} to=functions.{{ f.name }}<|channel|>commentary json<|message|>"
    "{{ f.arguments | tojson }}<|call|>{% else %}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "<|start|>assistant"
)
"""A template whose calls are addressed in the header of a segment."""


def model_of(home: Path, kind: str) -> str:
    """A tiny model whose template writes calls in some format."""
    folder = home / "llama_models"
    folder.mkdir(exist_ok=True)
    source = HARMONY if kind == "harmony" else _TURNS.replace("CALL", FORMATS[kind])
    ggufs.write_tiny_llama(folder / f"{kind}.gguf", chat_template=source)
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
            assert isinstance(arguments["days"], int)


class TestChoice:
    @pytest.mark.parametrize("kind", ["hermes", "bare", "named", "tagged", "pythonic", "braces", "harmony"])
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

    async def test_several_calls_are_told_apart(self, client: Client, home: Path) -> None:
        model = model_of(home, "hermes")
        found = 0
        for seed in range(4):
            response = await client.chat.completions.create(
                model=model,
                messages=ASK,
                tools=[CLOCK],
                tool_choice="required",
                **{**FAST, "seed": seed, "max_tokens": 600},
                logit_bias=["10=4"],  # the line break between two calls
            )
            calls = response.choices[0].message.tool_calls
            check_calls(calls, {"clock"})
            found = max(found, len(calls or ()))
        assert found > 1

    async def test_the_choice_between_a_call_and_a_grammar_of_ones_own(self, client: Client, home: Path) -> None:
        model = model_of(home, "hermes")
        for bias, words in (("Z=100", "Zero."), ("<=100", "")):
            response = await client.chat.completions.create(
                model=model,
                messages=ASK,
                tools=[CLOCK],
                parallel_tool_calls=False,
                grammar='root ::= "Zero."',
                logit_bias=[bias],
                **FAST,
            )
            (choice,) = response.choices
            assert choice.message.content == words
            assert bool(choice.message.tool_calls) is not bool(words)

    async def test_strict_holds_from_where_a_call_begins(self, client: Client, home: Path) -> None:
        model = model_of(home, "token")
        strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
        response = await client.chat.completions.create(
            model=model,
            messages=ASK,
            tools=[strict],
            parallel_tool_calls=False,
            logit_bias=["<|im_start|>=100"],
            **FAST,
        )
        check_calls(response.choices[0].message.tool_calls, {"get_weather"})
        assert response.choices[0].message.content == ""
        free = await client.chat.completions.create(
            model=model, messages=ASK, tools=[strict], n_threads=1, max_tokens=9
        )
        assert free.choices[0].finish_reason == "length"

    async def test_a_tool_without_use_for_a_grammar_is_named(self, client: Client, home: Path) -> None:
        bad = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "$ref": "#/nowhere"}}}
        with pytest.raises(EngineError, match="json_schema cannot be made a grammar"):
            await client.chat.completions.create(
                model=model_of(home, "hermes"), messages=ASK, tools=[bad], tool_choice="required", **FAST
            )


class TestAnswers:
    """What a model says of itself: a grammar of the test's own stands in for what it has learned."""

    SAID = (
        """Let me look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Lyon", "days": 2}}\n</tool_call>"""
    )

    async def said(self, client: Client, model: str, text: str, **more: Any) -> Any:
        quoted = json.dumps(text)
        # A bias keeps the answer from what the tools' own grammar would allow in its place.
        given = {"tools": [WEATHER], "grammar": f"root ::= {quoted}", "logit_bias": [f"{text[0]}=100"], **FAST, **more}
        return await client.chat.completions.create(model=model, messages=ASK, **given)

    async def test_words_and_a_call(self, client: Client, home: Path) -> None:
        response = await self.said(client, model_of(home, "hermes"), self.SAID)
        (choice,) = response.choices
        assert choice.message.content == "Let me look."
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert json.loads(call.function.arguments) == {"city": "Lyon", "days": 2}
        assert choice.finish_reason == "tool_calls"

    async def test_without_tools_it_is_text(self, client: Client, home: Path) -> None:
        response = await self.said(client, model_of(home, "hermes"), self.SAID, tools=None)
        assert response.choices[0].message.content == self.SAID
        assert response.choices[0].finish_reason == "stop"

    async def test_a_call_that_is_cut_off_is_text(self, client: Client, home: Path) -> None:
        model = model_of(home, "hermes")
        whole = len(self.SAID)
        for limit in range(20, whole - 25, 17):
            response = await self.said(client, model, self.SAID, max_tokens=limit)
            (choice,) = response.choices
            assert choice.finish_reason == "length"
            assert choice.message.tool_calls is None
            assert self.SAID.startswith(choice.message.content)
            assert response.usage.completion_tokens == limit

    async def test_chunks_have_whole_calls_and_the_usage_stands_apart(self, client: Client, home: Path) -> None:
        stream = await self.said(
            client, model_of(home, "hermes"), self.SAID, stream=True, stream_options={"include_usage": True}
        )
        chunks: list[ChatCompletionChunk] = [chunk async for chunk in stream]
        assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].choices == ()
        parts = [chunk.choices[0] for chunk in chunks[:-1]]
        assert "".join(part.delta.content or "" for part in parts) == "Let me look."
        (delta,) = [call for part in parts for call in part.delta.tool_calls or ()]
        assert (delta.index, delta.function.name) == (0, "get_weather")
        assert parts[-1].finish_reason == "tool_calls"

    async def test_results_are_sent_back(self, client: Client, home: Path) -> None:
        model = model_of(home, "hermes")
        first = await self.said(client, model, self.SAID)
        message = first.choices[0].message
        (call,) = message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": "22 degrees"}
        counts: set[int] = set()
        for answer in (message, msgspec.to_builtins(message)):
            response = await client.chat.completions.create(
                model=model, messages=[*ASK, answer, result], tools=[WEATHER], n_threads=1, max_tokens=2
            )
            counts.add(response.usage.prompt_tokens)
        assert len(counts) == 1
        assert counts.pop() > first.usage.prompt_tokens + 20

    async def test_several_answers_each_with_calls(self, client: Client, home: Path) -> None:
        response = await self.said(client, model_of(home, "hermes"), self.SAID, n=2)
        assert [len(choice.message.tool_calls) for choice in response.choices] == [1, 1]
        first, second = (choice.message.tool_calls[0].id for choice in response.choices)
        assert first != second

    async def test_a_client_without_await(self, home: Path) -> None:
        model = model_of(home, "hermes")
        with SyncClient(n_ctx=1024) as client:
            response = client.chat.completions.create(
                model=model, messages=ASK, tools=[WEATHER], tool_choice="required", **FAST
            )
            check_calls(response.choices[0].message.tool_calls, {"get_weather"})
            client.close(unload=True)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"size": {"enum": [1, 2]}},
    "required": ["size"],
    "additionalProperties": False,
}


class TestFormats:
    async def test_a_schema_an_object_or_text(self, client: Client, home: Path) -> None:
        model = model_of(home, "hermes")
        formats: list[dict[str, Any]] = [
            {"type": "json_schema", "json_schema": {"name": "sized", "strict": True, "schema": SCHEMA}},
            {"type": "text"},
        ]
        said: list[str] = []
        for response_format in formats:
            response = await client.chat.completions.create(
                model=model, messages=ASK, response_format=response_format, **FAST
            )
            said.append(response.choices[0].message.content)
        assert json.loads(said[0])["size"] in (1, 2)
        assert not said[1].startswith("{")
        response = await client.chat.completions.create(
            model=model, messages=ASK, response_format={"type": "json_object"}, logit_bias=["}=100"], **FAST
        )
        assert isinstance(json.loads(response.choices[0].message.content), dict)

    async def test_logprobs_are_openais(self, client: Client, home: Path) -> None:
        response = await client.chat.completions.create(
            model=model_of(home, "hermes"),
            messages=ASK,
            logprobs=True,
            top_logprobs=2,
            temperature=0,
            max_completion_tokens=4,
            ignore_eos=True,
        )
        (choice,) = response.choices
        assert choice.logprobs
        tokens = choice.logprobs.content
        assert len(tokens) == 4
        assert "".join(token.token for token in tokens) == choice.message.content
        for token in tokens:
            assert bytes(token.bytes).decode() == token.token
            assert token.logprob == token.top_logprobs[0].logprob < 0
            assert len(token.top_logprobs) == 2

    async def test_thoughts_stand_apart(self, client: Client, home: Path) -> None:
        folder = home / "llama_models"
        folder.mkdir()
        ggufs.write_tiny_llama(folder / "thinker.gguf", chat_template=ggufs.CHATML + "<think>\n")
        response = await client.chat.completions.create(
            model="thinker", messages=ASK, max_tokens=9, ignore_eos=True, n_threads=1
        )
        assert response.choices[0].message.reasoning_content
        assert response.choices[0].message.content == ""


class TestArguments:
    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"tools": "f"}, "tools must be a list"),
            ({"tools": ["f"]}, "tools[0] is a str"),
            ({"tools": [{"type": "function"}]}, "tools[0] is no function"),
            ({"tools": [{"type": "function", "function": {"name": 1}}]}, '"name"] is an int'),
            ({"tools": [{"type": "function", "function": {"name": "f", "paramters": {}}}]}, "'paramters'"),
            ({"tool_choice": "required"}, "tool_choice is given without tools"),
            ({"tools": [CLOCK], "tool_choice": "always"}, "tool_choice is 'always'"),
            (
                {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "f"}}},
                "names 'f', which is not among the tools. There are: clock",
            ),
            ({"tools": [CLOCK], "parallel_tool_calls": 1}, "parallel_tool_calls is an int"),
            ({"response_format": "json"}, "response_format is 'json'"),
            ({"response_format": {"type": "json_schema"}}, "response_format has no schema"),
            ({"response_format": {"type": "json_object"}, "grammar": "x"}, "response_format is given with grammar"),
            ({"logprobs": 3}, "logprobs is an int"),
            ({"logprobs": True, "top_logprobs": 101}, "top_logprobs is 101"),
            ({"stream_options": {"include_usage": True}}, "stream_options is given without stream=True"),
            ({"stream": True, "stream_options": {"usage": True}}, "stream_options has a field 'usage'"),
            ({"tool_choise": "auto"}, "Did you mean tool_choice?"),
            ({"messages": [{"role": "tool", "content": "x"}]}, '"tool_call_id"] is missing'),
            ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, '"tool_calls"][0] is no call'),
            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part that is no text"),
        ],
    )
    async def test_what_is_wrong_is_named(self, client: Client, more: dict[str, Any], said: str) -> None:
        with pytest.raises(BadArgument) as caught:
            await client.chat.completions.create(**({"model": "guide", "messages": ASK} | more))
        assert said in str(caught.value)
