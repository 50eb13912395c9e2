"""The unit that is still being written, rendered without doing again what is done already."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.segment import Segment

from llama_tui.ui.blocks import References, Unit
from llama_tui.ui.code import Code
from llama_tui.ui.look import Look
from llama_tui.ui.markdown import MEASURE, language_of, render, spans_of
from llama_tui.ui.text import Row, Span, wrap

LONG = 1200
"""Characters of a paragraph from which on its beginning is kept as it is."""

_FENCE = re.compile(r"(?:.*\n)*?( {0,3})(?:`{3,}|~{3,})(.*)\n")
_SPACE = re.compile(r"(?<=[^\s\\]) (?=[^\s])")
_OPEN = re.compile(r"[\[`<]|[*_~](?![\s*_~]*(?:\s|$))|\\$")
"""What may begin something that a later character ends: an emphasis, a link, code, HTML."""


class Growing:
    """Rows of the last unit of a text, whose source mostly only gets longer.

    The result is that of `render` at any moment. An open fence keeps its finished pieces; a long
    paragraph keeps the rows up to a place that no later character can reach back over.
    """

    def __init__(self, width: int, look: Look) -> None:
        self._width = width
        self._measure = min(width, MEASURE)
        self._look = look
        self._source = ""
        self._kind = ""
        self._code: Code | None = None
        self._indent = 0
        self._lines: list[str] = []
        self._kept: list[Row] = []
        self._carried: list[Span] = []  # the start of the row that is not full yet
        self._done = 0  # characters of the source that rows and carried spans show

    def rows(self, unit: Unit, references: References, open_fence: bool) -> list[Row]:
        """The rows of the unit as it is now."""
        kind = "open" if open_fence else unit.kind
        if kind != self._kind or not unit.source.startswith(self._source):
            self._start(kind)
        if kind == "open":
            return self._fence(unit.source)
        if kind == "paragraph" and len(unit.source) > LONG and not references and "]:" not in unit.source:
            return self._paragraph(unit.source)
        return render(unit, references, self._width, self._look)

    def closed(self, unit: Unit) -> Code | None:
        """The code that was growing, if the unit is the fence that it stood in."""
        return self._code if unit.kind == "fence" and unit.source.startswith(self._source) else None

    def _start(self, kind: str) -> None:
        self._source = ""
        self._kind = kind
        self._code = None
        self._lines = []
        self._kept = []
        self._carried = []
        self._done = 0

    def _fence(self, source: str) -> list[Row]:
        if self._code is None:
            opening = _FENCE.match(source)
            if opening is None:
                return []
            self._indent = len(opening[1])
            self._code = Code(language_of(opening[2]), self._width, self._look)
            self._source = source[: opening.end()]
            self._lines = [""]
        first, *more = source[len(self._source) :].split("\n")
        self._lines[-1] += first
        self._lines += more
        self._source = source
        lines = self._lines if self._lines[-1].strip(" \t") else self._lines[:-1]  # as markdown-it has it
        if self._indent:
            lines = [_outdent(line, self._indent) for line in lines]
        return self._code.rows(lines)

    def _paragraph(self, source: str) -> list[Row]:
        self._source = source
        text = source.strip()
        start = len(source) - len(source.lstrip())
        self._done = max(self._done, start)
        while len(text) + start - self._done > LONG:
            if not self._keep(source):
                break
        rest = spans_of(source[self._done :].rstrip(), {}, self._look)
        first, *more = rest
        rows = [*self._kept, *wrap([*self._carried, *first], self._measure)]
        for line in more:
            rows += wrap(line, self._measure)
        return rows

    def _keep(self, source: str) -> bool:
        """Take a piece of the source over into rows that stay. False if there is none to take."""
        for end in self._ends(source):
            piece = source[self._done : end]
            lines = spans_of(piece, {}, self._look)
            if any(_OPEN.search(text) for line in lines for text, _ in line):
                continue
            lines[-1].append((" ", self._look.text))
            lines[0] = [*self._carried, *lines[0]]
            rows = [row for line in lines for row in wrap(line, self._measure)]
            last = wrap(lines[-1], self._measure)
            self._kept += rows[:-1]
            self._carried = _spans(last[-1].segments, self._look)
            self._done = end + 1
            return True
        return False

    def _ends(self, source: str) -> Iterator[int]:
        """Spaces where a piece might end, the farthest first, always the same for the same source."""
        least = self._done + LONG // 2
        found = [match.start() for match in _SPACE.finditer(source, least, self._done + LONG)]
        return reversed(found[-8:])


def _spans(segments: list[Segment], look: Look) -> list[Span]:
    """A row's segments as spans again, with the space that stood at its end."""
    return [*((segment.text, segment.style or look.text) for segment in segments), (" ", look.text)]


def _outdent(line: str, indent: int) -> str:
    """The line without as many leading columns as its fence has; of a tab, what is left of it stays."""
    column = 0
    for index, character in enumerate(line):
        if column >= indent or character not in " \t":
            return " " * (column - indent) + line[index:]
        column += 4 - column % 4 if character == "\t" else 1
    return " " * (column - indent)
