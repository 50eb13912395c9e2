"""One request carried out, from its messages to its last event."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llama_tui.engine.protocol import (
    Called,
    Finished,
    Generate,
    GenerationEvent,
    Message,
    Prefilled,
    Started,
    Token,
    TokenLogprob,
    ToolCall,
)
from llama_tui.settings.params import sampling
from llama_tui.worker.archive import Archive
from llama_tui.worker.binding import AbortFlag
from llama_tui.worker.constraint import Constraint, grammar_of
from llama_tui.worker.cut import Fitting, Told
from llama_tui.worker.decode import Decoder, Outcome
from llama_tui.worker.gbnf import check
from llama_tui.worker.generation import Generation
from llama_tui.worker.model import Model, sampling_seed
from llama_tui.worker.renderer import Prompt
from llama_tui.worker.sampler import Sampler, biases_of
from llama_tui.worker.text import AnswerText, Said
from llama_tui.worker.toolformat import Format
from llama_tui.worker.toolgrammar import after_thought, calls_grammar, either, in_final
from llama_tui.worker.tools import CallReader

_USUAL_TOKEN = 16
"""Characters that a token of no text has on average; with fewer it need not be known how long one can be."""

_SAMPLE = 50_000
"""Characters by which the tokens of a text are estimated."""

_PROGRESS_SECONDS = 0.1
"""Prefill progress is told at most this often."""


class Answerer:
    """Everything that an answer needs of a loaded model; used on the decode thread."""

    def __init__(self, model: Model, decoder: Decoder, archive: Archive, flag: AbortFlag) -> None:
        self._model = model
        self._decoder = decoder
        self._archive = archive
        self._flag = flag

    def answer(self, generation: Generation, publish: Callable[[GenerationEvent], None]) -> None:
        """Fit the conversation into the context, decode, and publish what comes, `Finished` last.

        Raises `ContextOverflow`, `EngineError` or `BadValue` for a request that cannot be carried out.
        """
        model, decoder, name = self._model, self._decoder, generation.name
        params = sampling(generation.request.params)
        seed = sampling_seed(params)
        request = generation.request
        thinking = params["thinking"] if isinstance(params["thinking"], bool) else None
        max_tokens = params["max_tokens"] if isinstance(params["max_tokens"], int) else None

        def make(messages: tuple[Message, ...]) -> Told:
            if size := _far_too_long(model, messages):
                return Told(Prompt("", "model"), [], size)
            made = model.renderer.render(messages, request.tools, thinking)
            return Told(made, model.tokenize(made.text))

        fitting = Fitting(request.messages, make, model.n_ctx, max_tokens)
        fitted = fitting.fit(str(params["context_full"]), request.left_out)
        rendered, prompt = fitted.told.rendered, fitted.told.tokens
        formats = model.call_formats if request.tools else ()
        form = _form(model, request, formats, grammar_of(params), rendered.text)
        biases = biases_of(params, model)
        began = time.monotonic()
        restored = self._archive.recall(prompt, lambda: self._flag.is_set)
        reused = decoder.reuse(prompt)
        publish(
            Started(
                0,
                name,
                0,
                prompt_tokens=len(prompt),
                reused_tokens=reused,
                seed=seed,
                n_ctx=model.n_ctx,
                template=rendered.template,
                notice=rendered.notice,
                left_out=fitted.left_out,
                restored=restored,
            )
        )
        told = time.monotonic()

        def prefilled(done: int, total: int) -> None:
            nonlocal told
            if (now := time.monotonic()) - told >= _PROGRESS_SECONDS:
                told = now
                publish(Prefilled(0, name, 0, done, total))

        def said(item: Said, count: int, thought: int, likely: tuple[TokenLogprob, ...]) -> None:
            if isinstance(item, ToolCall):
                publish(Called(0, name, 0, item, count))
            else:
                kind, stretch = item
                publish(Token(0, name, 0, stretch, count, kind, thought, likely))

        stops = params["stop"]
        text = AnswerText(
            [*map(str, stops if isinstance(stops, tuple) else ()), *rendered.stop],
            model.marks,
            rendered.text,
            CallReader(formats, request.tools, rendered.text, single=not request.tool_choice.parallel)
            if formats
            else None,
        )
        spelled = model.call_tokens if formats else None
        sampler = Sampler(params, model.vocab, model.n_ctx, seed, biases)
        constraint: Constraint | None = None
        try:
            if form.grammar:
                constraint = Constraint(form.grammar, model.vocab, form.begins_with, everywhere=form.everywhere)
            sampler.remember(prompt)
            outcome = (
                decoder.generate(prompt, sampler, params, text, said, constraint=constraint, spelled=spelled)
                if decoder.prefill(prompt, prefilled)
                else Outcome("cancelled", 0, time.monotonic(), None, time.monotonic())
            )
        finally:
            sampler.close()
            if constraint:
                constraint.close()
        first = outcome.first_token
        publish(
            Finished(
                0,
                name,
                0,
                reason=outcome.reason,
                prompt_tokens=len(prompt),
                reused_tokens=reused,
                completion_tokens=outcome.completion_tokens,
                first_token_seconds=None if first is None else first - generation.arrived,
                prefill_seconds=outcome.prefilled - began,
                decode_seconds=0.0 if first is None else outcome.ended - first,
                reasoning_tokens=outcome.reasoning_tokens,
                restored=restored,
            )
        )


def _far_too_long(model: Model, messages: Sequence[Message]) -> int:
    """About how many tokens messages have that fill the context however few they may be; 0 for any others.
    To render and to count tens of megabytes would take minutes, and gigabytes."""
    texts = [message.content.strip() for message in messages if _is_shown(message)]
    characters = sum(map(len, texts))
    if characters <= model.n_ctx * _USUAL_TOKEN or characters <= model.n_ctx * model.longest_token:
        return 0
    sample = max(texts, key=len)[:_SAMPLE]
    return max(model.n_ctx, characters * len(model.tokenize(sample, bos=False)) // len(sample))


def _is_shown(message: Message) -> bool:
    """Whether templates show the whole content: of thoughts, and of words beside a call, many do not."""
    return not message.tool_calls and "</think>" not in message.content


@dataclass(frozen=True, slots=True)
class _Form:
    """What an answer must follow: a grammar, and the token with which it begins to hold; `everywhere` where
    it has a word for thoughts and headers too."""

    grammar: str = ""
    begins_with: int | None = None
    everywhere: bool = False


def _form(model: Model, request: Generate, formats: Sequence[Format], grammar: str, prompt: str) -> _Form:
    """The form of an answer with tools; `grammar` is the one that is asked for besides."""
    strict = any(tool.get("function", tool).get("strict") is True for tool in request.tools)
    if not formats or (request.tool_choice.mode == "auto" and not grammar and not strict):
        return _Form(grammar)
    calls, format = calls_grammar(formats, request.tools, request.tool_choice, prompt)
    if request.tool_choice.mode == "auto" and grammar:
        calls = either(in_final(grammar) if format.recipient else grammar, calls)
    elif request.tool_choice.mode == "auto":
        begins_with = model.opening_token(format.before)
        if begins_with is None:
            return _Form()  # where a call begins cannot be told from what is said
        check(calls)
        return _Form(calls, begins_with)
    if format.recipient:
        calls = after_thought(calls)
    check(calls)
    return _Form(calls, everywhere=format.recipient)
