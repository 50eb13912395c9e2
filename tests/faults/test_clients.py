"""Clients that do not read, ask too much, or send what nobody can understand; and fuzzed messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_tui.engine.client import EngineClient
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Finished, Message, State, encode
from llama_tui.errors import EngineError
from tests.engine.conftest import HELLO, PATIENCE, Running, collect, end_of, load_params, ready
from tests.engine.test_wire import connected
from tests.unit.test_protocol import EVENTS, REQUESTS

PATIENT = 4 * PATIENCE


async def serves(running: Running) -> None:
    """Whether the engine answers a good client."""
    client = await EngineClient.connect(running.socket, PATIENT)
    events = await collect(client.generate(random.randbytes(8).hex(), HELLO, {"max_tokens": 2}), PATIENT)
    assert end_of(events).completion_tokens <= 2
    await client.close()


def question(id: int, name: str, **params: object) -> dict[str, Any]:
    return {
        "type": "generate",
        "id": id,
        "generation": name,
        "messages": [{"role": "user", "content": "hi"}],
        "params": params,
    }


class TestNeverReads:
    def test_holds_nobody_up_and_loses_nothing(self, running: Running, client_ids: Iterator[str]) -> None:
        """It asks for an answer of megabytes, twenty times over, and reads when all is said."""
        name = next(client_ids)
        with connected(running) as wire:
            wire.hello()
            wire.send(question(2, name, max_tokens=800, top_logprobs=20, ignore_eos=True))
            wire.send(*({"type": "attach", "id": id, "generation": name} for id in range(3, 23)))
            wire.send({"type": "watch", "id": 99})
            asyncio.run(serves(running))
            seen: dict[int, list[int]] = {}
            size, open_ones = 0, set(range(2, 23))
            while open_ones:
                event = wire.read()
                assert event
                if event["type"] == "state":
                    continue
                size += len(json.dumps(event))
                seen.setdefault(event["id"], []).append(event["seq"])
                if event["type"] == "finished":
                    assert event["completion_tokens"] == 800
                    open_ones.remove(event["id"])
        assert size > 20 * 1024 * 1024, "more than an engine holds back for a client"
        assert all(numbers == list(range(len(numbers))) for numbers in seen.values())
        assert len({len(numbers) for numbers in seen.values()}) == 1

    def test_one_that_asks_on_and_on_is_dropped(self, running: Running) -> None:
        with connected(running) as wire, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.hello()
            cancel = json.dumps({"type": "attach", "id": 1, "generation": "x" * 10_000}).encode() + b"\n"
            for _ in range(6000):
                wire.send(cancel)
            while wire.read():
                pass
        asyncio.run(serves(running))


class TestTooMuch:
    def test_a_thousand_requests_at_once(self, running: Running, client_ids: Iterator[str]) -> None:
        with connected(running) as wire:
            wire.hello()
            prefix = next(client_ids)
            wire.send(b"".join(line(question(n, f"{prefix}-{n}", max_tokens=1)) for n in range(2, 1002)))
            finished: list[int] = []
            refused: list[int] = []
            while len(finished) + len(refused) < 1000:
                event = wire.read()
                assert event
                if event["type"] == "finished":
                    finished.append(event["id"])
                elif event["type"] == "failed":
                    assert "256 requests wait for tiny already" in event["message"]
                    assert event["hint"]
                    refused.append(event["id"])
        assert finished == sorted(finished), "served in the order in which they came"
        assert len(finished) >= 256
        asyncio.run(serves(running))

    async def test_a_thousand_connections(self, running: Running) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 8192, hard))
        try:
            clients = await asyncio.gather(*(EngineClient.connect(running.socket, PATIENT) for _ in range(1000)))
            states = await asyncio.gather(*(state_of(client) for client in clients))
            assert max(state.clients for state in states) >= 1000
            await serves(running)
            await asyncio.gather(*(client.close() for client in clients))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await serves(running)

    async def test_more_connections_than_files_are_told_so(self, pool: Pool, tiny_model: Path, limited: Any) -> None:
        limited("-n 80")
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        clients: list[EngineClient] = []
        with pytest.raises(EngineError, match=r"serves \d+ clients already") as caught:
            while len(clients) < 80:
                clients += [await EngineClient.connect(engine.place.socket)]
        assert "ulimit -n" in caught.value.hint
        assert end_of(await collect(clients[0].generate("g", HELLO, {"max_tokens": 2}))).completion_tokens == 2
        await asyncio.gather(*(client.close() for client in clients))
        await (await EngineClient.connect(engine.place.socket)).close()


class TestHalves:
    def test_silence_in_the_middle_of_a_message_disturbs_nobody(self, running: Running) -> None:
        with connected(running) as wire:
            wire.hello()
            wire.send(line(question(2, "half"))[:40])
            asyncio.run(serves(running))
            wire.send(b"\n")
            answer = wire.read()
            assert answer
            assert (answer["type"], answer["code"]) == ("failed", "request")

    def test_a_megabyte_without_a_newline(self, running: Running) -> None:
        with connected(running) as wire:
            wire.send(b"x" * 2**20)
            asyncio.run(serves(running))
            wire.send(b"\n")
            answer = wire.read()
            assert answer
            assert "Not a request of this protocol" in answer["message"]
            assert wire.read() is None

    def test_a_client_that_comes_back_gets_what_it_has_not_seen(
        self, running: Running, client_ids: Iterator[str]
    ) -> None:
        name = next(client_ids)
        with connected(running) as wire:
            wire.hello()
            wire.send(question(2, name, max_tokens=30, ignore_eos=True))
            events: list[dict[str, Any]] = []
            while not events or events[-1]["type"] != "finished":
                event = wire.read()
                assert event
                events.append(event)
        for after in (-(2**60), -7, -1, 0, events[-1]["seq"] - 1):
            with connected(running) as wire:
                wire.hello()
                wire.send({"type": "attach", "id": 2, "generation": name, "after": after})
                assert [wire.read() for _ in events[max(after, -1) + 1 :]] == events[max(after, -1) + 1 :]


@pytest.fixture
def client_ids() -> Iterator[str]:
    """Names of generations that nobody else has."""
    return (random.randbytes(8).hex() for _ in range(100))


def line(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode() + b"\n"


async def state_of(client: EngineClient) -> State:
    states = client.watch()
    async with contextlib.aclosing(states), asyncio.timeout(PATIENT):
        return await anext(states)


# Fuzzed messages

_strange = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2**31, 2**63 - 1, 2**63, -(2**64), 1e308, -0.0, 10**400]),
    st.sampled_from(["", "\x00", "\ud800", "g" * 5000, "🦙", "\x1b[2J", "[/x]"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.builds(lambda: [[[[[[[[1]]]]]]]]),
)


@st.composite
def _mutated(draw: st.DrawFn, messages: tuple[Any, ...]) -> bytes:
    """A message with some of its fields changed, left out or doubled, or with bytes overwritten."""
    message: Any = json.loads(encode(draw(st.sampled_from(messages))))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = message
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if key == "type" or (isinstance(place[key], dict | list) and place[key] and draw(st.booleans())):
                if key == "type":
                    break
                place = place[key]
                continue
            if isinstance(place, dict) and draw(st.integers(0, 4)) == 0:
                del place[key]
            else:
                place[key] = draw(_strange)
            break
    data = json.dumps(message).encode()
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=4)).replace(b"\n", b"") + data[at + draw(st.integers(0, 4)) :]
    return data + b"\n"


_WITHOUT_END = tuple(request for request in REQUESTS if type(request).__name__ not in ("Unload", "Configure"))

fuzz = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzz
@given(st.lists(_mutated(_WITHOUT_END), min_size=1, max_size=4))
def test_an_engine_survives_any_request(running: Running, lines: list[bytes]) -> None:
    begun: set[str] = set()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError), connected(running) as wire:
        wire.hello()
        wire.send(*lines, b"no request\n")
        while answer := wire.read():  # it hangs up at the latest after the last line
            assert answer["type"] != "failed" or answer["message"]
            begun.add(answer.get("generation") or "")
    with connected(running) as wire:
        wire.hello()
        for name in begun:
            wire.send({"type": "cancel", "id": 5, "generation": name})
            answer = wire.read()
            assert answer
            assert answer["type"] == "done"


@pytest.fixture(scope="module", autouse=True)
def well_at_the_end(running: Running) -> Iterator[None]:
    """After all that, the engine answers as ever."""
    yield
    asyncio.run(serves(running))


@fuzz
@given(st.lists(_mutated(EVENTS) | st.binary(max_size=20), max_size=5))
def test_a_client_survives_any_event(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    asyncio.run(_against(lines, tmp_path_factory.getbasetemp() / "f.sock"))


async def _against(lines: list[bytes], path: Path) -> None:
    """An engine that greets well, then sends these lines and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(encode(EVENTS[0]))
        await reader.readline()
        for event in lines:
            writer.write(event.replace(b'"id": 3', b'"id": 2'))
        writer.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path)
    try:
        client = await EngineClient.connect(path)
        try:
            async with asyncio.timeout(PATIENT):
                told = await collect(client.generate("g", (Message("user", "hi"),), {}), PATIENT)
            assert isinstance(told[-1], Finished)
        except EngineError as error:
            assert error.message
        await client.close()
    finally:
        server.close()
        await server.wait_closed()
