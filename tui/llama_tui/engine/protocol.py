"""The wire between an engine and its clients: newline-delimited JSON over a Unix socket.

A client sends requests, an engine answers with events; both are small frozen structs with a
`type` field. Many requests share one connection: every event carries the `id` of the request it
answers. A generation outlives the connection that asked for it: its events are numbered by `seq`
from 0, and `Attach(generation, after)` asks for those that a client has not seen.

By hand: `nc -U $XDG_RUNTIME_DIR/llama-tui/NAME.sock`, then
`{"type":"hello","id":1,"version":3}` and `{"type":"watch","id":2}`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llama_tui.errors import Cut
from llama_tui.settings.values import Value

VERSION = 3

LINE_LIMIT = 64 * 1024 * 1024
"""Bytes that one line may have: a long conversation fits, a runaway peer does not."""

Phase = Literal["loading", "ready", "busy", "failed"]
FinishReason = Literal["stop", "length", "cancelled"]
TokenKind = Literal["answer", "reasoning"]
FailureCode = Literal["load", "missing", "context", "request", "version", "internal"]


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model has made; `arguments` is an object, or the JSON of one."""

    id: str
    name: str
    arguments: str | dict[str, Any]


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation as a chat template sees it. A message of role "tool" is the
    result of the call `tool_call_id`; `reasoning` is what the model thought before it answered."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


class Buffer(msgspec.Struct, frozen=True):
    """Bytes that llama.cpp holds in one buffer type; `host` where that is ordinary RAM."""

    name: str
    host: bool
    weights: int
    kv: int
    compute: int

    @property
    def total(self) -> int:
        """Everything in it."""
        return self.weights + self.kv + self.compute


class Device(msgspec.Struct, frozen=True):
    """A GPU as llama.cpp names it, with its memory in bytes."""

    name: str
    free: int
    total: int


class DryRun(msgspec.Struct, frozen=True):
    """What a process says that only pretends to load. `exact` where `buffers` holds everything; else
    only their `compute` is true. `failure` is why nothing can be said."""

    buffers: tuple[Buffer, ...] = ()
    exact: bool = False
    gpus: tuple[Device, ...] = ()
    failure: str = ""


class Estimate(msgspec.Struct, frozen=True):
    """What an engine was expected to take before it was started, in bytes: llama.cpp's buffers, as
    `Memory` has them when it is loaded, with everything in ordinary RAM under the name "RAM" where the
    `method` is the file's header and not a trial in a process of its own."""

    method: Literal["header", "dry run"]
    buffers: tuple[Buffer, ...]

    @property
    def total(self) -> int:
        """All buffers together."""
        return sum(buffer.total for buffer in self.buffers)


class EngineSpec(msgspec.Struct, frozen=True):
    """What an engine is started with. `params` holds every load parameter by name; `states` is the
    folder of saved KV states, empty where none are wanted; `n_gpu_layers` is what that parameter came to
    where it is "auto", of `n_layers` that there are."""

    name: str
    path: str
    socket: str
    params: dict[str, Value]
    states: str = ""
    n_gpu_layers: int = 0
    n_layers: int = 0
    estimate: Estimate | None = None


class ToolChoice(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the model may call tools or must; with `name` the one that it must call. Unless
    `parallel` an answer ends after one call."""

    mode: Literal["auto", "required"] = "auto"
    name: str = ""
    parallel: bool = True


FREE_CHOICE = ToolChoice()
"""The model may call whatever tools it likes, or none."""


# Requests


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first request on a connection; answered by `Welcome`, or `Failed` with code "version"."""

    id: int
    version: int


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """Ask for `State` now, on every change, and about once a second while the connection lasts."""

    id: int


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Ask for an answer. The client names the generation, so that it can record it beforehand.
    `tools` are JSON schemas of functions, as chat templates take them; with them the calls that the
    model makes come as `Called`. `left_out` are the places of the messages that the answer before
    was made without: while that still suffices, the same are left out again, so that the KV cache
    stays of use. Answers are made one after another; with 256 requests waiting, one more is refused."""

    id: int
    generation: str
    messages: tuple[Message, ...]
    params: dict[str, Value]
    tools: tuple[dict[str, Any], ...] = ()
    left_out: tuple[int, ...] = ()
    tool_choice: ToolChoice = FREE_CHOICE


class Attach(msgspec.Struct, frozen=True, tag="attach"):
    """Ask for the events of a generation with a seq above `after` (-1: all), and what follows."""

    id: int
    generation: str
    after: int = -1


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop a generation, queued or running. It ends with `Finished` and reason "cancelled"; `Done`
    comes when it has ended, so that who waits for it knows that llama.cpp has let go."""

    id: int
    generation: str


class Configure(msgspec.Struct, frozen=True, tag="configure"):
    """Change how long the engine lives without a request, in seconds; 0 = for ever."""

    id: int
    idle_timeout: float


class Keep(msgspec.Struct, frozen=True, tag="keep"):
    """Pin the engine, so that it does not unload itself however long it is unused, or let it go."""

    id: int
    keep: bool = True


class Unload(msgspec.Struct, frozen=True, tag="unload"):
    """End the engine. With `unless_shared` only if no other client is connected and nobody has
    pinned it."""

    id: int
    unless_shared: bool = False


Request = Hello | Watch | Generate | Attach | Cancel | Configure | Keep | Unload


# Events


class ModelInfo(msgspec.Struct, frozen=True):
    """What llama.cpp says of the loaded model. `n_ctx` is the context it really made, in tokens."""

    description: str
    architecture: str
    n_params: int
    n_layer: int
    n_ctx: int
    n_ctx_train: int
    template: Literal["model", "fallback"]


class Memory(msgspec.Struct, frozen=True):
    """What the engine's process holds, in bytes; None where the platform does not tell.

    `private` is anonymous memory, the engine's own; `mapped` is file pages, which other engines
    of the same file share.
    """

    private: int | None
    mapped: int | None
    buffers: tuple[Buffer, ...] = ()


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The engine's answer to `Hello`. `started` is a Unix time in seconds."""

    id: int
    version: int
    pid: int
    spec: EngineSpec
    started: float


class State(msgspec.Struct, frozen=True, tag="state"):
    """How an engine is. `progress` is 0 to 1 while loading, None where it cannot be known;
    `read_bytes` is what loading has read from the disk; `idle_seconds` is how long it has not been used,
    None while it is; `idle_seconds_left` is None then too, and where it never unloads; `kept` says that
    it is pinned."""

    id: int
    phase: Phase
    memory: Memory
    progress: float | None = None
    read_bytes: int | None = None
    model: ModelInfo | None = None
    generating: str | None = None
    queued: int = 0
    clients: int = 0
    idle_seconds_left: float | None = None
    kept: bool = False
    n_past: int = 0
    idle_seconds: float | None = None


class Queued(msgspec.Struct, frozen=True, tag="queued"):
    """The request waits; `place` requests stand before it."""

    id: int
    generation: str
    seq: int
    place: int


class Omission(msgspec.Struct, frozen=True):
    """The places of the messages that an answer is made without, and the tokens that they would have
    needed. `how` is the value of `context_full` that chose them."""

    how: str
    places: tuple[int, ...]
    tokens: int


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The prompt is rendered: its size, how many of its tokens are still in the KV cache, and the
    seed with which the same answer can be made again. `template` says whether the model's own chat
    template made it; where that could not, `notice` says why in words for a person. `left_out` is
    what of the conversation did not fit."""

    id: int
    generation: str
    seq: int
    prompt_tokens: int
    reused_tokens: int
    seed: int
    n_ctx: int
    template: Literal["model", "fallback"] = "model"
    notice: str = ""
    restored: bool = False
    left_out: Omission | None = None


class Prefilled(msgspec.Struct, frozen=True, tag="prefilled"):
    """`done` of the prompt's `total` tokens are computed."""

    id: int
    generation: str
    seq: int
    done: int
    total: int


class Alternative(msgspec.Struct, frozen=True):
    """A token that could have come, with the natural logarithm of its probability."""

    token: int
    text: str
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True):
    """The same of a token that came; `top` holds the likeliest there, the likeliest first."""

    token: int
    text: str
    logprob: float
    top: tuple[Alternative, ...] = ()


class Token(msgspec.Struct, frozen=True, tag="token"):
    """The next text, of one or several tokens: of the answer, or of the reasoning before it.
    `n_tokens` counts both so far, `n_reasoning` those of the reasoning.
    `logprobs` are of the tokens since the last event, before any sampler, where they were asked for."""

    id: int
    generation: str
    seq: int
    text: str
    n_tokens: int
    kind: TokenKind = "answer"
    n_reasoning: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class Called(msgspec.Struct, frozen=True, tag="called"):
    """The model calls a tool; `call.arguments` is the JSON of an object. `n_tokens` counts as in `Token`."""

    id: int
    generation: str
    seq: int
    call: ToolCall
    n_tokens: int


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The end of a generation. Times are seconds; `first_token_seconds` counts from the request's
    arrival at the engine, `decode_seconds` from the first token to the last.
    `reasoning_tokens` are among the `completion_tokens`; `restored` is as in `Started`."""

    id: int
    generation: str
    seq: int
    reason: FinishReason
    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int
    first_token_seconds: float | None
    prefill_seconds: float
    decode_seconds: float
    reasoning_tokens: int = 0
    restored: bool = False

    @property
    def tokens_per_second(self) -> float | None:
        """Decode speed; the first token belongs to the prefill."""
        if self.completion_tokens < 2 or self.decode_seconds <= 0:
            return None
        return (self.completion_tokens - 1) / self.decode_seconds


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A request that came to nothing; with id 0 it is the connection, which ends. What stands from
    `prompt_tokens` on comes with code "context"; `cuts` where `context_full` is "ask" and there is
    something to choose from."""

    id: int
    code: FailureCode
    message: str
    hint: str = ""
    generation: str | None = None
    seq: int = 0
    log: tuple[str, ...] = ()
    prompt_tokens: int = 0
    n_ctx: int = 0
    reply_room: int = 0
    cuts: tuple[Cut, ...] = ()


class Done(msgspec.Struct, frozen=True, tag="done"):
    """A request without another answer was carried out; for `Unload`, `done` says whether."""

    id: int
    done: bool = True


class Bye(msgspec.Struct, frozen=True, tag="bye"):
    """The engine ends in good order; a connection that closes without it means that it died."""

    id: int
    reason: Literal["asked", "idle", "failed"]


AnswerEvent = Queued | Started | Prefilled | Token | Called | Finished
GenerationEvent = AnswerEvent | Failed
Event = Welcome | State | Queued | Started | Prefilled | Token | Called | Finished | Failed | Done | Bye

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(message: Request | Event) -> bytes:
    """One line, with its newline."""
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """The request on a line; raises `msgspec.DecodeError`, whose text says what is wrong."""
    try:
        return _requests.decode(line)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def decode_event(line: bytes) -> Event:
    """The event on a line; raises `msgspec.DecodeError`."""
    try:
        return _events.decode(line)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
