"""Checks a grammar in llama.cpp's GBNF before llama.cpp sees it.

llama.cpp says no more of a bad grammar than that it is bad, and some it does not survive. This
finds what is wrong and on which line: syntax, rules that are not there, a missing root, and rules
that begin with themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from llama_tui.errors import EngineError

_NAME = re.compile(r"[A-Za-z0-9-]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)+")
_SPACE_AND_LINES = re.compile(r"(?:\s|#[^\r\n]*)+")
_ESCAPE = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[tnr\\\"\[\]])")
_COUNT = re.compile(r"\{[ \t]*(\d*)[ \t]*(,?)[ \t]*(\d*)[ \t]*\}")
_TOKEN = re.compile(r"!?<(?:\[\d+\]|[^<>\s]+)>")

_MOST_REPEATS = 2000
"""What llama.cpp allows in `{m,n}`."""

_DEPTH = 200
"""Brackets within brackets."""


class GrammarError(EngineError):
    """A grammar that cannot be used; the message names its line."""


@dataclass(slots=True)
class _Use:
    """A rule's name where it is used."""

    name: str
    at: int


@dataclass(slots=True)
class _Group:
    """Alternatives, each a row of items. An item is a use of a rule, a group, or None for text,
    with whether it may be empty."""

    rows: list[list[tuple[_Use | _Group | None, bool]]]


def check(source: str) -> None:
    """Raise `GrammarError` for a grammar that llama.cpp would refuse, or not survive."""
    reader = _Reader(source)
    rules = reader.rules()
    if "root" not in rules:
        raise GrammarError("The grammar has no rule named root", "The answer is made by `root ::= …`.")
    for group in rules.values():
        for use in _uses(group):
            if use.name not in rules:
                reader.fail(f"the rule {use.name} is not defined", use.at)
    _refuse_left_recursion(reader, rules)


class _Reader:
    """Reads rules from the text of a grammar."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0

    def fail(self, reason: str, at: int | None = None) -> NoReturn:
        """Raise with the line of a place, by default of the present one."""
        at = min(self._at if at is None else at, len(self._source))
        number = self._source.count("\n", 0, at) + 1
        line = self._source.split("\n")[number - 1].strip()
        raise GrammarError(f"The grammar is wrong in line {number}: {reason}", f"The line is: {line}" if line else "")

    def rules(self) -> dict[str, _Group]:
        """Every rule by its name; a later one of the same name takes its place, as in llama.cpp."""
        rules: dict[str, _Group] = {}
        self._skip(lines=True)
        while self._at < len(self._source):
            name = self._match(_NAME) or self.fail("a rule's name is expected")
            self._skip(lines=False)
            if not self._source.startswith("::=", self._at):
                self.fail(f"::= is expected after {name}")
            self._at += 3
            self._skip(lines=True)
            rules[name] = self._alternatives(depth=0)
            if self._at < len(self._source) and self._source[self._at] not in "\r\n":
                self.fail(f"{self._source[self._at]!r} is not expected here")
            self._skip(lines=True)
        return rules

    def _alternatives(self, depth: int) -> _Group:
        group = _Group([self._row(depth)])
        while self._source.startswith("|", self._at):
            self._at += 1
            self._skip(lines=True)
            group.rows.append(self._row(depth))
        return group

    def _row(self, depth: int) -> list[tuple[_Use | _Group | None, bool]]:
        row: list[tuple[_Use | _Group | None, bool]] = []
        while self._at < len(self._source):
            letter = self._source[self._at]
            item: _Use | _Group | None = None
            empty = False
            if letter == '"':
                empty = not self._quoted('"', "a text")
            elif letter == "[":
                self._quoted("]", "a set of characters")
            elif letter == ".":
                self._at += 1
            elif letter == "(":
                item = self._bracketed(depth)
            elif letter in "<!":
                _ = self._match(_TOKEN) or self.fail("a token, <[number]> or <text>, is expected")
            elif _NAME.match(letter):
                item = _Use(self._match(_NAME), self._at)
                item.at -= len(item.name)
            else:
                return row
            self._skip(lines=depth > 0)
            row.append((item, self._repeated(lines=depth > 0) or empty))
        return row

    def _bracketed(self, depth: int) -> _Group:
        begin = self._at
        if depth >= _DEPTH:
            self.fail("too many brackets within brackets")
        self._at += 1
        self._skip(lines=True)
        group = self._alternatives(depth + 1)
        if not self._source.startswith(")", self._at):
            self.fail("the bracket is not closed", begin)
        self._at += 1
        return group

    def _quoted(self, end: str, what: str) -> bool:
        """Pass over a text or a set; whether there is something in it."""
        begin = self._at
        self._at += 1
        while not self._source.startswith(end, self._at):
            if self._at >= len(self._source) or self._source[self._at] in "\r\n":
                self.fail(f"{what} is not closed", begin)
            if self._source[self._at] == "\\":
                _ = self._match(_ESCAPE) or self.fail("an unknown escape")
            else:
                self._at += 1
        self._at += 1
        return self._at - begin > 2

    def _repeated(self, *, lines: bool) -> bool:
        """Pass over repetitions of an item; whether they may be none."""
        empty = False
        while self._at < len(self._source) and self._source[self._at] in "*+?{":
            if self._source[self._at] == "{":
                found = _COUNT.match(self._source, self._at)
                if not found or not found[1]:
                    self.fail("a count, {m}, {m,} or {m,n}, is expected")
                least = int(found[1])
                most = int(found[3]) if found[3] else least
                if (found[3] and not found[2]) or least > most or max(least, most) > _MOST_REPEATS:
                    self.fail(f"counts go from the lesser to the greater, up to {_MOST_REPEATS:,}")
                empty |= least == 0
                self._at = found.end()
            else:
                empty |= self._source[self._at] != "+"
                self._at += 1
            self._skip(lines=lines)
        return empty

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._source, self._at)
        if not found:
            return ""
        self._at = found.end()
        return found[0]

    def _skip(self, *, lines: bool) -> None:
        self._match(_SPACE_AND_LINES if lines else _SPACE)


def _uses(group: _Group) -> list[_Use]:
    found: list[_Use] = []
    for item, _empty in (entry for row in group.rows for entry in row):
        if isinstance(item, _Use):
            found.append(item)
        elif item:
            found += _uses(item)
    return found


def _refuse_left_recursion(reader: _Reader, rules: dict[str, _Group]) -> None:
    """Refuse rules that can begin with themselves: llama.cpp would never end."""
    nullable: set[str] = set()
    while more := {name for name, group in rules.items() if name not in nullable and _may_be_empty(group, nullable)}:
        nullable |= more
    begins = {name: _begins(group, nullable) for name, group in rules.items()}
    for name in rules:
        seen: set[str] = set()
        waiting = [*begins[name]]
        while waiting:
            use = waiting.pop()
            if use.name == name:
                reader.fail(f"the rule {name} begins with itself", use.at)
            if use.name not in seen:
                seen.add(use.name)
                waiting += begins[use.name]


def _may_be_empty(group: _Group, nullable: set[str]) -> bool:
    return any(all(_item_may_be_empty(item, empty, nullable) for item, empty in row) for row in group.rows)


def _item_may_be_empty(item: _Use | _Group | None, empty: bool, nullable: set[str]) -> bool:
    if empty or item is None:
        return empty
    return item.name in nullable if isinstance(item, _Use) else _may_be_empty(item, nullable)


def _begins(group: _Group, nullable: set[str]) -> list[_Use]:
    """The rules that a group can begin with."""
    found: list[_Use] = []
    for row in group.rows:
        for item, empty in row:
            if item is not None:
                found += [item] if isinstance(item, _Use) else _begins(item, nullable)
            if not _item_may_be_empty(item, empty, nullable):
                break
    return found
