"""Calls of tools: the format learned from a template, calls read from text, however it is cut."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_tui.engine.protocol import Message, ToolCall, ToolChoice
from llama_tui.worker.gbnf import check
from llama_tui.worker.reasoning import Marks
from llama_tui.worker.template import ChatTemplate, TemplateError
from llama_tui.worker.text import AnswerText
from llama_tui.worker.toolformat import Envelope, Format, Named, Signature, Tagged
from llama_tui.worker.toolgrammar import calls_grammar, either
from llama_tui.worker.toolmarks import marks_of, shared
from llama_tui.worker.toolprobe import learn
from llama_tui.worker.tools import CallReader
from tests.conftest import CORPUS


def tool(name: str) -> dict[str, Any]:
    """A function with parameters of every type."""
    where = {"type": "object", "properties": {"lat": {"type": "number"}, "tags": {"type": "array"}}}
    properties = {"city": {"type": "string"}, "days": {"type": "integer"}, "deep": {"type": "boolean"}, "where": where}
    parameters = {"type": "object", "properties": properties, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": "Does it.", "parameters": parameters}}


TOOLS = (tool("get_weather"), tool("find_place"))
ASKED = Message("user", "QUESTION")

Called = list[tuple[str, dict[str, Any]]]

CALLS: dict[str, Called] = {
    "one": [("get_weather", {"city": "Lyon"})],
    "nested": [("get_weather", {"city": "Lyon", "days": 5, "deep": True, "where": {"lat": 4.5, "tags": ["a", "b c"]}})],
    "two": [("get_weather", {"city": "Lyon"}), ("find_place", {"city": "Rome", "days": 3})],
    "quoted": [("get_weather", {"city": 'say "hi", it\'s {fine} [ok]\nline two\n\n  indented é 漢字 🙂'})],
    "brackets": [("find_place", {"city": "a } b { c ] < d > e & </x> ) (", "days": -7})],
    "without arguments": [("get_weather", {})],
    "a number in a text": [("find_place", {"city": "5", "days": 0})],
}


def read(
    formats: Sequence[Format], pieces: Iterable[str], prompt: str = "", marks: Marks | None = None, **more: Any
) -> tuple[Called, str]:
    """The calls that are read from pieces of text, and what is said besides."""
    text = AnswerText((), marks, prompt, CallReader(formats, TOOLS, prompt, **more))
    said = [item for piece in pieces for item in text.feed(piece.encode())]
    said += text.finish()
    calls = [item for item in said if isinstance(item, ToolCall)]
    assert len({call.id for call in calls}) == len(calls)
    content = "".join(item[1] for item in said if isinstance(item, tuple) and item[0] == "answer")
    return [(call.name, json.loads(str(call.arguments))) for call in calls], content


def cut(text: str, seed: int) -> list[str]:
    """A text in pieces of one to nine letters, as tokens are."""
    choose = random.Random(seed)
    edges = [0]
    while edges[-1] < len(text):
        edges.append(edges[-1] + choose.randint(1, 9))
    return [text[a:b] for a, b in itertools.pairwise(edges)]


class Shown:
    """What one template makes of calls, as the model would have written them."""

    ENDS = (
        *("<EOS>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|observation|>", "<|end_of_text|>", "<seed:eos>"),
        *("<|message_sep|>\n\nfunction result", "<|message_sep|>\n\nuser", "<end_of_turn>", "<turn|>", "[e~["),
        *("<end_of_sentence>", "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<|role_end|>", "</assistant>"),
        *("<｜hy_eos:opensource｜>", "<|end|>\n", "\n<SPECIAL_12>", "<|eot|>", "<|call|>"),
    )
    """How turns end: with a token that ends the generation, or with the next turn's header."""

    LAST = ("<|calls|>", "<|tools_suffix|>")

    def __init__(self, source: str) -> None:
        self.template = ChatTemplate(source, "<BOS>", "<EOS>", knows_chatml=False)
        self.marks = Marks(source)
        self.formats = learn(self.template.render, source)

    def written(self, called: Called, content: str, tools: Sequence[dict[str, Any]]) -> tuple[str, str]:
        """The end of the prompt, and what the model wrote after it."""
        calls = tuple(ToolCall(f"idabcdef{at}", name, given) for at, (name, given) in enumerate(called))
        results = (Message("tool", "RESULT", tool_call_id=call.id, name=call.name) for call in calls)
        turns = (ASKED, Message("assistant", content, tool_calls=calls), *results)
        whole = self.template.render(turns, tools).rpartition(ASKED.content)[2]
        asked = self.template.render((ASKED,), tools).rpartition(ASKED.content)[2]
        answer = whole[: whole.index("RESULT")]
        # What the model thought, or had to be told not to think, is not shown again.
        prompt = asked if answer.startswith(asked) else shared(answer, asked)
        answer = answer[len(prompt) :]
        ends = [answer.index(end) for end in self.ENDS if end in answer]
        ends += [answer.index(end) + len(end) for end in self.LAST if end in answer]
        return "x" + prompt, answer[: min(ends, default=len(answer))]


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not on this machine")
@pytest.mark.parametrize("file", sorted((CORPUS / "templates").glob("*.jinja")), ids=lambda file: file.stem)
def test_what_a_real_template_writes_is_read_back(file: Path) -> None:
    shown = Shown(file.read_text())
    for (name, every), (content, tools) in itertools.product(CALLS.items(), (("", TOOLS), ("Let me look.", ()))):
        prompt, written = shown.written(every, content, tools)
        called = every if every[-1][0] in written else every[:1]  # some show one call a turn
        for pieces in ([written], list(written), cut(written, seed=len(written))):
            calls, said = read(shown.formats, pieces, prompt, shown.marks)
            assert calls == called, (name, written)
            assert said.strip() in ("", content), (name, written)


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not on this machine")
@pytest.mark.parametrize("file", sorted((CORPUS / "templates").glob("*.jinja")), ids=lambda file: file.stem)
def test_a_grammar_for_its_calls_can_be_made(file: Path) -> None:
    shown = Shown(file.read_text())
    for choice in (ToolChoice("required"), ToolChoice("required", "find_place"), ToolChoice(parallel=False)):
        grammar, format = calls_grammar(shown.formats, TOOLS, choice, "")
        check(grammar)
        check(either('root ::= "yes" | "no"', grammar))
        assert format in shown.formats
        assert ("find_place" in grammar, "get_weather" in grammar) == (True, not choice.name)


# Formats as templates might write them that nobody has seen yet: what stands before the first call,
# a call, what stands between two, and after the last.
INVENTED: dict[str, tuple[str, str, str, str]] = {
    "one JSON": ("", '{"tool": "NAME", "kwargs": JSON}', "\n", ""),
    "a list": ("<calls>[", '{"id": "ID", "function": {"name": "NAME", "arguments": JSON}}', ", ", "]</calls>"),
    "arguments first": (
        "<|invoke|>",
        '{"arguments": JSON, "name": "NAME"}',
        "<|end_call|>\n<|invoke|>",
        "<|end_call|>",
    ),
    "JSON in JSON": ("[[CALL]] ", '{"name": "NAME", "arguments": TEXT}', " [[CALL]] ", " [[END]]"),
    "a plugin": ("<|act|><|tool|>\n", '{"name": "NAME", "args": JSON}', "<|done|>\n<|act|><|tool|>\n", "<|done|>"),
    "by name": ("<use>", '{"NAME": JSON}', "</use><use>", "</use>"),
    "named": ("<|fn|>", "NAME<|args|>JSON", "<|end_fn|><|fn|>", "<|end_fn|>"),
    "named in a fence": ("### Call: ", "NAME\n```json\nJSON\n```", "\n### Call: ", ""),
    "an attribute": ("<tools>\n", '<call name="NAME" id="ID">JSON</call>', "\n", "\n</tools>"),
    "like Python": ("<|python_start|>[", "NAME(PYTHON)", ", ", "]<|python_end|>"),
    "like Python, in lines": ("<code>\n", "NAME(PYTHON)", "\n", "\n</code>"),
    "like Python, without None": ("<|python_start|>[", "NAME(GIVEN)", ", ", "]<|python_end|>"),
    "tags": ("<minimax:call>\n", '<invoke name="NAME">\nTAGS</invoke>', "\n", "\n</minimax:call>"),
}


def invented(name: str) -> str:
    """A template that writes calls in that way."""
    before, call, between, after = INVENTED[name]
    for word, made in {
        "NAME": "{{ f.name }}",
        "ID": "{{ c.id }}",
        "JSON": "{{ f.arguments | tojson }}",
        "TEXT": "{{ f.arguments | tojson | tojson }}",
        "PYTHON": (
            "{% for k, v in f.arguments.items() %}{{ k }}={{ v | pprint }}{{ ', ' if not loop.last }}{% endfor %}"
        ),
        "GIVEN": (
            "{% for k, v in f.arguments.items() if v is not none %}"
            "{{ k }}={{ v | pprint }}{{ ', ' if not loop.last }}{% endfor %}"
        ),
        "TAGS": (
            '{% for k, v in f.arguments.items() %}<parameter name="{{ k }}">'
            "{{ v if v is string else v | tojson }}</parameter>\n{% endfor %}"
        ),
    }.items():
        call = call.replace(word, made)
    return (
        "{% for t in tools or [] %}[tool]{{ t | tojson }}\n{% endfor %}{% for m in messages %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}{% set f = c.function %}"
        "{% if loop.first %}{{ '"
        + before.replace("\n", "\\n")
        + "' }}{% endif %}"
        + call
        + "{% if loop.last %}{{ '"
        + after.replace("\n", "\\n")
        + "' }}{% else %}{{ '"
        + between.replace("\n", "\\n")
        + "' }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ '[' * 900000 }}{% for m in messages %}{{ m.content }}{{ '[{' * 40000 }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.tool_calls }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.tool_calls[0].function.name if m.tool_calls }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "",
    ],
    ids=lambda source: source[:30],
)
def test_a_template_that_tells_nothing_of_use_is_no_trouble(source: str) -> None:
    template = ChatTemplate(source or None, "<s>", "</s>", knows_chatml=True)

    def render(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> str:
        try:
            return template.render(messages, tools)
        except TemplateError:
            return ""

    said = '<tool_call>{"name": "get_weather", "arguments": {"city": "Lyon"}}</tool_call>'
    assert read(learn(render, source), [said]) == (LYON, "")


@pytest.mark.parametrize("name", INVENTED)
def test_a_format_that_nobody_has_seen(name: str) -> None:
    shown = Shown(invented(name))
    for (case, called), content in itertools.product(CALLS.items(), ("", "Let me look.")):
        if content and not INVENTED[name][0]:
            continue  # nothing tells such a call from what is said before it
        prompt, written = shown.written(called, content, TOOLS)
        for pieces in ([written], list(written), cut(written, seed=len(written))):
            calls, said = read(shown.formats, pieces, prompt, shown.marks)
            assert calls == called, (case, written)
            assert said.strip() == content, (case, written)


HERMES = Format(
    Envelope(),
    before="\n<tool_call>\n",
    between="\n</tool_call>\n<tool_call>\n",
    after="\n</tool_call>",
    close="\n</tool_call>",
)
PARAMETERS = Format(
    Tagged(">", "\n<parameter=", ">\n", ">\n", "\n</parameter>"),
    before="\n<tool_call>\n<function=",
    between="\n</function>\n</tool_call>\n<tool_call>\n<function=",
    after="\n</function>\n</tool_call>",
    close="\n</function>\n</tool_call>",
)
PYTHONIC = Format(
    Signature("(", ")", "=", "'", raw=False), before="<|tool_call_start|>[", between=", ", after="]<|tool_call_end|>"
)
MISTRAL = Format(Named("[ARGS]"), before="[TOOL_CALLS]", between="[TOOL_CALLS]")
GEMMA = Format(
    Signature("{", "}", ":", '<|"|>', raw=True),
    before="<|tool_call>call:",
    between="<tool_call|><|tool_call>call:",
    after="<tool_call|>",
)

LYON: Called = [("get_weather", {"city": "Lyon"})]
UNKNOWN = learn(lambda _messages, _tools: "nothing of calls", "")


@pytest.mark.parametrize(
    ("formats", "text", "called", "said"),
    [
        ([HERMES], 'A <tool_call>{"name": "get_weather", "arguments": {"city": "Lyon"}}</tool_call> b', LYON, "Ab"),
        ([HERMES], '<tool_call>{"name": "get_weather", "arguments": {"city": "Lyon"}}', LYON, ""),
        ([HERMES], '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Lyon\\"}"}', LYON, ""),
        ([HERMES], "<tool_call>{'name': 'get_weather', 'arguments': {'city': 'Lyon'}}</tool_call>", LYON, ""),
        ([HERMES], '<tool_call>{"function": {"name": "get_weather", "arguments": {"city": "Lyon"}}}', LYON, ""),
        ([PARAMETERS], "<function=get_weather><parameter=city>Lyon</parameter></function>", LYON, ""),
        (
            [PARAMETERS],
            "<tool_call><function=get_weather><parameter=city>\na</parameter>b\n</parameter></function></tool_call>",
            [("get_weather", {"city": "a</parameter>b"})],
            "",
        ),
        ([PYTHONIC], "<|tool_call_start|>[get_weather(city='Lyon')]<|tool_call_end|>ok", LYON, "ok"),
        (
            [PYTHONIC],
            '<|tool_call_start|>[get_weather(city="it\'s", days=3, deep=True, where={"lat": None, "tags": [1, "x"]})]',
            [("get_weather", {"city": "it's", "days": 3, "deep": True, "where": {"lat": None, "tags": [1, "x"]}})],
            "",
        ),
        ([MISTRAL], '[TOOL_CALLS]get_weather[ARGS]{"city": "Lyon"}', LYON, ""),
        ([GEMMA], '<|tool_call>call:get_weather{city:<|"|>Lyon<|"|>}<tool_call|>', LYON, ""),
        # What models write whose templates show nothing of calls.
        (UNKNOWN, '{"name": "get_weather", "parameters": {"city": "Lyon"}}', LYON, ""),
        (UNKNOWN, '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Lyon"}}', LYON, ""),
        (UNKNOWN, '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Lyon"}}]', LYON, ""),
        (UNKNOWN, '[TOOL_CALLS]get_weather[ARGS]{"city": "Lyon"}', LYON, ""),
        (UNKNOWN, "[get_weather(city='Lyon')]", LYON, ""),
        (UNKNOWN, '<function=get_weather>{"city": "Lyon"}</function>', LYON, ""),
        (UNKNOWN, '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Lyon"}}]<|/tool_call|>', LYON, ""),
        (UNKNOWN, 'functools[{"name": "get_weather", "arguments": {"city": "Lyon"}}]', LYON, ""),
        (UNKNOWN, 'Action: ```json\n[{"tool_name": "get_weather", "parameters": {"city": "Lyon"}}]\n```', LYON, ""),
        (
            UNKNOWN,
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Lyon</arg_value>\n</tool_call>",
            LYON,
            "",
        ),
    ],
)
def test_a_call(formats: Sequence[Format], text: str, called: Called, said: str) -> None:
    for pieces in ([text], list(text), cut(text, 1)):
        assert read(formats, pieces) == (called, said)


@pytest.mark.parametrize(
    "text",
    [
        "Nothing of the kind.",
        'The JSON is {"name": "get_weather", "arguments": {}} and no more.',
        '{"name": "somebody", "age": 7}',
        '{"name": "get_time", "arguments": {}}',
        "[1, 2, 3] is a list, [a link](to) is not",
        "Write <tool_call> before a call and </tool_call> after it.",
        'Such as `<tool_call>{"name": "get_weather", "arguments": {}}</tool_call>` is a call.',
        'Look:\n```\n<tool_call>\n{"name": "get_weather", "arguments": {}}\n</tool_call>\n```\nThat is all.',
        "<tool_call>{not json}</tool_call> and more",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Ly',
        '<tool_call>{"name": "get_weather", "arguments": 7}</tool_call>',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Lyon"]}</tool_call>',
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nLyo",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nLyon\n</parameter>\n",
        "<tool_call>",
        "<tool_",
        "a < b and [b > c",
        "[TOOL_CALLS]get_weather[ARGS]{",
        "<|tool_call_start|>[get_weather(city='Lyon'",
        "<|tool_call>call:get_weather{city:<|",
        "{" * 3000,
        "<tool_call>" + '{"name":' * 2000,
        "print(``` <tool_call>",
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_call_is_said(text: str) -> None:
    for formats in ([HERMES], [PARAMETERS], [PYTHONIC, MISTRAL, GEMMA], UNKNOWN):
        for pieces in ([text], list(text) if len(text) < 1000 else cut(text, 2)):
            assert read(formats, pieces) == ([], text)


def test_text_is_said_while_it_comes() -> None:
    reader = CallReader(UNKNOWN, TOOLS)
    assert reader.feed("Hello there") == [("answer", "Hello there")]
    assert reader.feed(" you ") == [("answer", " you")]
    assert reader.feed('<tool_call>{"name"') == []
    assert reader.feed(": 5} so") == [("answer", ' <tool_call>{"name": 5} so')]
    assert reader.feed(" [a") == []
    assert reader.feed(" link") == [("answer", " [a link")]
    assert reader.feed(" and <tool_call> is") == [("answer", " and")]
    assert reader.feed(" a mark") == [("answer", " <tool_call> is a mark")]


def test_only_the_first_counts_where_one_is_allowed() -> None:
    one = '<tool_call>{"name": "get_weather", "arguments": {"city": "Lyon"}}</tool_call>'
    assert read([HERMES], [one + one])[0] == LYON * 2
    text = AnswerText((), calls=CallReader([HERMES], TOOLS, single=True))
    said = text.feed((one + one + "more").encode())
    assert [type(item) for item in said] == [ToolCall]
    assert text.stopped
    assert text.finish() == []


def test_stop_strings_end_what_is_said_not_calls() -> None:
    text = AnswerText(["Lyon"], calls=CallReader([HERMES], TOOLS))
    said = text.feed(b'See: <tool_call>{"name": "get_weather", "arguments": {"city": "Lyon"}}</tool_call>')
    assert [type(item) for item in said] == [tuple, ToolCall]
    assert not text.stopped
    assert text.feed(b"In Lyon") == [("answer", "In ")]
    assert text.stopped


def test_a_turn_that_the_prompt_begins() -> None:
    """Some templates write what stands before every recipient, the user among them."""
    functionary = Format(Named("\n"), before=">>>", between=">>>", lead="all\n")
    prompt = "<|assistant|>\n\n>>>"
    for pieces in (['get_weather\n{"city": "Lyon"}'], list('get_weather\n{"city": "Lyon"}')):
        assert read([functionary], pieces, prompt) == (LYON, "")
    assert read([functionary], list('all\nHello\n>>>get_weather\n{"city": "Lyon"}'), prompt) == (LYON, "Hello")
    assert read([functionary], list("all\nHello"), prompt) == ([], "Hello")
    assert read([functionary], [], prompt) == ([], "")


def test_a_segment_that_is_addressed_to_a_tool() -> None:
    shown = Shown(
        "{{ (tools or []) | tojson }}{% for m in messages %}<|start|>{{ m.role }}{% if m.tool_calls %}"
        "{% set f = m.tool_calls[0].function %} to=functions.{{ f.name }}<|channel|>commentary json<|message|>"
        "{{ f.arguments | tojson }}<|call|>{% else %}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "<|start|>assistant"
    )
    for order in (" to=functions.get_weather<|channel|>commentary", "<|channel|>commentary to=functions.get_weather"):
        header = f"{order} <|constrain|>json"
        text = f'<|channel|>analysis<|message|>hm<|end|><|start|>assistant{header}<|message|>{{"city": "Lyon"}}'
        for pieces in ([text], list(text)):
            assert read(shown.formats, pieces, "<|start|>assistant", shown.marks) == (LYON, "")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdef", min_size=1, max_size=4), inner),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=6), VALUES, max_size=4)


@settings(max_examples=60)
@given(
    arguments=st.lists(ARGUMENTS, min_size=1, max_size=3),
    content=st.sampled_from(["", "Well, let me see."]),
    seed=st.integers(0, 2**16),
    ascii=st.booleans(),
)
def test_any_arguments_come_back_from_json(
    arguments: list[dict[str, Any]], content: str, seed: int, ascii: bool
) -> None:
    called = [("get_weather", given) for given in arguments]
    written = [json.dumps(given, ensure_ascii=ascii) for given in arguments]
    objects = [f'{{"name": "get_weather", "arguments": {text}}}' for text in written]
    for format, calls in ((HERMES, objects), (MISTRAL, [f"get_weather[ARGS]{text}" for text in written])):
        text = content + format.before + format.between.join(calls) + format.after
        assert read([format], cut(text, seed)) == (called, content)


@settings(max_examples=60)
@given(
    city=st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=30),
    days=st.integers(-99, 99),
    seed=st.integers(0, 2**16),
)
def test_any_text_comes_back_from_between_tags(city: str, days: int, seed: int) -> None:
    text = (
        f"<tool_call>\n<function=get_weather>\n<parameter=city>\n{city}\n</parameter>\n<parameter=days>\n{days}\n"
        "</parameter>\n</function>\n</tool_call>"
    )
    assert read([PARAMETERS], cut(text, seed)) == ([("get_weather", {"city": city, "days": days})], "")


@settings(max_examples=80)
@given(
    parts=st.lists(
        st.sampled_from(
            [
                *("<tool_call>", "</tool_call>", "<function=", "get_weather", ">", "</function>", "<parameter=", "{"),
                *("}", '"', "'", ":", ",", "name", "[TOOL_CALLS]", "[ARGS]", "(", ")", "=", "[", "]", "\n", " ", "```"),
                *('{"name": "get_weather"', ', "arguments": {}}', "<|tool_call>call:", '<|"|>', "to=functions.", "`"),
            ]
        ),
        max_size=30,
    ),
    seed=st.integers(0, 2**16),
)
def test_garbage_is_never_lost_and_never_an_error(parts: list[str], seed: int) -> None:
    text = "".join(parts)
    for formats in ([HERMES, PARAMETERS], [PYTHONIC, MISTRAL, GEMMA], UNKNOWN):
        calls, said = read(formats, cut(text, seed))
        assert calls or said == text
        assert read(formats, [text])[0] == calls


def test_marks_are_told_from_words() -> None:
    assert marks_of("\n<tool_call>\n<function=") == ("<tool_call>", "<function=")
    assert marks_of("[TOOL_CALLS]") == ("[TOOL_CALLS]",)
    assert shared("<a><b>x", "<a> <b>y") == "<a><b>"
