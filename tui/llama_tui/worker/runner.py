"""The decode thread: loads the model, then carries out generations one after another."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llama_tui.engine.protocol import (
    Buffer,
    Called,
    EngineSpec,
    Failed,
    Finished,
    Generate,
    GenerationEvent,
    Message,
    ModelInfo,
    Prefilled,
    Started,
    Token,
    TokenLogprob,
    ToolCall,
)
from llama_tui.errors import ContextOverflow, EngineError, LoadFailed, MissingLlamaCpp
from llama_tui.settings.params import sampling
from llama_tui.settings.values import BadValue
from llama_tui.worker.generation import Generation
from llama_tui.worker.toolmarks import marks_of

if TYPE_CHECKING:
    from llama_tui.worker.archive import Archive
    from llama_tui.worker.binding import AbortFlag
    from llama_tui.worker.decode import Decoder
    from llama_tui.worker.model import Model
    from llama_tui.worker.text import Said
    from llama_tui.worker.toolformat import Format

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
        self._jobs: queue.SimpleQueue[Generation | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._flag: AbortFlag | None = None
        self._model: Model | None = None
        self._decoder: Decoder | None = None
        self._archive: Archive | None = None
        self._save_until: float | None = None
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

    def finish(self, seconds: float) -> None:
        """Stop everything, save the KV state, and return when that is done or the time is over."""
        with self._lock:
            self._save_until = time.monotonic() + seconds
            if self._current and self._flag:
                self._flag.set()
        self._jobs.put(None)
        if self._archive:
            self.join(seconds)

    def abandon(self) -> None:
        """End at once a `finish` that has begun."""
        if self._archive:
            self._archive.abandon()

    def run(self) -> None:
        """Load, then work until `finish`."""
        try:
            self._load()
        except LoadFailed as error:
            self.failure = error
        except EngineError as error:
            self.failure = LoadFailed(error.message, error.hint)
        except MemoryError:
            self.failure = LoadFailed(
                f"Loading {self._spec.name} failed: no more memory can be had",
                "Try a smaller n_ctx, or raise the limit of memory (ulimit -v, the job's limit).",
            )
        except Exception as error:
            self.failure = LoadFailed(f"Loading {self._spec.name} failed: {error!r}", "See the engine's log.")
            _log_exception()
        self._on_change()
        if self.failure:
            return
        while generation := self._jobs.get():
            self._carry_out(generation)
        if self._archive and self._save_until:
            self._archive.close(self._save_until)

    def _load(self) -> None:
        try:
            from llama_tui.worker import archive, binding, decode, model
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            if "failed to map segment" in str(error) or "allocate memory" in str(error):
                raise MemoryError from error  # it is there, but the loader has no room for it
            raise MissingLlamaCpp(f"llama-cpp-python cannot be used: {error}") from error
        log = binding.Log()
        binding.initialize()
        self._flag = binding.AbortFlag()
        fingerprint = archive.fingerprint(self._spec.path)
        self._model = model.Model(self._spec, log, self._loaded_so_far)
        self._decoder = decode.Decoder(self._model, self._flag)
        self._archive = archive.Archive(self._spec, fingerprint, self._model, self._decoder)
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
            if generation.cancelled or self._save_until:
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
            _log_exception()
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
        from llama_tui.worker.tools import CallReader

        assert self._model and self._decoder and self._archive and self._flag
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
        formats = model.call_formats if request.tools else ()
        grammar, begins_with = self._constraint(model, request, formats, grammar_of(params), rendered.text)
        biases = biases_of(params, model.vocab, model.tokenize)
        began = time.monotonic()
        restored = self._archive.recall(prompt, lambda flag=self._flag: flag.is_set)
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
                restored=restored,
            ),
        )
        told = time.monotonic()

        def prefilled(done: int, total: int) -> None:
            nonlocal told
            if (now := time.monotonic()) - told >= _PROGRESS_SECONDS:
                told = now
                self._publish(generation, Prefilled(0, name, 0, done, total))

        def said(item: Said, count: int, thought: int, likely: tuple[TokenLogprob, ...]) -> None:
            if isinstance(item, ToolCall):
                self._publish(generation, Called(0, name, 0, item, count))
            else:
                kind, stretch = item
                self._publish(generation, Token(0, name, 0, stretch, count, kind, thought, likely))

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
            constraint = Constraint(grammar, model.vocab, begins_with) if grammar else None
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
                restored=restored,
            ),
        )

    @staticmethod
    def _constraint(
        model: Model, request: Generate, formats: Sequence[Format], grammar: str, prompt: str
    ) -> tuple[str, int | None]:
        """The grammar that an answer with tools follows, and with which token it begins to hold;
        `grammar` is the one that is asked for besides."""
        from llama_tui.worker.gbnf import check
        from llama_tui.worker.toolgrammar import calls_grammar, either

        strict = any(tool.get("function", tool).get("strict") is True for tool in request.tools)
        if not formats or (request.tool_choice.mode == "auto" and not grammar and not strict):
            return grammar, None
        calls, format = calls_grammar(formats, request.tools, request.tool_choice, prompt)
        begins_with: int | None = None
        if request.tool_choice.mode == "auto":
            if grammar:
                calls = either(grammar, calls)
            else:
                begins_with = model.token_of(marks_of(format.before)[:1])
                if begins_with is None:
                    return "", None  # where a call begins cannot be told from what is said
        check(calls)
        return calls, begins_with


def _log_exception() -> None:
    """Print the exception that is being handled; a log whose disk is full must not end the thread."""
    with contextlib.suppress(OSError):
        traceback.print_exc()
