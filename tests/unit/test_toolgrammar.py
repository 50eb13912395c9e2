"""Grammars of calls, asked of llama.cpp itself: they take what a model's own template writes of a call,
and what they take is read back as the call."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_tui.engine.protocol import ToolChoice
from llama_tui.errors import EngineError
from llama_tui.worker import binding
from llama_tui.worker.binding import llama
from llama_tui.worker.gbnf import check
from llama_tui.worker.toolformat import Format
from llama_tui.worker.toolgrammar import after_thought, calls_grammar, either, in_final
from tests.conftest import CORPUS
from tests.unit.test_tools import CALLS, INVENTED, TOOLS, Called, Shown, invented, read

REQUIRED = ToolChoice("required")


class Judge:
    """A vocabulary of bytes, by which llama.cpp says what a grammar takes."""

    def __init__(self, model: Path) -> None:
        binding.initialize()
        params = llama.llama_model_default_params()
        params.vocab_only = True
        self._model = llama.llama_model_load_from_file(str(model).encode(), params)
        self._vocab = llama.llama_model_get_vocab(self._model)

    def takes(self, grammar: str, text: str) -> bool:
        """Whether a text, and no less of it, is what a grammar allows."""
        check(grammar)
        sampler = llama.llama_sampler_init_grammar(self._vocab, grammar.encode(), b"root")
        assert sampler
        try:
            for token in (*self._tokens(text), llama.llama_vocab_eos(self._vocab)):
                if not self._allows(sampler, token):
                    return False
                llama.llama_sampler_accept(sampler, token)
            return True
        finally:
            llama.llama_sampler_free(sampler)

    def _tokens(self, text: str) -> list[int]:
        data = text.encode()
        found = (llama.llama_token * (len(data) + 8))()
        count = llama.llama_tokenize(self._vocab, data, len(data), found, len(found), False, False)
        return list(found[:count])

    def _allows(self, sampler: Any, token: int) -> bool:
        data = (llama.llama_token_data * 1)(llama.llama_token_data(token, 1.0, 0.0))
        array = llama.llama_token_data_array(data, 1, -1, False)
        llama.llama_sampler_apply(sampler, ctypes.byref(array))
        return bool(np.isfinite(data[0].logit))

    def close(self) -> None:
        """Free the vocabulary."""
        llama.llama_model_free(self._model)


@pytest.fixture(scope="module")
def judge(tiny_model: Path) -> Iterator[Judge]:
    with contextlib.closing(Judge(tiny_model)) as judge:
        yield judge


def shown_of(name: str) -> Shown:
    """A real template, or one that nobody has seen."""
    file = CORPUS / "templates" / f"{name}.jinja"
    if name not in INVENTED and not file.is_file():
        pytest.skip("the corpus is not on this machine")
    return Shown(invented(name) if name in INVENTED else file.read_text())


def forced(shown: Shown, prompt: str, choice: ToolChoice = REQUIRED) -> tuple[str, Format]:
    """The grammar, and its format, which is the one that the template shows."""
    grammar, format = calls_grammar(shown.formats, TOOLS, choice, prompt)
    assert format is shown.formats[0]
    return grammar, format


def called_by(shown: Shown, called: Called) -> tuple[str, str]:
    """The end of the prompt, and what the model writes after it of its calls alone."""
    prompt, written = shown.written(called, "", TOOLS)
    return prompt, written.partition("</mm:think>")[2] or written.lstrip("\n")


NAMES = (
    *("LFM2.5-8B-A1B", "MiniMax-M3", "google-gemma-4-31B-it-interleaved", "openai-gpt-oss-120b"),
    *("like Python", "like Python, in lines"),
)


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_what_the_template_writes_of_a_call_and_nothing_else(judge: Judge, name: str) -> None:
    shown = shown_of(name)
    for case, called in CALLS.items():
        prompt, written = called_by(shown, called)
        grammar, _ = forced(shown, prompt)
        shows = called if called[-1][0] in written else called[:1]  # some show one call a turn
        if case == "without arguments":
            assert not judge.takes(grammar, written), "the city must be there"
            continue
        if case == "quoted" and name.startswith("like Python"):
            continue  # Python writes another quotation mark where one is in the text
        assert judge.takes(grammar, written), (case, written, grammar)
        assert read(shown.formats, [written], prompt, shown.marks) == (shows, ""), case
        for wrong in (
            *(written[:-1], written[1:], f"{written}}}", f"x{written}"),
            written.replace(called[0][0], "get_time"),
            written.replace("city", "town"),
            written.replace("5", "five") if case == "nested" else "",
            written.replace("rue", "es") if case == "nested" else "",
        ):
            assert wrong == written or not judge.takes(grammar, wrong), (case, wrong)
    prompt, written = called_by(shown, CALLS["one"])
    named, _ = forced(shown, prompt, ToolChoice("required", "find_place"))
    assert not judge.takes(named, written)
    assert judge.takes(named, written.replace("get_weather", "find_place"))
    one, _ = forced(shown, prompt, ToolChoice("required", parallel=False))
    assert judge.takes(one, written)
    two = called_by(shown, CALLS["two"])[1]
    assert two == written or not judge.takes(one, two)


def test_a_thought_may_come_before_a_call_that_a_header_addresses(judge: Judge) -> None:
    shown = shown_of("openai-gpt-oss-120b")
    prompt, written = called_by(shown, CALLS["one"])
    calls, _ = forced(shown, prompt)
    thought = "<|channel|>analysis<|message|>Is a < b? <Yes>.<|end|><|start|>assistant"
    grammar = after_thought(calls)
    assert judge.takes(grammar, written)
    assert judge.takes(grammar, thought + written)
    assert not judge.takes(grammar, thought)
    assert not judge.takes(grammar, thought + thought + written)
    assert read(shown.formats, [thought + written], prompt, shown.marks) == (CALLS["one"], "")
    grammar = after_thought(either(in_final('root ::= "yes" | no\nno ::= "no"'), calls))
    final = "<|channel|>final<|message|>"
    for words in (f"{final}yes", f"{thought}{final}no", written, thought + written):
        assert judge.takes(grammar, words), words
    for words in (f"{final}maybe", "yes", final + written, f"{final}yes{written}"):
        assert not judge.takes(grammar, words), words


TEXTS = st.text(st.sampled_from("ab 5é漢'\"<>|/)}],:=-\n"), max_size=8)
ARGUMENTS = st.fixed_dictionaries(
    {"city": TEXTS},
    optional={
        "days": st.integers(-(10**9), 10**9),
        "deep": st.booleans(),
        "where": st.fixed_dictionaries(
            {}, optional={"lat": st.integers(-9, 9) | st.just(4.25), "tags": st.lists(st.just("a") | TEXTS, max_size=3)}
        ),
    },
)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_takes_is_read_back(judge: Judge, name: str) -> None:
    shown = shown_of(name)
    taken = 0

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(arguments=ARGUMENTS)
    def comes_back(arguments: dict[str, Any]) -> None:
        nonlocal taken
        called = [("get_weather", arguments)]
        prompt, written = called_by(shown, called)
        if judge.takes(forced(shown, prompt)[0], written):
            taken += 1
            assert read(shown.formats, [written], prompt, shown.marks) == (called, ""), written

    comes_back()
    assert taken > 20


SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {"tree": {"type": "object", "properties": {"leaf": {"type": "string"}, "more": {"$ref": "#/$defs/tree"}}}},
    "properties": {
        "kind": {"enum": ["a b", 3, None, True]},
        "one": {"const": "x"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "boolean"}, "minItems": 1}]},
        "maybe": {"type": ["string", "null"]},
        "tree": {"$ref": "#/$defs/tree"},
        "anything": {},
    },
    "required": ["kind"],
}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        (name, given)
        for name in ("LFM2.5-8B-A1B", "google-gemma-4-31B-it-interleaved")
        for given in (
            {"kind": "a b", "one": "x", "either": [True, False], "maybe": None},
            {"kind": 3, "tree": {"leaf": "l", "more": {"more": {}}}},
            {"kind": None, "either": -12, "maybe": "m"},
            {"kind": True, "anything": 7},
        )
    ],
)
def test_a_schema_of_every_kind(judge: Judge, name: str, given: dict[str, Any]) -> None:
    shown = shown_of(name)
    tool = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    grammar, _ = calls_grammar(shown.formats, [tool], ToolChoice("required"), "")
    _, written = called_by(shown, [("f", given)])
    assert judge.takes(grammar, written), (written, grammar)
    for wrong in ({**given, "kind": "c"}, {**given, "one": "y"}, {**given, "either": []}, {**given, "maybe": 5}):
        assert not judge.takes(grammar, called_by(shown, [("f", wrong)])[1]), wrong


ODD: dict[str, dict[str, Any]] = {
    "a type that JSON has not": {"type": ["string", "date"]},
    "no type": {"type": {"of": "string"}},
    "anything or a text": {"anyOf": [True, {"type": "string"}]},
    "required as it once was": {"type": "object", "properties": {"a": {"type": "string"}}, "required": True},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["like Python", "tags"])
def test_an_odd_schema_is_taken_or_refused_in_words(name: str, odd: str) -> None:
    function = {"name": "f", "parameters": {"type": "object", "properties": {"a": ODD[odd]}}}
    with contextlib.suppress(EngineError):
        check(calls_grammar(shown_of(name).formats, [function], REQUIRED, "")[0])
    function = {"name": "f", "parameters": ODD["required as it once was"]}
    check(calls_grammar(shown_of(name).formats, [function], REQUIRED, "")[0])
