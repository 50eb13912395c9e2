"""The picture in README.md: `python -m docs.screen` asks the built-in model and writes screen.svg."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from pathlib import Path

from llama_tui.paths import Paths
from llama_tui.settings.store import SettingsStore
from llama_tui.ui.app import LlamaTui

PICTURE = Path(__file__).with_name("screen.svg")
QUESTIONS = ("How do I switch models?", "What do the keys do?")


async def main() -> None:
    """Start in an empty home, ask, and keep what the screen shows."""
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(HOME=home, XDG_RUNTIME_DIR=home)
        settings = SettingsStore(Paths.default(), os.environ, {"temperature": 0.0, "theme": "night"})
        settings.load()
        app = LlamaTui(Paths.default(), settings)
        async with app.run_test(size=(132, 42)) as pilot, asyncio.timeout(60):
            while not (app.workbench.engine and app.workbench.engine.condition == "ready"):
                await asyncio.sleep(0.05)
            for number, question in enumerate(QUESTIONS, 1):
                app.main.chat.prompt.load(question)
                await pilot.press("enter")
                while len(app.workbench.conversation.turns) < 2 * number or app.workbench.session.answering:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.5)  # a readout of the memory comes once a second
            picture = app.export_screenshot(title="llama-tui")
            # Textual names a web font; whoever looks at the picture need not fetch one.
            PICTURE.write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))
            await app.main.finish()
            await app.workbench.close(unload=True)


if __name__ == "__main__":
    asyncio.run(main())
