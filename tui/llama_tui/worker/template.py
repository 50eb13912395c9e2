"""A model's chat template: from messages to the text of a prompt.

Templates are programs from strangers' files, so they run in Jinja's sandbox. Many reject
conversations that people really have (a system message, two user messages in a row); then the
same conversation is offered to them again in shapes that they know.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from llama_tui.engine.protocol import Message
from llama_tui.errors import EngineError
from llama_tui.worker.losses import lost, marked
from llama_tui.worker.shapes import Parts, Tools, Turn, in_words, shapes, shows

_Conversation = tuple[list[Turn], Tools]

_OUTPUT, _GROWTH = 1_000_000, 8
"""A prompt may have this many characters, and as many more for each one of the conversation."""

_REASON = 300
"""Characters of a template's own error that are passed on."""

_LEAST_EFFORT = ("no_think", "none", "minimal", "low")
"""What templates with a `reasoning_effort` call the least of it, the least first."""


_PARTS = "[{'type': 'text'"
"""What a template writes that cuts a content, or adds to it, where that is a list of parts."""


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

    It runs whatever the template says, for as long as that takes: an engine asks
    `worker.renderer`, which does this in a process that can be ended. `origin` tells which
    template it is. `stop` holds texts that end an answer besides the model's own tokens, which
    only the neutral template without control tokens needs. Raises `TemplateError` for what is not
    Jinja.
    """

    def __init__(self, source: str | None, bos: str, eos: str, *, knows_chatml: bool) -> None:
        self.origin: Literal["model", "fallback"] = "model" if source else "fallback"
        self.stop: tuple[str, ...] = () if source or knows_chatml else ("\nUser:", "\nSystem:")
        self._known = {"bos_token": bos, "eos_token": eos}
        self._source = source or ""
        self._render: Callable[..., str]
        if source:
            try:
                self._template = _environment().from_string(source)
            except (jinja2.TemplateError, RecursionError, MemoryError, OverflowError, ValueError) as error:
                raise TemplateError(
                    f"it is not valid Jinja: {_said(error)}", "The file needs a repaired tokenizer.chat_template."
                ) from error
            self._render = self._with_jinja
        else:
            self._render = _chatml if knows_chatml else _plain

    def render(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), thinking: bool | None = None
    ) -> str:
        """The prompt up to where the answer begins, from the first shape of the conversation that
        the template accepts and shows whole; raises `TemplateError` where it accepts none, or drops
        somebody's text from all of them."""
        if self.origin == "fallback":
            return self._render(in_words(messages, tools))
        error: Exception | None = None
        missing = ""
        accepted: list[tuple[str, _Conversation]] = []
        for (turns, offered), (probe, _) in zip(shapes(messages, tools), shapes(marked(messages), tools), strict=True):
            try:
                prompt = self._made(turns, offered, thinking)
            except Exception as raised:  # a template can raise anything
                error = error or raised
                continue
            in_parts = any(isinstance(turn["content"], Parts) for turn in turns)
            if in_parts and _PARTS in prompt:
                continue
            if not shows(prompt, messages, tools):
                if not in_parts:
                    accepted.append((prompt, (probe, offered)))
            elif left_out := self._lost((probe, offered), messages, thinking):
                missing = missing or left_out
            else:
                return prompt
        for prompt, conversation in accepted:
            if not (left_out := self._lost(conversation, messages, thinking)):
                return prompt
            missing = missing or left_out
        if missing:
            raise TemplateError(f"it leaves out {missing}", "The file needs a repaired tokenizer.chat_template.")
        raise TemplateError(
            f"it rejects this conversation: {_said(error)}", "Try without a system prompt, or start a new chat."
        )

    def _made(self, turns: list[Turn], tools: Tools, thinking: bool | None) -> str:
        known: dict[str, Any] = {name: value for name, value in self._known.items() if value}
        known |= {"messages": turns, "add_generation_prompt": True, **self._switches(thinking)}
        if tools:
            known["tools"] = tools
        return self._render(sum(len(str(turn["content"])) for turn in turns), **known)

    def _lost(self, conversation: _Conversation, messages: Sequence[Message], thinking: bool | None) -> str:
        """Whose text this template drops from a conversation of marked texts, "" for nobody's."""
        try:
            return lost(self._made(*conversation, thinking), messages)
        except Exception:  # it wants texts of a certain kind: nothing can be said
            return ""

    def _with_jinja(self, size: int, /, **known: Any) -> str:
        """Render piece by piece, so that a template that never ends does not fill the memory."""
        limit = _OUTPUT + _GROWTH * size
        pieces: list[str] = []
        for piece in self._template.generate(**known):
            limit -= len(piece)
            if limit < 0:
                raise TemplateError("its output is too long")
            pieces.append(piece)
        return "".join(pieces)

    def _switches(self, thinking: bool | None) -> dict[str, Any]:
        """The variables by which templates know whether the model shall think; none for its own way."""
        if thinking is None:
            return {}
        switches: dict[str, Any] = {
            "enable_thinking": thinking,
            "thinking": thinking,
            "reasoning": thinking,
            "thinking_mode": "enabled" if thinking else "disabled",
        }
        if not thinking:
            switches["thinking_budget"] = 0
            least = (word for word in _LEAST_EFFORT if f"'{word}'" in self._source or f'"{word}"' in self._source)
            switches["reasoning_effort"] = next(least, "low")
        elif "no_think" in self._source:
            switches["reasoning_effort"] = "high"
        return switches


def _environment() -> jinja2.sandbox.SandboxedEnvironment:
    environment: Any = jinja2.sandbox.SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters |= {"tojson": _tojson, "from_json": _from_json, "fromjson": _from_json}
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


def _from_json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


def _said(error: BaseException | None) -> str:
    """A template's own error in one line, for a person."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _REASON else text[: _REASON - 1] + "…"


def _chatml(messages: Sequence[Message]) -> str:
    turns = "".join(f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n" for message in messages)
    return turns + "<|im_start|>assistant\n"


def _plain(messages: Sequence[Message]) -> str:
    turns = "".join(f"{message.role.capitalize()}: {message.content}\n" for message in messages)
    return turns + "Assistant:"
