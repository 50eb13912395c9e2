"""What is on its way to the terminal, and a terminal that takes nothing."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Iterator

import pytest

from llama_tui.ui.link import ASK_EVERY, PATIENCE, WINDOW, Outlet, Window


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a pty: the terminal's, and the one that programs write to."""
    ends = os.openpty()
    tty.setraw(ends[1])
    yield ends
    for end in ends:
        os.close(end)


def take(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, 65536)
    return data


def test_what_a_stopped_terminal_does_not_take_is_told(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    drained = threading.Event()
    outlet = Outlet(slave, drained.set)
    outlet.tell = True
    text = "x" * 200_000
    outlet.write(text)
    outlet.write("end é")
    assert outlet.unsent > 100_000, "writing does not wait for the terminal"
    assert not drained.is_set()
    assert take(master, len(text) + 6) == (text + "end é").encode()
    assert drained.wait(10)
    assert not outlet.unsent
    outlet.close(5)


def test_closing_waits_for_the_terminal_but_not_for_ever(terminal: tuple[int, int]) -> None:
    outlet = Outlet(terminal[1], lambda: None)
    outlet.write("x" * 200_000)
    outlet.close(0.05)
    assert outlet.unsent
    take(terminal[0], 200_000)


def test_a_terminal_that_is_gone_takes_everything() -> None:
    master, slave = os.openpty()
    os.close(master)
    outlet = Outlet(slave, lambda: None)
    outlet.write("lost")
    deadline = time.monotonic() + 10
    while outlet.unsent:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    outlet.write("more")
    assert not outlet.unsent
    outlet.close(5)
    os.close(slave)


def test_frames_wait_until_the_far_end_has_drawn_the_last_ones() -> None:
    window = Window()
    assert not window.send(10 * WINDOW, 0), "a terminal that never answered is not asked"
    assert window.is_open(0)
    window.answered()
    assert window.send(WINDOW, 0)
    assert not window.is_open(0)
    assert not window.send(10, 0), "not for so few bytes"
    window.answered()
    assert window.is_open(0)
    assert not window.send(ASK_EVERY - 11, 0)
    assert window.send(WINDOW, 1)
    assert not window.is_open(1)
    assert window.is_open(1 + 2 * PATIENCE), "an answer that does not come is not waited for"
