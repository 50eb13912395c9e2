"""The decode thread: loads the model, then carries out generations one after another."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from llama_tui.engine.protocol import (
    Buffer,
    EngineSpec,
    Failed,
    Finished,
    GenerationEvent,
    Message,
    ModelInfo,
    Prefilled,
    Started,
    Token,
    TokenKind,
    TokenLogprob,
)
from llama_tui.errors import ContextOverflow, EngineError, LoadFailed, MissingLlamaCpp
from llama_tui.settings.params import sampling
from llama_tui.settings.values import BadValue
from llama_tui.worker.generation import Generation

if TYPE_CHECKING:
    from llama_tui.worker.binding import AbortFlag
    from llama_tui.worker.decode import Decoder
    from llama_tui.worker.model import Model

_PROGRESS_SECONDS = 0.1
"""Prefill progress is told at most this often."""


class Runner(threading.Thread):
    """Everything that calls llama.cpp happens on this thread, except the abort flag.

    `on_change` is told when loading gets on, ends or fails, `on_begin` when a generation's turn
    has come, `publish` of its events, the last of which is `Finished` or `Failed`. All are called
    on this thread.
    """

    def __init__(
        self,
        spec: EngineSpec,
        on_change: Callable[[], None],
        on_begin: Callable[[Generation], None],
        publish: Callable[[Generation, GenerationEvent], None],
    ) -> None:
        super().__init__(name="decode", daemon=True)
        self._spec = spec
        self._on_change = on_change
        self._on_begin = on_begin
        self._publish = publish
        self._jobs: queue.SimpleQueue[Generation] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._flag: AbortFlag | None = None
        self._model: Model | None = None
        self._decoder: Decoder | None = None
        self._current: Generation | None = None
        self.progress: float | None = None
        self.failure: LoadFailed | None = None
        self.info: ModelInfo | None = None
        self.buffers: tuple[Buffer, ...] = ()

    @property
    def n_past(self) -> int:
        """Tokens in the KV cache."""
        return self._decoder.n_past if self._decoder else 0

    def submit(self, generation: Generation) -> None:
        """Put a generation at the end of the queue."""
        self._jobs.put(generation)

    def cancel(self, generation: Generation) -> bool:
        """Stop a generation. True when it is running and will say itself that it has stopped."""
        with self._lock:
            generation.cancelled = True
            running = self._current is generation
            if running and self._flag:
                self._flag.set()
            return running

    def run(self) -> None:
        """Load, then work until the process ends."""
        try:
            self._load()
        except LoadFailed as error:
            self.failure = error
        except EngineError as error:
            self.failure = LoadFailed(error.message, error.hint)
        except Exception as error:
            traceback.print_exc()
            self.failure = LoadFailed(f"Loading {self._spec.name} failed: {error}", "See the engine's log.")
        self._on_change()
        if self.failure:
            return
        while True:
            self._carry_out(self._jobs.get())

    def _load(self) -> None:
        try:
            from llama_tui.worker import binding, decode, model
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            raise MissingLlamaCpp(f"llama-cpp-python cannot be used: {error}") from error
        log = binding.Log()
        binding.initialize()
        self._flag = binding.AbortFlag()
        self._model = model.Model(self._spec, log, self._loaded_so_far)
        self._decoder = decode.Decoder(self._model, self._flag)
        self.info = self._model.info
        self.buffers = self._model.buffers()
        self.progress = None

    def _loaded_so_far(self, fraction: float) -> None:
        if self.progress is None or fraction - self.progress >= 0.01:
            self.progress = fraction
            self._on_change()

    def _carry_out(self, generation: Generation) -> None:
        assert self._flag
        with self._lock:
            if generation.cancelled:
                return
            self._flag.clear()
            self._current = generation
        self._on_begin(generation)
        try:
            self._generate(generation)
        except ContextOverflow as error:
            self._publish(
                generation,
                Failed(
                    0,
                    "context",
                    error.message,
                    error.hint,
                    prompt_tokens=error.prompt_tokens,
                    n_ctx=error.n_ctx,
                    reply_room=error.reply_room,
                    cuts=error.cuts,
                ),
            )
        except (EngineError, BadValue) as error:
            self._publish(generation, Failed(0, "request", error.message, error.hint))
        except Exception as error:
            self._publish(
                generation, Failed(0, "internal", f"{type(error).__name__}: {error}", "See the engine's log.")
            )
            traceback.print_exc()
        finally:
            with self._lock:
                self._current = None

    def _generate(self, generation: Generation) -> None:
        from llama_tui.worker.constraint import Constraint, grammar_of
        from llama_tui.worker.cut import Fitting, Told
        from llama_tui.worker.decode import Outcome
        from llama_tui.worker.model import sampling_seed
        from llama_tui.worker.sampler import Sampler, biases_of
        from llama_tui.worker.text import AnswerText

        assert self._model and self._decoder
        model, decoder, name = self._model, self._decoder, generation.name
        params = sampling(generation.request.params)
        seed = sampling_seed(params)
        request = generation.request
        thinking = params["thinking"] if isinstance(params["thinking"], bool) else None
        max_tokens = params["max_tokens"] if isinstance(params["max_tokens"], int) else None

        def make(messages: tuple[Message, ...]) -> Told:
            made = model.renderer.render(messages, request.tools, thinking)
            return Told(made, model.tokenize(made.text))

        fitting = Fitting(request.messages, make, model.n_ctx, max_tokens)
        fitted = fitting.fit(str(params["context_full"]), request.left_out)
        rendered, prompt = fitted.told.rendered, fitted.told.tokens
        grammar = grammar_of(params)
        biases = biases_of(params, model.vocab, model.tokenize)
        reused = decoder.reuse(prompt)
        self._publish(
            generation,
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
            ),
        )
        began = time.monotonic()
        told = began

        def prefilled(done: int, total: int) -> None:
            nonlocal told
            if (now := time.monotonic()) - told >= _PROGRESS_SECONDS:
                told = now
                self._publish(generation, Prefilled(0, name, 0, done, total))

        def said(kind: TokenKind, stretch: str, count: int, thought: int, likely: tuple[TokenLogprob, ...]) -> None:
            self._publish(generation, Token(0, name, 0, stretch, count, kind, thought, likely))

        stops = params["stop"]
        text = AnswerText(
            [*map(str, stops if isinstance(stops, tuple) else ()), *rendered.stop], model.marks, rendered.text
        )
        sampler = Sampler(params, model.vocab, model.n_ctx, seed, biases)
        constraint: Constraint | None = None
        try:
            constraint = Constraint(grammar, model.vocab) if grammar else None
            sampler.remember(prompt)
            outcome = (
                decoder.generate(prompt, sampler, params, text, said, constraint=constraint)
                if decoder.prefill(prompt, prefilled)
                else Outcome("cancelled", 0, time.monotonic(), None, time.monotonic())
            )
        finally:
            sampler.close()
            if constraint:
                constraint.close()
        first = outcome.first_token
        self._publish(
            generation,
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
            ),
        )
