"""What the first frame needs: nothing heavy is imported before it, whatever comes to be imported by it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from llama_tui.paths import Paths
from tests.e2e.terminal import Terminal

AT_THE_FIRST_FRAME = """
import json, os, sys
from llama_tui import cli
cli.import_asyncio()
from llama_tui.ui.app import LlamaTui

show = LlamaTui._display

def first(app, screen, frame):
    show(app, screen, frame)
    if screen is app.main:
        with open(sys.argv.pop(), "w") as file:
            json.dump(sorted(sys.modules), file)
        LlamaTui._display = show

LlamaTui._display = first
cli.main([])
"""

PACKAGES = {"llama_tui", "msgspec", "platformdirs", "rich", "textual", "typing_extensions"}
"""What is not of Python's own library. `_distutils_hack` is of some virtual environments, not of ours."""

HEAVY = {"email", "hashlib", "http", "importlib.metadata", "multiprocessing", "sqlite3", "ssl", "unittest", "xml"}
"""Of Python's own library, what costs the most and has come in before."""

OURS = {
    "background": "", "cli": "", "colours": "", "control": "", "crash": "", "errors": "", "paths": "",
    "chat": "events", "commands": "flags output", "engine": "devices limits", "library": "units",
    "settings": "document items layers params store values",
}  # fmt: skip
"""Modules of this package but those of `ui`; the screens other than the main one come when they are opened."""


def test_the_imports_of_the_first_frame(paths: Paths, tmp_path: Path) -> None:
    script, found = tmp_path / "start.py", tmp_path / "modules.json"
    script.write_text(AT_THE_FIRST_FRAME)
    with Terminal(command=(sys.executable, str(script), str(found))) as terminal:
        terminal.wait_for("Ask the guide")
        terminal.send("\x11")
        assert terminal.wait() == 0
    imported = set(json.loads(found.read_text()))

    foreign = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"__main__", "_distutils_hack"}
    assert foreign <= PACKAGES, (
        f"a package more before the first frame, import it where it is used: {foreign - PACKAGES}"
    )
    assert "textual" in foreign
    assert not imported & HEAVY, f"before the first frame: {imported & HEAVY}"

    known = {"llama_tui", "llama_tui.ui.screens", "llama_tui.ui.screens.main"}
    for folder, names in OURS.items():
        known |= {f"llama_tui.{folder}", *(f"llama_tui.{folder}.{name}" for name in names.split())}
    ours = {name for name in imported if name.partition(".")[0] == "llama_tui"}
    shown = {name for name in ours if name.startswith("llama_tui.ui") and not name.startswith("llama_tui.ui.screens.")}
    assert ours <= known | shown, f"a module of ours more before the first frame: {sorted(ours - known - shown)}"
