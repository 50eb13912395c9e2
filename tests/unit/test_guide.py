"""What the built-in model says is true of the program: every name in its answers is one that exists."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections import Counter

import pytest

from guide.topics import HERE, Topic, bare, load_asked, load_heldout, load_topics, load_undo
from llama_tui.commands import COMMANDS
from llama_tui.library.gguf import read_header
from llama_tui.library.scan import builtin_path
from llama_tui.settings.params import BY_NAME, PARAMS
from llama_tui.ui.app import FIRST_KEYS, later_keys
from llama_tui.ui.bindings import key_words
from llama_tui.ui.theme import shipped_dir

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
BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
ELSEWHERE = {"--force-reinstall", "--no-cache-dir", "--help"}
"""Flags of pip, and the one that every command has."""
OF_THE_CLIENT = {"tool_choice", "parallel_tool_calls", "response_format", "tool_calls"}
CHOICES = {choice for param in PARAMS for choice in param.choices}


def flags() -> set[str]:
    """Every flag of every command."""
    parsers = [importlib.import_module(f"llama_tui.commands.{name}").parser() for name in COMMANDS]
    return {flag for parser in parsers for flag in parser._option_string_actions} | {param.flag for param in PARAMS}


def said_in(topic: Topic) -> list[str]:
    """What an answer sets as code: words in a line, and lines of blocks."""
    blocks = BLOCK.findall(topic.answer)
    rest = BLOCK.sub("", topic.answer)
    return CODE.findall(rest) + [line for block in blocks for line in block.splitlines()]


def named(topic: Topic, pattern: str) -> set[str]:
    """Every match of a pattern in an answer, code blocks included."""
    return set(re.findall(pattern, topic.answer))


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_its_keys_exist(topic: Topic) -> None:
    said = {
        word
        for word in said_in(topic)
        if re.fullmatch(r"((ctrl|alt|shift)\+)+\S+|f[1-9]|f1[0-2]|esc|enter|pg\w+|end", word)
    }
    assert said <= KEYS, said - KEYS


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_its_variables_and_flags_exist(topic: Topic) -> None:
    variables = named(topic, r"\b(?:LLAMA_CPP|LLAMA_TUI)_[A-Z_]*[A-Z]\b")
    assert variables <= VARIABLES, variables - VARIABLES
    assert (said := named(topic, r"(?<!\S)`?(--[a-z][a-z-]+)")) <= flags() | ELSEWHERE, said


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_its_commands_exist(topic: Topic) -> None:
    said = {match[1] for code in said_in(topic) if (match := re.search(r"\bllama-tui ([a-z]+)(?![\w-])", code))}
    assert said <= set(COMMANDS), said - set(COMMANDS)


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_its_parameters_exist(topic: Topic) -> None:
    said = {word for word in said_in(topic) if re.fullmatch(r"[a-z]+(_[a-z]+)+", word)}
    known = BY_NAME.keys() | CHOICES | OF_THE_CLIENT
    assert said <= known, said - known


@pytest.mark.parametrize("topic", TOPICS.values(), ids=TOPICS)
def test_what_it_sets_can_be_set(topic: Topic) -> None:
    for code in said_in(topic):
        match = re.fullmatch(r"([a-z_]+) = (.+)", code)
        if match and (match[1] in BY_NAME or topic.id != "python"):
            BY_NAME[match[1]].check(tomllib.loads(f"value = {match[2]}")["value"])


def test_its_themes_exist() -> None:
    said = set(CODE.findall(TOPICS["theme"].answer)) - KEYS - {"~/.config/llama-tui/themes/", "auto", "NO_COLOR"}
    assert said == {path.stem for path in shipped_dir().glob("*.toml")}


def test_every_command_of_the_program_is_told() -> None:
    assert set(COMMANDS) <= set(CODE.findall(TOPICS["commands"].answer))


def test_every_question_that_is_held_out_has_its_topic() -> None:
    for name in ("heldout.toml", "heldout2.toml"):
        assert {asked.topic for asked in load_heldout(HERE / name)} <= TOPICS.keys()
    # Of two, all but one were asked in training as well, and taken out.
    for name, least, single in (("heldout.toml", 7, set[str]()), ("heldout2.toml", 2, {"top", "unclear"})):
        judged = Counter(asked.topic for asked in load_heldout(HERE / name))
        assert {topic for topic in TOPICS if judged[topic] < least} == single
        assert all(judged[topic] for topic in single)
    assert {asked.topic for asked in load_undo(HERE / "heldout2.toml")} <= TOPICS.keys()


def test_what_judges_it_is_never_trained_on() -> None:
    asked = {bare(text) for texts in load_asked().values() for text in texts}
    for name in ("heldout.toml", "heldout2.toml"):
        assert not asked & {bare(one.text) for one in load_heldout(HERE / name)}, name


def test_its_build_flags_are_those_that_the_program_prints() -> None:
    from llama_tui.engine.install import install_hint

    said = {flag for topic in TOPICS.values() for flag in named(topic, r"-D[A-Z_]+=on")}
    assert said and all(flag in install_hint() for flag in said), said


def test_it_carries_three_suggestions() -> None:
    path = builtin_path()
    assert path
    suggestions = read_header(path).metadata["llama_tui.suggestions"]
    assert isinstance(suggestions, list | tuple) and len(suggestions) == 3
