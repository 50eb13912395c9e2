"""The sampler chain of one request, made from the sampling parameters."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

from llama_tui.settings.values import Value
from llama_tui.worker.binding import llama


class Sampler:
    """Owns one llama.cpp sampler chain; `close` frees it.

    The order is llama.cpp's own: penalties see all tokens, top_k comes before the samplers that
    sort (without it they cost 1.4 to 2 ms a token on flat logits), the temperature comes last.
    `remembers` is how many tokens of the prompt the penalties must be told of.
    """

    def __init__(self, params: Mapping[str, Value], vocab: Any, n_ctx: int, seed: int) -> None:
        self._p = params
        self.chain: Any = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        n_vocab = llama.llama_vocab_n_tokens(vocab)
        self.remembers = 0
        self._penalties(vocab, n_vocab, n_ctx)
        if self._number("temperature") <= 0:
            self._add(llama.llama_sampler_init_greedy())
        elif mirostat := int(self._number("mirostat")):
            tau, eta = self._number("mirostat_tau"), self._number("mirostat_eta")
            self._add(llama.llama_sampler_init_temp(self._number("temperature")))
            # 100 is the number of tokens that llama.cpp's own programs estimate from.
            self._add(
                llama.llama_sampler_init_mirostat(n_vocab, seed, tau, eta, 100)
                if mirostat == 1
                else llama.llama_sampler_init_mirostat_v2(seed, tau, eta)
            )
        else:
            self._truncation(seed)
            self._add(llama.llama_sampler_init_temp(self._number("temperature")))
            self._add(llama.llama_sampler_init_dist(seed))

    def _penalties(self, vocab: Any, n_vocab: int, n_ctx: int) -> None:
        repeat, presence = self._number("repeat_penalty"), self._number("presence_penalty")
        frequency = self._number("frequency_penalty")
        window = _window(self._number("penalty_last_n"), n_ctx)
        if self._p.get("ignore_eos"):
            ends = [token for token in range(n_vocab) if llama.llama_vocab_is_eog(vocab, token)]
            biases = (llama.llama_logit_bias * len(ends))(*((token, float("-inf")) for token in ends))
            self._add(llama.llama_sampler_init_logit_bias(n_vocab, len(ends), biases))
        if window and (repeat != 1 or presence or frequency):
            self.remembers = window
            self._add(llama.llama_sampler_init_penalties(n_vocab, window, repeat, frequency, presence))
        dry_window = _window(self._number("dry_penalty_last_n"), n_ctx)
        if dry_window and (multiplier := self._number("dry_multiplier")):
            self.remembers = max(self.remembers, dry_window)
            texts = [text.encode() for text in _texts(self._p["dry_sequence_breakers"])]
            breakers = (ctypes.c_char_p * len(texts))(*texts)
            self._add(
                llama.llama_sampler_init_dry(
                    vocab,
                    multiplier,
                    self._number("dry_base"),
                    int(self._number("dry_allowed_length")),
                    dry_window,
                    breakers,
                    len(texts),
                )
            )

    def _truncation(self, seed: int) -> None:
        if (sigma := self._number("top_n_sigma")) >= 0:
            self._add(llama.llama_sampler_init_top_n_sigma(sigma))
        if (top_k := int(self._number("top_k"))) > 0:
            self._add(llama.llama_sampler_init_top_k(top_k))
        if (typical := self._number("typical_p")) < 1:
            self._add(llama.llama_sampler_init_typical(typical, 1))
        if (top_p := self._number("top_p")) < 1:
            self._add(llama.llama_sampler_init_top_p(top_p, 1))
        if (min_p := self._number("min_p")) > 0:
            self._add(llama.llama_sampler_init_min_p(min_p, 1))
        if (xtc := self._number("xtc_probability")) > 0:
            self._add(llama.llama_sampler_init_xtc(xtc, self._number("xtc_threshold"), 1, seed))

    def _number(self, name: str) -> float:
        value = self._p[name]
        assert isinstance(value, int | float)
        return value

    def _add(self, sampler: Any) -> None:
        llama.llama_sampler_chain_add(self.chain, sampler)

    def remember(self, prompt: Sequence[int]) -> None:
        """Tell the penalties what the prompt's end was."""
        for token in prompt[len(prompt) - min(self.remembers, len(prompt)) :]:
            llama.llama_sampler_accept(self.chain, token)

    def close(self) -> None:
        """Free the chain."""
        if self.chain:
            llama.llama_sampler_free(self.chain)
            self.chain = None


def _window(value: float, n_ctx: int) -> int:
    """Tokens to look back; -1 stands for the whole context."""
    return n_ctx if value < 0 else min(int(value), n_ctx)


def _texts(value: Value) -> list[str]:
    return [str(item) for item in value] if isinstance(value, tuple) else []
