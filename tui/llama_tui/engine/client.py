"""One connection to an engine: requests out, events back to whoever asked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec

from llama_tui.engine import protocol
from llama_tui.engine.install import install_hint
from llama_tui.engine.lines import is_long, pieces
from llama_tui.engine.overflow import too_long_a_line
from llama_tui.engine.protocol import (
    FREE_CHOICE,
    VERSION,
    AnswerEvent,
    Attach,
    Bye,
    Cancel,
    Configure,
    Done,
    Event,
    Failed,
    Finished,
    Generate,
    Hello,
    Keep,
    Message,
    Request,
    State,
    ToolChoice,
    Unload,
    Watch,
    Welcome,
)
from llama_tui.errors import ContextOverflow, EngineError, LoadFailed, MissingLlamaCpp, ProtocolError
from llama_tui.settings.values import Value

_HELLO_SECONDS = 15.0
"""An engine greets within milliseconds once Python has started; a loaded machine takes longer."""

_ANSWER_SECONDS = 10.0
"""Requests other than generations are answered at once."""

_POLL_SECONDS = 0.02


class ConnectionLost(EngineError):
    """The socket closed. `asked` is the engine's own reason when it ended in good order."""

    def __init__(self, bye: Bye | None) -> None:
        super().__init__("The connection to the engine was lost" if bye is None else "The engine has ended")
        self.bye = bye


class EngineClient:
    """Made by `connect`. Its iterators raise `ConnectionLost` when the engine goes away, and a
    `Failed` event as the error of `errors.py` that it stands for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._inboxes: dict[int, asyncio.Queue[Event | None]] = {}
        self._bye: Bye | None = None
        self._refusal: EngineError | None = None
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._senders: set[asyncio.Task[None]] = set()
        self._receiver = asyncio.create_task(self._receive())
        self.welcome: Welcome

    @classmethod
    async def connect(cls, path: Path, seconds: float = _HELLO_SECONDS) -> EngineClient:
        """Connect and greet, within some seconds. Raises OSError where nobody listens, `ProtocolError` where somebody
        speaks another version, `ConnectionLost` where the engine dies meanwhile."""
        deadline = time.monotonic() + seconds
        while (connection := _connected(path)) is None:
            if time.monotonic() > deadline:
                raise ProtocolError("The engine takes no more clients", "It may hang: unload it, or end its process.")
            await asyncio.sleep(_POLL_SECONDS)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=protocol.LINE_LIMIT)
        client = cls(reader, writer)
        try:
            welcome = await client._ask(Hello(client._next(), VERSION), seconds)
            if not isinstance(welcome, Welcome):
                raise ProtocolError("The engine did not greet", "Unload it and load the model again.")
            client.welcome = welcome
        except BaseException:
            await client.close()
            raise
        return client

    async def watch(self) -> AsyncGenerator[State, None]:
        """The engine's state now and whenever it changes, until the connection ends."""
        async with contextlib.aclosing(self._stream(Watch(self._next()))) as events:
            async for event in events:
                if isinstance(event, State):
                    yield event

    def generate(
        self,
        name: str,
        messages: tuple[Message, ...],
        params: dict[str, Value],
        tools: tuple[dict[str, Any], ...] = (),
        *,
        left_out: tuple[int, ...] = (),
        tool_choice: ToolChoice = FREE_CHOICE,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The events of an answer, up to `Finished`."""
        return self._generation(Generate(self._next(), name, messages, params, tools, left_out, tool_choice))

    def attach(self, name: str, after: int = -1) -> AsyncGenerator[AnswerEvent, None]:
        """The events of an answer that was asked for before, those after seq `after`."""
        return self._generation(Attach(self._next(), name, after))

    async def cancel(self, name: str, seconds: float = _ANSWER_SECONDS) -> None:
        """Stop a generation and wait until it has stopped; `ProtocolError` if that takes longer."""
        await self._ask(Cancel(self._next(), name), seconds)

    async def configure(self, idle_timeout: float) -> None:
        """Set how long, in seconds, the engine lives without being used; 0 = for ever."""
        await self._ask(Configure(self._next(), idle_timeout), _ANSWER_SECONDS)

    async def keep(self, keep: bool) -> None:
        """Pin the engine, whatever its idle timeout, or let it go."""
        await self._ask(Keep(self._next(), keep), _ANSWER_SECONDS)

    async def unload(self, seconds: float = _ANSWER_SECONDS, *, unless_shared: bool = False) -> bool:
        """End the engine. False when it stays, because others use it or it is pinned; `ProtocolError`
        if it says nothing within some seconds."""
        try:
            answer = await self._ask(Unload(self._next(), unless_shared), seconds)
        except ConnectionLost:
            return True  # it ends, if not in good order
        return isinstance(answer, Done) and answer.done

    async def close(self) -> None:
        """Leave; the engine and its generations go on."""
        # Several may ask for it, and one that is cancelled must not take the others with it.
        self._closing = self._closing or asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._closed = True
        for sender in self._senders:
            sender.cancel()
        self._receiver.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._receiver
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()

    def _next(self) -> int:
        return next(self._ids)

    async def _receive(self) -> None:
        try:
            while line := await self._reader.readline():
                event = protocol.decode_event(line)
                if isinstance(event, Bye):
                    self._bye = event
                elif isinstance(event, Failed) and event.id == 0:
                    self._refusal = error_of(event)  # of the connection, which ends with it
                elif inbox := self._inboxes.get(event.id):
                    inbox.put_nowait(event)
        except OSError:
            pass  # a broken stream ends like a closed one
        except (ValueError, msgspec.DecodeError) as error:
            self._refusal = ProtocolError(
                f"The engine sent what is not of this protocol: {error}", "Unload the model and load it again."
            )
        finally:
            self._closed = True
            for inbox in self._inboxes.values():
                inbox.put_nowait(None)
            self._writer.close()  # here, for a loop that ends without `close` cancels this task and no more

    async def _ask(self, request: Request, seconds: float) -> Event:
        try:
            async with asyncio.timeout(seconds), contextlib.aclosing(self._stream(request)) as events:
                return await anext(events)
        except TimeoutError:
            raise ProtocolError(
                "The engine does not answer", "If it stays so, end it: `llama-tui stop` ends hung engines too."
            ) from None

    async def _generation(self, request: Generate | Attach) -> AsyncGenerator[AnswerEvent, None]:
        async with contextlib.aclosing(self._stream(request)) as events:
            async for event in events:
                if isinstance(event, AnswerEvent):
                    yield event
                    if isinstance(event, Finished):
                        return

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        inbox: asyncio.Queue[Event | None] = asyncio.Queue()
        self._inboxes[request.id] = inbox
        try:
            if self._closed:
                raise self._refusal or ConnectionLost(self._bye)
            await self._send(request)
            while event := await inbox.get():
                if isinstance(event, Failed):
                    raise error_of(event)
                yield event
            raise self._refusal or ConnectionLost(self._bye)
        finally:
            del self._inboxes[request.id]

    async def _send(self, request: Request) -> None:
        if not is_long(request) and not self._sending.locked():
            self._writer.write(protocol.encode(request))
            return
        # A line that has been begun is sent to its end, whoever no longer waits for the answer.
        sender = asyncio.create_task(self._send_in_turn(request))
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)
        await asyncio.shield(sender)

    async def _send_in_turn(self, request: Request) -> None:
        """Write a long request piece by piece, as fast as the engine reads; the others wait."""
        async with self._sending:
            size = 0
            for piece in pieces(request):
                size += len(piece)
                await asyncio.sleep(0)
            if size > protocol.LINE_LIMIT:
                raise too_long_a_line(size)
            try:
                for piece in pieces(request):
                    self._writer.write(piece)
                    await self._writer.drain()
                    await asyncio.sleep(0)  # where the engine reads at once, that has not waited
            except ConnectionError:
                raise self._refusal or ConnectionLost(self._bye) from None


def _connected(path: Path) -> socket.socket | None:
    """A connection, or None while too many others wait for theirs, which asyncio would take for one."""
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        connection.connect(str(path))
    except BlockingIOError:
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


def error_of(event: Failed) -> EngineError:
    """The error that a `Failed` event stands for."""
    match event.code:
        case "context":
            return ContextOverflow(
                event.message,
                event.hint,
                event.prompt_tokens,
                event.n_ctx,
                reply_room=event.reply_room,
                cuts=event.cuts,
            )
        case "load":
            return LoadFailed(event.message, event.hint, event.log)
        case "missing":
            return MissingLlamaCpp(event.message, install_hint(), event.log)
        case "version":
            return ProtocolError(event.message, event.hint)
        case "request" | "internal":
            return EngineError(event.message, event.hint)
