"""Source code with its syntax in colour, piece by piece.

A piece is some dozen lines, and each is read by the highlighter alone: a block of two thousand lines
costs what is seen of it, and while it grows only its last piece is read again. Where a piece would
end inside a string or a comment it goes on until that is over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style

from llama_tui.ui.look import Look
from llama_tui.ui.text import Row, Span, chop, expand_tabs, fit, pad, width_of

if TYPE_CHECKING:
    from pygments.lexer import Lexer

PIECE = 24
"""Lines after which a piece may end: before one that is not indented and follows an empty line."""

PIECE_MOST = 64
"""Lines after which it ends anywhere."""

PIECE_LONGEST = 640
"""Lines after which it ends even inside a string."""

PIECE_CHARACTERS = 40_000
"""Beyond this a piece is shown without colours: nobody writes such code, and reading it takes long."""

Kind = tuple[str, ...]
"""A kind of token, as Pygments calls it: ("Literal", "String", "Doc")."""

_NESTING = re.compile(r"html|xml|php|vue|svelte|jsp|erb|jinja|django|markdown", re.IGNORECASE)
"""Languages that hold other languages, whose pieces cannot be read alone."""


@dataclass(slots=True)
class _Piece:
    """Lines that are coloured, as rows."""

    start: int
    stop: int
    rows: list[Row]


@dataclass(slots=True)
class Code:
    """The rows of one block of code, which may still be growing."""

    language: str
    width: int
    look: Look
    _pieces: list[_Piece] = field(default_factory=list["_Piece"])
    _seen: list[str] = field(default_factory=list[str])
    _label: list[Row] = field(default_factory=list[Row])

    def __post_init__(self) -> None:
        if self.language:
            text = fit(self.language, self.width - 2)
            self._label = [self._panel(Row([Segment(text, self.look.code_label)]), self.look.code_label)]

    def rows(self, lines: list[str]) -> list[Row]:
        """The rows of the lines. Pieces are kept from call to call while the lines begin the same."""
        stop = self._pieces[-1].stop if self._pieces else 0
        if self._seen[:stop] != lines[:stop]:
            self._pieces.clear()
        self._seen = lines
        rows = list(self._label)
        for piece in self._pieces:
            rows += piece.rows
        start = self._pieces[-1].stop if self._pieces else 0
        while start < len(lines):
            stop, spans = self._piece(lines, start)
            style = self.look.code_block
            made = [self._panel(row, style) for line in spans for row in chop(line, max(1, self.width - 2))]
            if stop < len(lines):
                self._pieces.append(_Piece(start, stop, made))
            rows += made
            start = stop
        return rows

    def _panel(self, row: Row, style: Style) -> Row:
        """A row on the panel, which is as wide as there is room."""
        used = 1 + width_of(row.segments)
        segments = pad([Segment(" ", style), *row.segments], used, self.width, style)
        return Row(segments, row.joint, 1, max(0, self.width - used))

    def _piece(self, lines: list[str], start: int) -> tuple[int, list[list[Span]]]:
        """Where the piece that starts here ends, and its lines in colour."""
        lexer = find_lexer(self.language)
        if lexer is None:
            stop = min(len(lines), start + PIECE_MOST)
            return stop, [[(expand_tabs(line), self.look.code_block)] for line in lines[start:stop]]
        least, most = (PIECE_LONGEST, PIECE_LONGEST) if _NESTING.search(lexer.name) else (PIECE, PIECE_MOST)
        stop = start
        while True:
            stop = _boundary(lines, start, stop, least, most)
            coloured, inside = self._coloured(lexer, lines[start:stop])
            if not inside or stop >= len(lines) or stop - start >= PIECE_LONGEST:
                return stop, coloured

    def _coloured(self, lexer: Lexer, lines: list[str]) -> tuple[list[list[Span]], bool]:
        """The lines as spans, and whether they end inside a string or a comment."""
        plain = [[(expand_tabs(line), self.look.code_block)] for line in lines]
        text = "\n".join(map(expand_tabs, lines)) + "\n"
        if len(text) > PIECE_CHARACTERS:
            return plain, False
        spans: list[list[Span]] = [[]]
        kind: Kind = ()
        for kind, value in lexer.get_tokens(text):
            style = getattr(self.look, _role(kind))
            for index, part in enumerate(value.split("\n")):
                if index:
                    spans.append([])
                line = spans[-1]
                if part and line and line[-1][1] is style:
                    line[-1] = (line[-1][0] + part, style)
                elif part:
                    line.append((part, style))
        if len(spans) != len(lines) + 1:  # a lexer that loses lines
            return plain, False
        return spans[:-1], kind[:2] == ("Literal", "String") or kind[:1] == ("Comment",)


def _boundary(lines: list[str], start: int, after: int, least: int, most: int) -> int:
    """The first place beyond `after` where a piece may end."""
    first = max(start + least, after + 1)
    last = min(len(lines), max(start + most, after + PIECE))
    for index in range(first, last):
        if not lines[index - 1].strip() and lines[index][:1].strip():
            return index
    return last


@lru_cache(maxsize=64)
def find_lexer(language: str) -> Lexer | None:
    """The highlighter of a language, or None if nobody knows it. Loaded when first asked for."""
    if not language:
        return None
    import pygments.lexers
    from pygments.util import ClassNotFound

    try:
        found: type[Lexer] = pygments.lexers.find_lexer_class_by_name(language.lower())
        return found(stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


_ROLES: dict[Kind, str] = {
    ("Comment",): "code_comment",
    ("Comment", "Preproc"): "code_keyword",
    ("Keyword",): "code_keyword",
    ("Keyword", "Constant"): "code_number",
    ("Literal", "Number"): "code_number",
    ("Literal", "String"): "code_string",
    ("Literal", "String", "Doc"): "code_comment",
    ("Name", "Attribute"): "code_name",
    ("Name", "Builtin"): "code_name",
    ("Name", "Class"): "code_name",
    ("Name", "Decorator"): "code_name",
    ("Name", "Function"): "code_name",
    ("Name", "Tag"): "code_keyword",
    ("Operator", "Word"): "code_keyword",
}
"""The style that kinds of tokens have, and those below them; the rest is plain."""


@lru_cache(maxsize=512)
def _role(kind: Kind) -> str:
    """The name of a token's style in the look."""
    for length in range(len(kind), 0, -1):
        role = _ROLES.get(tuple(kind[:length]))
        if role is not None:
            return role
    return "code_block"
