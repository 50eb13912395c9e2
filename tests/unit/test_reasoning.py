"""Thoughts apart from answers, in every format, however the text is cut into tokens."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_tui.worker.reasoning import Marks, Splitter
from llama_tui.worker.text import AnswerText

# The text, the prompt's end, the thoughts, the answer.
CASES: dict[str, tuple[str, str, str, str]] = {
    "none": ("Just an answer.\n", "", "", "Just an answer.\n"),
    "tags": ("<think>\nhm\n\nwell\n</think>\n\nYes.\n", "", "hm\n\nwell", "Yes.\n"),
    "tags after a blank line": ("\n<think>hm</think>Yes.", "", "hm", "Yes."),
    "opened by the prompt": ("\nhm\n</think>\n\nYes.", "<|im_start|>assistant\n<think>\n", "hm", "Yes."),
    "closed by the prompt": ("Yes.", "assistant\n<think>\n\n</think>\n\n", "", "Yes."),
    "empty": ("<think>\n\n</think>\n\nYes.", "", "", "Yes."),
    "never closed": ("<think>hm, but", "", "hm, but", ""),
    "spoken of in an answer": ("Use <think> and </think>.", "", "", "Use <think> and </think>."),
    "spoken of after a thought": ("<think>a</think>Use <think>.", "", "a", "Use <think>."),
    "half a mark": ("<thi is not one", "", "", "<thi is not one"),
    "half a mark at the end": ("<think>a</thin", "", "a</thin", ""),
    "mistral": ("[THINK]hm[/THINK]Yes.", "", "hm", "Yes."),
    "seed": ("<seed:think>hm</seed:think>Yes.", "", "hm", "Yes."),
    "cohere": ("<|START_THINKING|>hm<|END_THINKING|>Yes.", "", "hm", "Yes."),
    "gemma": ("<|channel>thought\nhm\n<channel|>Yes.", "", "hm", "Yes."),
    "apriel": ("hm\n[BEGIN FINAL RESPONSE]\nYes.", "Here are my reasoning steps:\n", "hm", "Yes."),
    "harmony": (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        "<|start|>assistant",
        "hm",
        "Yes.",
    ),
    "harmony without the prompt": (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
        "",
        "hm",
        "Yes.",
    ),
    "harmony, a call": (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=f <|constrain|>json"
        '<|message|>{"a": 1}<|call|>',
        "<|start|>assistant",
        "hm",
        '{"a": 1}',
    ),
    "harmony, the answer alone": ("<|channel|>final<|message|>Yes.", "<|start|>assistant", "", "Yes."),
    "recipients": (
        " to=self<|message|>hm<|eom|><|start|>assistant<|message|>Yes.<|eot|>",
        "<|start|>assistant",
        "hm",
        "Yes.",
    ),
    "solar": ("<|think|>hm<|end|><|begin|>assistant<|content|>Yes.", "<|begin|>assistant", "hm", "Yes."),
    "a header that is none": ("x" * 300, "<|start|>assistant", "", "x" * 300),
    "short, where a header should be": ("Yes.", "<|start|>assistant", "", "Yes."),
}

MARKS = Marks("[BEGIN FINAL RESPONSE] <seed:think>")


def split(pieces: list[str], prompt: str) -> tuple[str, str]:
    splitter = Splitter(MARKS, prompt)
    said = [stretch for piece in pieces for stretch in splitter.feed(piece)] + splitter.finish()
    thought, answer = ("".join(text for kind, text in said if kind == wanted) for wanted in ("reasoning", "answer"))
    return thought, answer


@pytest.mark.parametrize("name", CASES)
def test_a_format(name: str) -> None:
    text, prompt, thought, answer = CASES[name]
    assert split([text], prompt) == (thought, answer)
    assert split(list(text), prompt) == (thought, answer)


@given(name=st.sampled_from(sorted(CASES)), cuts=st.lists(st.integers(0, 120), max_size=8))
def test_the_split_into_tokens_does_not_matter(name: str, cuts: list[int]) -> None:
    text, prompt, thought, answer = CASES[name]
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert split([text[a:b] for a, b in itertools.pairwise(edges)], prompt) == (thought, answer)


def test_thoughts_come_while_they_are_thought() -> None:
    splitter = Splitter(MARKS, "<think>\n")
    assert splitter.feed("one two") == [("reasoning", "one two")]
    assert splitter.reasoning
    assert splitter.feed(" three\n</thi") == [("reasoning", " three")]
    assert splitter.feed("nk>Yes") == [("answer", "Yes")]
    assert not splitter.reasoning


def test_a_mark_that_is_one_token_counts_anywhere() -> None:
    splitter = Splitter(MARKS, "")
    assert splitter.feed("First ") == [("answer", "First ")]
    assert splitter.feed("<think>", is_mark=True) == []
    assert splitter.feed("hm") == [("reasoning", "hm")]
    assert splitter.feed("</think>", is_mark=True) == []
    assert splitter.feed("Yes") == [("answer", "Yes")]


def test_a_template_teaches_its_marks() -> None:
    marks = Marks("{% set open = '<mm:think>' %}")
    assert marks.pairs["<mm:think>"] == "</mm:think>"
    assert "</mm:think>" in marks
    splitter = Splitter(marks, "")
    assert splitter.feed("<mm:think>a</mm:think>b") == [("reasoning", "a"), ("answer", "b")]


def test_stop_strings_end_answers_not_thoughts() -> None:
    text = AnswerText(["\n\n"], MARKS, "<think>\n")
    assert text.feed(b"a\n\nb</think>\n\nYes.\n\nMore") == [("reasoning", "a\n\nb"), ("answer", "Yes.")]
    assert text.stopped
