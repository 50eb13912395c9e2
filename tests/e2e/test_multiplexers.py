"""The program in a terminal multiplexer: painted by difference, its window shows what Textual paints."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.terminal import COMMAND, Terminal
from tests.e2e.tmux import TMUX, Tmux
from tests.vt import Cell

SCREEN = shutil.which("screen")
OURS, TEXTUALS = "diff", "full"
EMPTY = "type a message"
ARGUMENTS = ("guide", "--temperature", "0", "--theme", "auto")

_FIGURE = re.compile(r"[\d.,:]+ ?[KMGh]?\b|[█░]+")
_MOVES = ("tok/s", " loaded", "RAM ", "GPU", "private", "mapped", "weights", "compute", "■", "stays", "●", "guide")
"""What stands in a row with figures of the machine or of the clock: those of two programs are not the same."""


def same(ours: list[list[Cell]], textuals: list[list[Cell]], cursor: tuple[int, int]) -> str:
    """What differs, in words. Of a row with figures that move, all but the figures is compared; the
    cursor blinks, so that the pen of its cell says nothing."""
    if (len(ours), len(ours[0])) != (len(textuals), len(textuals[0])):
        return f"{len(ours[0])}x{len(ours)} and {len(textuals[0])}x{len(textuals)} cells"
    for y, rows in enumerate(zip(ours, textuals, strict=True)):
        at = cursor[0] if y == cursor[1] else len(rows[0])
        one, other = ([*row[:at], *(Cell(cell.text) for cell in row[at : at + 1]), *row[at + 1 :]] for row in rows)
        if one == other or (_is_moving(one) and _is_moving(other) and _at_rest(one) == _at_rest(other)):
            continue
        x = next(at for at in range(len(one)) if one[at] != other[at])
        return f"row {y} from column {x}:\n{_text(one)}\n{_text(other)}\n{one[x]}\n{other[x]}"
    return ""


def _text(row: list[Cell]) -> str:
    return "".join(cell.text for cell in row)


def _is_moving(row: list[Cell]) -> bool:
    return any(word in _text(row) for word in _MOVES)


def _at_rest(row: list[Cell]) -> list[tuple[object, str]]:
    """Runs of one pen without figures and the blanks beside them."""
    runs: list[tuple[object, str]] = []
    for cell in row:
        style = cell.style if cell.text != " " else (frozenset(), "", cell.style[2], "")
        if runs and (cell.text == " " or runs[-1][0] == style):
            runs[-1] = (runs[-1][0], runs[-1][1] + cell.text)
        else:
            runs.append((style, cell.text))
    told = [(style, " ".join(_FIGURE.sub("", text).split())) for style, text in runs]
    return [run for run in told if run[1]]


@pytest.fixture
def environs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict[str, str]]]:
    """What each of two programs finds in its environment: homes and engines of their own. What a server is
    started in is what its windows have."""
    for name in ("COLORTERM", "TMUX", "TMUX_PANE", "STY"):
        monkeypatch.delenv(name, raising=False)
    runtime = Path(os.environ["XDG_RUNTIME_DIR"])
    made: dict[str, dict[str, str]] = {}
    for name in (OURS, TEXTUALS):
        (home / name).mkdir()
        (runtime / name).mkdir(mode=0o700)
        made[name] = {"HOME": str(home / name), "XDG_RUNTIME_DIR": str(runtime / name)}
    yield made
    left = [process for process in psutil.process_iter(["cmdline"]) if str(runtime) in _words(process)]
    for process in left:
        process.kill()
    assert not left, "a clean quit ends the engines"


def _words(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or [])


def agree(shown: Callable[[], str], seconds: float = 20) -> None:
    """Until nothing differs: the last frames may be on their way."""
    deadline = time.monotonic() + seconds
    while told := shown():
        assert time.monotonic() < deadline, told
        time.sleep(0.1)


class Both:
    """Two programs that get the same keys."""

    def __init__(self, tmux: Tmux) -> None:
        self.tmux = tmux

    def each(self, act: Callable[[str], object], wanted: str | Callable[[str], bool]) -> None:
        """Do something to both, see that both show a text, and that they show the same."""
        for session in (OURS, TEXTUALS):
            act(session)
            self.tmux.wait_for(session, wanted)
        self.agree()

    def agree(self) -> None:
        def told() -> str:
            cursors = [self.tmux.cursor(session) for session in (OURS, TEXTUALS)]
            if cursors[0] != cursors[1]:
                return f"the cursors stand at {cursors}"
            return same(self.tmux.cells(OURS), self.tmux.cells(TEXTUALS), cursors[0])

        agree(told)


@pytest.mark.skipif(TMUX is None, reason="tmux is not installed")
@pytest.mark.parametrize(
    ("name", "sizes", "colours"),
    [
        ("tmux-256color", ((120, 40), (104, 30)), {"COLORTERM": "truecolor"}),
        ("screen-256color", ((80, 24), (96, 30)), {}),
        ("screen", ((120, 40), (104, 30)), {}),
    ],
)
def test_inside_tmux_the_window_shows_what_textual_paints(
    tmp_path: Path,
    environs: dict[str, dict[str, str]],
    name: str,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    colours: dict[str, str],
) -> None:
    assert COMMAND
    size, other = sizes
    with Tmux(tmp_path, name) as tmux:
        both = Both(tmux)
        for session in (OURS, TEXTUALS):
            words = (COMMAND, *ARGUMENTS, "--paint", session)
            tmux.start(session, *size, environs[session] | colours, *words)
            tmux.wait_for(session, lambda text: "Ask the guide" in text and "/ 2,048" in text)
        both.agree()
        # Before there is an answer: beside an overlay a part of its figures could not be told from other text.
        both.each(lambda session: tmux.press(session, "F1"), "Everywhere")
        both.each(lambda session: tmux.press(session, "PageDown"), lambda text: "Everywhere" not in text)
        both.each(lambda session: tmux.resize(session, *other), "changes them")
        both.each(lambda session: tmux.press(session, "Escape"), "type a message")
        both.each(lambda session: tmux.resize(session, *size), "Ask the guide")
        # The figures below an answer are to stand in one line, however long they are.
        pane, title = ("F3", "Parameters") if size[0] >= 100 else ("F2", "Models")
        both.each(lambda session: tmux.press(session, pane), lambda text: title not in text)
        both.each(lambda session: tmux.press(session, "Enter"), "tok/s · first")
        both.each(lambda session: tmux.type(session, "How do I set 温度 e\u0301 \U0001f642?"), "set 温度")
        both.each(lambda session: tmux.press(session, "Enter"), lambda text: text.count("tok/s · first") == 2)
        both.each(lambda session: tmux.press(session, "PageUp"), "type a message")
        for session in (OURS, TEXTUALS):
            columns, rows = other
            tmux.follow(session)
            with Terminal(command=(*tmux.server, "attach", "-t", session), columns=columns, rows=rows) as terminal:
                terminal.wait_for("type a message")
                tmux.detach(session)
                assert terminal.wait() == 0
        both.agree()
        assert (len(tmux.cells(OURS)[0]), len(tmux.cells(OURS))) in (other, (other[0], other[1] - 1))
        for session in (OURS, TEXTUALS):
            tmux.press(session, "C-q")
        deadline = time.monotonic() + 30
        while tmux.sessions:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def drawn(terminal: Terminal) -> list[list[Cell]]:
    """What the terminal around GNU screen shows."""
    rows: list[list[Cell]] = []
    for y in range(terminal.screen.lines):
        row = (terminal.screen.buffer[y][x] for x in range(terminal.screen.columns))
        marks = ("bold", "italics", "underscore", "reverse")
        rows.append(
            [
                Cell(cell.data, (frozenset(mark for mark in marks if getattr(cell, mark)), cell.fg, cell.bg, "")).seen
                for cell in row
            ]
        )
    return rows


def settled(terminal: Terminal) -> tuple[list[list[Cell]], tuple[int, int]]:
    """The same and where the cursor blinks, when nothing but figures changes any more. The prompt is empty."""
    deadline = time.monotonic() + 20
    before = drawn(terminal)
    while True:
        terminal.pause()
        now = drawn(terminal)
        places = [(row.find(EMPTY), y) for y, row in enumerate(map(_text, now))]
        cursor = next((place for place in places if place[0] >= 0), (0, -1))
        if not (told := same(before, now, cursor)):
            return now, cursor
        assert time.monotonic() < deadline, told
        before = now


@pytest.mark.skipif(SCREEN is None, reason="GNU screen is not installed")
@pytest.mark.parametrize("name", ["screen-256color", "screen"])
def test_inside_gnu_screen_the_window_shows_what_textual_paints(
    tmp_path: Path, environs: dict[str, dict[str, str]], name: str
) -> None:
    assert SCREEN and COMMAND
    config = tmp_path / "screenrc"
    config.write_text(f"term {name}\nstartup_message off\ndefutf8 on\n")
    shown: list[list[tuple[list[list[Cell]], tuple[int, int]]]] = []
    for session, environ in environs.items():
        sockets = Path(environ["XDG_RUNTIME_DIR"]) / "screen"
        sockets.mkdir(mode=0o700)
        words = (SCREEN, "-U", "-c", str(config), COMMAND, *ARGUMENTS, "--paint", session)
        with Terminal(command=words, env=environ | {"SCREENDIR": str(sockets)}) as terminal:
            states: list[tuple[list[list[Cell]], tuple[int, int]]] = []
            for keys, wanted in (
                ("", "/ 2,048"),
                ("\x1bOR", lambda text: "Parameters" not in text),
                ("\r", "tok/s · first"),
                ("\x1bOP", "changes them"),
                ("\x1b[6~", lambda text: "Everywhere" not in text),
            ):
                terminal.send(keys)
                terminal.wait_for(wanted)
                states.append(settled(terminal))
            terminal.escape()
            terminal.send("\x11")
            assert terminal.wait() == 0
        shown.append(states)
    for (ours, cursor), (textuals, _) in zip(*shown, strict=True):
        assert not same(ours, textuals, cursor)
