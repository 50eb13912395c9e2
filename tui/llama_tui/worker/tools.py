"""Tells the calls of tools in an answer from what the model says, while it comes token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llama_tui.engine.protocol import ToolCall
from llama_tui.worker.reasoning import overlap
from llama_tui.worker.toolcalls import Tools, read_calls
from llama_tui.worker.toolformat import Envelope, Format, Named, Signature, Tagged
from llama_tui.worker.toolmarks import is_tag, marks_of, match
from llama_tui.worker.toolvalues import NoValue, Unfinished, skip_space

_LONG = 200
"""Characters from which on what may be a call is looked at again only where it can be complete."""

_FENCE = "```"

Found = tuple[Literal["answer"], str] | ToolCall


class CallReader:
    """Cuts the text of one answer into what is said and the calls that are made.

    What may be a call waits until it is one or is none; what looks like one but is none, since it is
    cut off, is no JSON, or stands in a block of code, is said like the rest. `prompt` tells whether
    the template has begun a call itself. With `single` only the first call counts.
    """

    def __init__(
        self, formats: Sequence[Format], tools: Sequence[Mapping[str, Any]], prompt: str = "", *, single: bool = False
    ) -> None:
        self._formats = formats
        self._tools = Tools(tools)
        self._single = single
        self._called = False
        self.marks = call_marks(formats)
        self._fences = 0
        self._line_end = ""
        self._said = False
        self._format: Format | None = None
        self._waits: frozenset[str] = frozenset()
        self._entries = tuple(entry for format in formats for entry in _entries(format))
        self._leads = tuple(format.before.strip() + format.lead for format in formats if format.lead)
        begun = (format.before.strip() for format in formats if format.lead)
        self._begun = self._held = next((text for text in begun if text and prompt.endswith(text)), "")

    @property
    def done(self) -> bool:
        """Whether the one call that may be made is made."""
        return self._single and self._called

    def feed(self, text: str) -> list[Found]:
        """What is decided now: stretches of the answer and calls, in their order."""
        self._held += text
        if self.done or (self._waits and len(self._held) > _LONG and not self._waits & set(text)):
            return []
        return self._decide(final=False)

    def finish(self) -> list[Found]:
        """What was held back, when no more will come."""
        if self.done or self._held == self._begun:
            return []
        return self._decide(final=True)

    def _decide(self, *, final: bool) -> list[Found]:
        found: list[Found] = []
        self._waits = frozenset()
        while self._held and not self.done:
            step = self._after_call if self._format else self._content
            if not step(found, final=final):
                break
        return found

    def _call(self, found: list[Found], calls: list[ToolCall]) -> None:
        found += calls[:1] if self._single else calls
        self._called = True

    # After a call

    def _after_call(self, found: list[Found], *, final: bool) -> bool:
        """Pass over what stands after a call, up to the next one or to what is said; False when
        more text is needed for that."""
        assert self._format
        format, text = self._format, self._held
        between, after = marks_of(format.between), marks_of(format.after)
        next_one = match(text, 0, between)
        if next_one.state == "whole" and (format.between or isinstance(format.body, Envelope)):
            begin = next_one.end
            if not between and text[skip_space(text, 0) :][:1] in (";", ","):
                begin = skip_space(text, 0) + 1
            try:
                calls, end = read_calls(format, self._tools, text, begin, id=next_one.id)
            except Unfinished:
                if not final:
                    self._waits = _ends(format)
                    return False
            except NoValue:
                pass
            else:
                self._call(found, calls)
                self._held = text[end:]
                return True
        end = match(text, 0, after)
        if not final and (end.state == "part" or (next_one.state == "part" and between)):
            return False
        rest = text[end.end :] if end.count else text
        if final and end.state == "part" and skip_space(text, end.end) < len(text):
            rest = ""  # the end of a call, cut short
        self._format = None
        self._held = rest.lstrip()
        return bool(self._held)

    # What is said

    def _content(self, found: list[Found], *, final: bool) -> bool:
        """Say what is no call up to the first that may be one, and read that; False when more text
        is needed."""
        text = self._held
        for lead in self._leads:
            if not self._said and text.startswith(lead):
                self._held = text[len(lead) :]
                self._said = True
                return bool(self._held)
            if not self._said and lead.startswith(text) and not final:
                return False
        at = 0
        while candidate := self._candidate(text, at):
            at, part = candidate
            if self._in_code(text[:at]):
                at += 1
                continue
            if part and not final:
                self._say(found, text[:at], keep_space=True)
                return False
            begun = None if part else self._read(text, at)
            if begun:
                calls, end, format = begun
                self._say(found, text[:at].rstrip())
                self._call(found, calls)
                self._held, self._format, self._said = text[end:], format, True
                return True
            if self._waits and not final:
                self._say(found, text[:at], keep_space=True)
                return False
            at += 1
        self._say(found, text, keep_space=not final)
        return False

    def _candidate(self, text: str, at: int) -> tuple[int, bool] | None:
        """The first place from one on where a call may begin, and whether that is not decided yet."""
        best: tuple[int, bool] | None = None
        for _format, entry in self._entries:
            begin = at
            while entry and (place := _find(text, entry[0], begin)) is not None:
                if best and place >= best[0]:
                    break
                state = match(text, place, entry).state
                if state != "none":
                    best = (place, state == "part")
                    break
                begin = place + 1
        start = skip_space(text, 0)
        if self._may_be_bare(text, at, start) and start >= at and (not best or start <= best[0]):
            return start, False
        return best

    def _may_be_bare(self, text: str, at: int, start: int) -> bool:
        """Whether what begins an answer may be a call that no mark tells from other JSON."""
        if self._said or text[:at].strip() or text[start : start + 1] not in ("{", "["):
            return False
        return any(not entry for _format, entry in self._entries)

    def _read(self, text: str, at: int) -> tuple[list[ToolCall], int, Format] | None:
        """The calls that begin at a place, where they end, and how they are written; None where there
        are none, or where that cannot be told before one of the characters `_waits` has come."""
        self._waits = frozenset()
        for format, entry in self._entries:
            begun = match(text, at, entry)
            if begun.state == "none" or not (entry or self._may_be_bare(text, at, at)):
                continue
            try:
                if begun.state == "part":
                    raise Unfinished
                calls, end = read_calls(format, self._tools, text, begun.end, id=begun.id)
            except Unfinished:
                self._waits |= _ends(format)
            except NoValue:
                continue
            else:
                self._waits = frozenset()
                return calls, end, format
        return None

    def _in_code(self, before: str) -> bool:
        """Whether what comes after a text stands in a block of code, or in backticks."""
        line = (self._line_end + before).rsplit("\n", 1)[-1]
        return (self._fences + before.count(_FENCE)) % 2 == 1 or line.replace(_FENCE, "").count("`") % 2 == 1

    def _say(self, found: list[Found], text: str, *, keep_space: bool = False) -> None:
        """Say a text, the white space at its end only when it is known that more is said."""
        rest = self._held[len(text) :]
        if keep_space:
            kept = text.rstrip()
            ticks = len(kept) - len(kept.rstrip("`"))
            if not rest and ticks < len(_FENCE):  # they may become a fence
                kept = kept[: len(kept) - ticks]
            rest = text[len(kept) :] + rest
            text = kept
        if text:
            found.append(("answer", text))
            self._said = self._said or bool(text.strip())
            self._fences += text.count(_FENCE)
            self._line_end = (self._line_end + text).rsplit("\n", 1)[-1]
        self._held = rest


def _entries(format: Format) -> list[tuple[Format, tuple[str, ...]]]:
    """The marks with which a call can begin: all that stands before one, or the last tags of it,
    since models leave out the first. None where nothing stands before one."""
    marks = marks_of(format.before)
    begins = [0, *(place for place, mark in enumerate(marks) if place and len(mark) > 2 and mark[0] in "<[")]
    return [(format, marks[place:]) for place in begins]


def _ends(format: Format) -> frozenset[str]:
    """The characters with which a call may be complete."""
    match format.body:
        case Envelope() | Named():
            return frozenset("}]")
        case Signature():
            return frozenset(")]}>")
        case Tagged():
            marks = (*marks_of(format.between), *marks_of(format.after))
            return frozenset(mark[-1] for mark in marks)


def call_marks(formats: Sequence[Format]) -> frozenset[str]:
    """The tags with which calls begin, and how a header addresses a tool where that is the format."""
    marks = (mark for format in formats for mark in marks_of(format.before) if is_tag(mark) or format.recipient)
    return frozenset(marks)


def _find(text: str, mark: str, at: int) -> int | None:
    """The first place of a mark, or of its beginning at the end of the text."""
    place = text.find(mark, at)
    if place >= 0:
        return place
    size = overlap(text[at:], mark)
    return len(text) - size if size else None
