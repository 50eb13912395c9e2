"""The tests' own terminal, and the painter through it, against two others: pyte and, where it is
installed, tmux."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest
from rich.cells import cell_len

from llama_tui.ui.diff import Abilities
from tests.frames import EASY, FrameMaker
from tests.pair import Pair
from tests.vt import Cell, VirtualTerminal

WIDTH, HEIGHT = 40, 12
UNWRAPPED = "\x1b[?7l"

# What pyte 0.8.2 gets right: regions, erasing, colours, these attributes. It has no dim, no overline and no hyperlinks,
# leaves the other half of a wide character that is overwritten, and drops what follows a zero-width joiner: which is
# why the proof is not left to it.
NARROW = tuple(word for word in EASY if cell_len(word) == len(word))
PYTE_MARKS = {"1": "bold", "3": "italics", "4": "underscore", "7": "reverse", "9": "strikethrough"}


def streams(seed: int, words: tuple[str, ...], *, whole: bool = False) -> tuple[str, str, Pair]:
    """All that Textual wrote, all that was written by difference, and what both should show."""
    rng = random.Random(seed)
    pair = Pair(WIDTH, HEIGHT, Abilities())
    textual, ours = "", ""
    for frame in FrameMaker(rng, WIDTH, HEIGHT, words, whole=whole).frames(25):
        textual += frame
        ours += pair.frame(frame)
    return textual, ours, pair


@pytest.mark.parametrize("seed", range(4))
def test_pyte_shows_what_this_terminal_shows(seed: int) -> None:
    textual, ours, pair = streams(seed, NARROW)
    for stream in (textual, ours):
        screen = pyte.Screen(WIDTH, HEIGHT)
        pyte.Stream(screen).feed(stream)
        for y, row in enumerate(pair.textual.rows):
            cells = [screen.buffer[y][x] for x in range(WIDTH)]
            assert [cell.data for cell in cells] == [cell.text for cell in row]
            for found, cell in zip(cells, row, strict=True):
                if cell.text.strip():
                    names = {PYTE_MARKS[mark] for mark in cell.style[0] if mark in PYTE_MARKS}
                    assert {name for name in PYTE_MARKS.values() if getattr(found, name)} == names


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[list[str]]:
    """A server of its own, the whole of whose windows is the program's."""
    command = shutil.which("tmux")
    if command is None:
        pytest.skip("tmux is not installed")
    config = tmp_path / "tmux.conf"
    config.write_text("set -g status off\n")
    server = [command, "-u", "-S", str(tmp_path / "tmux"), "-f", str(config)]
    yield server
    subprocess.run([*server, "kill-server"], check=False, capture_output=True)


Seen = tuple[str, frozenset[str], str, str]


def shown_by(tmux: list[str], stream: str, file: Path) -> list[list[Seen]]:
    """The cells that tmux shows after a stream."""
    file.write_text(f"{UNWRAPPED}{stream}\x1b]2;all drawn\x07")
    shell = f"stty raw; cat {file}; exec sleep 60"
    subprocess.run([*tmux, "new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), shell], check=True)
    deadline = time.monotonic() + 20
    title = [*tmux, "display-message", "-p", "#{pane_title}"]
    while subprocess.run(title, check=True, capture_output=True, text=True).stdout.strip() != "all drawn":
        assert time.monotonic() < deadline, "tmux does not draw"
        time.sleep(0.02)
    captured = subprocess.run([*tmux, "capture-pane", "-peN"], check=True, capture_output=True, text=True).stdout
    subprocess.run([*tmux, "kill-session"], check=True)
    terminal = VirtualTerminal(WIDTH, HEIGHT)
    for y, line in enumerate(captured.replace("4:2m", "21m").split("\n")[:HEIGHT]):
        terminal.feed(f"\x1b[{y + 1};1H{line}")
    return seen_in_tmux(terminal)


def seen_in_tmux(terminal: VirtualTerminal) -> list[list[Seen]]:
    """Cells without what tmux has not: frames, hyperlinks, two underlines at once."""
    rows: list[list[Seen]] = []
    for row in terminal.rows:
        rows.append([])
        for text, (marks, fg, bg, _link) in ((cell.text, cell.style) for cell in row):
            kept = marks - {"51"} - ({"4"} if "21" in marks else set())
            cell = Cell(text, (kept, fg, bg, "")).seen
            rows[-1].append((cell.text, *cell.style[:3]))
    return rows


def test_tmux_shows_the_same_by_difference(tmux: list[str], tmp_path: Path) -> None:
    for seed, words, whole in ((0, NARROW, False), (1, NARROW, False), (2, EASY, True), (3, EASY, True)):
        textual, ours, pair = streams(seed, words, whole=whole)
        by_textual = shown_by(tmux, textual, tmp_path / "frames")
        assert by_textual == shown_by(tmux, ours, tmp_path / "frames")
        assert by_textual == seen_in_tmux(pair.textual)
