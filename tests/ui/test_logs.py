"""The screen of logs, and keeping a model from its keys."""

from __future__ import annotations

import datetime
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Log, Static

from llama_tui.engine.logs import note_death
from llama_tui.engine.post_mortem import post_mortem
from llama_tui.paths import Paths
from llama_tui.ui.app import LlamaTui
from llama_tui.ui.screens.logs import EngineList, LogScreen
from llama_tui.ui.widgets.loaded import LoadedPane
from llama_tui.ui.widgets.models import ModelList
from tests.ui.program import program, until
from tests.ui.scripted import ScriptedEngine
from tests.ui.test_main import ENDLESS, ask, running

Snap = Callable[..., bool]


def screen(app: LlamaTui) -> LogScreen:
    assert isinstance(app.screen, LogScreen)
    return app.screen


def lines(app: LlamaTui) -> list[str]:
    return list(screen(app).query_one(Log).lines)


def account(app: LlamaTui) -> str:
    shown = screen(app).query_one("#account", Static)
    return str(shown.render()) if shown.display else ""


async def opened(app: LlamaTui, pilot: Pilot[Any]) -> None:
    await pilot.press("f12")
    await until(lambda: isinstance(app.screen, LogScreen) and app.screen.query(EngineList))
    await until(lambda: screen(app).query_one(EngineList).option_count)
    await pilot.pause()


async def test_an_engine_that_died_says_why_above_its_last_lines(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, ENDLESS)
    async with running(app) as pilot:
        await ask(app, pilot, "hello")
        await until(lambda: app.main.chat.progress.n_past > 60)
        assert app.workbench.engine
        os.kill(app.workbench.engine.pid, signal.SIGABRT)
        await until(lambda: app.workbench.session.answering is None)
        await opened(app, pilot)
        await until(lambda: "(SIGABRT) while generating" in account(app))
        await until(lambda: any("llama_context" in line for line in lines(app)))
        assert any("while generating" in line for line in lines(app)), "the account stands in the file as well"
        await pilot.press("escape")
        assert app.screen is app.main


async def test_lines_are_filtered_followed_and_copied_and_never_obeyed(
    paths: Paths, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        monkeypatch.setenv("SSH_TTY", "/dev/pts/9")
        monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
        assert app.workbench.engine
        log = app.workbench.engine.place.log
        await opened(app, pilot)
        await until(lambda: lines(app))
        with log.open("a") as file:
            file.write("[bold]odd[/x] one\n\x1b]0;title\x07\x1b[2J two\n" + "filler\n" * 200)
        await until(lambda: "filler" in lines(app))
        view = screen(app).query_one(Log)
        await until(lambda: view.is_vertical_scroll_end)
        assert "[bold]odd[/x] one" in lines(app)
        assert "␛]0;title␇␛[2J two" in lines(app)
        await pilot.press("pageup")
        await until(lambda: not view.is_vertical_scroll_end)
        at = view.scroll_offset.y
        with log.open("a") as file:
            file.write("odd three\n")
        await until(lambda: "odd three" in lines(app))
        assert view.scroll_offset.y == at, "who reads is left where they read"
        await pilot.press("f")
        await until(lambda: view.is_vertical_scroll_end)
        await pilot.press("slash", *"ODD")
        await until(lambda: lines(app) == ["[bold]odd[/x] one", "odd three"])
        await pilot.press("enter", "c")
        await until(lambda: copied)
        assert copied == ["[bold]odd[/x] one\nodd three"]
        await pilot.press("escape")
        await until(lambda: "filler" in lines(app))
        assert not screen(app).query_one(Input).value


async def test_what_is_wrong_with_the_settings_outlives_a_new_chat(paths: Paths, models: Path) -> None:
    paths.config.mkdir(parents=True)
    paths.config_file.write_text('n_ctx = "many [/x]"\n')
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await pilot.press("ctrl+n")
        await opened(app, pilot)
        await pilot.press("down", "down", "down")
        await until(lambda: "config.toml, line 1" in account(app) and "many [/x]" in account(app))


async def test_a_model_is_kept_and_let_go_by_a_key(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:

        def loaded() -> str:
            return str(app.main.query_one(LoadedPane).render())

        await until(lambda: "4:" in loaded() or "5:00" in loaded())
        await pilot.press("f7")
        await until(lambda: "kept" in loaded())
        assert app.workbench.engine and app.workbench.engine.kept
        app.main.query_one(ModelList).focus()
        await pilot.press("k")
        await until(lambda: app.workbench.engine and not app.workbench.engine.kept)
        await until(lambda: "kept" not in loaded())


async def test_the_side_is_right_after_a_stop_that_ended_a_hung_engine(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, ENDLESS)
    async with running(app) as pilot:
        await ask(app, pilot, "hello")
        await until(lambda: app.main.chat.progress.n_past > 60)
        engine = app.workbench.engine
        assert engine
        os.kill(engine.pid, signal.SIGSTOP)
        await pilot.press("escape")
        await until(lambda: app.workbench.session.answering is None)
        await until(lambda: "nothing loaded" in str(app.main.query_one(LoadedPane).render()))
        row = next(row for row in app.main.side.rows() if row.file.name == "tiny")
        assert row.condition == "died"
        turn = app.workbench.conversation.path()[-1]
        assert turn.content and turn.ending == "cancelled" and turn.trouble
        await pilot.press("f5")
        await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")


async def test_f5_replaces_and_shift_f5_loads_beside(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        first = app.workbench.engine
        assert first
        await app.workbench.set("n_ctx", 512)
        await pilot.press("shift+f5")
        await until(lambda: app.workbench.engine is not first)
        second = app.workbench.engine
        assert second
        await until(lambda: second.condition == "ready")
        assert first.alive
        loaded = app.main.query_one(LoadedPane)
        await until(lambda: "tiny n_ctx 512 " in str(loaded.render()) and "tiny n_ctx 2048 " in str(loaded.render()))
        await app.workbench.set("n_ctx", 768)
        await pilot.press("f5")
        await until(lambda: app.workbench.engine and app.workbench.engine.spec.params["n_ctx"] == 768)
        assert not second.alive
        assert first.alive, "only the engine that the chat had is replaced"


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
def test_snapshot(snap_compare: Snap, paths: Paths, guide_model: Path, size: tuple[int, int]) -> None:
    printed = (
        "llama_model_loader: loaded meta data with 28 key-value pairs and 291 tensors from [models]/llama-70b.gguf\n"
        "llama_context: n_ctx = 8192\n"
        "ggml_backend_cuda_buffer_type_alloc_buffer: 8192.00 MiB on device 0: cudaMalloc failed: out of memory\n"
        "/build/ggml/src/ggml-backend.cpp:1700: GGML_ASSERT(buffer) failed\n"
    )
    paths.logs.mkdir(parents=True)
    dead, old = paths.logs / "llama-70b-q4-0123456789abcdef.log", paths.logs / "qwen3-8b-0123456789abcdef.log"
    dead.write_text(printed)
    note_death(dead, post_mortem("llama-70b-q4", "loading", -signal.SIGABRT, dead))
    old.write_text("llama_context: n_ctx = 2048\n")
    for number, log in enumerate((dead, old)):
        at = datetime.datetime(2026, 3, 4, 5, 6 - number).timestamp()
        os.utime(log, (at, at))

    async def run(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, LlamaTui)
        await until(lambda: app.workbench.engine and app.workbench.engine.state)
        app.main.chat.prompt.cursor_blink = False
        await opened(app, pilot)
        await until(lambda: "GGML_ASSERT" in account(app) and lines(app))
        await pilot.pause()

    with ScriptedEngine(paths, guide_model):
        assert snap_compare(program(paths), terminal_size=size, run_before=run)
