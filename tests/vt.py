"""A terminal in memory that is strict: it knows what the program writes, and fails at anything else.

Unlike pyte it keeps every attribute and hyperlinks, and it is quick enough for thousands of frames.
It shares no code with the painter; `tests/unit/test_vt.py` holds it against pyte and tmux.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from rich.cells import split_graphemes

_TOKEN = re.compile(
    r"\x1b\[(?P<parameters>[\d;?]*)(?P<final>[HCDKXrm]|[hl]|\$p)"
    r"|\x1b\]8;[^;]*;(?P<link>[^\x1b]*)\x1b\\"
    r"|(?P<up>\x1bM)|(?P<control>[\r\n\b])|(?P<text>[^\x00-\x1f\x7f]+)"
)

Style = tuple[frozenset[str], str, str, str]
"""Attributes, colours as SGR parameters, hyperlink."""

PLAIN: Style = (frozenset(), "", "", "")
_ENDS = {"22": {"1", "2"}, "23": {"3"}, "24": {"4", "21"}, "25": {"5", "6"}, "27": {"7"}, "28": {"8"}, "29": {"9"}}
_VISIBLE_ON_BLANKS = {"4", "5", "6", "7", "9", "21", "51", "52", "53"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; the second of a wide character has no text."""

    text: str = " "
    style: Style = PLAIN

    @property
    def seen(self) -> Cell:
        """The cell by what can be seen of it: of a blank mostly the background."""
        return _seen_blank(self.style) if self.text == " " else self


@cache
def _seen_blank(style: Style) -> Cell:
    marks, _, background, link = style
    if link or marks & _VISIBLE_ON_BLANKS:
        return Cell(" ", style)
    return Cell(" ", (frozenset(), "", background, ""))


@cache
def clusters(text: str) -> list[tuple[str, int]]:
    """A text as a terminal with today's Unicode draws it: clusters and their cells."""
    return [(text[start:end], width) for start, end, width in split_graphemes(text)[0]]


@dataclass
class VirtualTerminal:
    """`measure` tells how texts are split into cells, as terminals do in different ways; with
    `erases_colour` off, erased cells have the terminal's own background. New cells are `fill`."""

    width: int
    height: int
    measure: Callable[[str], list[tuple[str, int]]] = clusters
    erases_colour: bool = True
    fill: Cell = field(default_factory=Cell)

    def __post_init__(self) -> None:
        self.rows = [[self.fill] * self.width for _ in range(self.height)]
        self._seen: list[list[Cell] | None] = [None] * self.height  # None: the row was drawn on since
        self.x = self.y = 0
        self.style = PLAIN
        self.top, self.bottom = 0, self.height - 1

    @property
    def seen(self) -> list[list[Cell]]:
        """What is on the screen."""
        self._seen = [
            [cell.seen for cell in row] if seen is None else seen
            for row, seen in zip(self.rows, self._seen, strict=True)
        ]
        return [row for row in self._seen if row is not None]

    @property
    def text(self) -> str:
        """The screen as lines."""
        return "\n".join("".join(cell.text for cell in row) for row in self.rows)

    def feed(self, data: str) -> None:
        """Draw; raises `AssertionError` for what is not known."""
        end = 0
        for token in _TOKEN.finditer(data):
            assert token.start() == end, f"unknown: {data[end : end + 20]!r}"
            end = token.end()
            match token.lastgroup:
                case "text":
                    self._write(token["text"])
                case "link":
                    self.style = (*self.style[:3], token["link"])
                case "up":
                    self._reverse_index()
                case "control":
                    self._control(token["control"])
                case _:
                    self._csi(token["parameters"], token["final"])
        assert end == len(data), f"unknown: {data[end : end + 20]!r}"

    def _csi(self, parameters: str, final: str) -> None:
        if final in ("h", "l", "$p"):
            assert parameters == "?2026", parameters
            return
        if final == "m":
            self._sgr(parameters)
            return
        numbers = [int(number) if number else 0 for number in parameters.split(";")]
        first = max(1, numbers[0])
        match final:
            case "H":
                self.y = min(first, self.height) - 1
                self.x = min(max(1, numbers[1] if len(numbers) > 1 else 1), self.width) - 1
            case "C":
                self.x = min(self.width - 1, self.x + first)
            case "D":
                self.x = max(0, self.x - first)
            case "K":
                self._erase(self.x, self.width)
            case "X":
                self._erase(self.x, min(self.width, self.x + first))
            case _:  # r
                self.top, self.bottom = (numbers[0] - 1, numbers[1] - 1) if parameters else (0, self.height - 1)
                self.x = self.y = 0

    def _control(self, character: str) -> None:
        if character == "\r":
            self.x = 0
        elif character == "\b":
            self.x = max(0, self.x - 1)
        elif self.y == self.bottom:
            self._shift(self.top, self.bottom)
        else:
            self.y = min(self.y + 1, self.height - 1)

    def _reverse_index(self) -> None:
        if self.y == self.top:
            self._shift(self.bottom, self.top)
        else:
            self.y = max(0, self.y - 1)

    def _shift(self, gone: int, new: int) -> None:
        del self.rows[gone], self._seen[gone]
        self.rows.insert(new, [self._blank] * self.width)
        self._seen.insert(new, None)

    @property
    def _blank(self) -> Cell:
        return Cell(" ", (frozenset(), "", self.style[2] if self.erases_colour else "", ""))

    def _erase(self, start: int, end: int) -> None:
        self._seen[self.y] = None
        self._break(start)
        self._break(end)
        self.rows[self.y][start:end] = [self._blank] * (end - start)

    def _break(self, x: int) -> None:
        """A wide character that is cut at a column leaves blanks."""
        row = self.rows[self.y]
        if x < self.width and row[x].text == "":
            start = x
            while start and row[start].text == "":
                start -= 1
            while x < self.width and row[x].text == "":
                x += 1
            row[start:x] = [Cell(" ", row[start].style)] * (x - start)

    def _write(self, text: str) -> None:
        self._seen[self.y] = None
        for cluster, width in self.measure(text):
            if not width:
                at = max(0, self.x - 1)
                row = self.rows[self.y]
                row[at] = Cell(row[at].text + cluster, row[at].style)
                continue
            self.x = min(self.x, self.width - width)
            self._break(self.x)
            self._break(self.x + width)
            cells = [Cell(cluster, self.style), *[Cell("", self.style)] * (width - 1)]
            self.rows[self.y][self.x : self.x + width] = cells
            self.x += width  # at the right edge without wrapping it stays, see above

    def _sgr(self, parameters: str) -> None:
        marks, fg, bg, link = set(self.style[0]), *self.style[1:]
        codes = parameters.split(";")
        while codes:
            code = codes.pop(0)
            if code in ("", "0"):
                marks, fg, bg = set(), "", ""
            elif code in ("38", "48"):
                kind = codes.pop(0)
                assert kind in ("2", "5"), parameters
                colour = ";".join([code, kind, *(codes.pop(0) for _ in range(3 if kind == "2" else 1))])
                fg, bg = (colour, bg) if code == "38" else (fg, colour)
            elif code in _ENDS:
                marks -= _ENDS[code]
            elif code in ("39", "49"):
                fg, bg = ("", bg) if code == "39" else (fg, "")
            elif int(code) in (*range(30, 38), *range(90, 98)):
                fg = code
            elif int(code) in (*range(40, 48), *range(100, 108)):
                bg = code
            else:
                assert code in ("1", "2", "3", "4", "5", "6", "7", "8", "9", "21", "51", "52", "53"), parameters
                marks.add(code)
        self.style = (frozenset(marks), fg, bg, link)
