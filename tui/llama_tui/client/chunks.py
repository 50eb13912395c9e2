"""An engine's events as the chunks of a response, and the chunks put together."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import warnings
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import msgspec

from llama_tui.chat.access import Access
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
from llama_tui.client.tooling import Tooling
from llama_tui.engine import protocol
from llama_tui.engine.protocol import Called, Finished, Message, Prefilled, Queued, Started, Token
from llama_tui.errors import EngineError
from llama_tui.library.scan import ModelFile
from llama_tui.settings.params import BY_NAME
from llama_tui.settings.values import Value


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose arguments are checked."""

    messages: tuple[Message, ...]
    given: dict[str, Value]
    n: int
    tooling: Tooling
    usage_apart: bool


async def chunks_of(access: Access, file: ModelFile, asked: Asked) -> AsyncGenerator[ChatCompletionChunk, None]:
    """The answers to a request, one after the other, as they come; raises `EngineError` where one of
    them was stopped."""
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
                        _warn(event)
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


async def collected(chunks: AsyncGenerator[ChatCompletionChunk, None]) -> ChatCompletion:
    """The chunks of a response put together."""
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


def _warn(event: Started) -> None:
    """Tell of a prompt that is not what was asked for."""
    if event.notice:
        warnings.warn(event.notice, RuntimeWarning, stacklevel=2)
    if left_out := event.left_out:
        warnings.warn(
            f"{len(left_out.places):,} messages ({left_out.tokens:,} tokens) do not fit into n_ctx = {event.n_ctx:,} "
            f"and are left out: context_full is {left_out.how}.",
            RuntimeWarning,
            stacklevel=2,
        )


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
