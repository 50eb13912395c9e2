"""What the built-in model says is true of the program: every name in its answers is one that exists."""

from __future__ import annotations

import re

import pytest

from guide.topics import Topic, load_topics
from llama_tui.library.gguf import read_header
from llama_tui.library.scan import builtin_path
from llama_tui.settings.params import BY_NAME, PARAMS
from llama_tui.ui.app import FIRST_KEYS, later_keys
from llama_tui.ui.bindings import key_words

TOPICS = {topic.id: topic for topic in load_topics()}
KEYS = {
    word
    for group in (*FIRST_KEYS, *later_keys())
    for binding in group.bindings
    for key in binding.key.split(",")
    for word in (key.strip(), key_words(key))
} | {"u", "r", "/", "pgup", "pgdn"}
VARIABLES = {name for param in PARAMS for name in param.env}
CODE = re.compile(r"`([^`\n]+)`")


def named(topic: Topic, pattern: str) -> set[str]:
    """Every match of a pattern in an answer, code blocks included."""
    return set(re.findall(pattern, topic.answer))


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_its_keys_exist(topic: Topic) -> None:
    said = {word for word in CODE.findall(topic.answer) if re.fullmatch(r"(ctrl|alt|shift)\+\S+|f\d+|esc|enter", word)}
    assert said <= KEYS, said - KEYS


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_its_variables_and_flags_exist(topic: Topic) -> None:
    variables = named(topic, r"\b(?:LLAMA_CPP|LLAMA_TUI)_[A-Z_]*[A-Z]\b")
    assert variables <= VARIABLES, variables - VARIABLES
    flags = named(topic, r"(?<!\S)`?(--[a-z][a-z-]+)") - {"--force-reinstall", "--no-cache-dir", "--help", "--version"}
    assert flags <= {param.flag for param in PARAMS}, flags


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_its_parameters_exist(topic: Topic) -> None:
    said = {word for word in CODE.findall(topic.answer) if re.fullmatch(r"[a-z]+(_[a-z]+)+", word)}
    assert said <= BY_NAME.keys(), said - BY_NAME.keys()


def test_its_build_flags_are_those_that_the_program_prints() -> None:
    from llama_tui.engine.install import install_hint

    said = {flag for topic in TOPICS.values() for flag in named(topic, r"-D[A-Z_]+=on")}
    assert said and all(flag in install_hint() for flag in said), said


def test_it_carries_three_suggestions() -> None:
    path = builtin_path()
    assert path
    suggestions = read_header(path).metadata["llama_tui.suggestions"]
    assert isinstance(suggestions, list | tuple) and len(suggestions) == 3
