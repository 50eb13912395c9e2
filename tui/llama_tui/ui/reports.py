"""What a terminal says of itself between the keys, taken out before anything is read as keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf

from llama_tui.background import ANSWER, QUESTION, Background, told

LAST_QUESTION = "\x1b[c"
"""The attributes of the device: these every terminal tells, in the order of the questions, so that with them it
is known that nothing more will come."""

ESCAPE_SECONDS = 0.1
"""How long the beginning of an answer is waited for that could as well be a key."""

_UNANSWERED_SECONDS = 5.0
"""How long after a question such a beginning is waited for at all."""

_REST_SECONDS = 2.0
"""How long the rest of an answer is waited for that is none of a key."""

_REPORT = re.compile(ANSWER + r"|\x1b\[\?[\d;]*c")
_BEGUN = re.compile(r"\x1b(?:\](?:1(?:1(?:;[^\x07\x1b]{0,64}\x1b?)?)?)?|\[(?:\?[\d;]*)?)?\Z")
_LIKE_A_KEY = 2


@dataclass(slots=True)
class Reports:
    """Parts what a terminal sends; times are in seconds of one clock.

    `due` says how many questions are not yet answered and `asked` when the last was put; `background` is
    what was told last.
    """

    due: int = 0
    asked: float = -inf
    background: Background | None = None
    _held: str = ""
    _until: float = 0.0

    def ask(self, now: float, *, background: bool) -> str:
        """What to write to ask, for the background too if told so; from then on answers are due."""
        self.due += 1
        self.asked = now
        return QUESTION + LAST_QUESTION if background else LAST_QUESTION

    def feed(self, data: str, now: float) -> str:
        """Keys alone, in order. What may be the beginning of an answer is held back for a while."""
        data, self._held = self._held + data, ""
        if "\x1b" not in data:
            return data
        keys = _REPORT.sub(self._take, data)
        if begun := _BEGUN.search(keys):
            seconds = self._patience(len(begun[0]), now)
            if seconds:
                self._held, self._until = begun[0], now + seconds
                return keys[: begun.start()]
        return keys

    def wait(self, now: float) -> float | None:
        """For how long to wait for the rest of what is held back; None if nothing is."""
        return max(0.0, self._until - now) if self._held else None

    def late(self, now: float) -> str:
        """What was held back and is no answer after all: it has not gone on in time."""
        if not self._held or now < self._until:
            return ""
        keys, self._held = self._held, ""
        return keys

    def _patience(self, length: int, now: float) -> float:
        if length > _LIKE_A_KEY:
            return _REST_SECONDS
        return ESCAPE_SECONDS if self.due and now - self.asked < _UNANSWERED_SECONDS else 0.0

    def _take(self, report: re.Match[str]) -> str:
        if report["colour"] is None:
            self.due = max(0, self.due - 1)
        else:
            self.background = told(report["colour"]) or self.background
        return ""
