"""What the tests of the screens share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from textual.screen import Screen

from llama_tui.ui.app import LlamaTui
from tests.ui.painted import Watch


@pytest.fixture
def models(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with two models, one of them named to be parsed as markup."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(tiny_model, folder / "tiny.gguf")
    shutil.copy(tiny_model, folder / "odd [bold] [.gguf")
    return folder


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Sees every frame of the program."""
    watch = Watch()

    def display(app: LlamaTui, _screen: Screen[Any], renderable: Any) -> None:
        watch.display(app, renderable)

    monkeypatch.setattr(LlamaTui, "_display", display)
    return watch
