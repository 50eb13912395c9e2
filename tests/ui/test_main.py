"""The program under its keys, with the real engine on the built-in model and on a tiny one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from textual.app import App
from textual.events import Key, Paste
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from llama_tui.chat.conversation import Figures, Turn
from llama_tui.engine.client import EngineClient
from llama_tui.engine.protocol import Message
from llama_tui.library.scan import ModelFile
from llama_tui.paths import Paths
from llama_tui.settings.params import defaults
from llama_tui.settings.values import Value
from llama_tui.ui import clipboard
from llama_tui.ui.app import Farewell, LlamaTui
from llama_tui.ui.input import BackgroundTold
from llama_tui.ui.present import footer_of
from llama_tui.ui.screens.chats import ChatList
from llama_tui.ui.screens.context import ContextScreen
from llama_tui.ui.screens.switcher import ModelSwitcher
from llama_tui.ui.screens.themes import ThemeList
from llama_tui.ui.widgets.editor import ValueEditor
from llama_tui.ui.widgets.form import FieldList, ParameterForm
from llama_tui.ui.widgets.loaded import LoadedPane
from llama_tui.ui.widgets.models import ModelList
from llama_tui.ui.widgets.status import StatusLine
from tests.ggufs import CHATML, write_tiny_llama
from tests.ui.program import leave, program, until

ENDLESS: dict[str, Value] = {"ignore_eos": True, "n_ctx": 32768}


@asynccontextmanager
async def running(app: LlamaTui, size: tuple[int, int] = (120, 40)) -> AsyncIterator[Pilot[Farewell]]:
    """The app, ready and its model loaded."""
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.workbench.files and app.workbench.engine and app.workbench.engine.condition == "ready")
        await pilot.pause()
        try:
            yield pilot
        finally:
            await leave(app)


def log(app: LlamaTui) -> str:
    """What the transcript holds, as text."""
    entries = app.main.chat.transcript.entries
    return "\n".join("\n".join([e.title, e.text, e.footer, e.hint, *e.log]) for e in entries)


def answered(app: LlamaTui) -> bool:
    """The answer is whole, and the transcript shows it so."""
    streaming = any(entry.streaming for entry in app.main.chat.transcript.entries)
    return app.workbench.session.answering is None and not streaming


async def ask(app: LlamaTui, pilot: Pilot[Farewell], text: str) -> None:
    before = len(app.workbench.conversation.turns)
    app.main.chat.prompt.load(text)
    await pilot.press("enter")
    await until(lambda: len(app.workbench.conversation.turns) > before or app.main.chat.prompt.text)


async def test_lines_that_come_at_once_are_not_asked_at_once_and_none_is_lost(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, ENDLESS)
    async with running(app) as pilot:
        prompt = app.main.chat.prompt
        for key in ("o", "n", "e", "enter", "t", "w", "o", "enter", "s", "i", "x", "enter"):
            prompt.post_message(Key(key, key if len(key) == 1 else None))
        await until(lambda: app.workbench.session.answering)
        await until(lambda: prompt.text == "two\nsix")
        assert app.workbench.conversation.prompts() == ["one"]
        await pilot.press("escape")
        await until(lambda: answered(app))


async def test_what_went_wrong_at_the_start_stays_in_the_log(paths: Paths, models: Path) -> None:
    paths.data.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(paths.database)) as db:
        db.execute("PRAGMA user_version = 99")
    app = program(paths, "tiny", models, {"max_tokens": 3})
    async with running(app) as pilot:
        await ask(app, pilot, "hello")
        await until(lambda: answered(app))
        said = log(app)
        assert "newer llama-tui" in said
        assert "is not kept" in said
        assert said.index("newer llama-tui") < said.index("hello")


async def test_esc_stops_and_keeps_what_came_and_keys_are_live_meanwhile(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, ENDLESS)
    async with running(app) as pilot:
        await ask(app, pilot, "hello")
        await until(lambda: app.main.chat.progress.n_past > 60)
        await pilot.press(*"next")
        assert app.main.chat.prompt.text == "next", "keys are taken while it generates"
        assert "esc stops the answer" in app.main.query_one(StatusLine).status.escape
        await pilot.press("escape")
        await until(lambda: answered(app))
        await pilot.pause()
        turn = app.workbench.conversation.path()[-1]
        assert turn.ending == "cancelled" and len(turn.content) > 60
        assert "stopped by you" in log(app)
        assert app.main.chat.prompt.text == "next"


async def test_a_second_message_waits_in_the_editor_while_an_answer_is_made(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, ENDLESS)
    async with running(app) as pilot:
        await ask(app, pilot, "hello")
        await pilot.press(*"more", "enter")
        await pilot.pause()
        assert app.main.chat.prompt.text == "more"
        assert len(app.workbench.conversation.path()) == 2
        await pilot.press("escape")
        await until(lambda: answered(app))


async def test_the_place_in_the_queue_is_shown_and_esc_leaves_it(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, ENDLESS)
    async with running(app) as pilot:
        assert app.workbench.engine
        other = await EngineClient.connect(app.workbench.engine.place.socket)
        params = defaults("sampling") | {"ignore_eos": True}
        async with contextlib.aclosing(other.generate("first", (Message("user", "hi"),), params)) as events:
            await anext(events)
            await ask(app, pilot, "hello")
            await until(lambda: "waiting, 1 before it" in app.main.chat.transcript.entries[-1].footer)
            assert app.main.query_one(StatusLine).status.doing == "waiting, 1 before it"
            await pilot.press("escape")
            await until(lambda: answered(app))
            assert app.workbench.conversation.path()[-1].ending == "cancelled"
            assert app.workbench.engine.state
            assert app.workbench.engine.state.generating == "first"
            await other.cancel("first")
        await other.close()


async def test_retry_makes_a_second_answer_and_alt_arrows_choose(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, {"max_tokens": 12, "temperature": 2.0})
    async with running(app) as pilot:
        await ask(app, pilot, "hello")
        await until(lambda: answered(app))
        first = app.workbench.conversation.path()[-1]
        await pilot.press("ctrl+r")
        await until(lambda: answered(app) and app.workbench.conversation.path()[-1].id != first.id)
        await pilot.pause()
        assert [entry.siblings for entry in app.main.chat.transcript.entries] == [None, (2, 2)], "the last is shown"
        await pilot.press("alt+left")
        await pilot.pause()
        assert app.workbench.conversation.path()[-1].id == first.id
        assert app.main.chat.transcript.entries[-1].text == first.content
        assert len(app.main.chat.transcript.entries) == 2


async def test_what_is_loaded_is_laid_out_for_the_width_that_it_has(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app, (200, 60)) as pilot:
        pane = app.main.query_one(LoadedPane)
        await until(lambda: "GPU0" in str(pane.render()))
        for width in (80, 200, 100):
            await pilot.resize_terminal(width, 60)
            await pilot.pause()
            lines = str(pane.render()).split("\n")
            assert max(len(line) for line in lines) == pane.size.width
            assert len(lines) == pane.size.height


async def test_panes_fold_for_a_width_that_comes_while_a_screen_is_over_them(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app, (140, 40)) as pilot:
        for width, side, form in ((70, False, False), (90, True, False), (140, True, True)):
            await pilot.press("ctrl+o")
            await until(lambda: app.screen is not app.main)
            await pilot.resize_terminal(width, 40)
            await until(lambda: app.main.side.display == side, 20)  # noqa: B023
            await until(lambda: app.main.query_one(ParameterForm).display == form, 20)  # noqa: B023
            await pilot.press("escape")
            await until(lambda: app.screen is app.main)


async def test_thoughts_and_notices_are_in_the_log(paths: Paths, tmp_path: Path) -> None:
    folder = tmp_path / "thinkers"
    folder.mkdir()
    write_tiny_llama(folder / "thinker.gguf", chat_template=CHATML + "<think>\n")
    write_tiny_llama(folder / "picky.gguf", chat_template="{{ raise_exception('I said no') }}")
    app = program(paths, "thinker", folder, {"max_tokens": 12})
    async with running(app) as pilot:
        await ask(app, pilot, "hello")
        await until(lambda: answered(app))
        entry = app.main.chat.transcript.entries[-1]
        assert (entry.text, entry.thought != "", entry.thought_tokens) == ("", True, 12)
    app = program(paths, "picky", folder, {"max_tokens": 12})
    async with running(app) as pilot:
        for _ in range(2):
            await ask(app, pilot, "hello")
            await until(lambda: answered(app))
        assert log(app).count("The chat template of picky cannot be used here") == 1


async def test_a_prompt_longer_than_the_context_stays_in_the_editor(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, {"n_ctx": 256})
    text = "word " * 400
    async with running(app) as pilot:
        await ask(app, pilot, text)
        await until(lambda: "more than the context of 256" in log(app))
        assert app.main.chat.prompt.message == text.strip()
        assert not app.workbench.conversation.path(), "nothing is left of it in the conversation"
        assert not await app.workbench.chats.list()
        app.main.chat.prompt.load("short")
        await pilot.press("enter")
        await until(app.workbench.conversation.path)
        await pilot.press("escape")
        await until(lambda: answered(app))


async def test_a_first_question_that_is_refused_leaves_the_chat_as_it_began(paths: Paths) -> None:
    app = program(paths, flags={"n_ctx": 256})
    async with running(app) as pilot:
        began = log(app)
        await ask(app, pilot, "word " * 400)
        await until(lambda: "more than the context of 256" in log(app))
        assert log(app).startswith(began)
        assert app.main.chat.suggestions.display
        app.main.chat.prompt.load("")
        await pilot.press("down", "enter")
        await until(lambda: answered(app))
        first = app.workbench.conversation.path()[0]
        assert first.content == app.workbench.suggestions[1]
        assert began not in log(app)
        assert not app.main.chat.suggestions.display


async def test_one_that_no_context_can_hold_comes_back_as_it_was_pasted(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, {"n_ctx": 256})
    text = "a line of a log file\n" * 30_000 + "end"
    async with running(app) as pilot:
        prompt = app.main.chat.prompt
        prompt.post_message(Paste(text))
        await until(lambda: prompt.text == "[text 1: 30,001 lines]")
        await pilot.press("enter")
        await until(lambda: "more than the context of 256" in log(app))
        assert "630,003 characters" in log(app)
        assert prompt.text == "[text 1: 30,001 lines]"
        assert prompt.message == text
        assert not app.workbench.conversation.path()
        assert not await app.workbench.chats.list()
        assert app.workbench.engine and app.workbench.engine.condition == "ready"


async def until_asked(app: LlamaTui, pilot: Pilot[Farewell]) -> str:
    """Ask until the chat no longer fits and the program asks back; what could not be sent."""
    for turn in range(12):
        text = f"question {turn} " + "q" * 60
        await ask(app, pilot, text)
        await until(lambda: answered(app))
        await pilot.pause()
        if app.main.chat.prompt.text:
            await until(lambda: isinstance(app.screen, ContextScreen) and app.screen.query(OptionList))
            return text
    raise AssertionError("it always fitted")


FULL: dict[str, Value] = {"n_ctx": 256, "max_tokens": 4, "ignore_eos": True}


async def test_a_chat_that_no_longer_fits_asks_what_to_leave_out_and_marks_it(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, FULL)
    async with running(app) as pilot:
        text = await until_asked(app, pilot)
        before = [turn.id for turn in app.workbench.conversation.path()]
        await pilot.press("escape")
        await until(lambda: "kept for the reply" in log(app))
        assert app.main.chat.prompt.text == text, "nothing is lost"
        assert [turn.id for turn in app.workbench.conversation.path()] == before
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, ContextScreen) and app.screen.query(OptionList))
        await pilot.press("enter")
        await until(lambda: len(app.workbench.conversation.path()) > len(before) and answered(app))
        await pilot.pause()
        assert app.main.chat.prompt.text == ""
        answer = app.workbench.conversation.path()[-1]
        assert answer.left_out and answer.left_out.how == "drop_oldest"
        entries = app.main.chat.transcript.entries
        at = next(place for place, entry in enumerate(entries) if entry.key == answer.id)
        assert entries[at - 1].text.startswith(
            f"{len(answer.missing)} earlier messages left out from here on · {answer.left_out.tokens:,} tokens"
        )
        assert entries[at - 2].text == text
        assert answer.figures and f"of {answer.figures.prompt_tokens:,}" in entries[at].footer
        shown = [(entry.role, entry.text) for entry in entries if entry.role != "error"]
    again = program(paths, "tiny", models, FULL)
    async with running(again):
        entries = again.main.chat.transcript.entries
        assert [(entry.role, entry.text) for entry in entries] == shown, "it stands there after a restart too"


async def test_the_choice_can_be_made_for_good_or_the_context_larger(paths: Paths, models: Path) -> None:
    paths.config_file.parent.mkdir(parents=True)
    paths.config_file.write_text("n_ctx = 256\n")
    app = program(paths, "tiny", models, {"max_tokens": 4, "ignore_eos": True})
    async with running(app) as pilot:
        await until_asked(app, pilot)
        await pilot.press("down", "ctrl+d")
        await until(lambda: answered(app) and app.workbench.conversation.path()[-1].left_out)
        left_out = app.workbench.conversation.path()[-1].left_out
        assert left_out and left_out.how == "drop_middle"
        assert app.workbench.resolved()["context_full"].value == "drop_middle"
        await app.main._set("context_full", "ask")
        app.main.action_new_chat()
        await until_asked(app, pilot)
        ways = app.screen.query_one(OptionList)
        larger = str(ways.get_option_at_index(2).prompt)
        assert "n_ctx = 512" in larger, "the model is trained for so much"
        assert "every message is kept" in larger
        await pilot.press("down", "down", "enter")
        await until(lambda: n_ctx_of(app) == 512 and answered(app))
        await until(lambda: app.workbench.conversation.path()[-1].ending == "length")
        assert app.workbench.conversation.path()[-1].left_out is None


@pytest.mark.parametrize(("completion", "said"), [(200, "n_ctx of 256 is full"), (40, "max_tokens is reached")])
def test_an_answer_that_was_cut_off_says_by_what(completion: int, said: str) -> None:
    figures = Figures(56, 50, completion, 256, 0.5, 9.0)
    turn = Turn("a", "q", "assistant", "so", 1.0, "tiny", seed=1, ending="length", figures=figures)
    footer = footer_of(turn)
    assert footer.endswith(f"length: {said}")
    assert "reused 50 of 56" in footer


def n_ctx_of(app: LlamaTui) -> int:
    state = app.workbench.engine.state if app.workbench.engine else None
    return state.model.n_ctx if state and state.model else 0


async def test_copy_takes_the_last_answer(paths: Paths, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    app = program(paths, "tiny", models, {"max_tokens": 12})
    async with running(app) as pilot:
        await ask(app, pilot, "hello")
        await until(lambda: answered(app))
        await pilot.press("ctrl+y")
        await pilot.pause()
        assert app.clipboard == app.workbench.conversation.path()[-1].content
        assert any("your terminal's clipboard" in str(note.message) for note in app._notifications)


async def test_what_no_terminal_takes_is_not_sent_to_its_clipboard(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app):
        terminal = cast("App[object]", app)
        said = await clipboard.copy(terminal, "x" * (clipboard.LONGEST + 1), {"SSH_TTY": "/dev/pts/1", "TMUX": "x"})
        assert "Not copied" in said and "500,001" in said and app.clipboard == ""
        assert "Sent" in await clipboard.copy(terminal, "x" * clipboard.LONGEST, {"SSH_TTY": "/dev/pts/1"})
        assert len(app.clipboard) == clipboard.LONGEST


async def test_a_value_in_the_form_is_checked_kept_and_reset(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await pilot.press("f3", "f3")
        fields = app.main.query_one(FieldList)
        while fields.field is None or fields.field.param.name != "temperature":
            await pilot.press("down")
        await pilot.press("9", "9")
        editor = app.main.query_one(ValueEditor)
        assert editor.has_focus and editor.value == "99"
        await pilot.press("enter")
        await pilot.pause()
        assert editor.display, "a bad value does not leave the editor"
        assert not paths.settings_file.exists(), "nor is it kept"
        await pilot.press("backspace", "backspace", *"0.25", "enter")
        await until(lambda: app.workbench.resolved()["temperature"].value == 0.25)
        await until(lambda: fields.field and fields.field.setting.origin == "saved")
        assert "temperature = 0.25" in paths.settings_file.read_text()
    again = program(paths, "tiny", models)
    async with running(again) as pilot:
        assert again.workbench.resolved()["temperature"].value == 0.25, "it is there at the next start"
        await pilot.press("f3", "f3")
        fields = again.main.query_one(FieldList)
        while fields.field is None or fields.field.param.name != "temperature":
            await pilot.press("down")
        assert "f6: back to 0.7 (default)" in str(again.main.query_one("#field-help", Static).render())
        await pilot.press("f6")
        await until(lambda: again.workbench.resolved()["temperature"].origin == "default")


async def test_a_value_of_several_lines_is_edited_in_one(paths: Paths, models: Path) -> None:
    paths.config.mkdir(parents=True)
    paths.config_file.write_text('system_prompt = "one\\n\\ttwo\\u001b[0m\\u202e"\n')
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        app.main.query_one(FieldList).focus()
        await pilot.press("enter")
        editor = app.main.query_one(ValueEditor)
        assert editor.value == "one␤␉two␛[0m\ufffd"
        await pilot.press("enter")
        await until(lambda: not app.main.query_one(ParameterForm).editing)
        assert app.workbench.resolved()["system_prompt"].value == "one\n\ttwo\x1b[0m\u202e"
        await pilot.press("enter", "end", *(["backspace"] * 5), "ctrl+j", "x")
        editor.post_message(Paste("a\r\nb"))
        await until(lambda: editor.value == "one␤␉two␤xa␤b")
        await pilot.press("enter")
        await until(lambda: app.workbench.resolved()["system_prompt"].value == "one\n\ttwo\nxa\nb")


async def test_left_and_right_step_a_value(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await pilot.press("f3", "f3")
        fields = app.main.query_one(FieldList)
        while fields.field is None or fields.field.param.name != "flash_attn":
            await pilot.press("down")
        await pilot.press("right")
        await until(lambda: app.workbench.resolved()["flash_attn"].value == "on")
        await pilot.press("left")
        await until(lambda: app.workbench.resolved()["flash_attn"].value == "auto")


async def test_a_value_that_the_environment_outranks_says_so(
    paths: Paths, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_TUI_TOP_K", "7")
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await app.main._set("top_k", 50)
        await pilot.pause()
        assert any("LLAMA_TUI_TOP_K decides" in str(note.message) for note in app._notifications)
        assert app.workbench.resolved()["top_k"].value == 7


async def test_f5_loads_the_model_again_with_changed_parameters(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        engine = app.workbench.engine
        assert engine and engine.state and engine.state.model and engine.state.model.n_ctx == 2048
        await app.main._set("n_ctx", 512)
        assert app.workbench.reload_pending
        assert app.workbench.engine is engine, "nothing happens before the key"
        await pilot.press("f5")
        await until(
            lambda: (
                app.workbench.engine is not engine
                and app.workbench.engine
                and app.workbench.engine.state
                and app.workbench.engine.state.model
                and app.workbench.engine.state.model.n_ctx == 512
            )
        )
        assert not engine.alive, "the engine that it replaces is gone"
        assert not app.workbench.reload_pending


async def test_the_switcher_filters_loads_and_unloads(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await pilot.press("ctrl+o")
        await until(lambda: isinstance(app.screen, ModelSwitcher))
        await pilot.press(*"odd", "enter")
        await until(lambda: app.workbench.current and app.workbench.current.name == "odd [bold] [")
        await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
        assert len([engine for engine in app.workbench.engines if engine.alive]) == 2
        await pilot.press("ctrl+o")
        await until(lambda: isinstance(app.screen, ModelSwitcher))
        await pilot.press(*"tiny", "ctrl+u")
        await until(lambda: len([engine for engine in app.workbench.engines if engine.alive]) == 1)
        await pilot.press("escape")
        await until(lambda: not isinstance(app.screen, ModelSwitcher))


async def test_what_happens_while_a_screen_opens_waits_for_its_widgets(paths: Paths, models: Path) -> None:
    """A screen is on the stack before its widgets are: engines tell of themselves, and a burst of keys arrives."""
    app = program(paths, models=models)
    async with running(app) as pilot:
        app.main.action_switch_model()
        app.main.show_engines()
        for key in ("ctrl+u", "escape"):
            app.simulate_key(key)
        assert isinstance(app.screen, ModelSwitcher)
        assert not app.screen.query(ModelList), "the screen came at once: this test shows nothing"
        await until(lambda: app.screen is app.main)
        app.main.action_switch_model()
        app.main.show_engines()
        await until(lambda: app.screen.query(ModelList))
        await pilot.pause()
        assert app.screen.query_one(ModelList).option_count == len(app.workbench.files)


async def test_chats_can_be_opened_deleted_and_brought_back(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, {"max_tokens": 4})
    async with running(app) as pilot:
        for text in ("the first", "the second"):
            await ask(app, pilot, text)
            await until(lambda: answered(app))
            await pilot.press("ctrl+n")
            await pilot.pause()
        assert not app.workbench.conversation.path()
        await pilot.press("f4")
        await until(lambda: isinstance(app.screen, ChatList) and app.screen.query_one(OptionList).option_count == 2)
        rows = app.screen.query_one(OptionList)
        await pilot.press(*"first")
        await until(lambda: rows.option_count == 1)
        await pilot.press("ctrl+d")
        await until(lambda: rows.option_count == 1 and "no chats" in str(rows.get_option_at_index(0).prompt))
        await pilot.press("ctrl+z")
        await until(lambda: "the first" in str(rows.get_option_at_index(0).prompt))
        await pilot.press("enter")
        await until(lambda: app.workbench.conversation.title == "the first")
        assert "the first" in log(app)


async def test_bad_settings_and_themes_are_told_in_the_log_and_the_program_runs(paths: Paths, models: Path) -> None:
    paths.themes.mkdir(parents=True)
    paths.config_file.write_text('n_ctx = "many"\ntemprature = 1\ntheme = "nigth"\n')
    (paths.themes / "mine.toml").write_text('name = "mine"\ndark = true\n[colors]\nprimary = "nocolour"\n')
    app = program(paths, "tiny", models)
    async with running(app):
        told = log(app)
        assert "config.toml" in told and "line 1" in told and "n_ctx" in told
        assert "temperature" in told, "the nearest name is offered"
        assert "mine.toml" in told and "primary" in told
        assert "no theme 'nigth'" in told and "night" in told
        assert app.workbench.resolved()["n_ctx"].value == 2048


async def test_a_broken_config_file_names_its_line(paths: Paths, models: Path) -> None:
    paths.config.mkdir(parents=True)
    paths.config_file.write_text("n_ctx = 4096\n= nonsense\n")
    app = program(paths, "tiny", models)
    async with running(app):
        assert "line 2" in log(app)


@pytest.mark.parametrize(("name", "offered"), [("llama-cpp/twin.gguf", ["a/twin", "b/twin"]), ("tinny", [])])
async def test_a_name_that_means_no_model_is_told_and_others_are_offered(
    paths: Paths, models: Path, name: str, offered: list[str]
) -> None:
    for folder in ("a", "b"):
        (models / folder).mkdir()
        shutil.copy(models / "tiny.gguf", models / folder / "twin.gguf")
    app = program(paths, name, models)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: isinstance(app.screen, ModelSwitcher) and app.screen.query(ModelList))
        options = app.screen.query_one(ModelList)
        await until(lambda: options.option_count == (len(offered) or len(app.workbench.files)))
        rows = [str(options.get_option_at_index(index).prompt) for index in range(options.option_count)]
        assert all(label in row for label, row in zip(offered, rows, strict=False))
        assert name in log(app) and all(label in log(app) for label in offered or ["tiny"])
        assert not app.workbench.engines, "nothing is loaded that nobody has asked for"
        await pilot.press("enter")
        await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
        assert app.workbench.current and app.workbench.current.builtin is (not offered)
        await leave(app)


async def test_a_theme_is_switched_live_and_kept(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        before = app.screen.styles.background
        app.use_theme("dawn")
        await until(paths.settings_file.exists)
        await pilot.pause()
        assert app.theme == "dawn" and app.screen.styles.background != before
    assert program(paths, "tiny", models).workbench.settings.values()["theme"] == "dawn"


async def test_themes_are_seen_live_and_kept_only_by_enter(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await pilot.press("f9")
        await until(lambda: isinstance(app.screen, ThemeList))
        await pilot.press("down")
        await until(lambda: app.theme == "contrast")
        app.post_message(BackgroundTold("light"))
        await pilot.pause()
        assert app.theme == "contrast"
        await pilot.press("escape")
        await until(lambda: app.screen is app.main and app.theme == "dawn")
        app.post_message(BackgroundTold("dark"))
        await until(lambda: app.theme == "night")
        await pilot.press("f9", *"moss", "enter")
        await until(lambda: app.screen is app.main and app.theme == "moss")
        app.post_message(BackgroundTold("light"))
        await pilot.pause()
        assert app.theme == "moss"
    assert program(paths, "tiny", models).workbench.settings.values()["theme"] == "moss"


async def look_up(app: LlamaTui, pilot: Pilot[Farewell], typed: str, offered: str) -> None:
    """Open the palette and type until it offers something."""
    await pilot.press("ctrl+p")
    await pilot.press(*typed)
    await until(lambda: offered in str([o.prompt for o in app.screen.query_one(OptionList).options]))


async def test_the_palette_offers_every_action(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await look_up(app, pilot, "new chat", "New chat")
        await pilot.press("escape")


async def test_what_is_chosen_in_the_palette_just_before_quitting_is_done(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await look_up(app, pilot, "theme: dawn", "dawn")
        await pilot.press("down")
        for key in ("enter", "ctrl+q"):  # as a terminal hands on what was typed ahead
            app.post_message(Key(key, None))
        await until(lambda: app.return_value is not None)
    assert program(paths, "tiny", models).workbench.settings.values()["theme"] == "dawn"


async def test_an_engine_that_dies_while_idle_is_told(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app):
        assert app.workbench.engine
        os.kill(app.workbench.engine.pid, signal.SIGKILL)
        await until(lambda: "was killed (SIGKILL) while idle" in log(app))


async def test_keys_are_live_and_esc_stops_while_a_long_prompt_is_read(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, {**ENDLESS, "n_ubatch": 32})
    async with running(app) as pilot:
        await ask(app, pilot, "word " * 6000)
        await until(lambda: app.main.chat.progress.doing.startswith("reading"))
        await pilot.press(*"next")
        assert app.main.chat.prompt.text == "next"
        assert app.main.chat.progress.doing.startswith("reading"), "it was still reading"
        await pilot.press("escape")
        await until(lambda: answered(app))
        turn = app.workbench.conversation.path()[-1]
        assert turn.ending == "cancelled" and not turn.content


async def test_the_screen_is_up_while_folders_are_slow(
    paths: Paths, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def slow(*_: object) -> list[ModelFile]:
        release.wait(30)
        return []

    monkeypatch.setattr("llama_tui.library.scan.scan", slow)
    app = program(paths, "tiny", models, {"max_tokens": 4})
    async with app.run_test(size=(120, 40)) as pilot:
        try:
            await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
            await ask(app, pilot, "hello")
            await until(lambda: app.workbench.conversation.path()[-1].ending == "length")
        finally:
            release.set()
            await leave(app)


async def test_tab_goes_through_the_panes(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        seen: list[str] = []
        for _ in range(4):
            await pilot.press("tab")
            seen.append(type(app.focused).__name__)
        assert seen == ["FieldList", "ModelList", "Transcript", "Prompt"]


async def test_slash_filters_the_pane_and_esc_shows_everything_again(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        rows = app.main.query_one(ModelList)
        rows.focus()
        await pilot.press("slash", *"odd")
        await until(lambda: rows.option_count == 1)
        await pilot.press("escape")
        await until(lambda: rows.option_count == 3)
        assert rows.has_focus


async def test_a_click_on_a_model_loads_it(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        names = [row.file.name for row in app.main.side.rows()]
        await pilot.click(ModelList, offset=(4, 2 * names.index("odd [bold] [")))
        await until(lambda: app.workbench.current and app.workbench.current.name == "odd [bold] [")
        await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")


async def test_a_model_that_cannot_be_used_says_why_when_it_is_chosen(paths: Paths, models: Path) -> None:
    (models / "not-a-model.gguf").write_text("<html>404</html>")
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await pilot.press("ctrl+o")
        await until(lambda: isinstance(app.screen, ModelSwitcher))
        await pilot.press(*"not", "enter")
        await until(lambda: "not-a-model" in log(app) and "GGUF" in log(app))


async def test_an_answer_left_for_a_new_chat_is_kept_with_its_end(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, ENDLESS)
    async with running(app) as pilot:
        await ask(app, pilot, "What was left behind")
        await until(lambda: app.main.chat.progress.n_past > 60)
        left = app.workbench.conversation
        await pilot.press("ctrl+n")
        await ask(app, pilot, "another")
        await until(lambda: left.path()[-1].ending == "cancelled")
        assert "left behind" not in log(app), "nothing of it appears in the new chat"
        await pilot.press("escape")
        await until(lambda: answered(app))


async def test_the_mark_on_a_bad_value_stays_while_the_engine_reports(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models)
    async with running(app) as pilot:
        await pilot.press("f3", "f3", "down", "0")
        form = app.main.query_one(ParameterForm)
        assert form.has_class("-invalid")
        engine = app.workbench.engine
        assert engine
        for _ in range(2):
            state = engine.state
            await until(lambda state=state: engine.state is not state)
            await pilot.pause(0.2)
            assert form.has_class("-invalid")


async def test_a_repaired_file_loads_after_the_folders_are_read_again(paths: Paths, models: Path) -> None:
    whole = (models / "tiny.gguf").read_bytes()
    (models / "cut.gguf").write_bytes(whole[:-1])
    app = program(paths, "cut", models)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: "cut off" in log(app) and app.workbench.files)
        (models / "cut.gguf").write_bytes(whole)
        app.main.query_one(ModelList).focus()
        await pilot.press("r")
        await until(lambda: app.workbench.current and not app.workbench.current.problem)
        await pilot.press("f5")
        await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
        await leave(app)


async def test_an_engine_that_dies_is_told_of_once_though_keeping_the_answer_takes_long(
    paths: Paths, models: Path
) -> None:
    app = program(paths, "tiny", models, ENDLESS)
    async with running(app) as pilot:
        await ask(app, pilot, "hello")
        await until(lambda: app.main.chat.progress.n_past > 30)
        other = sqlite3.connect(paths.database, isolation_level=None)
        assert app.workbench.engine
        os.kill(app.workbench.engine.pid, signal.SIGKILL)
        other.execute("BEGIN IMMEDIATE")
        try:
            await until(lambda: app.workbench.session.answering is None)
            app.main.show_engines()
        finally:
            other.close()
        await until(lambda: answered(app) and "the engine died" in log(app))
        await pilot.pause()
        app.main.show_engines()
        assert log(app).count("was killed (SIGKILL)") == 1


async def test_a_database_that_is_locked_is_told_in_the_list_of_chats(paths: Paths, models: Path) -> None:
    app = program(paths, "tiny", models, {"max_tokens": 4})
    async with running(app) as pilot:
        await ask(app, pilot, "the first")
        await until(lambda: answered(app))
        await pilot.press("ctrl+n", "f4")
        await until(lambda: isinstance(app.screen, ChatList) and app.screen.query_one(OptionList).option_count == 1)
        other = sqlite3.connect(paths.database, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            await pilot.press("ctrl+d")
            await until(lambda: "locked" in str(app.screen.query_one(".keys", Static).render()))
        finally:
            other.close()
        await pilot.press("escape")


async def test_a_conversation_that_is_come_back_to_is_not_read_again(paths: Paths, models: Path) -> None:
    for text, restored in (("zq" * 200, False), ("and then?", True)):
        app = program(paths, "tiny", models, {"max_tokens": 12, "temperature": 0.0})
        async with running(app) as pilot:
            await ask(app, pilot, text)
            await until(lambda app=app: answered(app))
            await pilot.pause()
            figures = app.workbench.conversation.path()[-1].figures
            assert figures
            said = f"reused {figures.reused_tokens:,} of {figures.prompt_tokens:,} from disk"
            assert (said in log(app)) == restored
            assert (figures.reused_tokens > 400) == restored
