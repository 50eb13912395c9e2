"""Sessions of the real program, every frame of which shows the same by difference as by Textual."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rich.control import Control
from textual._compositor import CompositorUpdate
from textual.screen import Screen

from llama_tui.paths import Paths
from llama_tui.ui.app import LlamaTui
from llama_tui.ui.diff import Abilities
from tests.pair import Pair
from tests.ui.program import leave, program, until
from tests.ui.scripted import ScriptedEngine

ANSWER = (
    "## What it shows\n\nPlain text, **bold**, *slanted*, `code` and a [link](https://example.org).\n\n"
    "- 日本語 and 한국어 in a list that is long enough to be wrapped in the pane that it stands in\n"
    "- 👍🏽 👩‍👩‍👧 ❤️ 🇩🇪 नमस्ते e\u0301 שלום\n\n"
    "```python\ndef add(a: int, b: int) -> int:\n    return a + b  # a comment\n```\n\n"
    "| part | cost |\n|---|---|\n| first | 12 ms |\n| second | 7 ms |\n\n"
    + "A paragraph goes on and on. " * 12
    + "\n\n"
) * 2
TOKENS = re.findall(r"\s*\S{1,6}", ANSWER)


class Watch:
    """Two terminals that see what the program paints."""

    def __init__(self) -> None:
        self.pair: Pair | None = None
        self.frames = self.unsure = 0

    def display(self, app: LlamaTui, renderable: Any) -> None:
        """In place of the app's own way to the terminal, which a test has not."""
        if not isinstance(renderable, CompositorUpdate):
            return
        size = tuple(app.size)
        if self.pair is None or self.pair.painter.size != size:
            self.pair = Pair(app.size.width, app.size.height, Abilities())
        at = app.screen.outer_size.clamp_offset(app.cursor_position)
        before = self.pair.unsure
        self.pair.frame(renderable.render_segments(app.console) + Control.move_to(*at).segment.text)
        self.pair.check()
        self.frames += 1
        self.unsure += self.pair.unsure - before


@pytest.mark.parametrize("size", [(120, 40), (70, 20)], ids=str)
async def test_a_session_shows_the_same_in_every_frame(
    paths: Paths, guide_model: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    watch = Watch()

    def display(app: LlamaTui, _screen: Screen[Any], renderable: Any) -> None:
        watch.display(app, renderable)

    monkeypatch.setattr(LlamaTui, "_display", display)
    with ScriptedEngine(paths, guide_model, TOKENS, pace=600):
        app = program(paths)
        async with app.run_test(size=size) as pilot:
            await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
            await pilot.press(*"tell me", "enter")
            await until(lambda: "paragraph" in str(app.main.chat.transcript.entries[-1].text))
            await pilot.press("f1", "escape", "ctrl+p", *"theme", "down", "enter")
            await pilot.press("pageup", "pageup", "pagedown", "ctrl+end")
            await pilot.resize_terminal(100, 30)
            await pilot.press("f2", "f3", "ctrl+o", "down", "escape", "f4", "escape")
            await pilot.resize_terminal(60, 18)
            await pilot.press(*"日本 and", "ctrl+j", *"more", "f3", "f3")
            await pilot.resize_terminal(*size)
            await until(lambda: not app.workbench.session.answering)
            await pilot.press("pageup", "pageup", "pageup", "ctrl+end")
            await pilot.pause()
            await leave(app)
    assert watch.frames > 60
    assert watch.unsure <= 6, "only frames around a resize are written as they are"
