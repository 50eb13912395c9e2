"""Cuts a text that is shown as it is into units of a bounded length, also inside a line without end."""

from __future__ import annotations

from llama_tui.ui.blocks import References, Unit
from llama_tui.ui.text import graphemes

CHARACTERS = 8_000
"""Characters after which a text is cut; where exactly, is found by looking back at most half as far."""

_NEAR = 32
"""Characters around a cut in which it may fall between two that are drawn as one."""


class VerbatimSplitter:
    """The units of one text, kept up to date as it grows: only the last one changes.

    Where it is cut depends on nothing but the characters around that place, so that a text of tens of
    megabytes is cut in hundredths of a second. The units hold the text as it came: whoever shows one makes
    it safe.
    """

    fence_open = False

    def __init__(self, text: str = "") -> None:
        self.units: list[Unit] = []
        self.references: References = {}
        self._rest = ""  # the source of the last unit
        self._before = 0  # characters up to there
        if text:
            self.feed(text)

    def feed(self, fragment: str) -> int:
        """Take more text. Returns the index of the first unit that may have changed."""
        first = max(0, len(self.units) - 1)
        text = self._rest + fragment
        del self.units[first:]
        start = 0
        at = CHARACTERS * (first + 1) - self._before
        while at + _NEAR < len(text):
            end, after, joint = _cut(text, at)
            self.units.append(Unit(text[start:end], "plain", joint=joint))
            start = after
            at += CHARACTERS
        self._before += start
        self._rest = text[start:]
        self.units.append(Unit(self._rest, "plain"))
        return first


def _cut(text: str, at: int) -> tuple[int, int, str | None]:
    """Where the unit ends that goes on up to about there, where the next one starts, and what joins the two
    inside a line."""
    least = at - CHARACTERS // 2
    line_end = text.rfind("\n", least, at + 1)
    if line_end >= 0:
        return line_end - (text[line_end - 1] == "\r"), line_end + 1, None
    space = text.rfind(" ", least, at)
    if space >= 0 and text[space - 1] != " " and text[space + 1] != " ":
        return space, space + 1, " "
    near = text[at - _NEAR : at + _NEAR]
    cut = at + graphemes(near, _NEAR, _NEAR)[0] - _NEAR
    return cut, cut, ""
