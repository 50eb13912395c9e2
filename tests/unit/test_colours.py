"""True colour by the terminal's variables."""

from __future__ import annotations

import pytest

from llama_tui.colours import declare, has_true_colour


@pytest.mark.parametrize(
    ("environ", "has"),
    [
        ({"TERM": "alacritty"}, True),
        ({"TERM": "foot-extra"}, True),
        ({"TERM": "xterm-kitty", "COLORTERM": ""}, True),
        ({"TERM": "tmux-direct"}, True),
        ({"TERM": "xterm-256color", "COLORTERM": "24bit"}, True),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "foot", "COLORTERM": "256"}, False),
        ({"TERM": "linux"}, False),
        ({"TERM": "screen-256color", "COLORTERM": "truecolor", "STY": "1.pts"}, False),
        ({}, False),
    ],
)
def test_what_the_variables_say(environ: dict[str, str], has: bool) -> None:
    assert has_true_colour(environ) is has
    declare(environ)
    assert (environ.get("COLORTERM") in ("truecolor", "24bit")) is has
