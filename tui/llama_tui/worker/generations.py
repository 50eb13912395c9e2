"""The generations of an engine: the one that runs, those that wait for it, and those that are kept."""

from __future__ import annotations

from llama_tui.engine.protocol import Failed, Finished, Generate, GenerationEvent, Queued
from llama_tui.errors import LlamaTuiError
from llama_tui.settings.params import BY_NAME
from llama_tui.settings.values import Value
from llama_tui.worker.generation import Generation

_MOST_WAITING = 256
"""Requests that may wait for their turn; one more is refused."""

_KEPT_GENERATIONS = 32
"""Ended generations whose events stay for clients that come back."""

_KEPT_EVENTS = 200_000
"""Events of ended generations that stay; the latest one stays whole."""


class Generations:
    """Belongs to the server's thread. `engine` is the name by which a refusal speaks of it."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._known: dict[str, Generation] = {}
        self._waiting: list[Generation] = []
        self.current: Generation | None = None

    @property
    def busy(self) -> bool:
        """Whether one runs or waits."""
        return bool(self.current or self._waiting)

    @property
    def n_waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def find(self, name: str) -> Generation | None:
        """The one of that name, if it is known and not forgotten."""
        return self._known.get(name)

    def refusal(self, request: Generate) -> Failed | None:
        """Why a request cannot become a generation; None where it can."""
        if problem := _problem(request.params):
            return Failed(request.id, "request", problem.message, problem.hint, request.generation)
        if request.generation in self._known:
            return Failed(
                request.id, "request", "A generation of that name exists", "Attach to it.", request.generation
            )
        if len(self._waiting) >= _MOST_WAITING:
            return Failed(
                request.id,
                "request",
                f"{len(self._waiting)} requests wait for {self._engine} already",
                "Ask again when some of them are answered.",
                request.generation,
            )
        return None

    def add(self, request: Generate) -> Generation:
        """Know a generation, before it has a place in the queue."""
        generation = self._known[request.generation] = Generation(request)
        return generation

    def enqueue(self, generation: Generation) -> None:
        """Put it at the end of the queue, and tell it of those before it."""
        if ahead := len(self._waiting) + bool(self.current):
            generation.publish(Queued(0, generation.name, 0, ahead))
        self._waiting.append(generation)

    def begin(self, generation: Generation) -> None:
        """Its turn has come."""
        self.current = generation
        self._leave_queue(generation)

    def publish(self, generation: Generation, event: GenerationEvent) -> None:
        """Publish an event of one that has begun."""
        if generation is self.current and isinstance(event, Finished | Failed):
            self.current = None  # before its client is told: the next request finds nobody before it
        generation.publish(event)

    def withdraw(self, generation: Generation) -> None:
        """End one that never ran."""
        generation.publish(Finished(0, generation.name, 0, "cancelled", 0, 0, 0, None, 0.0, 0.0))
        self._leave_queue(generation)

    def _leave_queue(self, generation: Generation) -> None:
        """Take a generation out of the queue and tell those behind it their new place."""
        self._waiting = [other for other in self._waiting if other is not generation]
        for ahead, other in enumerate(self._waiting):
            other.publish(Queued(0, other.name, 0, ahead + bool(self.current)))

    def fail(self, failure: Failed) -> None:
        """End all that wait."""
        for generation in self._waiting:
            generation.publish(failure)
        self._waiting.clear()

    def forget_oldest(self) -> None:
        """Forget ended generations, the oldest first, until few enough are left."""
        events = 0
        for kept, generation in enumerate([each for each in reversed(self._known.values()) if each.ended]):
            events += generation.n_events
            if kept and (kept >= _KEPT_GENERATIONS or events > _KEPT_EVENTS):
                del self._known[generation.name]


def _problem(params: dict[str, Value]) -> LlamaTuiError | None:
    """The first sampling value that its parameter does not allow."""
    for name, value in params.items():
        param = BY_NAME.get(name)
        if param is None or param.kind != "sampling":
            return LlamaTuiError(f"{name} is not a sampling parameter", "See `llama-tui --help` for their names.")
        try:
            param.check(value)
        except LlamaTuiError as error:
            return error
    return None
