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
from llama_tui.engine.protocol import Event, Failed, Hello, Request

_BACKLOG_BYTES = 16 * 1024 * 1024
"""A client that has not read this much is dropped; it can attach again and ask for the rest."""


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


class Connection:
    """Reads requests one by one; `watching` is the id of its `Watch`, if it asked for the state."""

    def __init__(self, desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._desk = desk
        self._reader = reader
        self._writer = writer
        self.watching: int | None = None

    def send(self, event: Event) -> None:
        """Send an event; a client that does not read is cut off."""
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > _BACKLOG_BYTES:
            self._writer.transport.abort()
            return
        self._writer.write(protocol.encode(event))

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
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(0.5):
                self._writer.close()  # what is written already is still sent
                await self._writer.wait_closed()
        self._writer.transport.abort()
