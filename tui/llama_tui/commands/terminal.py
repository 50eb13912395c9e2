"""What the terminal can do: asked of the terminal itself where there is one, else read from the
environment.

All questions go out at once, with one that every terminal answers (its device attributes) as the
last: when that answer is there, nobody will answer the others any more. A terminal that says nothing
is waited for a moment only, and what comes meanwhile never reaches the shell's prompt.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import termios
import time
import tty
from collections.abc import Mapping
from dataclasses import dataclass, field

from llama_tui.background import ANSWER, QUESTION, Background, is_asked, told

_QUIET_SECONDS = 0.1
_QUIET_SECONDS_SSH = 0.5
_MOST_SECONDS = 2.0
_TMUX_SECONDS = 0.5

# XTVERSION; kitty's flags; DECRQM 2026; a colour set, asked back (DECRQSS) and reset; XTGETTCAP Ms; DA1.
_QUESTIONS = b"\x1b7\x1b[>q\x1b[?u\x1b[?2026$p\x1b[48;2;1;2;3m\x1bP$qm\x1b\\\x1b[0m\x1bP+q4d73\x1b\\\x1b[c\r\x1b[K\x1b8"
_ATTRIBUTES = re.compile(rb"\x1b\[\?([0-9;]*)c")
_VERSION = re.compile(rb"\x1bP>\|([^\x1b]*)\x1b\\")
_KITTY = re.compile(rb"\x1b\[\?(\d+)u")
_SYNCHRONIZED = re.compile(rb"\x1b\[\?2026;(\d)\$y")
_COLOUR = re.compile(rb"\x1bP1\$r[0-9;:]*48[;:]2[;:]+1[;:]2[;:]3[0-9;:]*m\x1b\\")
_COLOUR_ASKED = re.compile(rb"\x1bP[01]\$r[^\x1b]*\x1b\\")
_COPIES = re.compile(rb"\x1bP([01])\+r4[dD]73")
_BACKGROUND = re.compile(ANSWER.encode())
_CLIPBOARD_ATTRIBUTE = b"52"


@dataclass(frozen=True, slots=True)
class Answers:
    """What a terminal said of itself; None where it did not say. `copies` is whether it tells that
    programs may write its clipboard (OSC 52); that it does not tell so is no sign that it refuses."""

    answered: bool = False
    version: str = ""
    kitty_keys: bool | None = None
    synchronized: bool | None = None
    true_colour: bool | None = None
    copies: bool | None = None
    background: Background | None = None


@dataclass(frozen=True, slots=True)
class Multiplexer:
    """What stands between the program and the terminal: tmux with its set-clipboard ("" where it did
    not say), or GNU screen."""

    name: str
    set_clipboard: str = ""


@dataclass(frozen=True, slots=True)
class Abilities:
    """Everything that is known; `answers` is None where nothing could be asked."""

    term: str
    answers: Answers | None = None
    multiplexer: Multiplexer | None = None
    environ: Mapping[str, str] = field(default_factory=dict[str, str])


def abilities(environ: Mapping[str, str], stdin: int, stdout: int) -> Abilities:
    """What the terminal of these two files can do. It is asked where both are terminals and this
    program is in their foreground."""
    answers = None
    if os.isatty(stdin) and os.isatty(stdout) and environ.get("TERM", "") not in ("", "dumb") and _ours(stdin):
        far = "SSH_CONNECTION" in environ or "SSH_TTY" in environ
        quiet = _QUIET_SECONDS_SSH if far else _QUIET_SECONDS
        answers = ask(stdin, stdout, quiet, background=is_asked(environ))
    return Abilities(environ.get("TERM", ""), answers, multiplexer(environ), environ)


def _ours(stdin: int) -> bool:
    """Whether this program is in the foreground: another one would be stopped for asking."""
    try:
        return os.tcgetpgrp(stdin) == os.getpgrp()
    except OSError:
        return False


def ask(stdin: int, stdout: int, quiet: float, *, background: bool = True) -> Answers:
    """Ask a terminal, for its background too if told so, until it has answered everything or has said
    nothing for `quiet` seconds. Its modes are as before afterwards, and no answer is left to be read."""
    try:
        before = termios.tcgetattr(stdin)
    except termios.error:
        return Answers()
    said = b""
    try:
        tty.setcbreak(stdin, termios.TCSADRAIN)
        deadline = time.monotonic() + _MOST_SECONDS
        if select.select([], [stdout], [], quiet)[1]:
            os.write(stdout, QUESTION.encode() + _QUESTIONS if background else _QUESTIONS)
            while not _ATTRIBUTES.search(said) and time.monotonic() < deadline:
                if not select.select([stdin], [], [], quiet)[0] or not (piece := os.read(stdin, 4096)):
                    break
                said += piece
    except OSError:
        pass
    finally:
        with contextlib.suppress(termios.error):
            # Whatever is still on its way through the terminal's driver is dropped with this.
            termios.tcsetattr(stdin, termios.TCSAFLUSH, before)
    return answers_in(said)


def answers_in(said: bytes) -> Answers:
    """What a terminal's answers mean."""
    attributes = _ATTRIBUTES.search(said)
    if not attributes:
        return Answers()
    version = _VERSION.search(said)
    synchronized = _SYNCHRONIZED.search(said)
    copies = _COPIES.search(said)
    background = _BACKGROUND.search(said)
    listed = _CLIPBOARD_ATTRIBUTE in attributes[1].split(b";")
    return Answers(
        answered=True,
        version=version[1].decode("utf-8", "replace") if version else "",
        kitty_keys=bool(_KITTY.search(said)),
        synchronized=synchronized is not None and synchronized[1] in (b"1", b"2", b"3"),
        true_colour=True if _COLOUR.search(said) else False if _COLOUR_ASKED.search(said) else None,
        copies=True if listed or (copies and copies[1] == b"1") else None,
        background=told(background["colour"].decode("ascii", "replace")) if background else None,
    )


def multiplexer(environ: Mapping[str, str]) -> Multiplexer | None:
    """tmux or screen, where the program runs inside one."""
    if "TMUX" in environ:
        try:
            done = subprocess.run(
                ("tmux", "show-options", "-gsv", "set-clipboard"),
                capture_output=True,
                text=True,
                timeout=_TMUX_SECONDS,
                check=False,
                stdin=subprocess.DEVNULL,
                env=dict(environ),
            )
        except (OSError, subprocess.TimeoutExpired):
            return Multiplexer("tmux")
        word = done.stdout.strip()
        return Multiplexer("tmux", word if word in ("on", "off", "external") else "")
    return Multiplexer("screen") if "STY" in environ else None
