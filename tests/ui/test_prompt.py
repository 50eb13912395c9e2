"""The prompt: what the keys do, what is recalled, what is pasted."""

from __future__ import annotations

import pytest
from textual import events
from textual.widget import Widget

from llama_tui.ui.widgets.prompt import PASTE_SHOWN, PLACEHOLDER, Prompt
from llama_tui.ui.widgets.transcript import Transcript
from tests.effort import counted
from tests.ui.sample import Sample


async def test_enter_sends_and_empties_the_editor() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*"hello", "enter")
        await pilot.pause()
        assert app.submitted == ["hello"]
        assert app.prompt.text == ""


@pytest.mark.parametrize("key", ["ctrl+j", "shift+enter", "alt+enter"])
async def test_newline_keys_do_not_send(key: str) -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("a", key, "b")
        assert app.prompt.text == "a\nb"
        assert not app.submitted
        await pilot.press("enter")
        await pilot.pause()
        assert app.submitted == ["a\nb"]


async def test_blank_text_is_not_sent() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("space", "ctrl+j", "space", "enter")
        await pilot.pause()
        assert not app.submitted
        assert app.prompt.text == " \n "


async def test_tab_leaves() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("a", "tab")
        assert app.prompt.text == "a"
        assert app.focused is app.transcript


async def test_up_and_down_recall_and_keep_the_draft() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        app.prompt.set_history(["first", "second\nwith two lines"])
        await pilot.press(*"draft", "up")
        assert app.prompt.text == "second\nwith two lines"
        await pilot.press("up")
        assert app.prompt.text == "first"
        await pilot.press("up")
        assert app.prompt.text == "first"
        await pilot.press("down")
        assert app.prompt.text == "second\nwith two lines"
        await pilot.press("down")
        assert app.prompt.text == "draft"
        await pilot.press("down", "up", "!", "down", "up")
        assert app.prompt.text == "second!\nwith two lines"


async def test_up_and_down_move_inside_a_text_first() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        app.prompt.set_history(["earlier"])
        await pilot.press("a", "ctrl+j", "b", "up")
        assert app.prompt.text == "a\nb"
        assert app.prompt.cursor_location == (0, 1)
        await pilot.press("up")
        assert app.prompt.text == "earlier"


async def test_what_was_sent_can_be_recalled_and_loaded_again() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*"one", "enter", "up")
        assert app.prompt.text == "one"
        app.prompt.load("put back")
        assert app.prompt.message == "put back"
        await pilot.press("!", "enter")
        await pilot.pause()
        assert app.submitted == ["one", "put back!"]


async def test_pages_and_the_end_go_to_the_transcript() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("pageup", "pagedown", "ctrl+end")
        await pilot.pause()
        assert app.asked == ["page -1", "page 1", "follow"]


async def test_a_paste_is_one_message() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("a")
        app.prompt.post_message(events.Paste("one\r\ntwo\rthree\x1b[31m\n"))
        await pilot.pause()
        assert app.prompt.text == "aone\ntwo\nthree␛[31m\n"
        await pilot.press("enter")
        await pilot.pause()
        assert app.submitted == ["aone\ntwo\nthree␛[31m"]


async def test_a_long_paste_is_a_note_until_it_is_sent() -> None:
    pasted = "line of a log file\n" * 60_000
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        with counted() as without:
            await pilot.press(*" what is it")
        app.prompt.text = ""
        app.prompt.post_message(events.Paste(pasted))
        await pilot.pause()
        assert app.prompt.text == "[text 1: 60,001 lines]"
        with counted() as effort:
            await pilot.press(*" what is it")
        assert effort.calls < 2 * without.calls
        await pilot.press("enter")
        await pilot.pause()
        assert app.submitted == [pasted + " what is it"]


async def test_what_comes_back_stands_before_what_was_typed_since() -> None:
    sent, since = "line of a log file\n" * 2_000 + "x", "LINE OF A LOG FILE\n" * 2_000 + "y"
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*"so ")
        for text in (since, since.lower()):  # notes of the same size
            app.prompt.post_message(events.Paste(text))
        await pilot.pause()
        app.prompt.take_back(sent)
        assert app.prompt.text == "[text 1: 2,001 lines]\nso [text 2: 2,001 lines][text 3: 2,001 lines]"
        assert app.prompt.message == f"{sent}\nso {since}{since.lower()}"
        app.prompt.load("typed")
        app.prompt.take_back("short")
        assert app.prompt.text == "short\ntyped"


async def test_the_note_of_a_long_paste_is_deleted_as_a_whole() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("a")
        app.prompt.post_message(events.Paste("x" * PASTE_SHOWN))
        await pilot.pause()
        assert app.prompt.text == "a[text 1: 20,000 characters]"
        await pilot.press("backspace")
        assert app.prompt.text == "a"


async def test_it_grows_to_eight_lines() -> None:
    app = Sample()
    async with app.run_test(size=(80, 40)) as pilot:
        await pilot.pause()
        assert app.prompt.outer_size.height == 3
        await pilot.press("ctrl+j", "ctrl+j")
        await pilot.pause()
        assert app.prompt.outer_size.height == 5
        await pilot.press(*["ctrl+j"] * 12)
        await pilot.pause()
        assert app.prompt.outer_size.height == 10
        await pilot.press("x", "enter")
        await pilot.pause()
        assert app.prompt.outer_size.height == 3


async def test_the_placeholder_says_how() -> None:
    app = Sample()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert PLACEHOLDER[1:] in app.export_screenshot().replace("&#160;", " ")  # the cursor is on the first letter
        await pilot.press("x")
        assert PLACEHOLDER[1:] not in app.export_screenshot().replace("&#160;", " ")


@pytest.mark.parametrize("widget", [Prompt, Transcript])
def test_every_binding_has_an_id_of_its_own(widget: type[Widget]) -> None:
    made = widget()
    found = [binding for bindings in made._bindings.key_to_bindings.values() for binding in bindings]
    ids = {binding.action: binding.id for binding in found}
    assert all(binding.id for binding in found)
    assert len(set(ids.values())) == len(ids)
