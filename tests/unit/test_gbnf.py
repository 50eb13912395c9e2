"""Grammars are refused with the line of what is wrong, and good ones are let through."""

from __future__ import annotations

import json

import pytest

from llama_tui.errors import EngineError
from llama_tui.worker.constraint import grammar_of
from llama_tui.worker.gbnf import GrammarError, check

GOOD = {
    "a choice": 'root ::= "yes" | "no"',
    "several lines": 'root ::= item (\n  "," item\n)*\n\n# a note\nitem ::= [a-z]+ # another\n',
    "after a bar": 'root ::= "a" |\n  "b"',
    "escapes": r'root ::= "\"\\\n\x41é" [^"\\\]\x7F\u0000-\U0010FFFF]*',
    "counts": 'root ::= "a"{3} "b"{1,} [0-9]{2,4} "c"{0,1}',
    "right recursion": 'root ::= "(" root ")" | ""',
    "any character": 'root ::= .* "end"',
    "no last line": "root ::= x\nx ::= [0-9]",
    "windows lines": 'root ::= x\r\nx ::= "a"\r\n',
    "the usual json": (
        'root ::= object\nvalue ::= object | array | string | number | ("true" | "false" | "null") ws\n'
        'object ::=\n  "{" ws (\n    string ":" ws value\n    ("," ws string ":" ws value)*\n  )? "}" ws\n'
        'array ::= "[" ws (value ("," ws value)*)? "]" ws\n'
        r'string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws'
        '\nnumber ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ws\nws ::= | " " | "\\n" [ \\t]{0,20}\n'
    ),
}

BAD = {
    "nothing": ("", "no rule named root"),
    "no root": ('start ::= "a"', "no rule named root"),
    "not defined": ('root ::= "a"\n  | item', "line 1|line 2"),
    "a missing rule": ('root ::= "a" item\nother ::= "b"', "line 1: the rule item is not defined"),
    "an open text": ('root ::= item\nitem ::= "a', "line 2: a text is not closed"),
    "an open set": ("root ::= item\nitem ::= [a-z", "line 2: a set of characters is not closed"),
    "an open bracket": ('root ::= "a"\nb ::= (\n"c"\n', "line 2: the bracket is not closed"),
    "a bracket too much": ('root ::= "a" )', "line 1: '\\)' is not expected"),
    "no definition": ('root "a"', "line 1: ::= is expected after root"),
    "an escape": (r'root ::= "\q"', "line 1: an unknown escape"),
    "a count": ('root ::= "a"{,3}', "line 1: a count"),
    "counts the wrong way": ('root ::= "a"{3,2}', "line 1: counts go"),
    "too many": ('root ::= "a"{1,9999999}', "line 1: counts go"),
    "a star of nothing": ("root ::= *", "line 1: '\\*' is not expected"),
    "left recursion": ('root ::= root "a" | "b"', "line 1: the rule root begins with itself"),
    "left recursion over others": ('root ::= a\na ::= "x"? b\nb ::= a "y"', "begins with itself"),
    "left recursion behind nothing": ('root ::= e root "a"\ne ::= "" | "x"', "line 1: the rule root begins with"),
    "left recursion in brackets": ('root ::= ("a"* (root))', "begins with itself"),
    "too deep": ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "too many brackets"),
    "no grammar at all": ("just words", "line 1: ::= is expected after just"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_pass(name: str) -> None:
    check(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_bad_ones_are_refused_with_their_line(name: str) -> None:
    source, reason = BAD[name]
    with pytest.raises(GrammarError, match=reason):
        check(source)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]},
        {"type": "array", "items": {"enum": ["x", "é", 1, None]}, "minItems": 1, "maxItems": 3},
        {"anyOf": [{"type": "string", "minLength": 2, "maxLength": 9}, {"type": "number"}, {"const": "c"}]},
        {"type": "object", "additionalProperties": {"type": "boolean"}},
        {
            "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
            "$ref": "#/$defs/node",
        },
        {},
    ],
    ids=str,
)
def test_what_is_made_of_schemas_passes(schema: dict[str, object]) -> None:
    assert "root ::=" in grammar_of({"grammar": "", "json_schema": json.dumps(schema)})


@pytest.mark.parametrize("schema", ["{", '{"$ref": "https://example.org/x.json"}', '{"type": "nonsense"}', "3"])
def test_bad_schemas_are_refused(schema: str) -> None:
    with pytest.raises(EngineError, match="json_schema"):
        grammar_of({"grammar": "", "json_schema": schema})


def test_one_or_the_other() -> None:
    with pytest.raises(EngineError, match="both"):
        grammar_of({"grammar": 'root ::= "a"', "json_schema": "{}"})
    assert grammar_of({"grammar": " ", "json_schema": ""}) == ""
