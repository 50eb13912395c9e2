"""A model's chat template: from messages to the text of a prompt.

Templates are programs from strangers' files, so they run in Jinja's sandbox. Many reject
conversations that people really have (a system message, two user messages in a row); then the
same conversation is offered to them again in shapes that they know.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from llama_tui.engine.protocol import Message
from llama_tui.errors import EngineError

Turn = dict[str, Any]


class TemplateError(EngineError):
    """No shape of the conversation satisfies the template."""


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks what training learns from; for a prompt its content is all that counts."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as an instance variable

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Renders conversations with a model's own template, or a neutral one where it has none.

    `origin` tells which. `stop` holds texts that end an answer besides the model's own tokens,
    which only the neutral template without control tokens needs.
    """

    def __init__(self, source: str | None, bos: str, eos: str, *, knows_chatml: bool) -> None:
        self.origin: Literal["model", "fallback"] = "model" if source else "fallback"
        self.stop: tuple[str, ...] = () if source or knows_chatml else ("\nUser:", "\nSystem:")
        self._bos, self._eos = bos, eos
        self._render: Callable[..., str] | None = None
        if source:
            try:
                self._render = _environment().from_string(source).render
            except jinja2.TemplateError as error:
                raise TemplateError(
                    f"The model's chat template is not valid Jinja: {error}",
                    "The file needs a repaired tokenizer.chat_template.",
                ) from error
        else:
            self._render = _chatml if knows_chatml else _plain

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt up to where the answer begins; raises `TemplateError`."""
        assert self._render
        known = {"bos_token": self._bos, "eos_token": self._eos, "add_generation_prompt": True}
        first: Exception | None = None
        for turns in _shapes(messages):
            try:
                return self._render(messages=turns, **{name: value for name, value in known.items() if value})
            except Exception as error:  # a template can raise anything
                first = first or error
        raise TemplateError(
            f"The model's chat template rejects this conversation: {first}",
            "Try without a system prompt, or start a new chat.",
        )


def _shapes(messages: Sequence[Message]) -> Iterator[list[Turn]]:
    """The conversation as it is, with neighbours of one role merged, and without a system role."""
    turns: list[Turn] = [{"role": message.role, "content": message.content} for message in messages]
    yield turns
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    merged: list[Turn] = []
    for turn in turns:
        if turn["role"] == "system":
            continue
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = {**turn, "content": merged[-1]["content"] + "\n\n" + turn["content"]}
        else:
            merged.append(turn)
    yield [{"role": "system", "content": system}, *merged] if system else merged
    if system and merged:
        first, *rest = merged
        yield [{**first, "content": system + "\n\n" + first["content"]}, *rest]


def _environment() -> jinja2.sandbox.SandboxedEnvironment:
    environment: Any = jinja2.sandbox.SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters |= {"tojson": _tojson, "from_json": json.loads}
    environment.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now}
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models were trained on it: Jinja's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


def _chatml(messages: list[Turn], **_known: object) -> str:
    turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages)
    return turns + "<|im_start|>assistant\n"


def _plain(messages: list[Turn], **_known: object) -> str:
    turns = "".join(f"{turn['role'].capitalize()}: {turn['content']}\n" for turn in messages)
    return turns + "Assistant:"
