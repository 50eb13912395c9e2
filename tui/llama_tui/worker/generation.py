"""One answer as the engine keeps it: numbered events, and the connections that listen."""

from __future__ import annotations

import time
from typing import Protocol

import msgspec

from llama_tui.engine.protocol import Done, Event, Failed, Finished, Generate, GenerationEvent


class Listener(Protocol):
    """Whoever events can be sent to."""

    def send(self, event: Event) -> None:
        """Send one event, without waiting."""
        ...


class Generation:
    """Belongs to the server's thread, except `cancelled`, which the runner guards with its lock.

    The events stay for as long as the engine keeps the generation, so that a client that was gone
    can have the whole answer.
    """

    def __init__(self, request: Generate) -> None:
        self.request = request
        self.arrived = time.monotonic()
        self.cancelled = False
        self.ended = False
        self._events: list[GenerationEvent] = []
        self._listeners: list[tuple[Listener, int]] = []
        self._stoppers: list[tuple[Listener, int]] = []

    @property
    def name(self) -> str:
        """The client's name for it."""
        return self.request.generation

    def publish(self, event: GenerationEvent) -> None:
        """Number an event, keep it, and send it to everyone who listens."""
        event = msgspec.structs.replace(event, seq=len(self._events))
        self._events.append(event)
        self.ended = isinstance(event, Finished | Failed)
        for listener, request_id in self._listeners:
            listener.send(msgspec.structs.replace(event, id=request_id))
        if self.ended:
            self._listeners.clear()
            for listener, request_id in self._stoppers:
                listener.send(Done(request_id))
            self._stoppers.clear()

    def listen(self, listener: Listener, request_id: int, after: int = -1) -> None:
        """Send what the listener has not seen, and from now on what comes."""
        for event in self._events[after + 1 :]:
            listener.send(msgspec.structs.replace(event, id=request_id))
        if not self.ended:
            self._listeners.append((listener, request_id))

    def tell_end(self, listener: Listener, request_id: int) -> None:
        """Send `Done` as soon as the generation has ended."""
        if self.ended:
            listener.send(Done(request_id))
        else:
            self._stoppers.append((listener, request_id))

    def forget(self, listener: Listener) -> None:
        """The listener is gone; the generation goes on."""
        self._listeners = [entry for entry in self._listeners if entry[0] is not listener]
        self._stoppers = [entry for entry in self._stoppers if entry[0] is not listener]
