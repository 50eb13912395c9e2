"""The engine's decode loop against `llama_decode` alone, in one process, in CPU time.

Wall time on a busy machine says more about the others than about a loop. Here one thread does all
the work, both ways take turns on the same context, and what counts is the CPU time of that thread:
sampling, text and events are the difference.
"""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path

from llama_tui.engine.protocol import EngineSpec, TokenLogprob
from llama_tui.settings.params import defaults
from llama_tui.settings.values import Value
from llama_tui.worker.binding import AbortFlag, Log, initialize, llama
from llama_tui.worker.decode import Decoder
from llama_tui.worker.model import Model
from llama_tui.worker.sampler import Sampler, biases_of
from llama_tui.worker.text import AnswerText, Said


class Loop:
    """Both return tokens per second of CPU time, after `depth` tokens."""

    def __init__(self, path: Path, n_ctx: int) -> None:
        initialize()
        params = defaults("load") | {"n_ctx": n_ctx, "n_threads": 1}
        with contextlib.redirect_stderr(io.StringIO()):  # llama.cpp tells much while it loads
            self._model = Model(EngineSpec("benchmark", str(path), "", params), Log(), lambda _fraction: None)
        self._decoder = Decoder(self._model, AbortFlag())

    def _prefill(self, depth: int) -> list[int]:
        prompt = self._model.tokenize(("7777 " * depth)[:depth])
        self._decoder.reuse(prompt)
        self._decoder.prefill(prompt, lambda _done, _total: None)
        return prompt

    def ours(self, count: int, depth: int, **changes: Value) -> float:
        """As the engine does it, without the socket."""
        params = defaults("sampling") | {"temperature": 0.0, "ignore_eos": True, "max_tokens": count} | changes
        prompt = self._prefill(depth)
        sampler = Sampler(params, self._model.vocab, self._model.n_ctx, 0, biases_of(params, self._model))
        began = time.thread_time()
        outcome = self._decoder.generate(prompt, sampler, params, AnswerText(()), _nowhere)
        seconds = time.thread_time() - began
        sampler.close()
        assert outcome.completion_tokens == count
        return (count - 1) / seconds  # the first token needs no decoding: the prompt's logits make it

    def bare(self, count: int, depth: int) -> float:
        """As llama-bench does it: tokens that nobody has chosen, the context waited for."""
        self._prefill(depth)
        one = (llama.llama_token * 1)()
        batch = llama.llama_batch_get_one(one, 1)
        decode, synchronize, context = llama.llama_decode, llama.llama_synchronize, self._model.context
        n_vocab = llama.llama_vocab_n_tokens(self._model.vocab)
        began = time.thread_time()
        for number in range(count):
            one[0] = number * 7919 % n_vocab
            decode(context, batch)
            synchronize(context)
        return count / (time.thread_time() - began)


def _nowhere(_said: Said, _count: int, _thought: int, _likely: tuple[TokenLogprob, ...]) -> None:
    """Where the text of a benchmark goes."""
