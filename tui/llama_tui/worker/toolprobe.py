"""How a model writes tool calls, read from what its own chat template makes of calls.

Every family of models has a format of its own, but whatever it is, the template writes it when
it shows earlier calls to the model. So calls with names and values that occur nowhere else are
rendered, and what stands around them is the format: the text before a call, between two, after
the last, and how name, id and arguments are written. Where a template shows no calls, or shows
them in the words of `worker.shapes`, a few formats that are widely used are looked for as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from llama_tui.engine.protocol import Message, ToolCall
from llama_tui.worker.toolformat import (
    HARMONY,
    IN_JSON,
    IN_PYTHON,
    KNOWN,
    PLAIN,
    Envelope,
    Format,
    Named,
    Notation,
    Signature,
    Tagged,
)
from llama_tui.worker.toolmarks import ID, KEY, NUMBER, is_tag, marks_of, shared, shared_end
from llama_tui.worker.toolvalues import NoValue, Unfinished, read_json

Render = Callable[[Sequence[Message], Sequence[dict[str, Any]]], str]

_NAMES = ("zqfirsttool", "zqsecondtool")
_IDS = ("zqid00001", "zqid00002")
_KEYS = ("zqkeyone", "zqkeytwo")
_TEXTS = ("zqtextone", "zqtexttwo")
_NUMBER = 73519
_QUESTION, _CONTENT, _RESULT, _MORE = "zqquestion", "zqcontent", "zqresult", "zqmore"
_LONGEST = 3000
"""Characters that a template writes of a call at most; a real one writes some hundred."""

_IN_WORDS = "You can call these tools:"
_TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "zqdescription",
            "parameters": {"type": "object", "properties": {key: {"type": "string"} for key in _KEYS}},
        },
    }
    for name in _NAMES
)


def learn(render: Render, source: str) -> tuple[Format, ...]:
    """The formats to look for in the answers of a model whose template is `source`, the likeliest
    first. `render` makes a prompt of a conversation and tools."""
    formats: list[Format] = []
    # A template that shows calls may still not know what to do with tools.
    for tools in (_TOOLS, ()):
        try:
            formats.append(_Probe(render, tools).format())
        except (NoValue, Unfinished, ValueError, IndexError):
            continue
        if formats[-1].native:
            break
    native = any(learned.native for learned in formats)
    for known in KNOWN:
        first = marks_of(known.before)[0]
        if not native or first == "<tool_call>" or first in source:
            formats.append(known)
    if not native:
        formats += PLAIN
    return tuple(dict.fromkeys(formats))


class _Probe:
    """Renders calls and reads the format from them. Raises ValueError and the like where it finds none."""

    def __init__(self, render: Render, tools: Sequence[dict[str, Any]]) -> None:
        self._render = render
        self._tools = tools
        self._prompt = self._ask(())

    def _ask(self, said: Sequence[Message]) -> str:
        """What a template writes after the question."""
        text = self._render((Message("user", _QUESTION), *said), self._tools)
        self._in_words = _IN_WORDS in text or ("<tool_response>\n" in text and not self._tools)
        text = text[text.rindex(_QUESTION) + len(_QUESTION) :]
        if len(text) > _LONGEST:
            raise ValueError("too long for what was asked")
        return text

    def _called(self, *arguments: dict[str, Any], content: str = "") -> str:
        """What a template writes of calls, up to the first result, with slots for the ids."""
        calls = tuple(ToolCall(id, name, given) for id, name, given in zip(_IDS, _NAMES, arguments, strict=False))
        results = tuple(
            Message("tool", f"{_RESULT}{place}", tool_call_id=call.id, name=call.name)
            for place, call in enumerate(calls)
        )
        text = self._ask((Message("assistant", content, tool_calls=calls), *results))
        text = text[: text.index(f"{_RESULT}0")]
        for id in _IDS:
            text = text.replace(id, ID)
        return text

    def format(self) -> Format:
        """The format of one call, and of two where the template writes two."""
        value = {_KEYS[0]: _TEXTS[0]}
        one = self._called(value)
        native = not self._in_words
        try:
            two = self._called(value, {_KEYS[1]: _TEXTS[1]})
            if (native and self._in_words) or _KEYS[1] not in two:
                two = ""
        except ValueError:
            two = ""
        body, begin, end = self._body(one)
        before = self._before(one[:begin], value, native=native)
        after = one[end:]
        between = ""
        if two and not (isinstance(body, Envelope) and body.listed):
            _, second_begin, _ = self._body(two[(first_end := self._end_of_first(two)) :], second=True)
            between = two[first_end : first_end + second_begin]
            if _NAMES[1] in between:
                between = ""
        turn_end = self._until_turn_end(after)
        close = shared(after, between) if turn_end is None else turn_end
        after = _tags(after) if turn_end is None else turn_end
        if isinstance(body, Tagged):
            between, after, close = (_without(text, body.post) for text in (between, after, close))
        recipient = re.search(r"\bto=(functions\.)?$", before) is not None
        if recipient:
            if not isinstance(body, Named) or not one.startswith(self._prompt):
                return HARMONY
            return replace(HARMONY, header=(one[len(self._prompt) : begin], body.middle))
        return Format(body, before, between, after, close, self._lead(), native=native)

    def _end_of_first(self, two: str) -> int:
        """Where the arguments of the first of two calls end."""
        cut = two.index(_KEYS[1])
        _, _, end = self._body(two[:cut] + "\ue003" * (len(two) - cut))
        return end

    def _body(self, text: str, *, second: bool = False) -> tuple[Envelope | Named | Signature | Tagged, int, int]:
        """How a call is written; where its name or its JSON begins, and where its arguments end."""
        name, key, value = (_NAMES[second], _KEYS[second], _TEXTS[second])
        place = text.index(key)
        found = _enclosing(text, name, value)
        if found:
            body, begin, end = found
            return body, begin, end
        begin = text.rindex(name, 0, place)
        gap = text[begin + len(name) : place]
        if (stripped := gap.rstrip()).endswith(('{"', "{\n")) or '{"' in gap:
            bracket = place - len(gap) + gap.rindex("{")
            _, end = read_json(text, bracket)
            return Named(_numbered(text[begin + len(name) : bracket])), begin, end
        after_key = text[place + len(key) :]
        if stripped.strip() in ("(", "{"):
            assign = after_key.lstrip()[0]
            quote = after_key[after_key.index(assign) + 1 : after_key.index(value)].strip()
            end = place + len(key) + after_key.index(value) + len(value) + len(quote)
            close = ")" if stripped.strip() == "(" else "}"
            end = text.index(close, end) + 1
            raw = not second and self._is_raw(quote)
            body = Signature(stripped.strip(), close, assign, quote, raw)
            return body if second else self._noted(body), begin, end
        end = text.index(value, place) + len(value)
        return (Tagged("", "", "", "", "") if second else self._tagged(text, begin, place, end)), begin, end

    def _is_raw(self, quote: str) -> bool:
        text = self._called({_KEYS[0]: f"{_TEXTS[0]}\\{quote}"})
        return f"{_TEXTS[0]}\\{quote}{quote}" in text

    def _noted(self, body: Signature) -> Signature:
        """With the notations of its values, where what the template writes of some is what these make of them."""
        both = self._called({_KEYS[1]: _TEXTS[0], _KEYS[0]: _TEXTS[1]})
        ordered = both.index(_KEYS[0]) < both.index(_KEYS[1])
        first, second = (_TEXTS[1], _KEYS[1]) if ordered else (_TEXTS[0], _KEYS[0])
        begin = both.index(first) + len(first) + len(body.quote)
        comma = both[begin : both.index(second, begin)]

        def writes(value: object, as_text: str) -> bool:
            text = self._called({_KEYS[0]: value})
            begin = text.find(_KEYS[0])  # a template may leave an argument out, such as one without a value
            return begin >= 0 and text.startswith(f"{_KEYS[0]}{body.assign}{as_text}{body.close}", begin)

        words = tuple(
            next((word for word in written if writes(value, word)), "")
            for value, written in ((True, ("true", "True")), (False, ("false", "False")), (None, ("null", "None")))
        )
        plain = Notation(body.quote, not body.raw, body.assign, comma, (words[0], words[1], words[2]), bare_keys=True)
        notations = (IN_JSON, IN_PYTHON, plain)
        item = {"a": "zqitema", "b": [1.5, False, None]}
        lists = next((how for how in notations if writes([item, ["zqitemb"]], how.write([item, ["zqitemb"]]))), None)
        objects = next((how for how in notations if writes({"c": item}, how.write({"c": item}))), None)
        known = plain if all(words) else None
        return replace(body, plain=known, lists=lists, objects=objects, ordered=ordered)

    def _tagged(self, one: str, begin: int, place: int, end: int) -> Tagged:
        both = self._called({_KEYS[0]: _TEXTS[0], _KEYS[1]: _TEXTS[1]})
        first = both.index(_TEXTS[0]) + len(_TEXTS[0])
        next_key = both.index(_KEYS[1], first)
        step = both[first:next_key].replace(_KEYS[0], KEY)
        middle = one[place + len(_KEYS[0]) : end - len(_TEXTS[0])]
        head_and_pre = one[begin + len(_NAMES[0]) : place]
        pre = shared_end(head_and_pre, step)
        post = step[: len(step) - len(pre)]
        if not marks_of(post):
            raise ValueError("arguments have no end")
        number = self._called({_KEYS[0]: _NUMBER})
        at = number.find(str(_NUMBER))
        other = number[number.rindex(_KEYS[0], 0, at) + len(_KEYS[0]) : at] if at > 0 else middle
        head = head_and_pre[: len(head_and_pre) - len(pre)]
        item = self._item(step)
        return Tagged(head, pre, middle, other, post, nested=bool(item), item=item)

    def _item(self, step: str) -> str:
        """The name of a list's tags where a template writes tags inside tags; empty where it writes
        JSON, or what Python prints."""
        text = self._called({_KEYS[0]: {_KEYS[1]: ["zqitema", "zqitemb"]}})
        inside = text[text.index(_KEYS[0]) + len(_KEYS[0]) : text.index("zqitemb")]
        if "{" in inside:
            return ""
        # Between two items the first one's tag is closed and the second's opened.
        words = re.findall(r"\w[\w.-]*", inside[inside.index("zqitema") + len("zqitema") :])
        return next(word for word in words if words.count(word) > 1 and word not in step)

    def _before(self, start: str, value: dict[str, Any], *, native: bool) -> str:
        """What a model writes before its first call, after what it says besides."""
        before = ""
        beside = self._called(value, content=_CONTENT)
        at = beside.find(_CONTENT)
        try:
            _, begin, _ = self._body(beside)
        except (ValueError, NoValue, Unfinished):
            begin = -1
        if 0 <= at < begin and native != self._in_words:
            before = beside[at + len(_CONTENT) : begin]
        else:
            same = shared(start, self._prompt)
            before = start[len(same) :]
            before = re.split(r"</[\w:]*think[\w:]*>", before)[-1]
        if _NAMES[0] in before:  # in the header of a segment, which ends where its content begins
            before = re.sub(r"^\s*<\|\w+\|>", "", before.rsplit(_NAMES[0], 1)[-1])
        return before

    def _until_turn_end(self, after: str) -> str | None:
        """What of the text after a call stands before the end of the turn; None where that is not
        the end that a turn without calls has."""
        plain = self._ask((Message("assistant", _CONTENT), Message("user", _MORE)))
        ends = marks_of(plain[plain.rindex(_CONTENT) + len(_CONTENT) :])
        marks = marks_of(after)
        if not ends or ends[0] not in marks:
            return None
        found = 0
        for mark in marks[: marks.index(ends[0])]:
            found = after.index(mark, found) + len(mark)
        return after[:found]

    def _lead(self) -> str:
        """A word that a model writes before what it says to the user, as in `all` of `>>>all`."""
        plain = self._ask((Message("assistant", _CONTENT), Message("user", _MORE)))
        lead = plain[len(self._prompt) : plain.index(_CONTENT)] if plain.startswith(self._prompt) else ""
        return lead if re.fullmatch(r"\w+\n", lead) else ""


def _enclosing(text: str, name: str, value: str) -> tuple[Envelope, int, int] | None:
    """The outermost JSON that holds a call's name and arguments."""
    for found in re.finditer(r"[{\[]", text):
        try:
            content, end = read_json(text, found.start())
        except (NoValue, Unfinished):
            continue
        inner = text[found.start() : end]
        if name in inner and value in inner and (body := _keys(content, name, value)):
            if isinstance(content, list):
                body = Envelope(body.name, body.arguments, body.id, body.by_name, listed=True)
            return body, found.start(), end
    return None


def _keys(content: object, name: str, value: str) -> Envelope | None:
    """Under which keys name, arguments and id stand."""
    if isinstance(content, list):
        return next((found for item in cast("list[Any]", content) if (found := _keys(item, name, value))), None)
    if not isinstance(content, dict):
        return None
    fields = cast("dict[str, Any]", content)
    if name in fields:
        return Envelope(by_name=True)
    if name not in fields.values():
        return next((found for item in fields.values() if (found := _keys(item, name, value))), None)
    holder = next((key for key, item in fields.items() if item == name), "")
    arguments = next((key for key, item in fields.items() if key != holder and value in json.dumps(item)), "")
    id = next((key for key, item in fields.items() if item == ID), "")
    return Envelope(holder, arguments, id) if arguments else None


def _numbered(middle: str) -> str:
    """The text between a name and its arguments with a slot for the call's number."""
    found = middle
    for mark in marks_of(middle):
        if not is_tag(mark) and mark not in (ID,):
            found = found.replace(mark, re.sub(r"\d+", NUMBER, mark))
    return found


def _tags(text: str) -> str:
    """The tags that a text begins with."""
    marks = marks_of(text)
    return "".join(marks[: next((place for place, mark in enumerate(marks) if not is_tag(mark)), len(marks))])


def _without(text: str, begin: str) -> str:
    """A text without the marks that another one ends it with at its beginning."""
    for mark in marks_of(begin):
        stripped = text.lstrip()
        if mark == KEY:
            stripped = stripped.removeprefix(_KEYS[0])
        text = stripped.removeprefix(mark)
    return text
