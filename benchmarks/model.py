"""The model that the benchmarks run: random weights, 41 million parameters, a vocabulary of 32,000.

Small enough that what is not arithmetic shows, with a vocabulary as large as real ones have. It is
written once into the user's cache folder; the same seed gives the same file everywhere. It never
ends an answer by itself when it is greedy.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import platformdirs

from tests.ggufs import write_tiny_llama

N_VOCAB = 32_000
_N_CTX_TRAIN = 32_768
_OWN_TOKENS = 272
"""Bytes, merges and control tokens that the writer adds to the words."""

_SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sa", "to", "vi", "pe", "du", "fa", "go", "xi")


def model_path(quantization: str = "Q8_0") -> Path:
    """The file, written now if it is not there yet (some seconds)."""
    path = platformdirs.user_cache_path("llama-tui") / "benchmarks" / f"random-41m-{quantization.lower()}.gguf"
    if not path.exists():
        words = ("".join(parts) for parts in itertools.product(_SYLLABLES, repeat=5))
        begun = path.with_suffix(".part")
        write_tiny_llama(
            begun,
            n_ctx_train=_N_CTX_TRAIN,
            n_embd=512,
            n_layer=4,
            n_head_kv=4,
            vocab=[f" {word}" for word in itertools.islice(words, N_VOCAB - _OWN_TOKENS)],
            quantization=quantization,
            name="random-41m",
        )
        begun.replace(path)
    return path
