"""The sampler chain of one request, made from the sampling parameters."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

from llama_tui.errors import EngineError
from llama_tui.settings.values import Value
from llama_tui.worker.binding import llama
from llama_tui.worker.model import Model


class Sampler:
    """Owns one llama.cpp sampler chain; `close` frees it.

    Biases and penalties come first, since they must see all tokens; then what `samplers` lists, in
    its order. By default that is llama.cpp's own: top_k comes before the samplers that sort (without
    it they cost 1.4 to 2 ms a token on flat logits), the temperature comes last.
    `remembers` is how many tokens of the prompt the penalties must be told of.
    """

    def __init__(
        self, params: Mapping[str, Value], vocab: Any, n_ctx: int, seed: int, biases: Sequence[tuple[int, float]] = ()
    ) -> None:
        self._p = params
        self.chain: Any = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        n_vocab = llama.llama_vocab_n_tokens(vocab)
        self.remembers = 0
        if biases:
            given = (llama.llama_logit_bias * len(biases))(*biases)
            self._add(llama.llama_sampler_init_logit_bias(n_vocab, len(biases), given))
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
            self._add(llama.llama_sampler_init_dist(seed))

    def _penalties(self, vocab: Any, n_vocab: int, n_ctx: int) -> None:
        repeat, presence = self._number("repeat_penalty"), self._number("presence_penalty")
        frequency = self._number("frequency_penalty")
        window = _window(self._number("penalty_last_n"), n_ctx)
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
        for name in dict.fromkeys(_texts(self._p["samplers"])):
            self._truncate(name, seed)

    def _truncate(self, name: str, seed: int) -> None:
        value = self._number("xtc_probability" if name == "xtc" else name)
        match name:
            case "temperature":
                self._add(llama.llama_sampler_init_temp(value))
            case "top_n_sigma" if value >= 0:
                self._add(llama.llama_sampler_init_top_n_sigma(value))
            case "top_k" if value > 0:
                self._add(llama.llama_sampler_init_top_k(int(value)))
            case "typical_p" if value < 1:
                self._add(llama.llama_sampler_init_typical(value, 1))
            case "top_p" if value < 1:
                self._add(llama.llama_sampler_init_top_p(value, 1))
            case "min_p" if value > 0:
                self._add(llama.llama_sampler_init_min_p(value, 1))
            case "xtc" if value > 0:
                self._add(llama.llama_sampler_init_xtc(value, self._number("xtc_threshold"), 1, seed))
            case _:
                pass  # its value leaves it off

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


def biases_of(params: Mapping[str, Value], model: Model) -> list[tuple[int, float]]:
    """The token ids and biases of `logit_bias` and `ignore_eos`; raises `EngineError` for what is no token."""
    n_vocab = llama.llama_vocab_n_tokens(model.vocab)
    biases: dict[int, float] = {}
    for item in _texts(params["logit_bias"]):
        text, _, bias = item.rpartition("=")
        if text.isascii() and text.isdigit():
            tokens: Sequence[int] = [int(text)]
        else:
            tokens = model.tokenize(text.strip('"') or text, bos=False)
        if len(tokens) != 1 or tokens[0] >= n_vocab:
            what = f"{len(tokens)} tokens" if len(tokens) != 1 else f"no token: there are {n_vocab:,}"
            raise EngineError(f"logit_bias: {text!r} is {what}", "Name one token, by its id or its whole text.")
        biases[tokens[0]] = float(bias)
    if params["ignore_eos"]:
        biases |= dict.fromkeys(model.end_tokens, float("-inf"))
    return list(biases.items())


def _window(value: float, n_ctx: int) -> int:
    """Tokens to look back; -1 stands for the whole context."""
    return n_ctx if value < 0 else min(int(value), n_ctx)


def _texts(value: Value) -> list[str]:
    return [str(item) for item in value] if isinstance(value, tuple) else []
