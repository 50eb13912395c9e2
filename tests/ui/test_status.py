"""The line at the bottom, as wide as terminals are."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult

from llama_tui.ui.text import cells
from llama_tui.ui.widgets.status import Status, StatusLine

BUSY = Status(
    model="qwen/qwen3-coder-30b-a3b-instruct-ud-q4_k_xl",
    n_past=31_987,
    n_ctx=32_768,
    tokens_per_second=212.0,
    memory="18G loaded",
    doing="reading 31,987 of 32,027 tokens",
    escape="esc stops the answer",
    keys=("^o models", "^p commands", "f1 help"),
)


class Bare(App[None]):
    """The line alone."""

    CSS = "StatusLine { height: 1; }"

    def compose(self) -> ComposeResult:
        yield StatusLine()


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (220, [BUSY.model, "31,987 / 32,768", "212 tok/s", "18G loaded", BUSY.doing, "^o models", "f1 help"]),
        (120, ["…", "q4_k_xl", "31,987 / 32,768", "212 tok/s", "18G loaded", BUSY.doing]),
        (100, ["…", "k_xl", "31,987 / 32,768", BUSY.doing]),
        (80, ["…", "k_xl", BUSY.doing]),
        (60, [BUSY.doing]),
        (30, []),
    ],
)
async def test_what_esc_does_is_there_at_every_width(width: int, shown: list[str]) -> None:
    app = Bare()
    async with app.run_test(size=(width, 3)) as pilot:
        line = app.query_one(StatusLine)
        line.show(BUSY)
        await pilot.pause()
        text = str(line.render())
        assert BUSY.escape in text
        assert cells(text) <= width
        assert all(part in text for part in shown), text
