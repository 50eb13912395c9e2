"""Every screen in every theme: each character that is shown can be read (WCAG 2.2, AA; AAA where the theme says so)."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color

from llama_tui.background import luminance
from llama_tui.paths import Paths
from llama_tui.ui.app import LlamaTui
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


@pytest.mark.parametrize("theme", ["night", "dawn", "ember", "moss", "contrast", "sixteen"])
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
