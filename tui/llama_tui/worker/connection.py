"""One client of the engine: its requests in, its events out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Protocol

import msgspec

from llama_tui.engine import protocol
from llama_tui.engine.protocol import Event, Failed, Hello, Request, State
from llama_tui.worker.generation import Generation

_BEHIND_BYTES = 1024 * 1024
"""A client with so much unread gets no more of its answers until it has read: the engine keeps
them anyway."""

_BACKLOG_BYTES = 16 * 1024 * 1024
"""A client that goes on asking with so much unread is dropped."""


def peer_uid(connected: socket.socket) -> int | None:
    """The user at the other end; None where the platform does not tell."""
    if sys.platform == "linux":
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", credentials)[1]
    if sys.platform == "darwin":
        # struct xucred at level 0 (SOL_LOCAL), option 1 (LOCAL_PEERCRED): a version, then the uid.
        return struct.unpack("II", connected.getsockopt(0, 1, 76)[:8])[1]
    return None


class Desk(Protocol):
    """Where a connection takes its requests."""

    def greet(self, connection: Connection, request: Hello) -> bool:
        """Answer a hello; False when the client must leave."""
        ...

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer any other request, now or later."""
        ...


class _Follower:
    """A connection's place in an answer: `seen` is the seq up to which it was sent."""

    def __init__(self, connection: Connection, generation: Generation, request_id: int, seen: int) -> None:
        self.connection = connection
        self.generation = generation
        self.request_id = request_id
        self.seen = seen

    def told(self) -> None:
        """Pass on what is new."""
        self.connection.pass_on(self)


class Connection:
    """Reads requests one by one; `watching` is the id of its `Watch`, if it asked for the state."""

    def __init__(self, desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._desk = desk
        self._reader = reader
        self._writer = writer
        self._followers: list[_Follower] = []
        self._catching_up: asyncio.Task[None] | None = None
        self.watching: int | None = None

    def send(self, event: Event) -> None:
        """Send an event; a client that does not read misses states, and is cut off at last."""
        if self._writer.is_closing() or (self._behind and isinstance(event, State)):
            return
        if self._unread > _BACKLOG_BYTES:
            self._writer.transport.abort()
            return
        self._writer.write(protocol.encode(event))

    @property
    def _unread(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    @property
    def _behind(self) -> bool:
        return self._unread > _BEHIND_BYTES

    def follow(self, generation: Generation, request_id: int, after: int = -1) -> None:
        """Send the events of an answer with a seq above `after` and those that come, as fast as
        the client reads them."""
        follower = _Follower(self, generation, request_id, after)
        self._followers.append(follower)
        generation.listen(follower)

    def pass_on(self, follower: _Follower) -> None:
        """Send what a follower has not seen, or begin to wait until the client has read. While it is
        waited for nothing is sent out of turn."""
        if not self._catching_up and not self._send_unseen(follower):
            self._catching_up = asyncio.create_task(self._catch_up())

    def _send_unseen(self, follower: _Follower) -> bool:
        """False when there is more to send than the client should have before it reads."""
        for event in follower.generation.after(follower.seen):
            if self._behind:
                return False
            follower.seen = event.seq
            self.send(msgspec.structs.replace(event, id=follower.request_id))
        if follower.generation.ended and follower in self._followers:
            self._followers.remove(follower)
        return True

    async def _catch_up(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()
            while not all(map(self._send_unseen, tuple(self._followers))):
                await self._writer.drain()
        self._catching_up = None

    async def serve(self) -> None:
        """Answer requests until the client leaves or breaks the protocol."""
        greeted = False
        while line := await self._next_line():
            try:
                request = protocol.decode_request(line)
            except msgspec.DecodeError as error:
                self.send(Failed(0, "request", f"Not a request of this protocol: {error}"))
                return
            if isinstance(request, Hello):
                greeted = self._desk.greet(self, request)
            elif greeted:
                self._desk.handle(self, request)
            else:
                self.send(Failed(request.id, "version", "The first request must be hello", "Send your version."))
            if not greeted:
                return

    async def _next_line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ValueError:
            self.send(Failed(0, "request", f"A line of more than {protocol.LINE_LIMIT:,} bytes"))
        except ConnectionError:
            pass
        return b""

    async def close(self) -> None:
        """Flush and close, within half a second."""
        for follower in self._followers:
            follower.generation.forget(follower)
        if self._catching_up:
            self._catching_up.cancel()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(0.5):
                self._writer.close()  # what is written already is still sent
                await self._writer.wait_closed()
        self._writer.transport.abort()
