"""Grammars of the values that a JSON schema allows, in the notations in which models write arguments.

Bounds of numbers, lengths and patterns of texts are not held to; which members there are, in which
order, and of which type they are, is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

from llama_tui.errors import EngineError
from llama_tui.worker.toolformat import IN_JSON, Notation, Tagged
from llama_tui.worker.toolmarks import ID, KEY, NUMBER
from llama_tui.worker.toolvalues import resolved

SLOTS = {ID: "[a-zA-Z0-9]{9}", NUMBER: "[0-9]"}

_INTEGER = '"-"? ("0" | [1-9] [0-9]{0,18})'
_NUMBER = f'{_INTEGER} ("." [0-9]{{1,17}})? ([eE] [-+]? [0-9]{{1,3}})?'
_Kind = Literal["string", "integer", "number", "boolean", "null", "array", "object", "any"]
_KINDS: tuple[_Kind, ...] = get_args(_Kind)


class Values:
    """Adds the rules of one argument, whose schema is part of `root`, to `rules`, under names that begin
    with `prefix`."""

    def __init__(self, notation: Notation, root: Mapping[str, Any], prefix: str, rules: list[str]) -> None:
        self._notation = notation
        self._root = root
        self._prefix = prefix
        self._rules = rules
        self._named: dict[str, str] = {}

    def of(self, schema: Mapping[str, Any]) -> str:
        """What matches the values that a schema allows."""
        if "$ref" in schema:
            target = str(schema["$ref"])
            if target not in self._named:
                name = self._name(target)
                self._rules.append(f"{name} ::= {self.of(resolved(schema, self._root))}")
            return self._named[target]
        if "const" in schema:
            return self._literal(schema["const"])
        if isinstance(values := schema.get("enum"), list):
            return _one_of([self._literal(value) for value in cast("list[Any]", values)])
        for several in ("anyOf", "oneOf"):
            if isinstance(parts := schema.get(several), list):
                return _one_of([self.of(_schema(part)) for part in cast("list[Any]", parts)])
        types: Any = schema.get("type") or ("object" if "properties" in schema else "any")
        kinds = cast("list[_Kind]", types if isinstance(types, list) else [types])
        if unknown := [kind for kind in kinds if kind not in _KINDS]:
            raise EngineError(f"A tool's schema has the type {unknown[0]!r}", f"JSON has {', '.join(_KINDS[:-1])}.")
        return _one_of([self._of_kind(kind, schema) for kind in kinds])

    def _of_kind(self, kind: _Kind, schema: Mapping[str, Any]) -> str:
        true, false, null = self._notation.words
        match kind:
            case "string":
                return self._string()
            case "integer":
                return self._rule("integer", _INTEGER)
            case "number":
                return self._rule("number", _NUMBER)
            case "boolean":
                return f"({text(true)} | {text(false)})"
            case "null":
                return text(null)
            case "array":
                return self._array(self.of(_schema(schema.get("items"))), schema)
            case "object":
                return self._object(schema)
            case "any":
                return self._any()

    def _string(self) -> str:
        quote = self._notation.quote
        inside = f'([^\\\\{_in_set(quote)}\\n] | "\\\\" [^\\n])*' if self._notation.escaped else until(quote)
        return self._rule("string", f"{text(quote)} {inside} {text(quote)}")

    def _array(self, item: str, schema: Mapping[str, Any]) -> str:
        least, most = _count(schema.get("minItems")) or 0, _count(schema.get("maxItems"))
        if most == 0:
            return text("[]")
        more = f"({text(self._notation.comma)} {item}){_times(max(0, least - 1), most and most - 1)}"
        items = f"{item} {more}"
        return f"{text('[')} {items if least else f'({items})?'} {text(']')}"

    def _object(self, schema: Mapping[str, Any]) -> str:
        members = [
            (f"{text(self._key(key) + self._notation.assign)} {self.of(part)}", needed)
            for key, part, needed in properties(schema, self._root)
        ]
        if not members:
            return self._free_object() if schema.get("additionalProperties") is not False else text("{}")
        inside = sequence(members, self._notation.comma, self._name(f"object {len(self._named)}"), self._rules)
        return f"{text('{')} {inside} {text('}')}"

    def _free_object(self) -> str:
        notation = self._notation
        name = "[a-zA-Z_] [a-zA-Z0-9_]*" if notation.bare_keys else self._string()
        member = f"{name} {text(notation.assign)} {self._any()}"
        return self._rule("map", f"{text('{')} ({member} ({text(notation.comma)} {member})*)? {text('}')}")

    def _any(self) -> str:
        """Whatever can be written; a rule that speaks of itself."""
        if "any" not in self._named:
            name = self._name("any")
            kinds: tuple[_Kind, ...] = ("string", "number", "boolean", "null", "array", "object")
            self._rules.append(f"{name} ::= {' | '.join(self._of_kind(kind, {}) for kind in kinds)}")
        return self._named["any"]

    def _literal(self, value: object) -> str:
        return text(self._notation.write(value))

    def _key(self, key: str) -> str:
        return key if self._notation.bare_keys else self._notation.write(key)

    def _rule(self, what: str, matches: str) -> str:
        if what not in self._named:
            self._rules.append(f"{self._name(what)} ::= {matches}")
        return self._named[what]

    def _name(self, what: str) -> str:
        self._named[what] = f"{self._prefix}v{len(self._named)}"
        return self._named[what]


class NestedTags(Values):
    """Values whose members stand between tags in turn. What has no schema is text, an object of which
    nothing is known JSON: a grammar cannot say that an end tag must have the name of its begin."""

    def __init__(self, body: Tagged, root: Mapping[str, Any], prefix: str, rules: list[str]) -> None:
        super().__init__(Notation("", escaped=False, assign="", comma=""), root, prefix, rules)
        self._body = body
        self._json = Values(IN_JSON, root, f"{prefix}j-", rules)

    def member(self, key: str, value: str) -> str:
        """A value between its tags."""
        body = self._body
        return f"{text(body.pre + key + body.middle)} {value} {text(body.post.replace(KEY, key))}"

    def _string(self) -> str:
        return self._rule("string", until(self._body.post.partition(KEY)[0].strip()))

    def _any(self) -> str:
        return self._string()

    def _free_object(self) -> str:
        return self._json.of({"type": "object"})

    def _array(self, item: str, schema: Mapping[str, Any]) -> str:
        least, most = _count(schema.get("minItems")) or 0, _count(schema.get("maxItems"))
        return f"({self.member(self._body.item, item)}){_times(least, most)}"

    def _object(self, schema: Mapping[str, Any]) -> str:
        members = [(self.member(key, self.of(part)), needed) for key, part, needed in properties(schema, self._root)]
        return sequence(members, "", "", self._rules) or self._free_object()

    def _literal(self, value: object) -> str:
        return text(value if isinstance(value, str) else self._notation.write(value))


def properties(
    schema: Mapping[str, Any], root: Mapping[str, Any], *, ordered: bool = False
) -> list[tuple[str, Mapping[str, Any], bool]]:
    """The members that an object may have, with their schemas and whether they must be there; `ordered`
    by their names."""
    schema = resolved(schema, root)
    given: Any = schema.get("required")
    required = cast("list[Any]", given) if isinstance(given, list) else []
    found: list[tuple[str, Mapping[str, Any], bool]] = [
        (key, _schema(part), key in required) for key, part in _schema(schema.get("properties")).items()
    ]
    return sorted(found, key=lambda member: member[0].lower()) if ordered else found


def sequence(items: Sequence[tuple[str, bool]], separator: str, name: str, rules: list[str]) -> str:
    """What matches items in their order, those left out that need not be there, with separators
    between those that are; adds rules that begin with `name`."""
    if not separator:
        return " ".join(item if needed else f"({item})?" for item, needed in items)
    rules += [f'{name}-first{len(items)} ::= ""', f'{name}-next{len(items)} ::= ""']
    for place, (item, needed) in reversed(list(enumerate(items))):
        begun, following = f"{item} {name}-next{place + 1}", f"{text(separator)} {item}"
        other = "" if needed else f" | {name}-first{place + 1}"
        rules.append(f"{name}-first{place} ::= {begun}{other}")
        rules.append(f"{name}-next{place} ::= {following if needed else f'({following})?'} {name}-next{place + 1}")
    return f"{name}-first0"


def until(end: str) -> str:
    """Any text up to an end mark, without what is both its first two characters. A quotation mark alone
    ends a text only where a comma or a bracket follows, so that it may stand inside a word."""
    first = _in_set(end[0])
    if len(end) > 1:
        return f"([^{first}] | {text(end[0])}+ [^{first}{_in_set(end[1])}])*"
    return f"([^{first}] | {text(end[0])}+ [ \\n\\t]* [^{first},)}}\\] \\n\\t])*"


def text(fixed: str) -> str:
    """A fixed text as a grammar has it, with slots; empty for none."""
    parts = re.split(f"([{ID}{NUMBER}])", fixed)
    return " ".join(SLOTS.get(part) or f'"{escaped(part)}"' for part in parts if part)


def escaped(fixed: str) -> str:
    """A text as it stands between a grammar's quotation marks."""
    for letter, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        fixed = fixed.replace(letter, escape)
    return fixed


def _in_set(letter: str) -> str:
    return f"\\{letter}" if letter in "\\]" else letter


def _one_of(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"({' | '.join(choices)})"


def _times(least: int, most: int | None) -> str:
    if most is not None:
        return f"{{{least},{most}}}"
    return f"{{{least},}}" if least else "*"


def _schema(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
