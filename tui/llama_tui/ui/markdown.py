"""Markdown as rows of styled text: one unit of it at a time, for a given width."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style

from llama_tui.control import one_line, sanitize
from llama_tui.ui.blocks import References, Unit, item_before, parser
from llama_tui.ui.code import Code
from llama_tui.ui.look import BOLD, ITALIC, STRIKE, UNDERLINE, Look
from llama_tui.ui.table import Align, Cell, table
from llama_tui.ui.text import Row, Span, expand_tabs, wrap

if TYPE_CHECKING:
    from markdown_it.token import Token

BULLETS = "•◦▪"
MEASURE = 120
"""Cells of a line of prose at most: longer lines are hard to read. Code and tables take what there is."""

NARROW = 12
"""Cells that nested blocks are always given, however deep they are."""

_TASK = re.compile(r"\[([ xX])\] ")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def render(unit: Unit, references: References, width: int, look: Look, code: Code | None = None) -> list[Row]:
    """The rows of a unit. They depend on nothing but it, its width and its look.

    `code` may hold pieces of a fence that was rendered while it grew.
    """
    if unit.kind == "empty":
        return []
    if unit.kind == "plain":
        return plain(unit.source, width, look.text)
    before = item_before(unit)
    tokens = parser().parse(before + unit.source, {"references": dict(references)})
    if before:  # leave out the item that is not there
        tokens = [tokens[0], *tokens[_close(tokens, 1) + 1 :]]
    lines = (before + unit.source).split("\n")
    return _Blocks(tokens, lines, look, unit.number, code).rows(0, len(tokens), width, look.text)


def language_of(info: str) -> str:
    """The language that the first line of a fence names."""
    words = one_line(info).split()
    return words[0] if words else ""


def plain(text: str, width: int, style: Style) -> list[Row]:
    """Text as it is, its long lines wrapped."""
    return [row for line in text.split("\n") for row in wrap([(expand_tabs(line), style)], width)]


def spans_of(text: str, references: References, look: Look) -> list[list[Span]]:
    """Inline Markdown as lines of spans."""
    tokens = parser().parseInline(text, {"references": dict(references)})
    return _inline(tokens[0].children or [], look.text, look)


@dataclass(slots=True)
class _Blocks:
    """The walk over the tokens of one unit."""

    tokens: list[Token]
    lines: list[str]
    look: Look
    number: int | None
    code: Code | None
    depth: int = 0

    def rows(self, start: int, stop: int, width: int, base: Style) -> list[Row]:
        """Blocks that are siblings, with an empty row where the source has an empty line."""
        rows: list[Row] = []
        index = start
        while index < stop:
            token = self.tokens[index]
            end = _close(self.tokens, index)
            made = self._block(token, index, end, width, base)
            if rows and made and token.map and not self.lines[token.map[0] - 1].strip(" \t>"):
                rows.append(Row([]))
            rows += made
            index = end + 1
        return rows

    def _block(self, token: Token, index: int, end: int, width: int, base: Style) -> list[Row]:
        look = self.look
        match token.type:
            case "paragraph_open":
                return self._text(index + 1, width, base)
            case "heading_open":
                return self._heading(token, index, width)
            case "fence" | "code_block":
                language = language_of(token.info)
                lines = token.content.removesuffix("\n").split("\n")
                code = self.code if token.level == 0 else None
                return (code or Code(language, width, look)).rows(lines)
            case "bullet_list_open" | "ordered_list_open":
                return self._list(token, index + 1, end, width, base)
            case "blockquote_open":
                inner = self.rows(index + 1, end, max(NARROW, width - 2), look.quote)
                bar = Segment("▎ ", look.rule)
                return [row.beside(bar) for row in inner]
            case "table_open":
                return self._table(index + 1, end, width)
            case "hr":
                return [Row([Segment("─" * width, look.rule)])]
            case "html_block":
                return plain(token.content.rstrip("\n"), width, look.muted)
            case _:
                return []

    def _text(self, index: int, width: int, base: Style) -> list[Row]:
        lines = _inline(self.tokens[index].children or [], base, self.look)
        return [row for line in lines for row in wrap(line, min(width, MEASURE))]

    def _heading(self, token: Token, index: int, width: int) -> list[Row]:
        level = int(token.tag[1])
        base = self.look.heading if level < 3 else self.look.text + BOLD
        rows = self._text(index + 1, width, base + UNDERLINE if level == 1 else base)
        if level < 4:
            return rows
        style = self.look.muted + BOLD
        return [row._replace(segments=[Segment(s.text, style) for s in row.segments]) for row in rows]

    def _list(self, token: Token, index: int, end: int, width: int, base: Style) -> list[Row]:
        number = None
        if token.type == "ordered_list_open":
            number = int(token.attrs.get("start", 1))
            if self.number is not None:
                number, self.number = self.number, None
        rows: list[Row] = []
        self.depth += number is None
        bullet = BULLETS[min(self.depth, len(BULLETS)) - 1]
        while index < end:
            close = _close(self.tokens, index)
            item = self.tokens[index]
            marker = f"{bullet} " if number is None else f"{number}. "
            number = None if number is None else number + 1
            if rows and item.map and not self.lines[item.map[0] - 1].strip(" \t>"):
                rows.append(Row([]))
            rows += self._item(marker, index + 1, close, width, base)
            index = close + 1
        self.depth -= token.type == "bullet_list_open"
        return rows

    def _item(self, marker: str, index: int, close: int, width: int, base: Style) -> list[Row]:
        """An item's blocks beside its marker."""
        task = self._task(index, close)
        style = self.look.bullet
        if task:
            marker = task
        indent = len(marker)
        rows = self.rows(index, close, max(NARROW, width - indent), base) or [Row([])]
        first = rows[0]._replace(segments=[Segment(marker, style), *rows[0].segments], lead=0)
        blank = Segment(" " * indent, base)
        return [first, *(row.beside(blank) if row.segments else row for row in rows[1:])]

    def _task(self, index: int, close: int) -> str:
        """The box of a task list's item, whose letters are taken out of its text."""
        if index + 1 >= close or self.tokens[index].type != "paragraph_open":
            return ""
        children = self.tokens[index + 1].children
        if not children or children[0].type != "text":
            return ""
        match = _TASK.match(children[0].content)
        if match is None:
            return ""
        children[0].content = children[0].content[match.end() :]
        return "☐ " if match[1] == " " else "☑ "

    def _table(self, index: int, end: int, width: int) -> list[Row]:
        look = self.look
        lines: list[list[Cell]] = []
        aligns: list[Align] = []
        for position in range(index, end):
            token = self.tokens[position]
            if token.type == "tr_open":
                lines.append([])
            elif token.type in ("th_open", "td_open"):
                style = look.text + BOLD if token.type == "th_open" else look.text
                spans = _inline(self.tokens[position + 1].children or [], style, look)
                lines[-1].append(Cell(tuple(map(tuple, spans))))
                if token.type == "th_open":
                    aligns.append(_align(token))
        return table(aligns, lines[0], lines[1:], width, look)


def _align(token: Token) -> Align:
    """The side that the delimiter row asked for."""
    style = str(token.attrs.get("style", ""))
    return "right" if style.endswith("right") else "center" if style.endswith("center") else "left"


def _close(tokens: list[Token], index: int) -> int:
    """The token that ends the block that one begins."""
    opening = tokens[index]
    if opening.nesting != 1:
        return index
    level = opening.level
    while tokens[index].nesting != -1 or tokens[index].level != level:
        index += 1
    return index


def _inline(children: list[Token], base: Style, look: Look) -> list[list[Span]]:
    """Inline tokens as lines of spans; a new line only where a hard break is."""
    lines: list[list[Span]] = [[]]
    styles = [base]
    links: list[tuple[str, int, int]] = []  # address, line, span at which the link's text begins
    for child in children:
        style = styles[-1]
        match child.type:
            case "text":
                lines[-1].append((_clean(child.content), style))
            case "softbreak":
                lines[-1].append((" ", style))
            case "hardbreak":
                lines.append([])
            case "code_inline":
                lines[-1].append((_clean(child.content), look.code + _attributes(style)))
            case "strong_open":
                styles.append(style + BOLD)
            case "em_open":
                styles.append(style + ITALIC)
            case "s_open":
                styles.append(style + STRIKE)
            case "link_open":
                links.append((_clean(str(child.attrs.get("href", ""))), len(lines) - 1, len(lines[-1])))
                styles.append(look.link + _attributes(style))
            case "link_close":
                styles.pop()
                address, line, span = links.pop()
                shown = "".join(text for spans in (lines[line][span:], *lines[line + 1 :]) for text, _ in spans)
                if address and shown not in (address, address.removeprefix("mailto:")):
                    lines[-1].append((f" ({address})", look.muted))
            case "strong_close" | "em_close" | "s_close":
                styles.pop()
            case "image":
                lines[-1].append((f"[{_clean(child.content) or 'image'}]", style))
                lines[-1].append((f" ({_clean(str(child.attrs.get('src', '')))})", look.muted))
            case "html_inline":
                if _BREAK.fullmatch(child.content):
                    lines.append([])
                else:
                    lines[-1].append((_clean(child.content), look.muted))
            case _:
                lines[-1].append((_clean(child.content), style))
    return lines


def _clean(text: str) -> str:
    """Inline text fit for a row. The source was sanitized, but "&#8238;" is a character only now."""
    return sanitize(text).replace("\n", " ").replace("\t", " ")


@lru_cache(maxsize=64)
def _attributes(style: Style) -> Style:
    """Bold, italic and the like, without the colours."""
    return Style(bold=style.bold, italic=style.italic, strike=style.strike)
