"""The cells that a terminal shows after what was written to it, as far as that is certain."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from rich.cells import cell_len, split_graphemes

from llama_tui.ui.pen import PLAIN, Pen, after_sgr, of_blank, with_link

_TOKEN = re.compile(
    r"\x1b\[(?:(?P<row>\d+);(?P<column>\d+)H|(?P<sgr>[\d;]*)m|(?P<sync>\?2026[hl]))"
    r"|\x1b\]8;(?P<link>[^\x00-\x1f\x7f]*)\x1b\\"
    r"|(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|(?P<newline>\n)"
)

_SURE = frozenset(
    {*("Lu", "Ll", "Lt", "Lo", "Nd", "Nl", "No"), *("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk")}
)
"""Categories of letters, digits, punctuation and signs."""

_JAMO = range(0x1160, 0x1200)


class Row:
    """One row: for each cell its text and its pen. The second cell of a wide character has the text
    "", a cell of which nothing is known the pen None."""

    __slots__ = ("pens", "texts")

    def __init__(self, texts: list[str], pens: list[Pen | None]) -> None:
        self.texts, self.pens = texts, pens

    @classmethod
    def unknown(cls, width: int) -> Row:
        """A row of which nothing is known."""
        return cls([" "] * width, [None] * width)

    @classmethod
    def blank(cls, width: int) -> Row:
        """A row of blanks in the terminal's own colours."""
        return cls([" "] * width, [PLAIN] * width)

    @property
    def ascii(self) -> bool:
        """Whether every cell holds one character of ASCII."""
        text = "".join(self.texts)
        return text.isascii() and len(text) == len(self.texts)

    def copy(self) -> Row:
        """One that can be drawn on."""
        return Row(self.texts.copy(), self.pens.copy())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.texts == other.texts and self.pens == other.pens

    __hash__ = None  # pyright: ignore[reportAssignmentType]


@lru_cache(8192)
def width_if_sure(character: str) -> int:
    """Cells of a character that every terminal agrees on; 0 for one that terminals draw differently:
    what combines with others, emoji, what Unicode has not assigned."""
    if " " <= character <= "~":
        return 1
    kind = unicodedata.category(character)
    width = cell_len(character)
    wide = unicodedata.east_asian_width(character) in ("W", "F")
    if ord(character) in _JAMO or width not in (1, 2) or wide != (width == 2):
        return 0
    if kind in _SURE or (kind in ("So", "Lm", "Zs") and width == 1):
        return width
    return 0


@lru_cache(8192)
def is_sure(text: str) -> bool:
    """Whether every terminal draws the text of a cell in as many cells."""
    return len(text) <= 1 and (not text or width_if_sure(text) > 0)


class Cells:
    """A grid of cells that is drawn on with the sequences that Textual's frames are made of."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows = [Row.unknown(width) for _ in range(height)]
        self.touched: set[int] = set()
        """Rows that were drawn on; whoever reads them empties it."""
        self.cursor = (0, 0)

    def draw(self, frame: str) -> bool:
        """Draw a frame. False, and the cells are no longer certain, for what is not understood: the
        frame must then be written as it is."""
        x, y = self.cursor
        pen = PLAIN
        end = 0
        for token in _TOKEN.finditer(frame):
            if token.start() != end:
                return False
            end = token.end()
            match token.lastgroup:
                case "text":
                    drawn = self._write(x, y, token[0], pen)
                    if drawn is None:
                        return False
                    x = drawn
                case "sgr":
                    after = after_sgr(pen, token["sgr"])
                    if after is None:
                        return False
                    pen = after
                case "column":
                    x, y = int(token["column"]) - 1, int(token["row"]) - 1
                case "newline":
                    x, y = 0, y + 1
                case "link":
                    link = token["link"]
                    pen = with_link(pen, "" if link == ";" else link)
                case _:
                    pass
            if y >= self.height:
                return False
        self.cursor = (min(x, self.width - 1), y)
        return end == len(frame)

    def _write(self, x: int, y: int, text: str, pen: Pen) -> int | None:
        """The column after a text, or None where it does not fit."""
        texts = list(text) if text.isascii() else self._clusters(text)
        if texts is None or x + len(texts) > self.width or not 0 <= y < self.height:
            return None
        row = self.rows[y]
        if y not in self.touched:
            self.touched.add(y)
            row = self.rows[y] = row.copy()
        end = x + len(texts)
        # Half of a wide character that stays is drawn as a blank.
        if row.texts[x] == "" and texts and x:
            row.texts[x - 1] = " "
        if end < self.width and row.texts[end] == "":
            row.texts[end] = " "
        row.texts[x:end] = texts
        blank = of_blank(pen)
        if blank is pen or " " not in texts:
            row.pens[x:end] = [pen] * len(texts)
        else:
            row.pens[x:end] = [blank if cell == " " else pen for cell in texts]
        return end

    def _clusters(self, text: str) -> list[str] | None:
        """A text by cells; what combines with the cell before it does not count as known."""
        widths = [width_if_sure(character) for character in text]
        if all(width == 1 for width in widths):
            return list(text)
        texts: list[str] = []
        if all(widths):
            for character, width in zip(text, widths, strict=True):
                texts.append(character)
                if width == 2:
                    texts.append("")
            return texts
        for start, end, width in split_graphemes(text)[0]:
            if not width:
                return None
            texts.append(text[start:end])
            texts += [""] * (width - 1)
        return texts
