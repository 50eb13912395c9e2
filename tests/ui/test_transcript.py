"""The transcript: what it shows, where it stays, what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from textual.geometry import Offset
from textual.selection import Selection

from llama_tui.ui.widgets.transcript import Entry
from tests.effort import counted
from tests.ui.sample import FOOTER, RICH, Sample, conversation, screen_lines, wait_for

LONG = "\n\n".join(f"Paragraph {index} with some words in it." for index in range(60))


def answer(key: str = "a", text: str = "", **changes: Any) -> Entry:
    return Entry(key=key, role="assistant", title="guide", text=text, **changes)


def shown(app: Sample) -> list[Any]:
    """Every row of the log with its styles, as a list of strips."""
    transcript = app.transcript
    return [transcript.render_line(y) for y in range(transcript.scrollable_content_region.height)]


async def test_the_end_is_in_view_and_every_role_is_there() -> None:
    app = Sample(conversation())
    async with app.run_test(size=(100, 80)) as pilot:
        await pilot.pause()
        lines = screen_lines(app)
        text = "\n".join(lines)
        assert "▌ you" in text
        assert any(line.startswith("  guide") and line.endswith("‹ 2/3 ›") for line in lines)
        assert FOOTER in text
        assert "  The oldest messages were left out" in text
        assert "▌ The engine died" in text
        assert text.index("Press F5 to load it again.") < text.index("out of memory"), "what to do comes first"


async def test_control_characters_are_pictures_and_markup_is_text() -> None:
    app = Sample(
        [
            Entry(key="u", role="user", title="[bold]you\x1b[2J", text="a\x1b]52;c;xx\x07b [/nothing] \u202ecba"),
            answer(text="x\x9b1mx &#8238;y [/] \x00", footer="[red]\x07"),
            Entry(key="e", role="error", text="\x1bc", hint="\x07", log=("\x1b[31m",)),
        ]
    )
    async with app.run_test(size=(80, 30)) as pilot:
        await pilot.pause()
        text = "\n".join(screen_lines(app))
        assert "[bold]you␛[2J" in text
        assert "a␛]52;c;xx␇b [/nothing] �cba" in text
        assert "x�1mx �y [/] ␀" in text
        assert not set(text) & {chr(code) for code in (*range(10), *range(11, 32), 0x7F, *range(0x80, 0xA0), 0x202E)}


async def test_streaming_shows_the_first_fragment_at_once_and_gathers_the_rest() -> None:
    app = Sample([answer(streaming=True)])
    async with app.run_test(size=(80, 20)) as pilot:
        await pilot.pause()
        assert "…" in "\n".join(screen_lines(app))
        app.transcript.stream("a", "Hello")
        assert "Hello" in "\n".join(screen_lines(app))
        for word in (" there,", " how", " **are", "** you?"):
            app.transcript.stream("a", word)
        assert "there" not in "\n".join(screen_lines(app))
        await wait_for(pilot, lambda: "Hello there, how are you?" in "\n".join(screen_lines(app)))


async def test_no_timer_is_left_when_nothing_is_pending() -> None:
    app = Sample([answer(streaming=True)])
    async with app.run_test(size=(80, 20)) as pilot:
        await pilot.pause()
        for _ in range(5):
            app.transcript.stream("a", "word ")
        await wait_for(pilot, lambda: app.transcript.entries[0].text == "word " * 5)
        assert not [timer for timer in app.transcript._timers if timer.name == "transcript flush"]


async def test_streamed_and_finished_is_the_same_as_shown_at_once() -> None:
    whole = Sample([answer(text=RICH, footer=FOOTER)])
    async with whole.run_test(size=(90, 60)) as pilot:
        await pilot.pause()
        wanted = shown(whole)
    grown = Sample([answer(streaming=True)])
    async with grown.run_test(size=(90, 60)) as pilot:
        await pilot.pause()
        for start in range(0, len(RICH), 7):
            grown.transcript.stream("a", RICH[start : start + 7])
            if start % 5 == 0:
                await pilot.pause()
        grown.transcript.update("a", streaming=False, footer=FOOTER)
        await pilot.pause()
        assert shown(grown) == wanted


async def test_a_thought_shows_its_end_and_then_one_line() -> None:
    app = Sample([answer(streaming=True)])
    async with app.run_test(size=(80, 30)) as pilot:
        await pilot.pause()
        for number in range(40):
            app.transcript.think("a", f"Thought {number}.\n")
        await wait_for(pilot, lambda: "Thought 39." in "\n".join(screen_lines(app)))
        lines = "\n".join(screen_lines(app))
        assert "Thought 35." in lines
        assert "Thought 5." not in lines
        app.transcript.update("a", thought_tokens=812)
        app.transcript.stream("a", "The answer.")
        await wait_for(pilot, lambda: "The answer." in "\n".join(screen_lines(app)))
        lines = "\n".join(screen_lines(app))
        assert "thought for 812 tokens" in lines
        assert "Thought 39." not in lines
        app.transcript.update("a", streaming=False, footer=FOOTER)
        assert "thought for 812 tokens" in "\n".join(screen_lines(app))


async def test_scrolling_up_holds_the_view_and_end_follows_again() -> None:
    app = Sample([answer(text=LONG, streaming=True)])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        transcript = app.transcript
        transcript.focus()
        assert transcript.following
        assert "Paragraph 59" in "\n".join(screen_lines(app))
        await pilot.press("pageup")
        assert not transcript.following
        before = screen_lines(app)[:-1]
        transcript.stream("a", "\n\nMore of it.\n\nAnd more." * 5)
        await wait_for(pilot, lambda: "more" in transcript.entries[0].text)
        assert screen_lines(app)[:-1] == before
        assert screen_lines(app)[-1].endswith("↓ more below · end follows")
        await pilot.press("end")
        assert transcript.following
        assert "And more." in "\n".join(screen_lines(app))
        assert "more below" not in "\n".join(screen_lines(app))


async def test_scrolling_back_to_the_bottom_follows_again() -> None:
    app = Sample([answer(text=LONG)])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.transcript.focus()
        bottom = screen_lines(app)
        await pilot.press("up", "up", "up")
        assert not app.transcript.following
        assert screen_lines(app) != bottom
        await pilot.press("down", "down")
        assert not app.transcript.following
        await pilot.press("down")
        assert app.transcript.following
        assert screen_lines(app) == bottom


async def test_scrolling_visits_every_row_once_in_both_directions() -> None:
    texts = [RICH, LONG, RICH, "short", LONG]
    app = Sample([answer(str(index), text) for index, text in enumerate(texts)])
    async with app.run_test(size=(70, 24)) as pilot:
        await pilot.pause()
        height = app.transcript.scrollable_content_region.height
        upwards = list(reversed(screen_lines(app)))
        while app.transcript.scroll_y > 0:
            app.transcript.action_scroll_up()
            upwards.append(screen_lines(app)[0])
        downwards = screen_lines(app)
        while not app.transcript.following:
            app.transcript.action_scroll_down()
            downwards.append(screen_lines(app)[-1])
        assert upwards[::-1] == downwards
        assert app.transcript.max_scroll_y + height == len(downwards)


async def test_home_and_the_wheel() -> None:
    app = Sample([answer(str(index), LONG) for index in range(5)])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.transcript.focus()
        await pilot.press("home")
        assert screen_lines(app)[0] == "  guide"
        assert screen_lines(app)[1] == "  Paragraph 0 with some words in it."
        await pilot._post_mouse_events([_wheel_down()], app.transcript, (5, 5))
        assert app.transcript.scroll_y == 3
        assert screen_lines(app)[0] == "  Paragraph 1 with some words in it."


def _wheel_down() -> Any:
    from textual.events import MouseScrollDown

    return MouseScrollDown


async def test_the_place_is_kept_when_what_is_above_changes() -> None:
    entries = [answer(str(index), LONG) for index in range(3)]
    app = Sample(entries)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.transcript.focus()
        await pilot.press("pageup")
        before = screen_lines(app)
        app.transcript.update("0", text="much shorter")
        assert screen_lines(app) == before
        app.transcript.drop("1")
        assert screen_lines(app) == before
        app.transcript.insert(answer("mark", "left out"), before="2")
        assert screen_lines(app) == before
        assert [entry.key for entry in app.transcript.entries] == ["0", "mark", "2"]
        await pilot.resize_terminal(60, 24)
        await pilot.pause()
        assert before[0] in screen_lines(app)[:3]


async def test_update_append_and_drop() -> None:
    app = Sample([answer("a", "one"), answer("b", "two")])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        transcript = app.transcript
        transcript.append(answer("c", "three"))
        transcript.update("b", footer="below two", siblings=(1, 2))
        transcript.drop("a")
        transcript.drop("nobody")
        transcript.update("nobody", text="x")
        transcript.stream("nobody", "x")
        text = "\n".join(screen_lines(app))
        assert "one" not in text
        assert text.index("two") < text.index("below two") < text.index("three")
        assert "‹ 1/2 ›" in text
        assert [entry.key for entry in transcript.entries] == ["b", "c"]
        transcript.show([])
        assert not "".join(screen_lines(app))


async def test_an_answer_of_many_screens_is_told_again_from_its_beginning() -> None:
    app = Sample([Entry(key="u", role="user", title="you", text="Go on"), answer(text=LONG, streaming=True)])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        whole = shown(app)
        app.transcript.update("a", text="")
        assert screen_lines(app)[0] == "▌ you"
        app.transcript.stream("a", LONG)
        await wait_for(pilot, lambda: shown(app) == whole)


async def test_the_last_of_the_log_goes_while_another_answer_grows() -> None:
    app = Sample([answer("a", "word", streaming=True), answer("b", LONG)])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.transcript.drop("b")
        assert "word" in "\n".join(screen_lines(app))


async def test_a_theme_changes_colours_and_nothing_else() -> None:
    app = Sample(conversation())
    async with app.run_test(size=(90, 40)) as pilot:
        await pilot.pause()
        lines, strips = screen_lines(app), shown(app)
        app.theme = "dawn"
        await wait_for(pilot, lambda: shown(app) != strips)
        assert screen_lines(app) == lines
        app.theme = "night"
        await wait_for(pilot, lambda: shown(app) == strips)


async def test_selected_text_is_copied_without_margins_and_wraps() -> None:
    app = Sample(
        [
            Entry(key="u", role="user", title="you", text="a question"),
            answer(text="one two three four five six seven eight nine ten\n\n- item"),
        ]
    )
    async with app.run_test(size=(30, 24)) as pilot:
        await pilot.pause()
        everything = app.transcript.get_selection(Selection(None, None))
        assert everything is not None
        assert everything[0].startswith(
            "you\na question\n\nguide\none two three four five six seven eight nine ten\n\n• item"
        )
        part = app.transcript.get_selection(Selection(Offset(4, 1), Offset(7, 4)))
        assert part is not None
        assert part[0] == "question\n\nguide\none t"


async def test_dragging_with_the_mouse_selects() -> None:
    app = Sample([Entry(key="u", role="user", title="you", text="a question to copy")])
    async with app.run_test(size=(60, 12)) as pilot:
        await pilot.pause()
        await pilot.mouse_down(app.transcript, offset=(5, 1))
        await pilot.hover(app.transcript, offset=(12, 1))
        await pilot.mouse_up(app.transcript, offset=(12, 1))
        assert app.screen.get_selected_text() == "question"


@pytest.mark.parametrize("size", [(20, 8), (61, 19), (200, 60)])
async def test_any_size(size: tuple[int, int]) -> None:
    app = Sample(conversation())
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        app.transcript.focus()
        width = app.transcript.scrollable_content_region.width
        for key in ("home", "pagedown", "end", "pageup", "home"):
            await pilot.press(key)
            assert all(strip.cell_length == width for strip in shown(app))


async def test_a_long_conversation_opens_without_reading_it_all() -> None:
    entries = [answer(str(index), RICH * 2) for index in range(400)]
    app = Sample()
    async with app.run_test(size=(120, 40)) as pilot:
        app.transcript.show([answer(text=RICH)])
        await pilot.pause()
        with counted() as effort:
            app.transcript.show(entries)
            await pilot.pause()
        assert effort.calls < 200_000
        assert app.transcript._log.opened < 10


async def test_the_end_of_a_long_answer_costs_what_its_beginning_does() -> None:
    app = Sample()
    async with app.run_test(size=(120, 40)) as pilot:
        costs: list[int] = []
        for length in (3, 60):
            app.transcript.show([answer(text=RICH * length, streaming=True)])
            await pilot.pause()

            def flush() -> None:
                app.transcript._fragments.add("a", "some more words ")
                app.transcript._flush()

            flush()  # the first looks at the whole text, once
            with counted() as effort:
                for _ in range(40):
                    flush()
            costs.append(effort.calls)
        assert costs[1] < 2 * costs[0]


@pytest.mark.parametrize("theme", ["night", "dawn"])
@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
def test_snapshot(snap_compare: Any, theme: str, size: tuple[int, int]) -> None:
    assert snap_compare(Sample(conversation(), theme), terminal_size=size, press=["pageup"])
