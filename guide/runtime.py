"""The finished file under llama.cpp: chats in, answers out. Used to judge it, not to train it."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import jinja2
import llama_cpp
from llama_cpp import Llama

Message = dict[str, str]


class Runtime:
    """A loaded model, with the template of its own metadata."""

    def __init__(self, path: Path, *, n_ctx: int = 2048, threads: int = 1) -> None:
        began = time.monotonic()
        self._llama = Llama(str(path), n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads, verbose=False)
        self.load_seconds = time.monotonic() - began
        self._template = jinja2.Environment().from_string(self._llama.metadata["tokenizer.chat_template"])
        self._vocab = llama_cpp.llama_model_get_vocab(self._llama._model.model)
        self._end = self._llama.token_eos()

    def prompt(self, messages: list[Message]) -> str:
        """The text that the template makes of a chat."""
        return self._template.render(messages=messages, add_generation_prompt=True)

    def tokens(self, text: str) -> list[int]:
        """llama.cpp's own tokenization, control tokens read as such."""
        return self._llama.tokenize(text.encode(), add_bos=False, special=True)

    def answer(self, messages: list[Message], *, temperature: float = 0.0, seed: int = 0) -> str:
        """One answer with the program's own sampling; temperature 0 is greedy."""
        out: list[int] = []
        self._llama.set_seed(seed)
        stream = self._llama.generate(
            self.tokens(self.prompt(messages)), top_k=40, top_p=0.95, min_p=0.05, temp=temperature, repeat_penalty=1.0
        )
        for token in stream:
            if token == self._end or len(out) >= 400:
                break
            out.append(token)
        return b"".join(map(self._piece, out)).decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        """A token's bytes. The package's own way loses tokens of more than 32, such as a long opening."""
        buffer = ctypes.create_string_buffer(256)
        size = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[:size]
