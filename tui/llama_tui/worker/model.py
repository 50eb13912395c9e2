"""A loaded model: its weights, its context, its vocabulary and its chat template."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import cast

from llama_tui.engine.protocol import Buffer, EngineSpec, ModelInfo
from llama_tui.settings.values import Value
from llama_tui.worker import binding, memory
from llama_tui.worker.binding import llama
from llama_tui.worker.loading import Loading
from llama_tui.worker.reasoning import Marks
from llama_tui.worker.renderer import Renderer
from llama_tui.worker.toolformat import Format
from llama_tui.worker.toolmarks import is_tag, marks_of
from llama_tui.worker.toolprobe import learn

_PIECE_BYTES = 1024


class Model:
    """Weights and context in one, since an engine has one of each.

    Raises `LoadFailed` with llama.cpp's own reason. `progress` is called with 0 to 1 while the
    weights are read; the call comes from the thread that loads.
    """

    def __init__(self, spec: EngineSpec, log: binding.Log, progress: Callable[[float], None]) -> None:
        self._log = log
        self._name = spec.name
        self._loading = Loading(spec, log)
        self._model = self._loading.model(progress)
        self.vocab = llama.llama_model_get_vocab(self._model)
        self.context = self._loading.context(self._model)
        self.n_ctx = llama.llama_n_ctx(self.context)
        self.n_ubatch = llama.llama_n_ubatch(self.context)
        self.n_swa = llama.llama_model_n_swa(self._model)
        self.is_recurrent = llama.llama_model_is_recurrent(self._model) or llama.llama_model_is_hybrid(self._model)
        self._piece_buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self._pieces: dict[int, bytes | None] = {}
        self.mark_tokens: set[int] = set()
        self.renderer = self._make_renderer()

    def _make_renderer(self) -> Renderer:
        template = llama.llama_model_chat_template(self._model, None)
        source = template.decode("utf-8", "replace") if template else None
        self.marks = Marks(source or "")
        bos, eos = llama.llama_vocab_bos(self.vocab), llama.llama_vocab_eos(self.vocab)
        return Renderer(
            self._name,
            source,
            self._token_text(bos),
            self._token_text(eos),
            knows_chatml=len(self.tokenize("<|im_start|>", bos=False)) == 1,
        )

    def _token_text(self, token: int) -> str:
        return (llama.llama_vocab_get_text(self.vocab, token) or b"").decode("utf-8", "replace") if token >= 0 else ""

    @property
    def info(self) -> ModelInfo:
        """What the model says of itself."""
        description = ctypes.create_string_buffer(256)
        llama.llama_model_desc(self._model, description, 256)
        return ModelInfo(
            description=description.value.decode("utf-8", "replace"),
            architecture=self._text("general.architecture"),
            n_params=llama.llama_model_n_params(self._model),
            n_layer=llama.llama_model_n_layer(self._model),
            n_ctx=self.n_ctx,
            n_ctx_train=llama.llama_model_n_ctx_train(self._model),
            template=self.renderer.origin,
        )

    @property
    def is_stretched(self) -> bool:
        """Whether the context is longer than that of the model's training, from where on some
        models turn their keys otherwise."""
        original = self._text(f"{self._text('general.architecture')}.rope.scaling.original_context_length")
        return self.n_ctx > int(original or llama.llama_model_n_ctx_train(self._model))

    def _text(self, key: str) -> str:
        """A value of the file's metadata, empty where there is none."""
        value = ctypes.create_string_buffer(128)
        llama.llama_model_meta_val_str(self._model, key.encode(), value, 128)
        return value.value.decode("utf-8", "replace")

    def buffers(self) -> tuple[Buffer, ...]:
        """Bytes that llama.cpp holds, exact where it lets itself be asked, else from its log."""
        return binding.memory_breakdown(self.context) or memory.buffers_from_log(self._log.tail(400))

    def tokenize(self, text: str, *, bos: bool = True) -> list[int]:
        """Token ids of a prompt, control tokens recognized; with `bos` the model's own beginning
        is put before it, unless the template has done so."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 16
        found = (llama.llama_token * room)()
        count = llama.llama_tokenize(self.vocab, data, len(data), found, room, False, True)
        if count < 0:
            room = -count
            found = (llama.llama_token * room)()
            count = llama.llama_tokenize(self.vocab, data, len(data), found, room, False, True)
        tokens = list(found[:count])
        first = llama.llama_vocab_bos(self.vocab)
        if bos and llama.llama_vocab_get_add_bos(self.vocab) and tokens[:1] != [first]:
            tokens.insert(0, first)
        return tokens

    @functools.cached_property
    def longest_token(self) -> int:
        """Characters that no token can have more of; without end where a tokenizer drops some."""
        if llama.llama_vocab_type(self.vocab) not in (llama.LLAMA_VOCAB_TYPE_SPM, llama.LLAMA_VOCAB_TYPE_BPE):
            return sys.maxsize
        text_of, vocab = llama.llama_vocab_get_text, self.vocab
        return max(len(text_of(vocab, token) or b"") for token in range(llama.llama_vocab_n_tokens(vocab)))

    def piece(self, token: int) -> bytes | None:
        """The bytes of a token of an answer; None where it ends the answer. Control tokens have
        none, except the marks around a thought, which are kept in `mark_tokens` too."""
        try:
            return self._pieces[token]
        except KeyError:
            piece: bytes | None = None
            if not llama.llama_vocab_is_eog(self.vocab, token):
                piece = self._to_piece(token, special=False)
                whole = self._to_piece(token, special=True)
                if whole.decode("utf-8", "replace") in self.marks:
                    self.mark_tokens.add(token)
                    piece = whole
            self._pieces[token] = piece
            return piece

    @functools.cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer. To ask for all takes 0.2 us a token, so it is done once."""
        is_end, vocab = llama.llama_vocab_is_eog, self.vocab
        return tuple(token for token in range(llama.llama_vocab_n_tokens(vocab)) if is_end(vocab, token))

    @functools.cached_property
    def call_formats(self) -> tuple[Format, ...]:
        """How this model writes calls of tools, the likeliest first."""
        return learn(lambda messages, tools: self.renderer.render(messages, tools).text, self.renderer.source)

    @functools.cached_property
    def call_tokens(self) -> dict[int, bytes]:
        """The control tokens with which calls are written, and how they are spelled."""
        found: dict[int, bytes] = {}
        for text in dict.fromkeys(mark for format in self.call_formats for mark in format.marks()):
            token = self.token_of((text,))
            if token is None or llama.llama_vocab_is_eog(self.vocab, token):
                continue
            if llama.llama_vocab_is_control(self.vocab, token):
                found[token] = self._to_piece(token, special=True)
        return found

    def token_of(self, texts: Sequence[str]) -> int | None:
        """The one token that a text is; None where it is several, or where there is no text."""
        tokens = self.tokenize("".join(texts), bos=False)
        return tokens[0] if len(tokens) == 1 else None

    def opening_token(self, before: str) -> int | None:
        """The token that begins what stands before a call, where it tells a call from what is said: one
        that is a whole tag, or that the vocabulary has for marks alone. None where there is none."""
        before = before.lstrip()
        tag = next(iter(marks_of(before)), "")
        if is_tag(tag) and (token := self.token_of((tag,))) is not None:
            return token
        tokens = self.tokenize(before, bos=False)
        marks = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_USER_DEFINED
        return tokens[0] if tokens and llama.llama_vocab_get_attr(self.vocab, tokens[0]) & marks else None

    def token_text(self, token: int) -> str:
        """A token as a person reads it, control tokens too."""
        return self._to_piece(token, special=True).decode("utf-8", "replace")

    def _to_piece(self, token: int, *, special: bool) -> bytes:
        buffer, size = self._piece_buffer, _PIECE_BYTES
        count = llama.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
        if count < 0:
            size = -count
            buffer = ctypes.create_string_buffer(size)
            count = llama.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
        return buffer.raw[:count]


def sampling_seed(params: dict[str, Value]) -> int:
    """The seed that was asked for, else a random one of 32 bits."""
    wanted = params.get("seed")
    return int(cast("int", wanted)) if wanted is not None else int.from_bytes(os.urandom(4), "little") >> 1
