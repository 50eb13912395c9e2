"""Decode speed of our loop against `llama_cpp.Llama`, on the same file, as a ratio within one run.

    python -m benchmarks.decode [MODEL] [--tokens 1024] [--rounds 5]

The two take turns, so that a noisy machine disturbs both alike. Greedy, the end of text ignored.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import llama_cpp

from llama_tui.engine.protocol import EngineSpec
from llama_tui.library.scan import builtin_path
from llama_tui.settings.params import defaults
from llama_tui.worker.binding import AbortFlag, Log, initialize
from llama_tui.worker.decode import Decoder
from llama_tui.worker.model import Model
from llama_tui.worker.sampler import Sampler
from llama_tui.worker.text import AnswerText
from llama_tui.worker.threads import physical_cores

PROMPT = "How do I switch models?"


class Ours:
    """The engine's own loop, without the socket."""

    def __init__(self, path: Path, n_ctx: int) -> None:
        params = {**defaults("load"), "n_ctx": n_ctx}
        self._model = Model(EngineSpec("bench", str(path), "", params), Log(), lambda _fraction: None)
        self._decoder = Decoder(self._model, AbortFlag())

    def tokens_per_second(self, count: int) -> float:
        """Generate so many tokens and measure from the first to the last."""
        wanted = {**defaults("sampling"), "temperature": 0.0, "ignore_eos": True, "max_tokens": count}
        prompt = self._model.tokenize(PROMPT)
        self._decoder.reuse(prompt)
        self._decoder.prefill(prompt, lambda _done, _total: None)
        sampler = Sampler(wanted, self._model.vocab, self._model.n_ctx, 0)
        outcome = self._decoder.generate(prompt, sampler, wanted, AnswerText(()), lambda *_told: None)
        sampler.close()
        assert outcome.first_token is not None and outcome.completion_tokens == count
        return (count - 1) / (outcome.ended - outcome.first_token)


class Package:
    """`llama_cpp.Llama` as its users call it."""

    def __init__(self, path: Path, n_ctx: int) -> None:
        self._llama = llama_cpp.Llama(str(path), n_ctx=n_ctx, n_threads=physical_cores(), verbose=False)

    def tokens_per_second(self, count: int) -> float:
        """The same through its streaming interface."""
        never = {self._llama.token_eos(): -1e9}
        first: float | None = None
        for _ in self._llama.create_completion(
            PROMPT, max_tokens=count, temperature=0.0, repeat_penalty=1.0, stream=True, logit_bias=never
        ):
            first = first or time.monotonic()
        assert first is not None
        return (count - 1) / (time.monotonic() - first)


def main() -> None:
    """Print both speeds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=builtin_path())
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    initialize()
    n_ctx = -(-(options.tokens + 64) // 256) * 256
    ours, package = Ours(options.model, n_ctx), Package(options.model, n_ctx)
    pairs = [
        (ours.tokens_per_second(options.tokens), package.tokens_per_second(options.tokens))
        for _ in range(options.rounds)
    ]
    for name, speeds in (("llama-tui", [a for a, _ in pairs]), ("llama_cpp.Llama", [b for _, b in pairs])):
        print(f"{name:<16}{statistics.median(speeds):8.0f} tok/s  ({min(speeds):.0f} to {max(speeds):.0f})")
    ratios = [a / b for a, b in pairs]
    print(f"{'ratio':<16}{statistics.median(ratios):8.2f}        ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
