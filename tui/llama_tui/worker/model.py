"""A loaded model: its weights, its context, its vocabulary and its chat template."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import psutil

from llama_tui.engine.protocol import Buffer, EngineSpec, ModelInfo
from llama_tui.errors import LoadFailed
from llama_tui.settings.values import Value
from llama_tui.worker import binding, memory
from llama_tui.worker.binding import llama
from llama_tui.worker.reasoning import Marks
from llama_tui.worker.renderer import Renderer
from llama_tui.worker.threads import physical_cores
from llama_tui.worker.toolformat import Format
from llama_tui.worker.toolprobe import learn

# ggml.h, enum ggml_type.
_KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
# Bytes a value: a block of 32 values and its scales; the types that are not here take 18 a block.
_KV_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32}
# llama.h: enum llama_split_mode, llama_flash_attn_type, llama_rope_scaling_type.
_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
_ROPE_SCALING = {None: -1, "none": 0, "linear": 1, "yarn": 2, "longrope": 3}
_PIECE_BYTES = 1024


class Model:
    """Weights and context in one, since an engine has one of each.

    Raises `LoadFailed` with llama.cpp's own reason. `progress` is called with 0 to 1 while the
    weights are read; the call comes from the thread that loads.
    """

    def __init__(self, spec: EngineSpec, log: binding.Log, progress: Callable[[float], None]) -> None:
        self._params = spec.params
        self._log = log
        self._name = spec.name
        log.clear()
        self._model = self._load(spec.path, progress)
        self.vocab = llama.llama_model_get_vocab(self._model)
        if llama.llama_model_has_encoder(self._model) or not llama.llama_model_has_decoder(self._model):
            raise LoadFailed(
                f"{spec.name} is not a model that one can chat with", "Embedding and encoder models have no decoder."
            )
        self.context = self._make_context()
        self.n_ctx = llama.llama_n_ctx(self.context)
        self.n_ubatch = llama.llama_n_ubatch(self.context)
        self.n_swa = llama.llama_model_n_swa(self._model)
        self.is_recurrent = llama.llama_model_is_recurrent(self._model) or llama.llama_model_is_hybrid(self._model)
        self._piece_buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self._pieces: dict[int, bytes | None] = {}
        self.mark_tokens: set[int] = set()
        self.renderer = self._make_renderer()

    def _load(self, path: str, progress: Callable[[float], None]) -> Any:
        wanted = self._params
        params = llama.llama_model_default_params()
        params.n_gpu_layers = int(cast("int", wanted["n_gpu_layers"]))
        params.split_mode = _SPLIT_MODES[str(wanted["split_mode"])]
        params.main_gpu = int(cast("int", wanted["main_gpu"]))
        mmap, mlock = bool(wanted["use_mmap"]), bool(wanted["use_mlock"])
        params.load_mode = llama.LLAMA_LOAD_MODE_NONE + (1 if mmap else 0) + (2 if mlock else 0)
        if shares := cast("tuple[float, ...]", wanted["tensor_split"]):
            # llama.cpp reads llama_max_devices() numbers from this address.
            size = max(llama.llama_max_devices(), len(shares))
            self._tensor_split = (ctypes.c_float * size)(*shares)
            params.tensor_split = self._tensor_split

        def report(fraction: float, _data: object) -> bool:
            progress(fraction)
            return True

        callback = llama.llama_progress_callback(report)
        params.progress_callback = callback
        model = llama.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise self._failure(f"llama.cpp could not load {self._name}", "")
        return model

    def _make_context(self) -> Any:
        wanted = self._params
        params = llama.llama_context_default_params()
        params.n_ctx = self._wanted_ctx()
        params.n_batch = int(cast("int", wanted["n_batch"]))
        params.n_ubatch = min(int(cast("int", wanted["n_ubatch"])), params.n_batch)
        # Only the last token's logits are ever read; without this the buffer holds n_batch rows.
        params.n_outputs_max = 1
        params.n_threads = int(cast("int", wanted["n_threads"] or physical_cores()))
        params.n_threads_batch = int(cast("int", wanted["n_threads_batch"] or params.n_threads))
        params.flash_attn_type = _FLASH_ATTN[str(wanted["flash_attn"])]
        params.type_k, params.type_v = (_KV_TYPES[str(wanted[name])] for name in ("type_k", "type_v"))
        params.offload_kqv = bool(wanted["offload_kqv"])
        params.rope_scaling_type = _ROPE_SCALING[cast("str | None", wanted["rope_scaling"])]
        for name in (
            "rope_freq_base",
            "rope_freq_scale",
            "yarn_orig_ctx",
            "yarn_ext_factor",
            "yarn_attn_factor",
            "yarn_beta_fast",
            "yarn_beta_slow",
        ):
            if wanted[name] is not None:
                setattr(params, name, wanted[name])
        self._refuse_impossible(params.n_ctx)
        context = llama.llama_init_from_model(self._model, params)
        if not context:
            raise self._failure(
                f"llama.cpp could not make a context of {params.n_ctx:,} tokens for {self._name}",
                "Try a smaller n_ctx, type_k and type_v = f16, or fewer GPU layers.",
            )
        return context

    def _wanted_ctx(self) -> int:
        """Tokens, a multiple of 256: other sizes break some attention kernels."""
        wanted = cast("int | None", self._params["n_ctx"]) or llama.llama_model_n_ctx_train(self._model)
        return -(-wanted // 256) * 256

    def _refuse_impossible(self, n_ctx: int) -> None:
        """Refuse a KV cache in RAM that is larger than what is free: the kernel would grant it and
        then kill a process. Only for plain attention, whose cache is layers x tokens x row."""
        model = self._model
        if (
            llama.llama_model_n_swa(model)
            or llama.llama_model_is_recurrent(model)
            or llama.llama_model_is_hybrid(model)
        ):
            return
        if binding.supports_gpu() and self._params["n_gpu_layers"] and self._params["offload_kqv"]:
            return
        architecture = self._text("general.architecture")
        head = llama.llama_model_n_embd(model) // llama.llama_model_n_head(model)
        row = sum(
            int(self._text(f"{architecture}.attention.{name}_length") or head)
            * _KV_BYTES.get(str(self._params[f"type_{name[0]}"]), 18 / 32)
            for name in ("key", "value")
        )
        needed = int(llama.llama_model_n_layer(model) * n_ctx * llama.llama_model_n_head_kv(model) * row)
        free = psutil.virtual_memory().available
        if needed > free:
            raise LoadFailed(
                f"n_ctx = {n_ctx:,} needs {needed / 2**30:,.1f} GiB for the KV cache of {self._name}; "
                f"{free / 2**30:,.1f} GiB are free",
                f"Set n_ctx to {max(256, int(free * 0.8 / needed * n_ctx) // 256 * 256):,} or less, "
                "or quantize the cache with type_k and type_v = q8_0.",
            )

    def _failure(self, message: str, hint: str) -> LoadFailed:
        errors = self._log.errors()
        reason = next((_reason(line) for line in errors if _reason(line)), "")
        return LoadFailed(f"{message}: {reason}" if reason else message, hint or _advice(reason), self._log.tail())

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


def _reason(line: str) -> str:
    """What a log line says, without the name of the C++ function before it."""
    _, _, said = line.partition(": ")
    said = (said or line).strip()
    for prefix in (
        "error loading model: ",
        "error loading model architecture: ",
        "error loading model hyperparameters: ",
        "check_tensor_dims: ",
    ):
        said = said.removeprefix(prefix)
    return said


def _advice(reason: str) -> str:
    low = reason.lower()
    if "unknown model architecture" in low or "unknown pre-tokenizer" in low:
        return "This llama.cpp does not know the model yet: pip install --upgrade llama-cpp-python."
    if "allocat" in low or "memory" in low:
        return "Try a smaller n_ctx, fewer GPU layers, or a smaller quantization."
    if "tensor" in low or "key not found" in low or "data is not within" in low:
        return "The file is damaged or incomplete: download it again and compare its checksum."
    return "The engine's log says more; the file may be damaged, or made for another version of llama.cpp."


def sampling_seed(params: dict[str, Value]) -> int:
    """The seed that was asked for, else a random one of 32 bits."""
    wanted = params.get("seed")
    return int(cast("int", wanted)) if wanted is not None else int.from_bytes(os.urandom(4), "little") >> 1
