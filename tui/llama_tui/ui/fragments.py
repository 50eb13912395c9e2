"""Text that has come of growing answers and is not shown yet: it is shown a few times a second."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, thread_time

from llama_tui.ui.log import Log

FLUSHES = 15
"""Times a second that a growing answer is painted at most."""

SHARE = 6
"""A flush that took a while is followed by a pause of this many times as long."""


class Fragments:
    """What waits for each entry by its key, and how long it is to wait."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._thoughts: dict[str, list[str]] = {}
        self._flushed = 0.0  # when, on the monotonic clock
        self._pause = 0.0  # seconds until the next one

    def add(self, key: str, text: str = "", thought: str = "") -> None:
        """Put more behind what waits for an entry."""
        for waiting, fragment in ((self._texts, text), (self._thoughts, thought)):
            if fragment:
                waiting.setdefault(key, []).append(fragment)

    def drop(self, key: str) -> None:
        """The entry is gone."""
        self._texts.pop(key, None)
        self._thoughts.pop(key, None)

    def clear(self) -> None:
        """All entries are gone."""
        self._texts.clear()
        self._thoughts.clear()

    def seconds_left(self) -> float:
        """How long what waits is to wait yet; 0 or less if no longer."""
        return self._flushed + self._pause - monotonic()

    def flush(self, log: Log, show: Callable[[], None]) -> None:
        """Put what waits into the log and show it. How much time of this thread that takes decides
        how soon the next may be shown."""
        if not self._texts and not self._thoughts:
            return
        began = thread_time()
        texts, self._texts = self._texts, {}
        thoughts, self._thoughts = self._thoughts, {}
        for key, fragments in thoughts.items():
            log.think(key, "".join(fragments))
        for key, fragments in texts.items():
            log.feed(key, "".join(fragments))
        show()
        self._pause = max(1 / FLUSHES, SHARE * (thread_time() - began))
        self._flushed = monotonic()
