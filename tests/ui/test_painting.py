"""Sessions of the real program, every frame of which shows the same by difference as by Textual."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from llama_tui.paths import Paths
from tests.ui.painted import Watch
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


TERMINALS = {
    "true colour": {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
    "256 colours": {"TERM": "tmux-256color", "TMUX": "/tmp/tmux,1,0"},
    "16 colours": {"TERM": "screen"},
    "no colours": {"TERM": "xterm-256color", "NO_COLOR": "1"},
}


@pytest.fixture
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of one of them."""
    for name, value in TERMINALS[request.param].items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("size", "terminal"),
    [((120, 40), "true colour"), ((70, 20), "16 colours"), ((90, 24), "no colours")],
    ids=str,
    indirect=["terminal"],
)
@pytest.mark.usefixtures("terminal")
async def test_a_session_shows_the_same_in_every_frame(
    paths: Paths, guide_model: Path, watch: Watch, size: tuple[int, int]
) -> None:
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


@pytest.mark.parametrize("terminal", ["256 colours"], indirect=True)
@pytest.mark.usefixtures("terminal")
async def test_sizes_that_change_at_any_moment_end_in_what_a_fresh_paint_shows(
    paths: Paths, guide_model: Path, watch: Watch
) -> None:
    rng = random.Random(3)
    keys = ["f1", "f2", "f3", "f4", "f9", "ctrl+o", "ctrl+p", "escape", "pageup", "pagedown", "down", "x"]
    with ScriptedEngine(paths, guide_model, TOKENS, pace=100):
        app = program(paths)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
            app.main.chat.prompt.cursor_blink = False
            await pilot.press(*"tell me", "enter")
            await until(lambda: "shows" in str(app.main.chat.transcript.entries[-1].text))
            for _ in range(10):
                await pilot.resize_terminal(rng.randint(60, 300), rng.randint(18, 100))
                await pilot.press(rng.choice(keys))
            await until(lambda: not app.workbench.session.answering)
            await pilot.resize_terminal(rng.randint(60, 140), rng.randint(18, 50))
            while app.screen is not app.main:
                await pilot.press("escape")
            await pilot.press("ctrl+end")
            await pilot.pause(0.3)
            left = app.main.chat.region.x  # beside it a clock goes on
            before = watch.columns(left)
            watch.pair = None
            app.main.refresh(layout=True)
            for widget in app.main.walk_children(with_self=True):
                widget.refresh(layout=True)
            await until(lambda: watch.pair)
            await pilot.pause(0.3)
            assert watch.columns(left) == before
            await leave(app)
