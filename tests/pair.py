"""Two terminals, one painted by Textual and one by difference, which must show the same."""

from __future__ import annotations

from llama_tui.ui.diff import Abilities
from llama_tui.ui.paint import LEAVE, Painter
from tests.vt import Cell, VirtualTerminal

NOISE = Cell("?", (frozenset({"4"}), "31", "44", ""))
"""What a terminal shows before anything was painted."""


class Pair:
    """Takes frames as Textual writes them; those that are held come to the second terminal with the next."""

    def __init__(self, width: int, height: int, abilities: Abilities) -> None:
        self.textual = VirtualTerminal(width, height, fill=NOISE)
        self.ours = VirtualTerminal(width, height, fill=NOISE, erases_colour=abilities.erases)
        self.painter = Painter(width, height, abilities)
        self.unsure = 0
        self.written = 0

    def frame(self, frame: str, *, held: bool = False) -> str:
        self.textual.feed(frame)
        understood = self.painter.draw(frame)
        if held and understood:
            return ""
        written = self.painter.difference()
        if not understood:
            self.unsure += 1
            written += LEAVE + frame
            self.painter.unsure()
        self.written += len(written)
        self.ours.feed(written)
        return written

    def check(self) -> None:
        assert self.ours.seen == self.textual.seen
        assert (self.ours.x, self.ours.y) == (self.textual.x, self.textual.y)
