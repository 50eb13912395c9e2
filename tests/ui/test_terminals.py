"""Terminals of many, few and no colours: which theme is used, and that nothing is said by colour alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widget import Widget
from textual.widgets import OptionList

from llama_tui.paths import Paths
from llama_tui.ui.app import LlamaTui
from llama_tui.ui.widgets.chat import ChatPane
from llama_tui.ui.widgets.editor import ValueEditor
from llama_tui.ui.widgets.form import FieldList, ParameterForm
from tests.ui.painted import Watch
from tests.ui.program import leave, program, until
from tests.ui.scripted import ScriptedEngine

MARKS = {"1": "bold", "2": "dim", "7": "reverse"}
WITHOUT = {"TERM": "xterm-256color", "NO_COLOR": "1"}


@pytest.mark.parametrize(
    ("environ", "shows"),
    [
        ({"TERM": "xterm-256color"}, "night"),
        ({"TERM": "xterm-256color", "COLORFGBG": "0;15"}, "dawn"),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, "night"),
        ({"TERM": "xterm", "COLORFGBG": "0;15"}, "sixteen"),
        ({"TERM": "linux"}, "sixteen"),
        ({"TERM": "screen"}, "sixteen"),
        ({"TERM": "screen-256color"}, "night"),
        ({"TERM": "tmux-256color"}, "night"),
        ({"TERM": "linux", "LLAMA_TUI_THEME": "moss"}, "moss"),
        (WITHOUT | {"LLAMA_TUI_THEME": "moss"}, "sixteen"),
    ],
)
async def test_the_theme_of_a_terminal(
    paths: Paths, guide_model: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], shows: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with ScriptedEngine(paths, guide_model):
        app = program(paths)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(lambda: app.theme == shows)
            await pilot.pause()
            await leave(app)


class Seen:
    """What a terminal without colours shows in parts of the screen."""

    def __init__(self, app: LlamaTui, watch: Watch) -> None:
        self._app, self._watch = app, watch

    def marks(self, x: int, y: int) -> set[str]:
        assert self._watch.pair is not None
        marks, fg, bg, _ = self._watch.pair.ours.rows[y][x].style
        assert not fg and not bg, "colours are written"
        return {MARKS[mark] for mark in marks if mark in MARKS}

    def edge(self, widget: Widget) -> set[str]:
        return self.marks(widget.region.x, widget.region.y)

    def reversed_rows(self, widget: Widget) -> list[str]:
        """The rows of a widget that are reversed, as texts."""
        assert self._watch.pair is not None
        region, rows = widget.region, self._watch.pair.ours.rows
        return [
            "".join(cell.text for cell in rows[y][region.x : region.right]).strip()
            for y in range(region.y, region.bottom)
            if "reverse" in self.marks(region.x, y)
        ]


async def test_without_colours_focus_choice_and_errors_are_said_by_attributes_and_texts(
    paths: Paths, guide_model: Path, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    for name, value in WITHOUT.items():
        monkeypatch.setenv(name, value)
    with ScriptedEngine(paths, guide_model):
        app = program(paths)
        async with app.run_test(size=(120, 40)) as pilot:
            await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
            seen, form, chat = Seen(app, watch), app.main.query_one(ParameterForm), app.main.query_one(ChatPane)
            await until(lambda: seen.edge(chat) == {"bold"} and seen.edge(form) == {"dim"})
            fields = app.main.query_one(FieldList)
            fields.focus()
            await pilot.press("down")
            await until(lambda: seen.edge(chat) == {"dim"} and seen.edge(form) == {"bold"})
            await until(lambda: [row.split() for row in seen.reversed_rows(fields)] == [["max_tokens", "unlimited"]])
            await pilot.press("-", "5")
            editor = app.main.query_one(ValueEditor)
            await until(lambda: seen.edge(editor) == {"bold"})
            await pilot.press("escape", "ctrl+o")
            await until(lambda: app.screen.query(OptionList))
            await until(
                lambda: (
                    [row.split()[1] for row in seen.reversed_rows(app.screen.query_one(OptionList))[:1]] == ["guide"]
                )
            )
            await leave(app)
