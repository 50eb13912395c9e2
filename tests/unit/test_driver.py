"""The inside of Textual that painting by difference stands on, and what the driver makes of frames."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping

import pytest
import textual
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual._parser import Parser
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Region
from textual.strip import Strip

from llama_tui.paths import Paths
from llama_tui.ui.diff import Abilities
from llama_tui.ui.driver import PaintedApp, Painting, TerminalDriver, abilities
from llama_tui.ui.input import AskingDriver
from llama_tui.ui.paint import Painter
from tests.ui.program import program

INSIDE = {
    App._display: "4b78dff6669a",
    App._begin_update: "74b869c65286",
    App._end_update: "1ecb7ab2a36d",
    LayoutUpdate.render_segments: "ff329c722506",
    ChopsUpdate.render_segments: "4c1cdb567e0b",
    Strip.render: "2ba7a4913a72",
    Strip.render_style: "749d890bb5c4",
    Strip.render_ansi: "08043dedb90d",
    LinuxDriver.write: "b78a34033db5",
    LinuxDriver.start_application_mode: "7c41f5ba11a8",
    LinuxDriver.stop_application_mode: "9a7e99c8d4bd",
    LinuxDriver.close: "c32293a24c1a",
    LinuxDriver.process_message: "685f4c56ecfc",
    LinuxDriver.disable_input: "6154c5a7c174",
    LinuxDriver.run_input_thread: "d796af6d69db",
    Parser.feed: "390106cde019",
    Parser.tick: "44606084ad3b",
}


def test_textual_writes_frames_as_it_did() -> None:
    changed = [
        method.__qualname__
        for method, known in INSIDE.items()
        if hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:12] != known
    ]
    assert not changed, (
        f"Textual {textual.__version__} is not what ui/driver.py and ui/input.py were written for, 8.2.8: {changed}. "
        "Read how it writes a frame now: everything between the start and the end of App._display must go through "
        "Driver.write, as cursor moves, SGR, hyperlinks and text alone. Then note the new sources here."
    )


def test_a_frame_of_textual_is_understood_whole() -> None:
    from rich.console import Console

    style = Style(color="red", bgcolor="#123456", bold=True, link="https://example.org")
    update = LayoutUpdate([[Strip([Segment("ab", style), Segment("c")])]] * 2, Region(0, 0, 3, 2))
    painter = Painter(3, 2, Abilities())
    assert painter.draw(
        "\x1b[?2026h" + update.render_segments(Console(color_system="truecolor")) + "\x1b[1;1H\x1b[?2026l"
    )
    assert "ab" in painter.difference()


@pytest.mark.parametrize("by_difference", [True, False])
def test_full_painting_is_textuals_own(by_difference: bool) -> None:
    app = PaintedApp[None](Painting(by_difference=by_difference))
    assert issubclass(app.driver_class, TerminalDriver) == by_difference
    assert AskingDriver.write is LinuxDriver.write


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {}])
def test_of_an_unknown_terminal_nothing_is_expected(environ: Mapping[str, str]) -> None:
    assert abilities(environ) == Abilities(erases=False, scrolls=False)


def test_screen_erases_in_its_own_background_and_tmux_does_not() -> None:
    assert abilities({"TERM": "xterm-256color"}) == Abilities()
    assert abilities({"TERM": "screen-256color", "TMUX": "/tmp/tmux,1,0"}) == Abilities()
    for environ in ({"TERM": "screen"}, {"TERM": "tmux-256color"}, {"TERM": "xterm", "STY": "1.pts"}):
        assert abilities(environ) == Abilities(erases=False)


@pytest.mark.parametrize("variable", ["SSH_CONNECTION", "SSH_TTY"])
def test_nothing_is_animated_over_ssh(paths: Paths, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    assert program(paths).animation_level != "none"
    monkeypatch.setenv(variable, "somewhere")
    assert program(paths).animation_level == "none"
