"""Whether the terminal's background is light or dark: as the terminal says when it is asked, else as
the variable COLORFGBG says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

Background = Literal["light", "dark"]

QUESTION = "\x1b]11;?\x1b\\"
"""Asks a terminal for its background colour (OSC 11)."""

ANSWER = r"\x1b\]11;(?P<colour>[^\x07\x1b]{0,64})(?:\x07|\x1b\\)"
"""The answer, as a pattern."""

_RGB = re.compile(r"rgba?:([0-9a-f]{1,4})/([0-9a-f]{1,4})/([0-9a-f]{1,4})(?:/[0-9a-f]{1,4})?", re.IGNORECASE)
_HEX = re.compile(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", re.IGNORECASE)

_MIDDLE = 0.179
"""Luminance above which black text has more contrast than white."""

_LIGHT_COLOURS = ("7", "9", "10", "11", "12", "13", "14", "15")


def is_asked(environ: Mapping[str, str]) -> bool:
    """Whether a terminal of this environment may be asked. GNU screen hands the question to the terminal
    around it again at every change of windows, and gives the answer to whatever runs in the window then; the
    console of Linux has no answer."""
    term = environ.get("TERM", "")
    in_screen = "STY" in environ or (term.startswith("screen") and "TMUX" not in environ)
    return term not in ("", "dumb", "linux") and not in_screen


def told(colour: str) -> Background | None:
    """What a colour means that a terminal has answered, such as `rgb:1010/1414/1a1a`."""
    if match := _RGB.fullmatch(colour) or _HEX.fullmatch(colour):
        parts = [int(part, 16) / (16 ** len(part) - 1) for part in match.groups()]
        return "light" if luminance(*parts) > _MIDDLE else "dark"
    return None


def luminance(*parts: float) -> float:
    """Relative luminance of red, green and blue between 0 and 1, as WCAG 2.2 defines it."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def guessed(environ: Mapping[str, str]) -> Background | None:
    """What COLORFGBG says: the numbers of the foreground's and the background's colour, as in `15;0`."""
    number = environ.get("COLORFGBG", "").rpartition(";")[2]
    if not number.isdecimal() or int(number) > 15:
        return None
    return "light" if number in _LIGHT_COLOURS else "dark"
