"""What the client answers with: the shapes of OpenAI's API, as typed structs.

`msgspec.to_builtins(response)` makes a dictionary of any of them, `msgspec.json.encode` its JSON.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens, counted by the engine. `cached_tokens` of the prompt were still in the KV cache."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class ChatMessage(msgspec.Struct, frozen=True):
    """The answer."""

    content: str
    role: Literal["assistant"] = "assistant"


class Choice(msgspec.Struct, frozen=True):
    """One of `n` answers. With `seed` the same answer can be made again."""

    index: int
    message: ChatMessage
    finish_reason: FinishReason
    seed: int


class ChatCompletion(msgspec.Struct, frozen=True):
    """A whole response. `created` is a Unix time in seconds; `model` the name as `models.list` has it."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"


class Delta(msgspec.Struct, frozen=True):
    """What a chunk adds; None where it adds no text."""

    content: str | None = None
    role: Literal["assistant"] | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """The part of a chunk that belongs to one of `n` answers; `seed` comes with the first."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    seed: int | None = None


class ChatCompletionChunk(msgspec.Struct, frozen=True):
    """A piece of a streamed response; the very last one has `usage`."""

    id: str
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class Model(msgspec.Struct, frozen=True):
    """A model on the disk. `pids` are the engine processes that have it loaded now; unknown figures
    are None, unknown texts ""; `problem` says why the file cannot be used."""

    id: str
    path: str
    size_bytes: int | None
    n_params: int | None
    quantization: str
    architecture: str
    n_ctx_train: int | None
    problem: str | None
    pids: tuple[int, ...] = ()
    object: Literal["model"] = "model"


class LoadedModel(msgspec.Struct, frozen=True):
    """A model in an engine. `n_ctx` is the context that llama.cpp really made, in tokens."""

    id: str
    path: str
    pid: int
    n_ctx: int
    object: Literal["model"] = "model"
