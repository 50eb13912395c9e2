"""Cuts a text that is shown as it is into units of a bounded length, also inside a line without end."""

from __future__ import annotations

from llama_tui.ui.blocks import References, Unit
from llama_tui.ui.text import graphemes

LINES = 40
"""Lines of one unit at most."""

CHARACTERS = 8_000
"""Characters of one unit at most; a longer line goes on in the next one."""

_NEAR = 32
"""Characters around a cut in which it may fall between two that are drawn as one."""


class VerbatimSplitter:
    """The units of one text, kept up to date as it grows: only the last one changes."""

    fence_open = False

    def __init__(self, text: str = "") -> None:
        self.units: list[Unit] = []
        self.references: References = {}
        self._rest = ""
        if text:
            self.feed(text)

    def feed(self, fragment: str) -> int:
        """Take more text. Returns the index of the first unit that may have changed."""
        first = max(0, len(self.units) - 1)
        text = self._rest + fragment
        del self.units[first:]
        start = 0
        while (piece := _piece(text, start)) is not None:
            end, after, joint = piece
            self.units.append(Unit(text[start:end], "plain", joint=joint))
            start = after
        self._rest = text[start:]
        self.units.append(Unit(self._rest, "plain"))
        return first


def _piece(text: str, start: int) -> tuple[int, int, str | None] | None:
    """Where a unit that starts here ends, where the next one starts, and what joins the two inside a
    line; None where all that follows fits into one."""
    end = -1
    for _ in range(LINES):
        line_end = text.find("\n", end + 1 if end >= 0 else start, start + CHARACTERS)
        if line_end < 0:
            break
        end = line_end
    else:
        return end, end + 1, None
    if len(text) - start <= CHARACTERS:
        return None
    if end >= 0:
        return end, end + 1, None
    space = text.rfind(" ", start + CHARACTERS // 2, start + CHARACTERS)
    if space >= 0 and text[space - 1] != " " and text[space + 1] != " ":
        return space, space + 1, " "
    cut = start + CHARACTERS
    near = text[cut - _NEAR : cut + _NEAR]
    cut += graphemes(near, min(_NEAR, len(near)), min(_NEAR, len(near)))[0] - _NEAR
    return cut, cut, ""
