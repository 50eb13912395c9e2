"""Every screen in every theme: each character that is shown can be read (WCAG 2.2, AA; AAA where the theme says so)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.color import Color
from textual.screen import Screen
from textual.selection import SELECT_ALL
from textual.widgets import OptionList
from textual.widgets._toast import Toast

from llama_tui.background import luminance
from llama_tui.errors import ContextOverflow, Cut, EngineDied, NoRoom, Offer
from llama_tui.paths import Paths
from llama_tui.ui.app import LlamaTui
from llama_tui.ui.entry import Entry
from llama_tui.ui.screens.context import ContextScreen
from llama_tui.ui.screens.room import RoomScreen
from llama_tui.ui.screens.switcher import ModelSwitcher
from llama_tui.ui.widgets.form import FieldList
from tests.ui.program import leave, program, until
from tests.ui.scripted import ScriptedEngine
from tests.ui.test_painting import TOKENS

DRAWN = set("─│╭╮╰╯├┤┬┴┼━┃▁▂▃▄▅▆▇█▉▊▋▌▍▎▏▐▔▕░▒▓ ")
"""Lines and bars, which are no text."""


def contrast(one: Color, other: Color) -> float:
    darker, lighter = sorted(luminance(*each.normalized) for each in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def unreadable(app: LlamaTui, least: float) -> set[str]:
    """The texts of the top screen with less contrast than this, and their colours. What an overlay covers
    is not in use."""
    found: set[str] = set()
    boxes = app.screen.query(".overlay, #--container") if app.screen is not app.main else ()
    part = boxes.first().region if boxes else app.screen.region
    for strip in app.screen._compositor.render_strips()[part.y : part.bottom]:
        for text, style, _ in strip.crop(part.x, part.right):
            if style is None or not set(text) - DRAWN or style.color is None or style.bgcolor is None:
                continue
            pen, ground = Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor)
            if (ratio := contrast(pen, ground)) < least:
                found.add(f"{text.strip()[:30]!r} {pen.hex} on {ground.hex}: {ratio:.2f}")
    return found


THEMES = pytest.mark.parametrize("theme", ["night", "dawn", "ember", "moss", "contrast", "sixteen"])

LOG = """\
Some *italic*, **bold**, ~~struck~~ model and `code` of a [link](https://example.org).

# A heading
#### A lower one

> A quotation
> of two lines

1. one
2. two

| a | b |
|---|---|
| c | d |

```python
@cached
def one(word: str) -> int:
    # a comment
    return len(f"{word}") + 1_000  # the model
```
"""


@THEMES
async def test_every_character_can_be_read(paths: Paths, guide_model: Path, models: Path, theme: str) -> None:
    whole = guide_model.read_bytes()
    (models / "half.gguf").write_bytes(whole[: len(whole) // 2])
    least = 7.0 if theme == "contrast" else 4.5
    with ScriptedEngine(paths, guide_model, TOKENS):
        app = program(paths, "guide", models=models, flags={"theme": theme})
        async with app.run_test(size=(120, 40)) as pilot:
            await until(lambda: app.workbench.engine and app.workbench.engine.state and app.theme == theme)
            await pilot.press("enter")
            await until(lambda: app.workbench.session.answering is None and app.workbench.conversation.path())
            await pilot.press("x", "backspace")
            poor: dict[str, set[str]] = {"start": unreadable(app, least)}
            for key in ("pageup", "f1", "ctrl+o", "f4", "f9", "f12", "ctrl+p"):
                await pilot.press(key)
                if key != "pageup":
                    await until(lambda: app.screen is not app.main)
                await pilot.pause()
                poor[key] = unreadable(app, least)
                await pilot.press("escape")
                await until(lambda: app.screen is app.main)
            app.main.query_one(FieldList).focus()
            await pilot.press("down", "-", "5")
            await pilot.pause()
            poor["a bad value"] = unreadable(app, least)
            assert not {place: texts for place, texts in poor.items() if texts}
            await leave(app)


@THEMES
async def test_what_lies_over_the_chat_and_what_is_marked_can_be_read(
    paths: Paths, guide_model: Path, models: Path, theme: str
) -> None:
    least = 7.0 if theme == "contrast" else 4.5
    with ScriptedEngine(paths, guide_model):
        app = program(paths, "guide", models=models, flags={"theme": theme})
        async with app.run_test(size=(120, 50), notifications=True) as pilot:
            await until(lambda: app.workbench.engine and app.workbench.engine.state and app.workbench.files)
            await until(lambda: app.theme == theme)
            poor: dict[str, set[str]] = {}
            chat = app.main.chat
            chat.suggestions.display = False
            chat.transcript.show(
                [
                    Entry(key="q", role="user", title="you", text="A question about a model?", siblings=(1, 2)),
                    Entry(key="t", role="assistant", title="guide", thought="thinking", streaming=True),
                    Entry(key="a", role="assistant", title="guide", text=LOG, footer="guide · stop"),
                    Entry(key="n", role="notice", text="2 messages left out"),
                ]
            )
            chat.tell(EngineDied("The engine was killed (SIGKILL)", "Memory ran out.", ("ggml: a model line",)))
            await pilot.pause()
            poor["log"] = unreadable(app, least)
            app.main.selections = {chat.transcript: SELECT_ALL}
            await pilot.pause()
            poor["selection"] = unreadable(app, least)
            app.main.clear_selection()
            await pilot.press("ctrl+f", *"model")
            await until(lambda: " of " in chat.find_bar.count)
            await pilot.press("up")
            await pilot.pause()
            poor["matches"] = unreadable(app, least)
            await pilot.press(*"xyz")
            await pilot.pause()
            poor["no match"] = unreadable(app, least)
            await pilot.press("escape")
            for severity in ("information", "warning", "error"):
                app.notify("What happened\nand what to do", title="A title", severity=severity, timeout=60)
            await until(lambda: len(app.screen.query(Toast)) == 3)
            await pilot.pause()
            poor["notices"] = unreadable(app, least)
            app.clear_notifications()

            row = next(row for row in app.main.side.rows() if row.file.builtin)
            file = msgspec.structs.replace(row.file, problem="is cut off", name="half")
            conditions = ("ready", "busy", "loading", "failed", "died", "unloaded")
            rows = [msgspec.structs.replace(row, condition=each, current=each == "busy") for each in conditions]
            rows += [msgspec.structs.replace(row, silent=True), msgspec.structs.replace(row, file=file)]
            offers = (Offer("n_ctx = 2,048", {"n_ctx": 2048}), Offer("unload guide", {}, (1,), ("guide",)))
            cuts = (Cut("drop_oldest", 6, 1_204), Cut("drop_middle", 4, 1_318))
            overflow = ContextOverflow("It is full", "Do this.", 1_934, 2048, reply_room=256, cuts=cuts)
            screens: list[Screen[Any]] = [
                RoomScreen(NoRoom("RAM has 1 GiB too little", (), offers), app.keys),
                RoomScreen(NoRoom("RAM has 1 GiB too little", (), ()), app.keys),
                ContextScreen(overflow, 4096, app.keys),
                ModelSwitcher(rows, lambda _file: None, app.keys),
            ]
            for number, screen in enumerate(screens):
                await app.push_screen(screen)
                await pilot.pause()
                poor[f"{type(screen).__name__} {number}"] = unreadable(app, least)
                if screen.query(OptionList):
                    await pilot.press("down")
                    await pilot.pause()
                    poor[f"{type(screen).__name__} {number}, below"] = unreadable(app, least)
                app.pop_screen()
            assert not {place: texts for place, texts in poor.items() if texts}
            await leave(app)
