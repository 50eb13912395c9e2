"""The engine's side of the socket: the clients, what they ask for, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from llama_tui.engine import protocol
from llama_tui.engine.protocol import (
    VERSION,
    Attach,
    Bye,
    Cancel,
    Configure,
    Done,
    EngineSpec,
    Failed,
    Generate,
    GenerationEvent,
    Hello,
    Keep,
    Request,
    State,
    Unload,
    Watch,
    Welcome,
)
from llama_tui.errors import LlamaTuiError, MissingLlamaCpp
from llama_tui.settings.params import BY_NAME
from llama_tui.worker import memory
from llama_tui.worker.connection import Connection, peer_uid
from llama_tui.worker.generation import Generation
from llama_tui.worker.generations import Generations
from llama_tui.worker.lifetime import Lifetime
from llama_tui.worker.runner import Runner

EndReason = Literal["asked", "idle", "failed"]

_REFUSED_SECONDS = 1.0

_SPARE_FILES = 64
"""Open files that the engine keeps for itself, beside one for each client."""

_SAVE_SECONDS: dict[EndReason, float] = {"asked": 4.0, "idle": 60.0, "failed": 0.0}
"""How long saving the KV state may take. Whoever asked for the end waits for it, and kills an engine
that takes five seconds."""


class Server:
    """Owns the connections, the generations and the decode thread of one engine."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._started = time.time()
        self._connections: set[Connection] = set()
        self._most_connections = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FILES
        self._telling = False
        self._generations = Generations(spec.name)
        self._lifetime = Lifetime(spec.params)
        self._end: asyncio.Future[EndReason] = self._loop.create_future()
        self._runner = Runner(
            spec,
            lambda: self._from_thread(self._changed),
            lambda generation: self._from_thread(self._began_to_answer, generation),
            lambda generation, event: self._from_thread(self._published, generation, event),
        )
        self._timed_out = False

    def _from_thread(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(function, *arguments)

    async def run(self, listening: socket.socket) -> EndReason:
        """Serve until asked to end, idle for too long, or failed to load."""
        server = await asyncio.start_unix_server(self._serve, sock=listening, limit=protocol.LINE_LIMIT)
        self._runner.start()
        ticker = asyncio.create_task(self._tick())
        own = _inode(self._spec.socket)
        await asyncio.wait([self._end, ticker], return_when=asyncio.FIRST_COMPLETED)
        if ticker.done():  # without it the engine would never unload itself: better none, and its log says why
            await ticker
        ticker.cancel()
        reason = await self._end
        # While this engine still listens nobody else takes its path, so what is there is its own.
        _remove(self._spec.socket, own)
        server.close()
        for connection in list(self._connections):
            connection.send(Bye(0, reason))
        await asyncio.gather(*(connection.close() for connection in list(self._connections)))
        await asyncio.to_thread(self._runner.finish, _SAVE_SECONDS[reason])
        return reason

    def end(self, reason: EndReason) -> None:
        """Let `run` return; the first reason counts."""
        if not self._end.done():
            self._end.set_result(reason)

    def signalled(self) -> None:
        """End for a signal; a second one does not wait for the KV state to be saved."""
        if self._end.done():
            self._runner.abandon()
        self.end("asked")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if peer_uid(writer.get_extra_info("socket")) not in (os.getuid(), 0):
            writer.close()
            return
        connection = Connection(self, reader, writer)
        if len(self._connections) >= self._most_connections:
            with contextlib.suppress(OSError, ValueError, TimeoutError):  # it hears nothing before it has spoken
                async with asyncio.timeout(_REFUSED_SECONDS):
                    await reader.readline()
            connection.send(
                Failed(
                    0,
                    "request",
                    f"The engine of {self._spec.name} serves {len(self._connections):,} clients already",
                    "End some of them, or raise the limit of open files (ulimit -n) before the engine starts.",
                )
            )
            await connection.close()
            return
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            await connection.close()
            self._changed()
            if self._failed and not self._connections:
                self.end("failed")

    # Requests

    def greet(self, connection: Connection, request: Hello) -> bool:
        """Answer a hello; a client of another version must leave."""
        if request.version != VERSION:
            connection.send(
                Failed(
                    request.id,
                    "version",
                    f"This engine speaks version {VERSION} of the protocol, the client version {request.version}",
                    "Unload the model and load it again with this version of llama-tui.",
                )
            )
            return False
        connection.send(Welcome(request.id, VERSION, os.getpid(), self._spec, self._started))
        return True

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer a request, now or by the events of a generation."""
        match request:
            case Watch(id):
                connection.watching = id
                connection.send(self._state(id))
            case Generate():
                self._generate(connection, request)
            case Attach(id, name, after):
                if generation := self._generations.find(name):
                    connection.follow(generation, id, after)
                else:
                    connection.send(Failed(id, "request", "This engine does not know that generation", generation=name))
            case Cancel(id, name):
                if generation := self._generations.find(name):
                    self._cancel(generation)
                    generation.when_ended(lambda: connection.send(Done(id)))
                else:
                    connection.send(Done(id))
            case Configure(id, idle_timeout):
                self._configure(connection, id, idle_timeout)
            case Keep(id, keep):
                self._lifetime.kept = keep
                self._lifetime.use()  # one that is let go has its whole time again
                connection.send(Done(id))
                self._changed()
            case Unload(id, unless_shared):
                stays = unless_shared and (self._lifetime.kept or len(self._connections) > 1)
                connection.send(Done(id, done=not stays))
                if not stays:
                    self.end("asked")
            case Hello():
                self.greet(connection, request)

    def _configure(self, connection: Connection, id: int, idle_timeout: float) -> None:
        try:
            BY_NAME["idle_timeout"].check(idle_timeout)
        except LlamaTuiError as error:
            connection.send(Failed(id, "request", error.message, error.hint))
            return
        self._lifetime.idle_timeout = idle_timeout
        connection.send(Done(id))
        self._changed()

    def _generate(self, connection: Connection, request: Generate) -> None:
        if refusal := self._generations.refusal(request):
            connection.send(refusal)
            return
        generation = self._generations.add(request)
        connection.follow(generation, request.id)
        if self._failed:
            generation.publish(self._failure())
            return
        self._generations.enqueue(generation)
        self._changed()  # before the runner has it: who watches is told that it is busy, then that it is ready
        self._runner.submit(generation)

    def _cancel(self, generation: Generation) -> None:
        if generation.ended or self._runner.cancel(generation):
            return
        # It never ran: the runner will pass it over, so its end is told here.
        self._generations.withdraw(generation)
        self._changed()

    # What the runner tells

    def _began_to_answer(self, generation: Generation) -> None:
        self._generations.begin(generation)
        self._changed()

    def _published(self, generation: Generation, event: GenerationEvent) -> None:
        self._generations.publish(generation, event)
        if generation.ended:
            self._lifetime.use()
            self._changed()

    def _changed(self) -> None:
        if self._generations.busy or self._runner.info is None:
            self._lifetime.use()
        if self._failed:
            self._lifetime.fail()
            self._generations.fail(self._failure())
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        """Send the state to who watches, once for all that has changed at a time."""
        self._telling = False
        watchers = [(connection, id) for connection in self._connections if (id := connection.watching) is not None]
        state = self._state(0) if watchers else None
        for connection, id in watchers:
            if state:
                connection.send(msgspec.structs.replace(state, id=id))

    # Time

    async def _tick(self) -> None:
        while True:
            tick = self._lifetime.tick_seconds
            # At a multiple of it: all engines of a machine and whoever shows them wake up together.
            await asyncio.sleep(tick - time.monotonic() % tick)
            self._generations.forget_oldest()
            if self._loading and self._lifetime.loading_too_long:
                self._timed_out = True
            self._changed()
            if self._lifetime.failed_long_ago:
                self.end("failed")
            left = None if self._in_use else self._lifetime.idle_seconds_left
            if left is not None and left <= 0:
                self.end("idle")

    # State

    @property
    def _loading(self) -> bool:
        return self._runner.info is None and not self._failed

    @property
    def _in_use(self) -> bool:
        return self._loading or self._generations.busy

    @property
    def _failed(self) -> bool:
        return self._timed_out or self._runner.failure is not None

    def _failure(self) -> Failed:
        error = self._runner.failure
        if error is None:
            seconds = f"{self._lifetime.load_timeout:g} s"
            return Failed(
                0, "load", f"Loading {self._spec.name} took longer than {seconds}", "Set a longer timeout and reload."
            )
        code = "missing" if isinstance(error, MissingLlamaCpp) else "load"
        return Failed(0, code, error.message, error.hint, log=error.log)

    def _state(self, request_id: int) -> State | Failed:
        if self._failed:
            return msgspec.structs.replace(self._failure(), id=request_id)
        runner, current, lifetime = self._runner, self._generations.current, self._lifetime
        return State(
            request_id,
            phase="loading" if self._loading else "busy" if self._generations.busy else "ready",
            memory=memory.process_memory(runner.buffers),
            progress=runner.progress if self._loading else None,
            read_bytes=memory.bytes_read() if self._loading else None,
            model=runner.info,
            generating=current.name if current else None,
            queued=self._generations.n_waiting,
            clients=len(self._connections),
            idle_seconds_left=None if self._in_use else lifetime.idle_seconds_left,
            kept=lifetime.kept,
            n_past=runner.n_past,
            idle_seconds=None if self._in_use else lifetime.idle_seconds,
        )


def _inode(path: str) -> int | None:
    try:
        return Path(path).stat().st_ino
    except OSError:
        return None


def _remove(path: str, inode: int | None) -> None:
    if inode is not None and _inode(path) == inode:
        Path(path).unlink(missing_ok=True)
