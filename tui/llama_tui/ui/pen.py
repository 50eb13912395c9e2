"""How a cell of the terminal is drawn, and the shortest way from one such style to another."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

_OFF = {1: 22, 2: 22, 3: 23, 4: 24, 5: 25, 6: 25, 7: 27, 8: 28, 9: 29, 21: 24}
"""What ends each attribute; of the others only a reset is understood everywhere."""

_KNOWN = frozenset({*_OFF, 51, 52, 53})
_SEEN_ON_BLANKS = frozenset({4, 5, 6, 7, 9, 21, 51, 52, 53})
_COLOURS = {38: 0, 48: 1}
_EXTENDED = {5: 1, 2: 3}  # 38;5;n and 38;2;r;g;b


class Pen(NamedTuple):
    """Attributes as SGR numbers, colours as SGR parameters ("" is the terminal's own), and a
    hyperlink as OSC 8 takes it ("" is none). Pens come from this module, so that equal ones are
    one object."""

    marks: frozenset[int] = frozenset()
    fg: str = ""
    bg: str = ""
    link: str = ""


_pens: dict[Pen, Pen] = {}


def _one(pen: Pen) -> Pen:
    return _pens.setdefault(pen, pen)


PLAIN = _one(Pen())


@lru_cache(8192)
def after_sgr(pen: Pen, parameters: str) -> Pen | None:
    """The pen after `CSI parameters m`; None for what is not known."""
    marks, fg, bg = set[int](pen.marks), pen.fg, pen.bg
    codes = [int(code or 0) for code in parameters.split(";")]
    at = 0
    while at < len(codes):
        code = codes[at]
        if code == 0:
            marks, fg, bg = set[int](), "", ""
        elif code in _KNOWN:
            marks.add(code)
        elif code in (22, 23, 24, 25, 27, 28, 29):
            marks -= {mark for mark, off in _OFF.items() if off == code}
        elif 30 <= code <= 37 or 90 <= code <= 97:
            fg = str(code)
        elif 40 <= code <= 47 or 100 <= code <= 107:
            bg = str(code)
        elif code == 39:
            fg = ""
        elif code == 49:
            bg = ""
        elif code in _COLOURS and at + 1 < len(codes) and codes[at + 1] in _EXTENDED:
            length = 2 + _EXTENDED[codes[at + 1]]
            if at + length > len(codes):
                return None
            colour = ";".join(map(str, codes[at : at + length]))
            fg, bg = (colour, bg) if code == 38 else (fg, colour)
            at += length - 1
        else:
            return None
        at += 1
    return _one(Pen(frozenset(marks), fg, bg, pen.link))


@lru_cache(1024)
def with_link(pen: Pen, link: str) -> Pen:
    """The same pen with another hyperlink."""
    return _one(pen._replace(link=link))


@lru_cache(4096)
def of_blank(pen: Pen) -> Pen:
    """What can be seen of a pen on a blank: its background, unless something draws on blanks too."""
    if pen.link or pen.marks & _SEEN_ON_BLANKS:
        return pen
    return _one(Pen(bg=pen.bg))


@lru_cache(4096)
def for_blank(pen: Pen, blank: Pen) -> Pen:
    """The pen nearest to `pen` that draws a blank as `blank` does."""
    if of_blank(blank) is not blank or blank.marks or blank.link or pen.link or pen.marks & _SEEN_ON_BLANKS:
        return blank
    return _one(pen._replace(bg=blank.bg))


@lru_cache(4096)
def change(pen: Pen | None, to: Pen) -> str:
    """The shortest sequence from one pen, or from one that is not known, to another."""
    if pen == to:
        return ""
    link = "" if pen is not None and pen.link == to.link else f"\x1b]8;{to.link or ';'}\x1b\\"
    whole = ["0", *map(str, sorted(to.marks)), to.fg, to.bg]
    ways = ["\x1b[" + ";".join(filter(None, whole)) + "m" if len(list(filter(None, whole))) > 1 else "\x1b[m"]
    if pen is not None:
        gone = pen.marks - to.marks
        if gone <= _OFF.keys():
            codes = {_OFF[mark] for mark in gone}
            kept = pen.marks - {mark for mark, off in _OFF.items() if off in codes}
            parts = [*map(str, sorted(codes)), *map(str, sorted(to.marks - kept))]
            if pen.fg != to.fg:
                parts.append(to.fg or "39")
            if pen.bg != to.bg:
                parts.append(to.bg or "49")
            ways.append("\x1b[" + ";".join(parts) + "m" if parts else "")
    return link + min(ways, key=len)
