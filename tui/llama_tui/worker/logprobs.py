"""How likely the tokens of an answer were, by the model alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from llama_tui.engine.protocol import Alternative, TokenLogprob
from llama_tui.worker.binding import llama
from llama_tui.worker.model import Model


class Logprobs:
    """Reads the logits that the last decoding left, of which no sampler has changed anything."""

    def __init__(self, model: Model, top: int) -> None:
        self._model = model
        self._top = top
        self._n_vocab: int = llama.llama_vocab_n_tokens(model.vocab)

    def of(self, token: int) -> TokenLogprob:
        """The token with its probability and the likeliest ones in its place."""
        pointer = llama.llama_get_logits_ith(self._model.context, -1)
        logits: Any = np.ctypeslib.as_array(pointer, (self._n_vocab,)).astype(np.float64)
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        count = min(self._top, self._n_vocab)
        best = np.argpartition(-logits, count - 1)[:count] if count else np.empty(0, np.int64)
        top = tuple(
            Alternative(int(id), self._text(int(id)), _finite(logits[id])) for id in best[np.argsort(-logits[best])]
        )
        return TokenLogprob(token, self._text(token), _finite(logits[token]), top)

    def _text(self, token: int) -> str:
        return self._model.token_text(token)


def _finite(logprob: Any) -> float:
    """JSON has no infinity."""
    return max(float(logprob), -9999.0)
