"""What the tests of the screens share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def models(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with two models, one of them named to be parsed as markup."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(tiny_model, folder / "tiny.gguf")
    shutil.copy(tiny_model, folder / "odd [bold] [.gguf")
    return folder
