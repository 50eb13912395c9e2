"""The decode thread: loads the model, then carries out generations one after another."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from llama_tui.engine.protocol import Buffer, EngineSpec, Failed, GenerationEvent, ModelInfo
from llama_tui.errors import ContextOverflow, EngineError, LoadFailed, MissingLlamaCpp
from llama_tui.settings.values import BadValue
from llama_tui.worker.generation import Generation

if TYPE_CHECKING:
    from llama_tui.worker.answer import Answerer
    from llama_tui.worker.archive import Archive
    from llama_tui.worker.binding import AbortFlag
    from llama_tui.worker.decode import Decoder
    from llama_tui.worker.renderer import Renderer


_FAILED_SECONDS = 20
"""An engine that could not load says so and is gone long before."""


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
        self._decoder: Decoder | None = None
        self._archive: Archive | None = None
        self._answerer: Answerer | None = None
        self._renderer: Renderer | None = None
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
        """Load, then work until `finish`, and end the process of the chat template."""
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
        if self.failure:
            # Where memory has run out nothing can be relied on to end the process, except the kernel.
            signal.alarm(_FAILED_SECONDS)
        self._on_change()
        if self.failure:
            return
        while generation := self._jobs.get():
            self._carry_out(generation)
        if self._archive and self._save_until:
            self._archive.close(self._save_until)
        if self._renderer:
            self._renderer.close()  # whoever waits for the engine's end waits for this process as well

    def _load(self) -> None:
        try:
            from llama_tui.worker import answer, archive, binding, decode, model
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            if "failed to map segment" in str(error) or "allocate memory" in str(error):
                raise MemoryError from error  # it is there, but the loader has no room for it
            raise MissingLlamaCpp(f"llama-cpp-python cannot be used: {error}") from error
        log = binding.Log()
        binding.initialize()
        self._flag = binding.AbortFlag()
        fingerprint = archive.fingerprint(self._spec)
        loaded = model.Model(self._spec, log, self._loaded_so_far)
        self._renderer = loaded.renderer
        self._decoder = decode.Decoder(loaded, self._flag)
        self._archive = archive.Archive(self._spec, fingerprint, loaded, self._decoder)
        self._answerer = answer.Answerer(loaded, self._decoder, self._archive, self._flag)
        self.info = loaded.info
        self.buffers = loaded.buffers()
        self.progress = None

    def _loaded_so_far(self, fraction: float) -> None:
        if self.progress is None or fraction - self.progress >= 0.01:
            self.progress = fraction
            self._on_change()

    def _carry_out(self, generation: Generation) -> None:
        assert self._flag and self._answerer
        with self._lock:
            if generation.cancelled or self._save_until:
                return
            self._flag.clear()
            self._current = generation
        self._on_begin(generation)
        try:
            self._answerer.answer(generation, partial(self._publish, generation))
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


def _log_exception() -> None:
    """Print the exception that is being handled; a log whose disk is full must not end the thread."""
    with contextlib.suppress(OSError):
        traceback.print_exc()
