"""The fixed text around tool calls, as marks that are found again however white space falls."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Literal

from llama_tui.worker.toolvalues import skip_space

ID, NUMBER, KEY = "\ue000", "\ue001", "\ue002"
"""Stand in fixed text for a call's id, its number, and a parameter's name."""

_MARK = re.compile(rf"[{ID}{NUMBER}{KEY}]|<[^<>\s{ID}-{KEY}]*>?|\[[^\[\]<\s{ID}-{KEY}]*\]?|[^\s<\[{ID}-{KEY}]+")
_SLOTS = {ID: re.compile(r"[\w.:\-]*"), NUMBER: re.compile(r"\d*")}


@functools.lru_cache(maxsize=1024)
def marks_of(text: str) -> tuple[str, ...]:
    """The words and tags of a fixed text, without the white space between them."""
    return tuple(_MARK.findall(text))


def is_tag(mark: str) -> bool:
    """Whether a mark looks like markup, not like a word that any text may hold."""
    return (mark[:1], mark[-1:]) in (("<", ">"), ("[", "]")) and len(mark) > 2


@dataclass(frozen=True, slots=True)
class Match:
    """Where a match ends; "part" when the text ends before the marks do. `count` marks were found."""

    state: Literal["whole", "part", "none"]
    end: int
    count: int
    id: str = ""


def match(text: str, at: int, marks: tuple[str, ...], key: str = "") -> Match:
    """Compare a text from a place on with marks, whatever white space is between them. `key` is
    what stands for `KEY`."""
    id = ""
    end = at
    for count, mark in enumerate(marks):
        at = skip_space(text, at)
        if slot := _SLOTS.get(mark):
            found = slot.match(text, at)
            assert found
            at = end = found.end()
            if mark == ID:
                id = found[0]
            if at >= len(text):
                return Match("part", end, count, id)
            continue
        wanted = key if mark == KEY else mark
        if text.startswith(wanted, at):
            at = end = at + len(wanted)
        elif wanted.startswith(text[at:]):
            return Match("part", end, count, id)
        else:
            return Match("none", end, count, id)
    return Match("whole", end, len(marks), id)


def shared_end(first: str, second: str) -> str:
    """What two fixed texts end with, from where a tag begins."""
    size = 0
    while size < min(len(first), len(second)) and first[-size - 1] == second[-size - 1]:
        size += 1
    end = second[len(second) - size :]
    closed = end.find(">")
    return end[closed + 1 :] if 0 <= closed < end.find("<") else end


def shared(first: str, second: str) -> str:
    """What two fixed texts begin with, whole marks of it."""
    size = 0
    spans, others = list(_MARK.finditer(first)), marks_of(second)
    for span, other in zip(spans, others, strict=False):
        if span[0] != other:
            break
        size = span.end()
    return first[:size]
