"""What the package imports is what it asks for when it is installed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """The top-level modules that the package imports, wherever it does so."""
    found: set[str] = set()
    for file in (ROOT / "tui" / "llama_tui").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"llama_tui"}


def test_every_import_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {normal(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in project["dependencies"]}
    distributions = packages_distributions()
    modules = imported()
    assert {"textual", "msgspec"} <= modules
    for module in modules:
        names = {normal(name) for name in distributions.get(module, [])}
        assert names & wanted, f"{module} comes from {names or 'nowhere'}, which the package does not ask for"


def test_an_interactive_shell_offers_the_clients() -> None:
    import llama_tui

    assert {"Client", "SyncClient"} <= set(dir(llama_tui))
