"""`client.chat.completions.create`: a response whole, or as a stream of chunks."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, overload

import msgspec

from llama_tui.chat.access import Access
from llama_tui.client import arguments
from llama_tui.client.responses import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessage,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    Function,
    Logprobs,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from llama_tui.client.tooling import Tooling, likelihoods, response_schema, tooling, wants_usage
from llama_tui.engine import protocol
from llama_tui.engine.protocol import Called, Finished, Message, Prefilled, Queued, Started, Token
from llama_tui.errors import EngineError
from llama_tui.library.scan import ModelFile
from llama_tui.settings.params import BY_NAME
from llama_tui.settings.values import Value

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
        chunks = _chunks(access, file, asked)
        if stream:
            return ChunkStream(chunks)
        async with contextlib.aclosing(chunks):
            return await _collected(chunks)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request whose arguments are checked."""

    messages: tuple[Message, ...]
    given: dict[str, Value]
    n: int
    tooling: Tooling
    usage_apart: bool


def _asked(messages: object, n: object, tools: object, parameters: Mapping[str, object], *, stream: bool) -> _Asked:
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
    return _Asked(
        arguments.conversation(messages), given, arguments.choices(n), tooling(tools, choice, parallel), usage_apart
    )


async def _chunks(access: Access, file: ModelFile, asked: _Asked) -> AsyncGenerator[ChatCompletionChunk, None]:
    id, created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
    usage = Usage(0, 0, 0, 0)

    def chunk(choice: ChunkChoice | None, total: Usage | None = None) -> ChatCompletionChunk:
        return ChatCompletionChunk(id, created, file.name, (choice,) if choice else (), total)

    seed = access.values(file, asked.given)["seed"]
    tools = asked.tooling
    for index in range(asked.n):
        calls = 0
        wanted = {**asked.given, "seed": _nth(seed, index)} if isinstance(seed, int) else asked.given
        events = access.ask(file, asked.messages, wanted, tools.tools, tools.choice)
        async with contextlib.aclosing(events):
            async for event in events:
                match event:
                    case Started():
                        if event.notice:
                            warnings.warn(event.notice, RuntimeWarning, stacklevel=2)
                        if left_out := event.left_out:
                            warnings.warn(
                                f"{len(left_out.places):,} messages ({left_out.tokens:,} tokens) do not fit into "
                                f"n_ctx = {event.n_ctx:,} and are left out: context_full is {left_out.how}.",
                                RuntimeWarning,
                                stacklevel=2,
                            )
                        yield chunk(ChunkChoice(index, Delta(role="assistant"), seed=event.seed))
                    case Token():
                        yield chunk(ChunkChoice(index, _text(event), logprobs=_logprobs(event)))
                    case Called(call=call):
                        yield chunk(ChunkChoice(index, Delta(tool_calls=(_call(calls, call),))))
                        calls += 1
                    case Finished():
                        usage = _added(usage, event, first=index == 0)
                        last = usage if index == asked.n - 1 and not asked.usage_apart else None
                        yield chunk(ChunkChoice(index, Delta(), _reason(event, calls)), last)
                    case Queued() | Prefilled():
                        pass  # OpenAI's chunks have no word for waiting
    if asked.usage_apart:
        yield chunk(None, usage)


@dataclass(slots=True)
class _Parts:
    """What has come of one answer."""

    content: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    likely: list[TokenLogprob] | None = None
    seed: int = 0

    def add(self, part: ChunkChoice) -> None:
        self.content.append(part.delta.content or "")
        self.reasoning.append(part.delta.reasoning_content or "")
        self.calls += [ToolCall(call.id, call.function) for call in part.delta.tool_calls or ()]
        if part.logprobs:
            self.likely = [*(self.likely or ()), *part.logprobs.content]
        self.seed = self.seed if part.seed is None else part.seed

    def choice(self, index: int, reason: FinishReason) -> Choice:
        message = ChatMessage(
            "".join(self.content),
            reasoning_content="".join(self.reasoning) or None,
            tool_calls=tuple(self.calls) or None,
        )
        logprobs = None if self.likely is None else Logprobs(tuple(self.likely))
        return Choice(index, message, reason, self.seed, logprobs)


async def _collected(chunks: AsyncGenerator[ChatCompletionChunk, None]) -> ChatCompletion:
    parts: dict[int, _Parts] = {}
    choices: list[Choice] = []
    async for chunk in chunks:
        for part in chunk.choices:
            answer = parts.setdefault(part.index, _Parts())
            answer.add(part)
            if part.finish_reason:
                choices.append(answer.choice(part.index, part.finish_reason))
        if chunk.usage:
            return ChatCompletion(chunk.id, chunk.created, chunk.model, tuple(choices), chunk.usage)
    raise EngineError("The engine ended the answer without saying how", "See `llama-tui logs`.")


def _text(event: Token) -> Delta:
    return Delta(event.text) if event.kind == "answer" else Delta(reasoning_content=event.text)


def _call(index: int, call: protocol.ToolCall) -> ToolCallDelta:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    return ToolCallDelta(index, call.id, Function(call.name, arguments))


def _logprobs(event: Token) -> Logprobs | None:
    if not event.logprobs:
        return None
    return Logprobs(
        tuple(
            TokenLogprob(
                token.text,
                token.logprob,
                tuple(token.text.encode()),
                tuple(TopLogprob(other.text, other.logprob, tuple(other.text.encode())) for other in token.top),
            )
            for token in event.logprobs
        )
    )


def _nth(seed: int, index: int) -> int:
    """Another seed for each answer, within what the parameter allows."""
    most = BY_NAME["seed"].maximum
    assert most is not None
    return (seed + index) % (int(most) + 1)


def _added(usage: Usage, event: Finished, *, first: bool) -> Usage:
    """The prompt counts once, whatever number of answers was made to it."""
    prompt, completion = event.prompt_tokens, usage.completion_tokens + event.completion_tokens
    cached = event.reused_tokens if first else usage.cached_tokens
    return msgspec.structs.replace(
        usage,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cached_tokens=cached,
    )


def _reason(event: Finished, calls: int) -> FinishReason:
    if event.reason == "cancelled":
        raise EngineError("The answer was stopped by another program", "Ask again.")
    return "tool_calls" if calls and event.reason == "stop" else event.reason
