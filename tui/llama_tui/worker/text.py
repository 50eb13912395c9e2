"""From a stream of token bytes to the text of an answer: UTF-8 across tokens, and stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class AnswerText:
    """Turns bytes into text that is safe to show.

    A character that ends in the next token waits for it; a byte that belongs to no character
    becomes U+FFFD and holds nothing up. Text that may be the beginning of a stop string waits
    until it is decided; the stop string itself is never shown.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(text for text in stop if text)
        self._held: str = ""
        self.stopped = False

    def feed(self, data: bytes) -> str:
        """The text that is decided now; sets `stopped` when a stop string is complete."""
        return self._decide(self._decoder.decode(data))

    def finish(self) -> str:
        """What was held back, when no more will come."""
        if self.stopped:
            return ""
        decided = self._decide(self._decoder.decode(b"", final=True))
        rest = "" if self.stopped else self._held
        self._held = ""
        return decided + rest

    def _decide(self, text: str) -> str:
        if not self._stop:
            return text
        text = self._held + text
        # The one that is complete first, as if the text had come letter by letter.
        found = min(((at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0), default=None)
        if found:
            self.stopped = True
            self._held = ""
            return text[: found[1]]
        keep = max(_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
