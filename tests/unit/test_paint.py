"""Painting by difference shows what Textual's painting shows: every cell, every style, the cursor."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_tui.ui.diff import Abilities
from llama_tui.ui.paint import Painter
from llama_tui.ui.pen import PLAIN, Pen, after_sgr, change, with_link
from tests.frames import EASY, HARD, FrameMaker
from tests.pair import NOISE, Pair
from tests.vt import VirtualTerminal, clusters

DEVICES = [Abilities(erases, scrolls) for erases, scrolls in product((True, False), repeat=2)]
SIZES = [(30, 10), (40, 8), (24, 14)]


def play(seed: int, words: tuple[str, ...], count: int, abilities: Abilities) -> Pair:
    """Frames from a seed, a third of them held back; compared whenever both have been painted."""
    rng = random.Random(seed)
    width, height = rng.choice(SIZES)
    pair = Pair(width, height, abilities)
    for frame in FrameMaker(rng, width, height, words).frames(count):
        held = rng.random() < 0.3
        pair.frame(frame, held=held)
        if not held:
            pair.check()
    return pair


@pytest.mark.parametrize("abilities", DEVICES, ids=str)
def test_random_frames_show_what_textual_shows(abilities: Abilities) -> None:
    pairs = [play(seed, EASY, 40, abilities) for seed in range(15)]
    assert not sum(pair.unsure for pair in pairs), "plain text is always understood"


@pytest.mark.parametrize("abilities", DEVICES[::3], ids=str)
def test_so_do_frames_with_characters_that_combine(abilities: Abilities) -> None:
    pairs = [play(seed, EASY + HARD, 40, abilities) for seed in range(100, 110)]
    assert sum(pair.unsure for pair in pairs) < 10 * 40 / 4, "most of them are still painted by difference"


def each_alone(text: str) -> list[tuple[str, int]]:
    """A terminal that knows nothing of sequences: each character has its own width."""
    return [part for character in text for part in clusters(character)]


def all_narrow(text: str) -> list[tuple[str, int]]:
    """A terminal that draws emoji in one cell."""
    return [(cluster, 1 if cluster >= "👍" else width) for cluster, width in clusters(text)]


@pytest.mark.parametrize("measure", [each_alone, all_narrow])
def test_where_a_terminal_draws_sequences_in_other_widths_nothing_else_moves(
    measure: Callable[[str], list[tuple[str, int]]],
) -> None:
    def row(first: str, last: str) -> str:
        return f"\x1b[2;1H│ ok {first}  and more \x1b[2;28H│{last}\x1b[1;1H"

    painter = Painter(32, 3, Abilities())
    terminal = VirtualTerminal(32, 3, measure)
    for first, last in (("👍👍👍", "a"), ("👩‍👩‍👧 ", "b"), ("👩‍👩‍👧x", "b"), ("ab", "c"), ("👍🏽 👍", "c")):
        assert painter.draw("".join(f"\x1b[{y};1H" + " " * 32 for y in (1, 2, 3)))
        assert painter.draw(row(first, last))
        terminal.feed(painter.difference())
        line = [cell.text for cell in terminal.rows[1]]
        assert line[:5] == ["│", " ", "o", "k", " "]
        assert "and more" in "".join(line)
        assert line[27:29] == ["│", last], "the pane to the right stands where it stood"
    assert "👍🏽" in "".join(line), "what combines is written as a whole"


def test_after_a_resize_and_after_doubt_nothing_is_taken_for_shown() -> None:
    rng = random.Random(5)
    pair = Pair(30, 10, Abilities())
    for frame in FrameMaker(rng, 30, 10, EASY).frames(10):
        pair.frame(frame)
    pair.ours = VirtualTerminal(30, 10, fill=NOISE)  # the terminal lost its screen
    pair.ours.style, pair.ours.x = NOISE.style, 7
    pair.painter.forget()
    pair.ours.feed(pair.painter.difference())
    pair.check()
    pair.painter.resize(20, 12)
    pair.ours = VirtualTerminal(20, 12, fill=NOISE)
    pair.textual = VirtualTerminal(20, 12, fill=NOISE)
    for frame in FrameMaker(rng, 20, 12, EASY).frames(10):
        pair.frame(frame)
        pair.check()


@pytest.mark.parametrize(
    "frame",
    [
        "\x1b[2J",
        "\x1b[1;1Ha\tb",
        "\x1b[1;1H\x07",
        "\x1b[1;28Htoo long",
        "\x1b[11;1Hbelow",
        "\x1b[1;1H\u0301x",
        "\x1b[999mx",
    ],
)
def test_a_frame_that_is_not_understood_is_refused(frame: str) -> None:
    assert not Painter(30, 10, Abilities()).draw(frame)


def test_what_has_not_changed_is_not_written() -> None:
    pair = Pair(80, 24, Abilities())
    screen = "".join(f"\x1b[{y + 1};1H\x1b[38;5;7m{'some text in a row':<80}\x1b[0m" for y in range(24)) + "\x1b[5;7H"
    pair.frame(screen)
    before = pair.written
    pair.frame(screen)
    assert pair.written == before
    pair.frame("\x1b[5;7H\x1b[38;5;7mX\x1b[0m\x1b[5;7H")
    assert pair.written - before == len("X\b"), "the pen and the cursor are where they are needed"
    pair.check()


def test_rows_that_move_are_scrolled_by_the_terminal() -> None:
    lines = [f"line {number} of a text that is long enough to count" for number in range(60)]

    def screen(top: int) -> str:
        rows = "".join(f"\x1b[{y + 2};1H{lines[top + y]:<80}" for y in range(20))
        return f"\x1b[1;1H{'title':<80}{rows}\x1b[22;1H{'prompt':<80}\x1b[1;1H"

    pair = Pair(80, 22, Abilities())
    pair.frame(screen(10))
    last = 10
    for top in (11, 12, 15, 14, 5):
        before = pair.written
        pair.frame(screen(top))
        pair.check()
        step = abs(top - last)
        assert pair.written - before < 60 * step + 60, f"{step} rows are new"
        last = top


pens = st.builds(
    lambda codes, link: with_link(after_sgr(PLAIN, ";".join(codes)) or PLAIN, link),
    st.lists(
        st.sampled_from(["1", "2", "3", "4", "5", "7", "9", "21", "53", "31", "94", "38;5;7", "48;2;1;2;3", "100"])
    ),
    st.sampled_from(["", "", ";https://example.org", "id=3;file:///x"]),
)


@settings(max_examples=300)
@given(st.none() | pens, pens)
def test_a_change_of_pens_ends_in_the_pen(pen: Pen | None, to: Pen) -> None:
    shown = VirtualTerminal(1, 1)
    shown.feed((change(PLAIN, pen) if pen is not None else "\x1b[1;4;31;42m\x1b]8;;x\x1b\\") + change(pen, to))
    wanted = VirtualTerminal(1, 1)
    wanted.feed(change(None, to))
    assert shown.style == wanted.style
    assert wanted.style[0] == {str(mark) for mark in to.marks}
    assert wanted.style[1:3] == (to.fg, to.bg)
