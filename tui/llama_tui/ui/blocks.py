"""Cuts Markdown into units that can be rendered one by one, while the text is still growing.

A unit is a top-level block, or one item of a top-level list, so that neither a long answer nor a
long list is parsed again for every token. What is final and what is not follows from one property
of CommonMark: lines that are complete can only change the last block, never one that another block
has already followed. The incomplete last line is left out of that conclusion, because "#" is a
heading and "#tag" is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

References = dict[str, Any]
"""Link targets by label, as markdown-it keeps them."""

_SETTLED = re.compile(r"[ \t]*(?:(?:[-*+>]|\d{1,9}[.)])[ \t]+)*[*_(\"']*[^\W\d_]")
"""The start of a line after which more characters cannot make another kind of block of it."""

_MARKER = re.compile(r"\s*?^( {0,3}(?:[-*+]|\d{1,9}[.)]))", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)


@dataclass(slots=True)
class Unit:
    """A piece of the source that is rendered on its own.

    `number` is the ordinal of an ordered list's item, which the source alone does not tell: in
    "1. 1. 1." the third one is 3. `blank` says that an empty line comes before it, `continued` that
    it is an item and follows another one of its list. `joint` is what stands between it and the next one
    where plain text is cut inside a line.
    """

    source: str
    kind: str
    number: int | None = None
    blank: bool = False
    continued: bool = False
    joint: str | None = None


class _Start(NamedTuple):
    """Where a unit begins, and the number of the top-level block that it belongs to."""

    line: int
    kind: str
    block: int
    number: int | None = None


@lru_cache(maxsize=1)
def parser() -> MarkdownIt:
    """CommonMark with tables and strikethrough; HTML is recognized, so that it can be shown as text."""
    from markdown_it import MarkdownIt  # when there is something to read, not before the first frame

    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


@lru_cache(maxsize=1)
def _outliner() -> MarkdownIt:
    """The same, without looking inside the blocks."""
    from markdown_it import MarkdownIt

    outliner = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    outliner.core.ruler.disable(["inline", "text_join"])
    return outliner


class Splitter:
    """The units of one text, kept up to date as it grows."""

    def __init__(self, text: str = "") -> None:
        self.units: list[Unit] = []
        self.references: References = {}
        self._frozen = 0  # units that no later text can change
        self._known: References = {}  # link targets defined in those
        self._rest = text  # the source behind them
        self._first = Unit("", "")  # what those say about the first unit of the rest
        self._fence: re.Pattern[str] | None = None  # closes the fence that is open at the end
        if text:
            self._split()

    @property
    def fence_open(self) -> bool:
        """Whether the last unit is code whose end has not come yet."""
        return self._fence is not None

    def feed(self, fragment: str) -> int:
        """Take more text. Returns the index of the first unit that may have changed."""
        old = self._rest
        self._rest += fragment
        if self.units and self._extends(old, fragment):
            self.units[-1].source += fragment
            return len(self.units) - 1
        first = self._frozen
        if "\n" in fragment:
            self._freeze()
        self._split()
        return first

    def _extends(self, old: str, fragment: str) -> bool:
        """Whether the fragment does no more than make the last unit longer."""
        last = self.units[-1]
        line = old[old.rfind("\n") + 1 :]
        if self._fence is not None:
            return not any(map(self._fence.fullmatch, (line + fragment).split("\n")))
        if "\n" in fragment or "empty" in (unit.kind for unit in self.units[-2:]) or "]:" in last.source:
            return False
        return _SETTLED.match(line) is not None

    def _freeze(self) -> None:
        """Let go of the units that the complete lines have closed."""
        complete = self._rest[: self._rest.rfind("\n") + 1]
        references = dict(self._known)
        units, starts = self._outline(complete, references)
        last = len(units) - 1
        while last > 0 and units[last - 1].kind == "empty":  # its title may stand in what follows
            last -= 1
        if last <= 0:
            return
        for label, reference in references.items():
            if label not in self._known and reference["map"][0] < starts[last].line:
                self._known[label] = reference
        self.units[self._frozen :] = units
        self._frozen += last
        self._first = units[last]
        self._rest = self._rest[sum(len(unit.source) for unit in units[:last]) :]

    def _split(self) -> None:
        """Find the units of what is not final yet."""
        self.references = dict(self._known)
        units, _ = self._outline(self._rest, self.references)
        self.units[self._frozen :] = units
        self._fence = _closing(units[-1]) if units else None

    def _outline(self, text: str, references: References) -> tuple[list[Unit], list[_Start]]:
        """The units of the text behind the final ones; what it defines is added to `references`."""
        before = item_before(self._first)
        text = before + text
        lines = text.split("\n")
        starts = list(_starts(_outliner().parse(text, {"references": references}), lines))
        if before:
            del starts[0]
        if not starts:
            return [], starts
        starts[0] = starts[0]._replace(line=1 if before else 0)
        ends = [start.line for start in starts[1:]] + [len(lines)]
        units: list[Unit] = []
        block = 0
        for start, end in zip(starts, ends, strict=True):
            source = "\n".join(lines[start.line : end]) + ("\n" if end < len(lines) else "")
            blank = start.line > 0 and not lines[start.line - 1].strip()
            continued = start.kind == "item" and start.block == block
            units.append(Unit(source, start.kind, start.number, blank, continued))
            block = start.block
        if self._frozen:
            self._continue(units, starts)
        return units, starts

    def _continue(self, units: list[Unit], starts: list[_Start]) -> None:
        """Correct the first unit, and the items that count on from it, by what came before them."""
        units[0].blank = self._first.blank
        units[0].continued = self._first.continued
        number = units[0].number
        if number is None or self._first.number is None:
            return
        offset = self._first.number - number
        for unit, start in zip(units, starts, strict=True):
            if start.block == starts[0].block and unit.number is not None:
                unit.number += offset


def item_before(unit: Unit) -> str:
    """For an item that is not the first of its list, a line that puts another one before it.

    Within a list some lines are items that would be something else at the start of a text.
    """
    marker = _MARKER.match(unit.source) if unit.continued else None
    return f"{marker[1]} x\n" if marker else ""


def _starts(tokens: list[Token], lines: list[str]) -> Iterator[_Start]:
    """The first line of every top-level block, and of every item where that is a list.

    Between blocks there is nothing but empty lines and definitions of links; the latter make a
    unit too, which shows nothing.
    """
    block = end = 0
    number: int | None = None
    for token in tokens:
        if token.map is None or token.nesting < 0:
            continue
        if token.level == 0:
            yield from _definitions(lines, end, token.map[0])
            block += 1
            end = token.map[1]
            if token.type == "ordered_list_open":
                number = int(token.attrs.get("start", 1))
            elif token.type == "bullet_list_open":
                number = None
            else:
                yield _Start(token.map[0], token.type.removesuffix("_open"), block)
        elif token.level == 1 and token.type == "list_item_open":
            yield _Start(token.map[0], "item", block, number)
            number = None if number is None else number + 1
    yield from _definitions(lines, end, len(lines))


def _definitions(lines: list[str], start: int, end: int) -> Iterator[_Start]:
    """The first line that is not empty, where there is one."""
    for index in range(start, end):
        if lines[index].strip(" \t"):
            yield _Start(index, "empty", 0)
            return


def _closing(unit: Unit) -> re.Pattern[str] | None:
    """What would close the fence that the unit opens, or None if none is open for certain.

    It is not before two lines are complete: a backtick in the first one would make a paragraph of
    it, and a second one such as "|---|" a table.
    """
    opening = _FENCE.search(unit.source) if unit.kind == "fence" else None
    if opening is None:
        return None
    marks = opening[1]
    closing = re.compile(rf" {{0,3}}{marks[0]}{{{len(marks)},}}[ \t]*")
    below = unit.source[opening.end() :].split("\n")[1:]
    return closing if len(below) > 1 and not any(map(closing.fullmatch, below)) else None
