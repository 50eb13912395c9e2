"""The wire: every message survives it, and what is not a message is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_tui.engine import protocol as p

SPEC = p.EngineSpec("tiny", "/m/tiny.gguf", "/r/x.sock", {"n_ctx": 2048, "flash_attn": "auto", "tensor_split": (1.0,)})

REQUESTS: tuple[p.Request, ...] = (
    p.Hello(1, p.VERSION),
    p.Watch(2),
    p.Generate(3, "g", (p.Message("user", "é🦙\n"),), {"temperature": 0.5, "stop": ("a", "b"), "seed": None}),
    p.Generate(
        3,
        "g",
        (
            p.Message(
                "assistant", reasoning="hm", tool_calls=(p.ToolCall("1", "f", {"a": 1}), p.ToolCall("2", "g", "{}"))
            ),
            p.Message("tool", "22", tool_call_id="1", name="f"),
        ),
        {},
        ({"type": "function"},),
        (0, 3),
        p.ToolChoice("required", "f", parallel=False),
    ),
    p.Attach(4, "g", 17),
    p.Attach(5, "g"),
    p.Cancel(6, "g"),
    p.Configure(7, 0.0),
    p.Keep(8, keep=False),
    p.Unload(8, unless_shared=True),
)

EVENTS: tuple[p.Event, ...] = (
    p.Welcome(1, p.VERSION, 4711, SPEC, 1.5),
    p.State(
        2,
        "ready",
        p.Memory(1, None, (p.Buffer("CPU", True, 1, 2, 3),)),
        model=p.ModelInfo("llama", "llama", 1, 2, 256, 512, "fallback"),
        idle_seconds_left=3.5,
        kept=True,
    ),
    p.Queued(3, "g", 0, 2),
    p.Started(3, "g", 1, 10, 4, 4294967294, 2048),
    p.Prefilled(3, "g", 2, 5, 10),
    p.Token(3, "g", 3, "hm", 2, "reasoning", 2, (p.TokenLogprob(7, "h", -0.5, (p.Alternative(7, "h", -0.5),)),)),
    p.Started(3, "g", 1, 10, 4, 7, 2048, "fallback", "why"),
    p.Token(3, "g", 3, 'a"\\\x00', 1),
    p.Called(3, "g", 4, p.ToolCall("1", "f", '{"a": "é"}'), 9),
    p.Finished(3, "g", 4, "length", 10, 4, 2, None, 0.1, 0.2),
    p.Failed(4, "context", "too long", "shorter", "g", 5, ("log",), 3000, 2048),
    p.Done(5, done=False),
    p.Bye(0, "idle"),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda message: type(message).__name__)
def test_a_request_is_one_line_and_comes_back_the_same(request_: p.Request) -> None:
    line = p.encode(request_)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert p.decode_request(line) == request_


@pytest.mark.parametrize("event", EVENTS, ids=lambda message: type(message).__name__)
def test_an_event_is_one_line_and_comes_back_the_same(event: p.Event) -> None:
    line = p.encode(event)
    assert line.count(b"\n") == 1
    assert p.decode_event(line) == event


def test_every_message_is_tried_above() -> None:
    assert {type(message) for message in REQUESTS} == set(p.Request.__args__)
    assert {type(message) for message in EVENTS} == set(p.Event.__args__)


def test_types_are_written_by_name() -> None:
    assert json.loads(p.encode(p.Attach(1, "g", 2))) == {"type": "attach", "id": 1, "generation": "g", "after": 2}


def test_a_field_that_this_version_does_not_know_is_passed_over() -> None:
    assert p.decode_request(b'{"type":"watch","id":2,"colour":"red"}') == p.Watch(2)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"hello\n",
        b"[]",
        b"null",
        b'{"id":1}',
        b'{"type":"nonesuch","id":1}',
        b'{"type":"token","id":1}',  # an event is no request
        b'{"type":"watch"}',
        b'{"type":"watch","id":"one"}',
        b'{"type":"watch","id":1.5}',
        b'{"type":"generate","id":1,"generation":"g","messages":[{"role":"robot","content":""}],"params":{}}',
        b'{"type":"generate","id":1,"generation":"g","messages":[],"params":{"stop":{"a":1}}}',
        b'{"type":"watch","id":1}{"type":"watch","id":2}',
        b'{"type":"watch","id":1',
        b'{"type":"cancel","id":1,"generation":"\xff"}',
        b"\x00" * 100,
        b"[" * 100_000,
        b'{"type":"watch","id":1,"x":' + b"[" * 100_000,
    ],
)
def test_what_is_not_a_request_is_refused_with_a_reason(line: bytes) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        p.decode_request(line)
    assert str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["type", "id", "generation", "messages", "params", "after", "version", "idle_timeout"])
near_misses = st.dictionaries(
    fields,
    json_values | st.sampled_from(["hello", "watch", "generate", "attach", "cancel", "configure", "keep", "unload", 1]),
)


@given(near_misses)
def test_any_json_is_a_request_or_an_error(value: Any) -> None:
    only_requests_or_errors(json.dumps(value).encode())


@given(st.binary(max_size=60))
def test_any_bytes_are_an_error(data: bytes) -> None:
    only_requests_or_errors(data)


def only_requests_or_errors(line: bytes) -> None:
    try:
        request = p.decode_request(line)
    except msgspec.DecodeError:
        return
    assert p.decode_request(p.encode(request)) == request


class TestTokensPerSecond:
    def finished(self, tokens: int, seconds: float) -> p.Finished:
        return p.Finished(1, "g", 0, "stop", 1, 0, tokens, 0.1, 0.1, seconds)

    def test_the_first_token_belongs_to_the_prompt(self) -> None:
        assert self.finished(11, 2.0).tokens_per_second == 5.0

    @pytest.mark.parametrize(("tokens", "seconds"), [(0, 0.0), (1, 0.0), (1, 1.0), (5, 0.0)])
    def test_unknown_where_nothing_was_decoded(self, tokens: int, seconds: float) -> None:
        assert self.finished(tokens, seconds).tokens_per_second is None
