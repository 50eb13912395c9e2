"""One answer as the engine keeps it: numbered events, and the connections that listen."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from llama_tui.engine.protocol import Failed, Finished, Generate, GenerationEvent, Queued


class Listener(Protocol):
    """Whoever follows an answer."""

    def told(self) -> None:
        """There may be events that it has not seen."""
        ...


class Generation:
    """Belongs to the server's thread, except `cancelled`, which the runner guards with its lock.

    The events stay for as long as the engine keeps the generation, so that a client that was gone
    can have the whole answer. Each listener fetches them at its own pace.
    """

    def __init__(self, request: Generate) -> None:
        self.request = request
        self.arrived = time.monotonic()
        self.cancelled = False
        self.ended = False
        self._seq = 0
        self._events: list[GenerationEvent] = []
        self._listeners: list[Listener] = []
        self._when_ended: list[Callable[[], None]] = []

    @property
    def n_events(self) -> int:
        """Events that are kept."""
        return len(self._events)

    @property
    def name(self) -> str:
        """The client's name for it."""
        return self.request.generation

    def publish(self, event: GenerationEvent) -> None:
        """Number an event, keep it, and tell everyone who listens."""
        if isinstance(event, Queued) and self._events:
            self._events.pop()  # of the places in the queue only the last matters to who comes later
        self._events.append(msgspec.structs.replace(event, seq=self._seq))
        self._seq += 1
        self.ended = isinstance(event, Finished | Failed)
        if self.ended:  # what was asked may be long, and nobody asks for it again
            self.request = msgspec.structs.replace(self.request, messages=(), tools=())
        for listener in tuple(self._listeners):
            listener.told()
        if self.ended:
            self._listeners.clear()
            for call in self._when_ended:
                call()
            self._when_ended.clear()

    def after(self, seq: int) -> Iterator[GenerationEvent]:
        """The events that are known now with a number above `seq`, the oldest first."""
        start = bisect.bisect_right(self._events, seq, key=lambda event: event.seq)
        return (self._events[place] for place in range(start, len(self._events)))

    def listen(self, listener: Listener) -> None:
        """Tell a listener of what there is and of what comes."""
        if not self.ended:
            self._listeners.append(listener)
        listener.told()

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have something called as soon as the generation has ended."""
        if self.ended:
            call()
        else:
            self._when_ended.append(call)

    def forget(self, listener: Listener) -> None:
        """The listener is gone; the generation goes on."""
        self._listeners = [other for other in self._listeners if other is not listener]
