"""Telling what a model thinks from what it answers, while both come token by token.

Two families of formats: a pair of marks around the thoughts (`<think>…</think>` and its many
spellings), and segments with a header (`<|channel|>analysis<|message|>…<|end|>`). Marks that are
single tokens are recognized by their id wherever they come; marks that are spelled out only where
a thought can begin, at the start, so that an answer may speak about them.
"""

from __future__ import annotations

import re
from typing import Literal

from llama_tui.engine.protocol import TokenKind

_PAIRS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|channel>thought": "<channel|>",
}
_SPOKEN = ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]")
_TAG = re.compile(r"</?((?:[\w:]*think[\w:]*))>")

_BEGINS = ("<|start|>", "<|begin|>", "<|channel|>")
_OPENS = ("<|message|>", "<|content|>", "<|think|>")
_ENDS = ("<|end|>", "<|eom|>", "<|eot|>", "<|return|>", "<|call|>")
_THOUGHT_HEADERS = ("analysis", "to=self", "<|think|>")
_ADDRESS = "to=functions."
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([\w.\-]+)")
_HEADER = 200
"""Characters after which what should have been a segment's header is taken for text."""

_State = Literal["start", "header", "reasoning", "answer"]


class Marks:
    """The marks of one model, the usual ones and those that its chat template speaks of."""

    def __init__(self, template: str = "") -> None:
        self.pairs = dict(_PAIRS)
        names: list[str] = _TAG.findall(template)
        self.pairs |= {f"<{name}>": f"</{name}>" for name in names}
        if _SPOKEN[1] in template:
            self.pairs[_SPOKEN[0]] = _SPOKEN[1]
        self.all = frozenset({*self.pairs, *self.pairs.values(), *_BEGINS, *_OPENS, *_ENDS, "<|channel>"})

    def __contains__(self, text: str) -> bool:
        return text in self.all


class Splitter:
    """Cuts the text of one generation into stretches of reasoning and of answer.

    What may be the beginning of a mark waits until that is decided. `prompt` tells whether the
    generation begins inside a thought, as with templates that open one. Where tools may be called,
    `calls` has the marks with which calls begin. With "to=functions." among them a segment whose
    header addresses a tool is passed on as `to=functions.NAME<|message|>…`.
    """

    def __init__(self, marks: Marks, prompt: str, calls: frozenset[str] = frozenset()) -> None:
        self._pairs = marks.pairs
        self._addressed = _ADDRESS in calls
        self._call_marks = tuple(calls - marks.all - {_ADDRESS})
        self._held: str = ""
        self._state: _State = "start"
        self._closes: tuple[str, ...] = ()
        self._segments = False
        self._fresh = True
        end = prompt.rstrip()
        opened = next((close for begin, close in self._pairs.items() if end.endswith(begin)), None)
        if opened:
            self._think(opened)
        elif end.endswith(tuple(f"{begin}assistant" for begin in _BEGINS)):
            self._segments, self._state = True, "header"

    @property
    def reasoning(self) -> bool:
        """Whether what comes now belongs to the reasoning, or to what stands around it."""
        return self._state in ("reasoning", "header")

    def feed(self, text: str, *, is_mark: bool = False) -> list[tuple[TokenKind, str]]:
        """The stretches that are decided now; `is_mark` for a mark that is one token."""
        if is_mark and self._state == "answer" and not self._segments and text in self._pairs:
            before = self._say("answer", self._held)
            self._held = ""
            self._think(self._pairs[text])
            return before
        self._held += text
        said: list[tuple[TokenKind, str]] = []
        while self._step(said):
            pass
        return said

    def finish(self) -> list[tuple[TokenKind, str]]:
        """What was held back, when no more will come."""
        rest, self._held = self._held, ""
        match self._state:
            case "reasoning":
                return self._say("reasoning", rest.rstrip())
            case "header" if any(mark in rest for mark in (*_BEGINS, *_ENDS)):
                return []
            case _:
                return self._say("answer", rest if self._fresh else rest.lstrip())

    def _step(self, said: list[tuple[TokenKind, str]]) -> bool:
        """Decide what can be decided of the held text; True when there is more to look at."""
        match self._state:
            case "start":
                return self._start(said)
            case "header":
                return self._header(said)
            case "reasoning":
                return self._until_the_end("reasoning", said)
            case "answer":
                if self._segments:
                    return self._until_the_end("answer", said)
                said += self._say("answer", self._held)
                self._held = ""
                return False

    def _start(self, said: list[tuple[TokenKind, str]]) -> bool:
        text = self._held.lstrip()
        for begin in (*self._pairs, *_BEGINS):
            if text.startswith(begin):
                if begin in _BEGINS:
                    self._segments, self._state = True, "header"
                    self._held = text
                else:
                    self._held = text[len(begin) :]
                    self._think(self._pairs[begin])
                return True
            if begin.startswith(text):
                return False
        for close in self._pairs.values() if self._fresh else ():
            if text.startswith(close):  # of a thought that was not begun
                self._held = text[len(close) :]
                self._fresh = False
                return True
            if close.startswith(text):
                return False
        if not self._fresh:  # blank lines between a thought and its answer
            self._held = text
        self._state = "answer"
        return True

    def _header(self, said: list[tuple[TokenKind, str]]) -> bool:
        found = _first(self._held, (*_OPENS, *self._call_marks))
        if found is None:
            if len(self._held) <= _HEADER:
                return False
            self._segments, self._state = False, "answer"
            return True
        at, mark = found
        if mark in self._call_marks:
            self._held, self._state = self._held[at:], "answer"
            return True
        header = self._held[:at] + mark
        self._held = self._held[at + len(mark) :]
        if any(word in header for word in _THOUGHT_HEADERS):
            self._think(*_ENDS)
        else:
            self._state = "answer"
            if self._addressed and (tool := _RECIPIENT.search(header)):
                self._held = f"{_ADDRESS}{tool[1]}<|message|>{self._held}"
        return True

    def _until_the_end(self, kind: TokenKind, said: list[tuple[TokenKind, str]]) -> bool:
        closes = self._closes if kind == "reasoning" else _ENDS
        text = self._held.lstrip() if self._fresh and kind == "reasoning" else self._held
        found = _first(text, closes)
        if found is None:
            keep = max(overlap(text, close) for close in closes)
            if kind == "reasoning":
                # The blank lines before the end are no part of the thought.
                keep = len(text) - len(text[: len(text) - keep].rstrip())
            said += self._say(kind, text[: len(text) - keep])
            self._held = text[len(text) - keep :]
            return False
        at, mark = found
        said += self._say(kind, text[:at].rstrip() if kind == "reasoning" else text[:at])
        self._held = text[at + len(mark) :]
        self._state = "header" if self._segments else "start"
        self._fresh = False
        return True

    def _think(self, *closes: str) -> None:
        self._state, self._closes, self._fresh = "reasoning", closes, True

    def _say(self, kind: TokenKind, text: str) -> list[tuple[TokenKind, str]]:
        if text:
            self._fresh = False
        return [(kind, text)] if text else []


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a beginning of `mark`."""
    return next((size for size in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:size])), 0)


def _first(text: str, marks: tuple[str, ...]) -> tuple[int, str] | None:
    """The mark that comes first and where."""
    return min(((at, mark) for mark in marks if (at := text.find(mark)) >= 0), default=None)
