"""How models write calls of tools: the families of formats, and those that are widely used.

`worker.toolprobe` learns the format of a model from its chat template.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import cast

from llama_tui.worker.toolmarks import marks_of


@dataclass(frozen=True, slots=True)
class Envelope:
    """Name and arguments stand in one JSON object, or in a list of such. `by_name` where the name
    is the key of the arguments."""

    name: str = "name"
    arguments: str = "arguments"
    id: str = ""
    by_name: bool = False
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """The name, `middle`, then the arguments as a JSON object."""

    middle: str


@dataclass(frozen=True, slots=True)
class Notation:
    """How values are written that are no JSON: texts between `quote`, with backslashes in them where
    that is `escaped`; `words` are those for true, false and null."""

    quote: str
    escaped: bool
    assign: str
    comma: str
    words: tuple[str, str, str] = ("true", "false", "null")
    bare_keys: bool = False

    def write(self, value: object) -> str:
        """A value in this notation."""
        match value:
            case str():
                text = json.dumps(value, ensure_ascii=False)[1:-1] if self.escaped else value
                if self.escaped and self.quote == "'":
                    text = text.replace('\\"', '"').replace("'", "\\'")
                return f"{self.quote}{text}{self.quote}"
            case True | False | None:
                return self.words[2 if value is None else int(not value)]
            case list():
                return f"[{self.comma.join(map(self.write, cast('list[object]', value)))}]"
            case dict():
                members = cast("dict[str, object]", value).items()
                keys = [key if self.bare_keys else self.write(key) for key, _ in members]
                pairs = zip(keys, members, strict=True)
                return f"{{{self.comma.join(f'{key}{self.assign}{self.write(item)}' for key, (_, item) in pairs)}}}"
            case _:
                return json.dumps(value)


IN_JSON = Notation('"', escaped=True, assign=": ", comma=", ")
IN_PYTHON = Notation("'", escaped=True, assign=": ", comma=", ", words=("True", "False", "None"))


@dataclass(frozen=True, slots=True)
class Signature:
    """`name(key='value')` or `name{key:"value"}`, with other brackets and quotation marks. `plain` is the
    notation of texts, numbers and words, `lists` and `objects` those of the others, `ordered` where keys are
    sorted; None where that is not known."""

    open: str
    close: str
    assign: str
    quote: str
    raw: bool
    plain: Notation | None = None
    lists: Notation | None = None
    objects: Notation | None = None
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Tagged:
    """Each argument between marks of its own: `head` after the name, and for each `pre` key `middle`
    value `post`. `middle_other` stands in place of `middle` before what is no string, where that
    differs; `nested` where objects and lists are tags inside tags, a list's named `item`."""

    head: str
    pre: str
    middle: str
    middle_other: str
    post: str
    nested: bool = False
    item: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write calls. `before` stands before the first call's name (or JSON), `between`
    after a call's arguments and before the next name, `after` follows the last; `close` is what of
    `after` belongs to the call. A format without `before` is only looked for where an answer
    begins, and only with the names of tools that there are. `recipient` for calls that are
    addressed in a segment's header, as `to=functions.name`; `header` is what the template writes of
    that before and after the name."""

    body: Envelope | Named | Signature | Tagged
    before: str = ""
    between: str = ""
    after: str = ""
    close: str = ""
    lead: str = ""
    recipient: bool = False
    native: bool = True
    header: tuple[str, str] | None = None

    def marks(self) -> tuple[str, ...]:
        """Every mark that a call of this format has."""
        match self.body:
            case Envelope():
                inner: tuple[str, ...] = ()
            case Named(middle):
                inner = (middle,)
            case Signature(quote=quote):
                inner = (quote,)
            case Tagged(head, pre, middle, other, post):
                inner = (head, pre, middle, other, post)
        texts = (self.before, self.between, self.close, self.after, *inner)
        return tuple(mark for text in texts for mark in marks_of(text))


HARMONY = Format(Named("<|message|>"), before="to=functions.", recipient=True)

PLAIN = (
    Format(Envelope(arguments="parameters")),
    Format(Signature("(", ")", "=", "'", raw=False), before="[", between=",", after="]", close="]", native=False),
)
"""What models write that mark calls with nothing: only looked for where no format is known."""

KNOWN = (
    Format(Envelope(), before="<|python_tag|>"),
    Format(
        Envelope(),
        before="<tool_call>",
        between="</tool_call>\n<tool_call>",
        after="</tool_call>",
        close="</tool_call>",
    ),
    Format(Envelope(), before="<tool_calls>", after="</tool_calls>", close="</tool_calls>"),
    Format(Envelope(), before="<TOOLCALL>", after="</TOOLCALL>", close="</TOOLCALL>"),
    Format(Envelope(), before="<|tool_call|>", after="<|/tool_call|>", close="<|/tool_call|>"),
    Format(Envelope(), before="[TOOL_CALLS]"),
    Format(Named("[ARGS]"), before="[TOOL_CALLS]"),
    Format(Envelope(), before="functools"),
    Format(Envelope("tool_name", "parameters"), before="<|START_ACTION|>", after="<|END_ACTION|>"),
    Format(Envelope("tool_name", "parameters"), before="Action: ```json", after="```"),
    Format(Named(">"), before="<function=", after="</function>", close="</function>"),
    Format(
        Tagged(">", "<parameter=", ">\n", ">\n", "\n</parameter>"),
        before="<tool_call><function=",
        after="</function></tool_call>",
        close="</function></tool_call>",
    ),
    Format(
        Tagged("", "<arg_key>", "</arg_key>\n<arg_value>", "</arg_key>\n<arg_value>", "</arg_value>"),
        before="<tool_call>",
        after="</tool_call>",
        close="</tool_call>",
    ),
    Format(
        Signature("(", ")", "=", "'", raw=False),
        before="<|tool_call_start|>[",
        between=",",
        after="]<|tool_call_end|>",
        close="]<|tool_call_end|>",
    ),
)
"""What models write whose templates do not show it."""
