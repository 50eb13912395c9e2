"""From a stream of token bytes to text: UTF-8 across tokens, thoughts apart, and stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from llama_tui.engine.protocol import TokenKind, ToolCall
from llama_tui.worker.reasoning import Marks, Splitter, overlap
from llama_tui.worker.tools import CallReader

Said = tuple[TokenKind, str] | ToolCall
"""A stretch of text with its kind, or a call."""


class AnswerText:
    """Turns bytes into text that is safe to show, each stretch with its kind.

    A character that ends in the next token waits for it; a byte that belongs to no character
    becomes U+FFFD and holds nothing up. Text that may be the beginning of a stop string waits
    until it is decided; the stop string itself is never shown. Stop strings end what is said, not
    thoughts or calls. `prompt` tells whether the text begins inside a thought; `calls` finds the
    calls of tools, if there are any.
    """

    def __init__(
        self, stop: Sequence[str], marks: Marks | None = None, prompt: str = "", calls: CallReader | None = None
    ) -> None:
        self._decoder: codecs.IncrementalDecoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(text for text in stop if text)
        self._calls = calls
        self._splitter = Splitter(marks or Marks(), prompt, calls.marks if calls else frozenset())
        self._held: str = ""
        self.stopped = False

    @property
    def reasoning(self) -> bool:
        """Whether what comes now belongs to the reasoning."""
        return self._splitter.reasoning

    def feed(self, data: bytes, *, is_mark: bool = False) -> list[Said]:
        """The text that is decided now; sets `stopped` when a stop string is complete. `is_mark`
        for a token that is a mark of its own (see `Marks`)."""
        return self._decide(self._splitter.feed(self._decoder.decode(data), is_mark=is_mark))

    def finish(self) -> list[Said]:
        """What was held back, when no more will come."""
        if self.stopped:
            return []
        last = self._splitter.feed(self._decoder.decode(b"", final=True))
        decided = self._decide([*last, *self._splitter.finish()], final=True)
        rest = "" if self.stopped else self._held
        self._held = ""
        return [*decided, ("answer", rest)] if rest else decided

    def _decide(self, stretches: list[tuple[TokenKind, str]], *, final: bool = False) -> list[Said]:
        found: list[Said] = [*stretches]
        if self._calls:
            found = self._with_calls(self._calls, stretches, final=final)
        if not self._stop:
            return found
        said: list[Said] = []
        for item in found:
            if self.stopped:
                break
            if isinstance(item, ToolCall) or item[0] == "reasoning":
                said.append(item)
            elif shown := self._scan(item[1]):
                said.append(("answer", shown))
        return said

    def _with_calls(self, calls: CallReader, stretches: list[tuple[TokenKind, str]], *, final: bool) -> list[Said]:
        said: list[Said] = []
        for kind, text in stretches:
            if kind == "reasoning":
                said.append((kind, text))
            else:
                said += calls.feed(text)
        if final:
            said += calls.finish()
        if calls.done:
            self.stopped = True
        return said

    def _scan(self, text: str) -> str:
        text = self._held + text
        # The one that is complete first, as if the text had come letter by letter.
        found = min(((at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0), default=None)
        if found:
            self.stopped = True
            self._held = ""
            return text[: found[1]]
        keep = max(overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]
