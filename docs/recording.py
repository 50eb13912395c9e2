"""The moving picture in README.md: `python -m docs.recording` uses the program and writes recording.svg.

The installed command runs in a pty, in an empty home, with the built-in model. Each frame of the
picture is what a terminal shows; rows that are alike are stored once.
"""

from __future__ import annotations

import html
import itertools
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pyte.screens import Char

from tests.e2e.terminal import Terminal

PICTURE = Path(__file__).with_name("recording.svg")
COLUMNS, ROWS = 110, 30
_WIDTH, _HEIGHT, _BASELINE = 8.4, 18, 14
_FONT = "14px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_SAMPLE_SECONDS = 0.08
_KEY_SECONDS = 0.07
_LOOK_SECONDS = 1.6
_END_SECONDS = 3.0
_FOREGROUND, _BACKGROUND = "d7dde6", "10141a"
"""Of the theme night, for cells that have none of their own."""


class Frame(NamedTuple):
    """What was seen from a time on, in seconds from the first frame; a row is SVG without its place."""

    at: float
    rows: tuple[str, ...]


class Recorder:
    """Presses keys as a person does, and looks at the screen meanwhile."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.began = time.monotonic()
        self.frames: list[Frame] = []

    def look(self, seconds: float, until: str = "") -> None:
        """Keep every change for so long, or until a text has come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._terminal.read(_SAMPLE_SECONDS)
            rows = tuple(_drawn(row) for row in self._rows())
            if not self.frames or self.frames[-1].rows != rows:
                self.frames.append(Frame(time.monotonic() - self.began, rows))
            if until and until in self._terminal.text:
                return
        assert not until, f"{until!r} does not appear:\n{self._terminal.text}"

    def _rows(self) -> Iterator[list[Char]]:
        screen = self._terminal.screen
        for y in range(screen.lines):
            yield [screen.buffer[y][x] for x in range(screen.columns)]

    def type(self, text: str) -> None:
        """Letter by letter."""
        for letter in text:
            self._terminal.send(letter)
            self.look(_KEY_SECONDS)

    def press(self, keys: str, seconds: float = _LOOK_SECONDS) -> None:
        """One key, and a look at what it did."""
        self._terminal.send(keys)
        self.look(seconds)


def scene(recorder: Recorder) -> None:
    """What is shown: two questions, a search, the themes, the keys."""
    recorder.look(30, until="Ask the guide")
    recorder.look(1)
    recorder.type("How do I switch models?")
    recorder.press("\r", 0)
    recorder.look(30, until="tok/s")
    recorder.look(_LOOK_SECONDS)
    recorder.type("why does my model not fit?")
    recorder.press("\r", 3)
    recorder.press("\x06", 0.4)  # ctrl+f
    recorder.type("model")
    recorder.look(_LOOK_SECONDS)
    recorder.press("\r", 0.6)
    recorder.press("\x1b", 1)
    recorder.press("\x1b[20~", 1)  # f9
    for _ in range(3):
        recorder.press("\x1b[B", 0.8)
    recorder.press("\x1b", 0.8)
    recorder.press("\x1bOP", _END_SECONDS)  # f1


def _drawn(row: Sequence[Char]) -> str:
    """Backgrounds first, then runs of text of one style."""
    boxes: list[str] = []
    texts: list[str] = []
    for style, cells in itertools.groupby(enumerate(row), key=lambda cell: _style(cell[1])):
        run = list(cells)
        start, text = run[0][0], "".join(cell.data for _, cell in run)
        foreground, background, marks = style
        if background != _BACKGROUND:
            boxes.append(
                f'<rect x="{start * _WIDTH:g}" width="{len(run) * _WIDTH:g}" height="{_HEIGHT}" fill="#{background}"/>'
            )
        if shown := text.rstrip():
            indent = len(shown) - len(shown.lstrip())
            texts.append(
                f'<text x="{(start + indent) * _WIDTH:g}" y="{_BASELINE}" fill="#{foreground}"{marks} '
                f'textLength="{(len(shown) - indent) * _WIDTH:g}">{html.escape(shown.lstrip())}</text>'
            )
    return "".join(boxes + texts)


def _style(cell: Char) -> tuple[str, str, str]:
    foreground = _FOREGROUND if cell.fg == "default" else cell.fg
    background = _BACKGROUND if cell.bg == "default" else cell.bg
    if cell.reverse:
        foreground, background = background, foreground
    marks = ' font-weight="bold"' * cell.bold + ' font-style="italic"' * cell.italics
    return foreground, background, marks + ' text-decoration="underline"' * cell.underscore


def picture(frames: Sequence[Frame], seconds: float) -> str:
    """The frames side by side behind a window, which a style sheet moves on; it begins again at the end."""
    width, height = COLUMNS * _WIDTH, ROWS * _HEIGHT
    names = {row: f"r{number}" for number, row in enumerate(_unique(row for frame in frames for row in frame.rows))}
    rows = "".join(f'<g id="{name}">{row}</g>' for row, name in names.items())
    strip = "".join(
        f'<g transform="translate({number * width:g})">'
        + "".join(f'<use href="#{names[row]}" y="{y * _HEIGHT}"/>' for y, row in enumerate(frame.rows) if row)
        + "</g>"
        for number, frame in enumerate(frames)
    )
    began = frames[0].at
    steps = "".join(
        f"{100 * (frame.at - began) / seconds:.2f}%{{transform:translateX({-number * width:g}px)}}"
        for number, frame in enumerate(frames)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 -10 {width + 20:g} {height + 20}" '
        f'width="{width + 20:g}" height="{height + 20}">'
        "<title>llama-tui in a terminal: questions to the built-in model, a search, themes, keys</title>"
        f"<style>text{{font:{_FONT};white-space:pre}}"
        f"#s{{animation:s {seconds:.1f}s step-end infinite}}@keyframes s{{{steps}}}"
        "@media(prefers-reduced-motion){#s{animation:none}}</style>"
        f'<defs><clipPath id="w"><rect width="{width:g}" height="{height}"/></clipPath>{rows}</defs>'
        f'<rect x="-10" y="-10" width="{width + 20:g}" height="{height + 20}" rx="8" fill="#{_BACKGROUND}"/>'
        f'<g clip-path="url(#w)"><g id="s">{strip}</g></g></svg>\n'
    )


def _unique(rows: Iterable[str]) -> Iterable[str]:
    return (row for row in dict.fromkeys(rows) if row)


def main() -> None:
    """Record and write."""
    with tempfile.TemporaryDirectory(prefix="lt") as home:
        os.environ.update(HOME=home, XDG_RUNTIME_DIR=home, LLAMA_TUI_TEMPERATURE="0")
        with Terminal(columns=COLUMNS, rows=ROWS) as terminal:
            terminal.wait_for("type a message")
            recorder = Recorder(terminal)
            scene(recorder)
            seconds = time.monotonic() - recorder.began - recorder.frames[0].at
            terminal.send("\x1b")
            terminal.send("\x11")
            terminal.wait()
    PICTURE.write_text(picture(recorder.frames, seconds))


if __name__ == "__main__":
    main()
