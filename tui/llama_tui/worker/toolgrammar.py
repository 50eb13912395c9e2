"""Grammars that a call of a tool follows, in the format of the model that makes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from llama_tui.engine.protocol import ToolChoice
from llama_tui.errors import EngineError
from llama_tui.worker.constraint import grammar_of_schema
from llama_tui.worker.toolformat import Envelope, Format, Named, Signature, Tagged
from llama_tui.worker.toolmarks import ID
from llama_tui.worker.toolschema import SLOTS, NestedTags, Values, properties, sequence, text, until
from llama_tui.worker.toolvalues import types_of

_PART = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|[A-Za-z][A-Za-z0-9-]*')

_ANALYSIS = ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant")
_FINAL = "<|channel|>final<|message|>"
"""Where calls are addressed in headers: a thought up to the next segment, and the answer's header."""


def calls_grammar(
    formats: Sequence[Format], tools: Sequence[Mapping[str, Any]], choice: ToolChoice, prompt: str
) -> tuple[str, Format]:
    """A grammar of one or more calls, and the format that it follows; raises `EngineError` where
    there is no such tool, or where a schema cannot be made a grammar."""
    functions: list[Mapping[str, Any]] = [tool.get("function", tool) for tool in tools]
    if choice.name:
        functions = [function for function in functions if function.get("name") == choice.name]
    if not functions:
        raise EngineError(f"There is no tool {choice.name!r} to call", "Name one of the tools that are given.")
    format = next(format for format in formats if _can_be_forced(format))
    rules: list[str] = []
    for number, function in enumerate(functions):
        rules.append(f"call{number} ::= {_call(format, function, number, rules)}")
    call = " | ".join(f"call{number}" for number in range(len(functions)))
    rules.append(f"call ::= {call}")
    before = format.header[0] if format.header else format.before.lstrip()
    if format.lead and prompt.endswith(before):
        before = ""
    listed = isinstance(format.body, Envelope) and format.body.listed
    between = ", " if listed else format.between
    several = choice.parallel and not choice.name and between
    calls = f"call ({text(between)} call)*" if several else "call"
    root = " ".join((text(before), '"["' if listed else "", calls, '"]"' if listed else "", text(format.close)))
    return "\n".join([f"root ::= {root}", *rules]), format


def either(first: str, second: str) -> str:
    """A grammar of what one of two allows."""
    return "\n".join(["root ::= a-root | b-root", _renamed(first, "a-"), _renamed(second, "b-")])


def in_final(grammar: str) -> str:
    """A grammar of what stands in the last segment of an answer that has segments with headers."""
    return "\n".join([f"root ::= {text(_FINAL)} f-root", _renamed(grammar, "f-")])


def after_thought(grammar: str) -> str:
    """A grammar of what follows a segment with the model's thoughts, or stands alone."""
    begin, end = _ANALYSIS
    thought = f"({text(begin)} {until(end)} {text(end)})?"
    return "\n".join([f"root ::= {thought} s-root", _renamed(grammar, "s-")])


def _can_be_forced(format: Format) -> bool:
    """Whether a grammar can be written for a format. One that models use widely always can, and is
    among those that are looked for."""
    if format.recipient:
        return format.header is not None
    if isinstance(format.body, Signature) and not (format.body.plain and format.body.lists and format.body.objects):
        return False
    return bool(format.before.strip() or isinstance(format.body, Envelope))


def _call(format: Format, function: Mapping[str, Any], number: int, rules: list[str]) -> str:
    name = str(function.get("name", ""))
    given: Any = function.get("parameters")
    schema = cast("dict[str, Any]", given) if isinstance(given, dict) and given else {"type": "object"}
    match format.body:
        case Tagged(nested=True) as body:
            values = NestedTags(body, schema, f"t{number}-", rules)
            members = [
                (values.member(key, values.of(part)), needed) for key, part, needed in properties(schema, schema)
            ]
            return f"{text(name + body.head)} {sequence(members, '', '', rules)}"
        case Tagged() as body:
            return _tagged(body, name, schema, number, rules)
        case Signature() as body:
            return _signature(body, name, schema, number, rules)
        case Envelope() | Named():
            pass
    arguments = _schema_rules(schema, f"t{number}-", rules)
    match format.body:
        case Envelope(by_name=True):
            return f"{text('{' + json.dumps(name) + ': ')} {arguments} {text('}')}"
        case Envelope(name_key, arguments_key, id_key):
            begin = f"{{{json.dumps(name_key)}: {json.dumps(name)}, {json.dumps(arguments_key)}: "
            id = f" {text(f', {json.dumps(id_key)}: ')} {text(chr(34))} {SLOTS[ID]} {text(chr(34))}" if id_key else ""
            return f"{text(begin)} {arguments}{id} {text('}')}"
        case Named(middle):
            return f"{text(name + (format.header[1] if format.header else middle))} {arguments}"


def _signature(body: Signature, name: str, schema: dict[str, Any], number: int, rules: list[str]) -> str:
    assert body.plain and body.lists and body.objects
    members: list[tuple[str, bool]] = []
    for place, (key, part, needed) in enumerate(properties(schema, schema, ordered=body.ordered)):
        kinds = types_of(part, schema)
        notation = body.objects if "object" in kinds else body.lists if "array" in kinds else body.plain
        value = Values(notation, schema, f"t{number}-{place}-", rules).of(part)
        members.append((f"{text(key + body.assign)} {value}", needed))
    inside = sequence(members, body.plain.comma, f"t{number}", rules)
    return f"{text(name + body.open)} {inside} {text(body.close)}"


def _schema_rules(schema: Mapping[str, Any], prefix: str, rules: list[str]) -> str:
    """Add the rules of a schema under names of their own; the name of the first."""
    rules.append(_renamed(grammar_of_schema(json.dumps(schema)), prefix))
    return f"{prefix}root"


def _tagged(body: Tagged, name: str, schema: dict[str, Any], number: int, rules: list[str]) -> str:
    parts = [text(name + body.head)]
    for place, (key, described, needed) in enumerate(properties(schema, schema)):
        types = types_of(described, schema)
        is_text = not types or "string" in types
        middle = body.middle if is_text else body.middle_other
        if "enum" in described and is_text:
            value = "(" + " | ".join(text(str(item)) for item in described["enum"]) + ")"
        elif is_text:
            value = until(body.post.strip())
        else:
            whole = {**described, **{name: schema[name] for name in ("$defs", "definitions") if name in schema}}
            value = _schema_rules(whole, f"t{number}-{place}-", rules)
        argument = f"{text(body.pre + key + middle)} {value} {text(body.post)}"
        parts.append(argument if needed else f"({argument})?")
    return " ".join(part for part in parts if part)


def _renamed(grammar: str, prefix: str) -> str:
    """A grammar whose rules have other names."""
    return _PART.sub(lambda found: found[0] if found[0][0] in '"[' else prefix + found[0], grammar)
