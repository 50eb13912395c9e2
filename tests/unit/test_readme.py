"""README.md says what the program does now."""

from __future__ import annotations

from tests import readme


def test_keys_parameters_and_figures_are_current() -> None:
    assert readme.README.read_text() == readme.rendered(), "run `python -m tests.readme`"


def test_it_gives_exactly_one_command_to_run_and_one_to_test() -> None:
    commands = [line.strip() for line in readme.README.read_text().splitlines() if ".venv/bin/uv run" in line]
    assert len(commands) == 2
    assert commands[0].endswith("uv run --no-dev llama-tui")
    assert commands[1].endswith("uv run pytest")
