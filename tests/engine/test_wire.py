"""The socket by hand: what breaks the protocol is told so, and hurts nobody else."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llama_tui.engine.protocol import VERSION
from tests.engine.conftest import Running


class Wire:
    """One connection, as `nc -U` would have it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def send(self, *requests: dict[str, Any] | bytes) -> None:
        for request in requests:
            self._file.write(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")
        self._file.flush()

    def read(self) -> dict[str, Any] | None:
        """The next event; None when the engine has hung up."""
        line = self._file.readline()
        return json.loads(line) if line else None

    def hello(self) -> None:
        self.send({"type": "hello", "id": 1, "version": VERSION})
        answer = self.read()
        assert answer
        assert answer["type"] == "welcome"


@contextmanager
def connected(running: Running) -> Iterator[Wire]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(running.socket))
        with connection.makefile("rwb") as file:
            yield Wire(file)


@pytest.fixture
def wire(running: Running) -> Iterator[Wire]:
    with connected(running) as wire:
        yield wire


class TestHello:
    def test_is_answered_with_who_it_is(self, wire: Wire, running: Running) -> None:
        wire.send({"type": "hello", "id": 7, "version": VERSION})
        answer = wire.read()
        assert answer
        assert (answer["id"], answer["version"]) == (7, VERSION)
        assert answer["spec"]["path"] == str(running.model)
        os.kill(answer["pid"], 0)

    def test_another_version_is_refused(self, wire: Wire) -> None:
        wire.send({"type": "hello", "id": 1, "version": VERSION + 1})
        answer = wire.read()
        assert answer
        assert (answer["type"], answer["code"]) == ("failed", "version")
        assert str(VERSION + 1) in answer["message"]
        assert wire.read() is None

    @pytest.mark.parametrize("request_", [{"type": "watch"}, {"type": "unload"}, {"type": "cancel", "generation": "g"}])
    def test_must_come_first(self, wire: Wire, running: Running, request_: dict[str, Any]) -> None:
        wire.send({**request_, "id": 3})
        answer = wire.read()
        assert answer
        assert (answer["type"], answer["id"], answer["code"]) == ("failed", 3, "version")
        assert "hello" in answer["message"]
        assert wire.read() is None
        with connected(running) as other:
            other.hello()


class TestGarbage:
    @pytest.mark.parametrize(
        "line",
        [
            b"GET / HTTP/1.1\r\n",
            b"\xff\xfe\n",
            b"{}\n",
            b'{"type":"hello"}\n',
            b"\n",
            b'{"type":"cancel","id":1,"generation":"\xff"}\n',
        ],
    )
    def test_is_told_and_hung_up_on(self, wire: Wire, running: Running, line: bytes) -> None:
        wire.send(line)
        answer = wire.read()
        assert answer
        assert (answer["type"], answer["id"], answer["code"]) == ("failed", 0, "request")
        assert wire.read() is None
        with connected(running) as other:
            other.hello()

    def test_half_a_line_and_gone(self, running: Running) -> None:
        with connected(running) as wire:
            wire.hello()
            wire.send(b'{"type":"wat')
        with connected(running) as other:
            other.hello()

    def test_a_line_without_end(self, running: Running) -> None:
        with connected(running) as wire:
            wire.hello()
            block = b"x" * (8 * 1024 * 1024)
            answer = None
            try:
                for _ in range(10):
                    wire.send(block)
                answer = wire.read()
            except (BrokenPipeError, ConnectionResetError):
                return  # hung up before all was sent
            assert answer
            assert "67,108,864 bytes" in answer["message"]
        with connected(running) as other:
            other.hello()


class TestByHand:
    def test_an_answer(self, wire: Wire) -> None:
        wire.hello()
        message = {"role": "user", "content": "hello"}
        wire.send(
            {"type": "generate", "id": 2, "generation": "hand", "messages": [message], "params": {"max_tokens": 9}}
        )
        events = [wire.read()]
        while events[-1] and events[-1]["type"] != "finished":
            events.append(wire.read())
        assert all(event and event["id"] == 2 and event["generation"] == "hand" for event in events)
        assert events[0]
        assert events[0]["type"] == "started"
        assert events[-1]
        assert (events[-1]["reason"], events[-1]["completion_tokens"]) == ("length", 9)

    def test_the_state(self, wire: Wire) -> None:
        wire.hello()
        wire.send({"type": "watch", "id": 2})
        for _ in range(2):  # now, and about once a second
            state = wire.read()
            assert state
            assert (state["type"], state["id"], state["phase"]) == ("state", 2, "ready")
            assert state["memory"]["private"] > 0
            assert (state["queued"], state["generating"]) == (0, None)

    def test_after_short_answers_nothing_is_left_waiting(self, wire: Wire) -> None:
        wire.hello()
        message = {"role": "user", "content": "hi"}
        for number in range(60):
            wire.send(
                {
                    "type": "generate",
                    "id": 2,
                    "generation": f"short{number}",
                    "messages": [message],
                    "params": {"max_tokens": 1},
                }
            )
            first = wire.read()
            assert first
            assert first["type"] == "started"
            while (event := wire.read()) and event["type"] != "finished":
                pass
        wire.send({"type": "watch", "id": 3})
        state = wire.read()
        assert state
        assert (state["phase"], state["queued"], state["generating"]) == ("ready", 0, None)

    def test_answers_come_in_the_order_of_the_questions(self, wire: Wire) -> None:
        wire.hello()
        question = {"type": "generate", "messages": [{"role": "user", "content": "hi"}], "params": {"max_tokens": 40}}
        wire.send(*({**question, "id": id, "generation": f"order{id}"} for id in (2, 3, 4, 5)))
        started: list[int] = []
        finished: list[int] = []
        while len(finished) < 4 and (event := wire.read()):
            if event["type"] == "started":
                assert len(started) == len(finished)  # one after the other
                started.append(event["id"])
            elif event["type"] == "finished":
                finished.append(event["id"])
        assert started == finished == [2, 3, 4, 5]

    def test_many_requests_in_one_write(self, wire: Wire) -> None:
        wire.send(
            b'{"type":"hello","id":1,"version":%d}\n{"type":"cancel","id":2,"generation":"x"}\n'
            b'{"type":"attach","id":3,"generation":"x"}\n' % VERSION
        )
        answers = [wire.read() for _ in range(3)]
        assert [(answer["type"], answer["id"]) for answer in answers if answer] == [
            ("welcome", 1),
            ("done", 2),
            ("failed", 3),
        ]


def test_the_socket_is_the_users_alone(running: Running) -> None:
    assert stat.S_IMODE(running.socket.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("llama_tui.engine.pool", ("llama_cpp", "textual", "jinja2", "llama_tui.worker", "llama_tui.ui")),
        ("llama_tui.chat.workbench", ("llama_cpp", "textual", "jinja2", "llama_tui.worker", "llama_tui.ui")),
        ("llama_tui.ui.app", ("llama_cpp", "jinja2", "llama_tui.worker")),
        ("llama_tui.cli", ("llama_cpp", "jinja2", "llama_tui.worker")),
        ("llama_tui.worker.__main__", ("textual", "llama_tui.ui", "llama_tui.chat", "llama_tui.library", "llama_cpp")),
        ("llama_tui.worker.runner", ("textual", "llama_cpp")),
        ("llama_tui.worker.model", ("textual", "llama_tui.ui", "llama_tui.chat")),
    ],
)
def test_who_imports_what(module: str, never: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert module in loaded
    assert not set(never) & set(loaded)
