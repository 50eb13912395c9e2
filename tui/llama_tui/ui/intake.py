"""What comes from the terminal: pasted texts are taken out of the stream before it is read letter by letter.
Not every terminal marks them; nobody types a thousand characters at once.

Textual's parser takes seconds for a megabyte of pasted text and holds the interpreter meanwhile. Here a
paste is searched for its end alone, made safe piece by piece as it comes, and handed on as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from textual import events
from textual.message import Message

from llama_tui.control import sanitize

START, END = "\x1b[200~", "\x1b[201~"

_REPLY = re.compile(r"\x1b\[\?\d+;\d\$y")
"""A terminal's answer to a question of ours, which may come in the middle of a paste."""

BURST = 1000
"""Characters that come at once from which on they were not typed."""

_TEXT = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*")
"""What a text is made of; other characters are keys."""

_LONGEST = 14
"""Characters of such an answer, and more than a mark has."""


class Paste(events.Paste):
    """A pasted text whose line ends are `\\n` and whose other control characters are visible already."""


class Intake:
    """Parts a stream into pastes and what `parse` is to make messages of."""

    def __init__(self, parse: Callable[[str], Iterable[Message]]) -> None:
        self._parse = parse
        self._held = ""  # what may be the beginning of a mark or of an answer
        self._pasted: list[str] | None = None  # the pieces of a paste that has begun
        self._burst: list[str] = []  # and of one that nothing marks

    def feed(self, text: str) -> Iterator[Message]:
        """The messages that more of the stream makes."""
        text, self._held = self._held + text, ""
        while text:
            if self._pasted is None:
                typed, mark, text = text.partition(START)
                if mark:
                    self._pasted = []
                elif held := _beginning(typed):
                    typed, self._held = typed[: -len(held)], held
                yield from self._typed(typed)
                if mark:
                    yield from self._burst_over()
            else:
                piece, mark, text = text.partition(END)
                if not mark:
                    at = piece.rfind("\x1b", -_LONGEST)
                    at = at if at >= 0 else len(piece) - piece.endswith("\r")
                    piece, self._held = piece[:at], piece[at:]
                for reply in _REPLY.findall(piece):
                    yield from self._parse(reply)
                self._pasted.append(_safe(_REPLY.sub("", piece)))
                if mark:
                    pieces, self._pasted = self._pasted, None
                    yield Paste("".join(pieces))

    def _typed(self, text: str) -> Iterator[Message]:
        """The messages of keys, or of so much text that it was not typed: that goes on until a moment without any."""
        if (self._burst or len(text) >= BURST) and _TEXT.fullmatch(text):
            self._burst.append(text)
            return
        yield from self._burst_over()
        yield from self._parse(text) if text else ()

    def _burst_over(self) -> Iterator[Message]:
        text, self._burst = "".join(self._burst), []
        if text:
            yield Paste(_safe(text.removesuffix("\r")))
        if text.endswith("\r"):  # enter, behind it nothing: pressed or pasted, it means the same
            yield from self._parse("\r")

    def idle(self) -> Iterator[Message]:
        """The messages of what was held, as nothing more has come for a moment."""
        yield from self._burst_over()
        if self._pasted is None and self._held:
            held, self._held = self._held, ""
            yield from self._parse(held)


def _beginning(text: str) -> str:
    """The end of a text that is the beginning of a paste's mark; an escape alone is a key."""
    sizes = range(len(START) - 1, 1, -1)
    return next((START[:size] for size in sizes if text.endswith(START[:size])), "")


def _safe(text: str) -> str:
    return sanitize(text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n"))
