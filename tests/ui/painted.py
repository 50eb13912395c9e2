"""What the program paints, as terminals see it."""

from __future__ import annotations

import os
from typing import Any

from rich.control import Control
from textual._compositor import CompositorUpdate

from llama_tui.ui.app import LlamaTui
from llama_tui.ui.driver import abilities
from tests.pair import Pair
from tests.vt import Cell


class Watch:
    """Two terminals that see what the program paints."""

    def __init__(self) -> None:
        self.pair: Pair | None = None
        self.frames = self.unsure = 0

    def columns(self, left: int) -> list[list[Cell]]:
        """What is on the screen, from a column on."""
        assert self.pair is not None
        return [row[left:] for row in self.pair.ours.seen]

    def display(self, app: LlamaTui, renderable: Any) -> None:
        """In place of the app's own way to the terminal, which a test has not."""
        if not isinstance(renderable, CompositorUpdate):
            return
        size = tuple(app.size)
        if self.pair is None or self.pair.painter.size != size:
            self.pair = Pair(app.size.width, app.size.height, abilities(os.environ))
        at = app.screen.outer_size.clamp_offset(app.cursor_position)
        before = self.pair.unsure
        self.pair.frame(renderable.render_segments(app.console) + Control.move_to(*at).segment.text)
        self.pair.check()
        self.frames += 1
        self.unsure += self.pair.unsure - before
