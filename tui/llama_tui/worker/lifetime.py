"""When an engine is to end by itself: unused for too long, too long in loading, or failed."""

from __future__ import annotations

import time
from collections.abc import Mapping

from llama_tui.settings.values import Value

_FAILED_SECONDS = 5.0
"""How long an engine that could not load stays, at most, to say why."""


class Lifetime:
    """Times are seconds. `kept` says that the engine is pinned; `idle_timeout` is 0 for one that
    never unloads itself."""

    def __init__(self, params: Mapping[str, Value]) -> None:
        self.load_timeout = float(str(params["timeout"]))
        self.idle_timeout = float(str(params["idle_timeout"]))
        self.kept = False
        self._began = self._last_use = time.monotonic()
        self._failed_at: float | None = None

    def use(self) -> None:
        """Note that the engine is used now."""
        self._last_use = time.monotonic()

    def fail(self) -> None:
        """Note that it could not load; the first time counts."""
        self._failed_at = self._failed_at or time.monotonic()

    @property
    def loading_too_long(self) -> bool:
        """Whether an engine that still loads has had its time."""
        return time.monotonic() - self._began > self.load_timeout

    @property
    def failed_long_ago(self) -> bool:
        """Whether everyone has had the time to hear why it could not load."""
        return self._failed_at is not None and time.monotonic() - self._failed_at > _FAILED_SECONDS

    @property
    def idle_seconds(self) -> float:
        """How long it has not been used."""
        return time.monotonic() - self._last_use

    @property
    def idle_seconds_left(self) -> float | None:
        """How long it may yet be unused; None where it does not unload itself."""
        return None if self.kept or not self.idle_timeout else self.idle_timeout - self.idle_seconds

    @property
    def tick_seconds(self) -> float:
        """How often to look whether it is time to end."""
        return min(1.0, max(0.05, self.idle_timeout / 4)) if self.idle_timeout else 1.0
