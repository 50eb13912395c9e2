"""`client.chat.completions.create`: a response whole, or as a stream of chunks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

from llama_tui.chat.access import Access
from llama_tui.client import arguments
from llama_tui.client.chunks import Asked, chunks_of, collected
from llama_tui.client.responses import ChatCompletion, ChatCompletionChunk, ChatMessage
from llama_tui.client.tooling import likelihoods, response_schema, tooling, wants_usage

Messages = Sequence[Mapping[str, object] | ChatMessage]
"""A conversation: each message has a "role" (system, user, assistant or tool) and a "content"."""

Tools = Sequence[Mapping[str, object]]
"""Functions that the model may call, each {"type": "function", "function": {...}} with a JSON schema."""

_NAMES = (
    *("model", "messages", "stream", "n", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
    *("logprobs", "stream_options", "max_completion_tokens"),
)


class ChunkStream(AsyncIterator[ChatCompletionChunk]):
    """The chunks of a response. Leaving its `async with`, or `aclose`, stops the generation."""

    def __init__(self, chunks: AsyncGenerator[ChatCompletionChunk, None]) -> None:
        self._chunks = chunks

    async def __anext__(self) -> ChatCompletionChunk:
        """The next chunk, as soon as there is one."""
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Stop the generation, if it has not ended."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Completions:
    """Reached as `client.chat.completions`."""

    def __init__(self, access: Callable[[], Access]) -> None:
        self._access = access

    @overload
    async def create(
        self,
        *,
        model: str | Path,
        messages: Messages,
        stream: Literal[False] = False,
        n: int = 1,
        tools: Tools | None = None,
        **parameters: object,
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        model: str | Path,
        messages: Messages,
        stream: Literal[True],
        n: int = 1,
        tools: Tools | None = None,
        **parameters: object,
    ) -> ChunkStream: ...

    @overload
    async def create(
        self,
        *,
        model: str | Path,
        messages: Messages,
        stream: bool,
        n: int = 1,
        tools: Tools | None = None,
        **parameters: object,
    ) -> ChatCompletion | ChunkStream: ...

    async def create(
        self,
        *,
        model: str | Path,
        messages: Messages,
        stream: bool = False,
        n: int = 1,
        tools: Tools | None = None,
        **parameters: object,
    ) -> ChatCompletion | ChunkStream:
        """Answer a conversation, loading the model first where no engine has it with these load
        parameters.

        `parameters` are the load and sampling parameters of the README's table, and OpenAI's
        `tool_choice`, `parallel_tool_calls`, `response_format`, `logprobs`, `stream_options` and
        `max_completion_tokens`; what is left out comes from the environment and the settings files.
        With `n` above 1 the answers are made one after the other, the seed one higher each time.
        Cancelling stops the generation.

        Raises `BadArgument` or `BadValue` for arguments, `ModelNameError` for the model's name,
        `NoRoom` where it does not fit into memory (its `offers` say what would: `**offer.params`),
        `MissingLlamaCpp` or `LoadFailed` where it cannot be loaded, `ContextOverflow` for a prompt
        that is too long, `EngineDied` where its process ends meanwhile.
        """
        asked = _asked(messages, n, tools, parameters, stream=stream)
        name = arguments.model_name(model)
        access = self._access()
        file = await access.find(name)
        chunks = chunks_of(access, file, asked)
        if stream:
            return ChunkStream(chunks)
        async with contextlib.aclosing(chunks):
            return await collected(chunks)


def _asked(messages: object, n: object, tools: object, parameters: Mapping[str, object], *, stream: bool) -> Asked:
    rest = dict(parameters)
    choice, parallel = rest.pop("tool_choice", None), rest.pop("parallel_tool_calls", True)
    schema = response_schema(rest.pop("response_format", None))
    likely = likelihoods(rest.pop("logprobs", None), rest.pop("top_logprobs", None))
    usage_apart = wants_usage(rest.pop("stream_options", None), stream=stream)
    if (most := rest.pop("max_completion_tokens", None)) is not None:
        rest.setdefault("max_tokens", most)
    given = arguments.parameters(rest, ("load", "sampling"), _NAMES) | likely
    if schema is not None:
        if given.get("json_schema") or given.get("grammar"):
            raise arguments.BadArgument("response_format is given with grammar or json_schema", "Leave one out")
        given |= {"json_schema": schema, "grammar": ""}
    return Asked(
        arguments.conversation(messages), given, arguments.choices(n), tooling(tools, choice, parallel), usage_apart
    )
