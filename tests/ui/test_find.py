"""Finding and jumping in the chat, by its keys, in the whole program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from textual.events import Key, Paste
from textual.pilot import Pilot
from textual.widgets import OptionList

from benchmarks.chat import seed
from llama_tui.paths import Paths
from llama_tui.ui.app import Farewell, LlamaTui
from llama_tui.ui.entry import Entry
from llama_tui.ui.widgets.find import FindBar, FindField
from tests.ui.program import leave, program, until

FILLER = "\n\n".join(f"Paragraph {n} with some words in it." for n in range(30))


def exchange(count: int) -> list[Entry]:
    """Questions and long answers."""
    return [
        entry
        for n in range(count)
        for entry in (
            Entry(key=f"q{n}", role="user", title="you", text=f"Question {n} about the needle?"),
            Entry(key=f"a{n}", role="assistant", title="guide", text=f"{FILLER}\n\nThe **needle** [/x] of {n}.\n"),
        )
    ]


@asynccontextmanager
async def chatting(paths: Paths, entries: list[Entry], size: tuple[int, int] = (120, 40)) -> AsyncIterator[Any]:
    """The program on the guide, its log showing some entries."""
    app = program(paths)
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
        await until(lambda: app.main.chat.suggestions.display)
        app.main.chat.suggestions.display = False
        app.main.chat.transcript.show(entries)
        await pilot.pause()
        try:
            yield app, pilot
        finally:
            await leave(app)


def bar(app: LlamaTui) -> FindBar:
    return app.main.chat.find_bar


def rows(app: LlamaTui) -> list[str]:
    """The log as it is on the screen."""
    transcript = app.main.chat.transcript
    return [transcript.render_line(y).text.rstrip() for y in range(transcript.scrollable_content_region.height)]


def text(app: LlamaTui) -> str:
    return "\n".join(rows(app))


async def find(app: LlamaTui, pilot: Pilot[Farewell], sought: str) -> None:
    """Open the field, type, and wait for the count."""
    await pilot.press("ctrl+f", *sought)
    await until(lambda: " of " in bar(app).count or bar(app).count == "no match")


async def test_the_keys_of_finding(paths: Paths) -> None:
    async with chatting(paths, exchange(5)) as (app, pilot):
        await pilot.press(*"draft")
        await find(app, pilot, "needle")
        assert bar(app).count == "10 of 10"
        await pilot.press("up")
        assert bar(app).count == "9 of 10"
        assert "Question 4 about the needle?" in text(app)
        await pilot.press("shift+enter", "enter", "down")
        assert bar(app).count == "10 of 10"
        await pilot.press("enter")
        assert bar(app).count == "back at the top · 1 of 10"
        assert "Question 0" in text(app)
        await pilot.press("up")
        assert bar(app).count == "back at the end · 10 of 10"
        before = rows(app)
        await pilot.press(*"zz")
        await until(lambda: bar(app).count == "no match")
        assert rows(app) == before, "no match moves nothing"
        await pilot.press("up", "up", "pageup", "escape")
        assert not bar(app).display
        assert app.main.chat.prompt.has_focus
        assert app.main.chat.prompt.text == "draft"


async def test_closing_leaves_the_view_and_takes_the_colours(paths: Paths) -> None:
    async with chatting(paths, exchange(5)) as (app, pilot):
        transcript = app.main.chat.transcript
        transcript.focus()
        await find(app, pilot, "question 2")
        top = rows(app)[0]
        colours = [{segment.style for segment in transcript.render_line(y)} for y in range(30)]
        await pilot.press("escape")
        assert rows(app)[0] == top
        assert [{segment.style for segment in transcript.render_line(y)} for y in range(30)] != colours
        assert not transcript.following
        assert transcript.has_focus, "the focus goes back to where it was"
        await find(app, pilot, "needle")
        await pilot.press("ctrl+f", *"question 3")
        await until(lambda: bar(app).count == "1 of 1")
        assert bar(app).field.value == "question 3", "the same key selects what was typed"


async def test_escape_closes_it_from_the_prompt_too(paths: Paths) -> None:
    async with chatting(paths, exchange(2)) as (app, pilot):
        await find(app, pilot, "needle")
        app.main.chat.prompt.focus()
        await pilot.press("escape")
        assert not bar(app).display


async def test_what_is_typed_and_pasted_is_no_markup(paths: Paths) -> None:
    async with chatting(paths, exchange(2)) as (app, pilot):
        await find(app, pilot, "[/x]")
        assert bar(app).count == "2 of 2"
        await pilot.press("ctrl+f")
        bar(app).field.post_message(Paste("needle\x1b]0;t\x07 [/x]\nsecond line"))
        await until(lambda: bar(app).count == "no match")
        assert bar(app).field.value.startswith("needle␛]0;t␇ [/x]")


async def test_an_answer_that_streams_does_not_take_the_view_away(paths: Paths) -> None:
    entries = [*exchange(3), Entry(key="s", role="assistant", title="guide", text="Begun", streaming=True)]
    async with chatting(paths, entries) as (app, pilot):
        transcript = app.main.chat.transcript
        await find(app, pilot, "question 1")
        before = rows(app)[:-1]
        for n in range(60):
            transcript.stream("s", f" Question 1 again, {n}.\n\n")
        await until(lambda: bar(app).count == "1 of 61")
        assert rows(app)[:-1] == before
        assert rows(app)[-1].endswith("↓ more below · end follows")
        await pilot.press("up")
        await until(lambda: "again, 59." in text(app))


async def test_a_short_log_is_held_too(paths: Paths) -> None:
    entries = [Entry(key="s", role="assistant", title="guide", text="needle", streaming=True)]
    async with chatting(paths, entries) as (app, pilot):
        await find(app, pilot, "needle")
        for n in range(60):
            app.main.chat.transcript.stream("s", f"\n\nMore {n}.")
        await until(lambda: app.main.chat.transcript.entries[-1].text.endswith("More 59."))
        assert "needle" in text(app)


async def test_questions_are_jumped_to_from_prompt_and_chat(paths: Paths) -> None:
    async with chatting(paths, exchange(4)) as (app, pilot):
        seen: list[str] = []
        for key in ("ctrl+up", "ctrl+up", "ctrl+down"):
            await pilot.press(key)
            seen.append(rows(app)[1])
        app.main.chat.transcript.focus()
        await pilot.press("ctrl+up")
        seen.append(rows(app)[1])
        assert [row.split()[2] for row in seen] == ["3", "2", "3", "2"]
        await pilot.press("ctrl+down", "ctrl+down")
        assert app.main.chat.transcript.following


async def test_the_palette_finds(paths: Paths) -> None:
    async with chatting(paths, exchange(2)) as (app, pilot):
        await pilot.press("ctrl+p")
        await pilot.press(*"find in")
        await until(lambda: "Find in" in str([o.prompt for o in app.screen.query_one(OptionList).options]))
        await pilot.press("enter")
        await until(lambda: isinstance(app.focused, FindField))


async def test_two_thousand_messages_are_searched_while_keys_are_live(paths: Paths) -> None:
    await asyncio.to_thread(seed, paths.database, 2000, 200_000)
    app = program(paths)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: len(app.main.chat.transcript.entries) == 2000)
        try:
            await pilot.press("ctrl+f")
            said: dict[str, str] = {}

            def note(value: str) -> None:
                said[value] = bar(app).count

            app.watch(bar(app).field, "value", note, init=False)
            app.post_message(Key("h", "h"))
            await until(lambda: "so far" in bar(app).count)
            app.post_message(Key("o", "o"))  # a pilot's key would wait until all is quiet
            await until(lambda: " of " in bar(app).count)
            assert list(said) == ["h", "ho"]
            assert "so far" in said["ho"], "keys do not wait for the search"
            await pilot.press("up")
            assert app.main.chat.transcript.chat_log.opened < 60
            app.main.action_new_chat()
            assert not bar(app).display, "another conversation ends it"
        finally:
            await leave(app)
