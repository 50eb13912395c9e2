"""What the client answers with: the shapes of OpenAI's API, as typed structs.

`msgspec.to_builtins(response)` makes a dictionary of any of them, `msgspec.json.encode` its JSON.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls"]


class Usage(msgspec.Struct, frozen=True):
    """Tokens, counted by the engine. `cached_tokens` of the prompt were still in the KV cache."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class Function(msgspec.Struct, frozen=True):
    """What a call calls; `arguments` is the JSON of an object."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model makes. Its result is sent back as a message of role "tool" with its `id`."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, frozen=True):
    """The answer; `reasoning_content` is what the model thought before it. It may be put among the
    messages of the next request as it is."""

    content: str
    role: Literal["assistant"] = "assistant"
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that could have come. `bytes` are those of its text in UTF-8."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token that came, with the natural logarithm of its probability before any sampler."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[TopLogprob, ...]


class Logprobs(msgspec.Struct, frozen=True):
    """How likely the tokens were, those of the reasoning and of calls among them."""

    content: tuple[TokenLogprob, ...]


class Choice(msgspec.Struct, frozen=True):
    """One of `n` answers. With `seed` the same answer can be made again."""

    index: int
    message: ChatMessage
    finish_reason: FinishReason
    seed: int
    logprobs: Logprobs | None = None


class ChatCompletion(msgspec.Struct, frozen=True):
    """A whole response. `created` is a Unix time in seconds; `model` the name as `models.list` has it."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A call, the one of number `index` in its answer. Calls come whole."""

    index: int
    id: str
    function: Function
    type: Literal["function"] = "function"


class Delta(msgspec.Struct, frozen=True):
    """What a chunk adds; None where it adds none."""

    content: str | None = None
    role: Literal["assistant"] | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """The part of a chunk that belongs to one of `n` answers; `seed` comes with the first."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    seed: int | None = None
    logprobs: Logprobs | None = None


class ChatCompletionChunk(msgspec.Struct, frozen=True):
    """A piece of a streamed response; the very last one has `usage`, and no choices where
    `stream_options` asked for it."""

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
