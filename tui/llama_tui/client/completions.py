"""`client.chat.completions.create`: a response whole, or as a stream of chunks."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
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
    Usage,
)
from llama_tui.engine.protocol import Finished, Message, Prefilled, Queued, Started, Token
from llama_tui.errors import EngineError
from llama_tui.library.scan import ModelFile
from llama_tui.settings.params import BY_NAME
from llama_tui.settings.values import Value

Messages = Sequence[Mapping[str, object]]
"""A conversation: each message has a "role" (system, user or assistant) and a "content"."""

_NAMES = ("model", "messages", "stream", "n")


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
        self, *, model: str | Path, messages: Messages, stream: Literal[False] = False, n: int = 1, **parameters: object
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self, *, model: str | Path, messages: Messages, stream: Literal[True], n: int = 1, **parameters: object
    ) -> ChunkStream: ...

    @overload
    async def create(
        self, *, model: str | Path, messages: Messages, stream: bool, n: int = 1, **parameters: object
    ) -> ChatCompletion | ChunkStream: ...

    async def create(
        self, *, model: str | Path, messages: Messages, stream: bool = False, n: int = 1, **parameters: object
    ) -> ChatCompletion | ChunkStream:
        """Answer a conversation, loading the model first where no engine has it with these load
        parameters.

        `parameters` are the load and sampling parameters of the README's table; what is left out
        comes from the environment and the settings files. With `n` above 1 the answers are made one
        after the other, the seed one higher each time. Cancelling stops the generation.

        Raises `BadArgument` or `BadValue` for arguments, `ModelNameError` for the model's name,
        `NoRoom` where it does not fit into memory (its `offers` say what would: `**offer.params`),
        `MissingLlamaCpp` or `LoadFailed` where it cannot be loaded, `ContextOverflow` for a prompt
        that is too long, `EngineDied` where its process ends meanwhile.
        """
        given = arguments.parameters(parameters, ("load", "sampling"), _NAMES)
        asked = arguments.conversation(messages)
        count = arguments.choices(n)
        name = arguments.model_name(model)
        access = self._access()
        file = await access.find(name)
        chunks = _chunks(access, file, asked, given, count)
        if stream:
            return ChunkStream(chunks)
        async with contextlib.aclosing(chunks):
            return await _collected(chunks)


async def _chunks(
    access: Access, file: ModelFile, messages: tuple[Message, ...], given: dict[str, Value], n: int
) -> AsyncGenerator[ChatCompletionChunk, None]:
    id, created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
    usage = Usage(0, 0, 0, 0)

    def chunk(choice: ChunkChoice, total: Usage | None = None) -> ChatCompletionChunk:
        return ChatCompletionChunk(id, created, file.name, (choice,), total)

    seed = access.values(file, given)["seed"]
    for index in range(n):
        wanted = {**given, "seed": _nth(seed, index)} if isinstance(seed, int) else given
        async with contextlib.aclosing(access.ask(file, messages, wanted)) as events:
            async for event in events:
                match event:
                    case Started():
                        yield chunk(ChunkChoice(index, Delta(role="assistant"), seed=event.seed))
                    case Token():
                        yield chunk(ChunkChoice(index, Delta(event.text)))
                    case Finished():
                        usage = _added(usage, event, first=index == 0)
                        last = usage if index == n - 1 else None
                        yield chunk(ChunkChoice(index, Delta(), _reason(event)), last)
                    case Queued() | Prefilled():
                        pass  # OpenAI's chunks have no word for waiting


async def _collected(chunks: AsyncGenerator[ChatCompletionChunk, None]) -> ChatCompletion:
    texts: dict[int, list[str]] = {}
    seeds: dict[int, int] = {}
    choices: list[Choice] = []
    async for chunk in chunks:
        for part in chunk.choices:
            texts.setdefault(part.index, []).append(part.delta.content or "")
            if part.seed is not None:
                seeds[part.index] = part.seed
            if part.finish_reason:
                text = "".join(texts[part.index])
                choices.append(Choice(part.index, ChatMessage(text), part.finish_reason, seeds[part.index]))
        if chunk.usage:
            return ChatCompletion(chunk.id, chunk.created, chunk.model, tuple(choices), chunk.usage)
    raise EngineError("The engine ended the answer without saying how", "See `llama-tui logs`.")


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


def _reason(event: Finished) -> FinishReason:
    if event.reason == "cancelled":
        raise EngineError("The answer was stopped by another program", "Ask again.")
    return event.reason
