"""The import contracts hold, and each of them can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VIOLATIONS = {
    "imports point down": ("errors.py", "import llama_tui.paths"),
    "only ui imports textual": ("chat/store.py", "import textual"),
    "only the worker imports llama_cpp": ("engine/pool.py", "import llama_cpp"),
    "nothing imports the worker": ("engine/pool.py", "import llama_tui.worker.text"),
    "the worker shares the wire, the table and the errors alone": ("worker/text.py", "import llama_tui.paths"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of the project's own pyproject.toml on a copy of the package."""
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "tui")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its configuration, to be changed."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "tui", tmp_path / "tui", ignore=shutil.ignore_patterns("*.gguf", "__pycache__"))
    return tmp_path


def test_every_contract_holds(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert f"{len(VIOLATIONS)} kept, 0 broken" in done.stdout


def test_every_contract_can_fail(copy: Path) -> None:
    for file, statement in VIOLATIONS.values():
        path = copy / "tui" / "llama_tui" / file
        text = path.read_text()
        if statement not in text:
            first = "from __future__ import annotations\n"
            path.write_text(text.replace(first, f"{first}{statement}\n"))
    done = lint(copy)
    assert done.returncode != 0
    for name in VIOLATIONS:
        assert f"{name} BROKEN" in done.stdout, done.stdout
