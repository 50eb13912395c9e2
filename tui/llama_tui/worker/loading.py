"""From load parameters to llama.cpp's structs: the weights, the context, adapters, devices.

What llama.cpp would answer with the end of the process, or without a word, is refused here first.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from llama_tui.engine.protocol import EngineSpec
from llama_tui.errors import LoadFailed
from llama_tui.settings.items import Adapter, Override
from llama_tui.settings.values import Value
from llama_tui.worker import backends, binding
from llama_tui.worker.binding import llama
from llama_tui.worker.threads import default_threads

# ggml.h, enum ggml_type.
_KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
# llama.h: enum llama_split_mode, llama_flash_attn_type, llama_rope_scaling_type.
_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
_ROPE_SCALING = {None: -1, "none": 0, "linear": 1, "yarn": 2, "longrope": 3}
# llama.h: enum llama_model_kv_override_type, and the member of its union.
_OVERRIDES = {"int": (0, "val_i64"), "float": (1, "val_f64"), "bool": (2, "val_bool"), "str": (3, "val_str")}
_SAME_WHEN_UNSET = (
    "rope_freq_base",
    "rope_freq_scale",
    "yarn_orig_ctx",
    "yarn_ext_factor",
    "yarn_attn_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
)


class Loading:
    """One load: `model`, then `context`. What llama.cpp keeps pointers to lives as long as this does.

    With `dry` nothing is allocated: llama.cpp only says what it would take. Every failure is a
    `LoadFailed` with llama.cpp's own reason.
    """

    def __init__(self, spec: EngineSpec, log: binding.Log, *, dry: bool = False) -> None:
        self._spec = spec
        self._params = spec.params
        self._log = log
        self._dry = dry
        self._kept: list[object] = []
        log.clear()

    def model(self, progress: Callable[[float], None]) -> Any:
        """Read the weights. `progress` is called with 0 to 1 from this thread."""
        wanted = self._params
        params = llama.llama_model_default_params()
        layers = cast("int | None", wanted["n_gpu_layers"])
        params.n_gpu_layers = self._spec.n_gpu_layers if layers is None else layers
        mmap, mlock = bool(wanted["use_mmap"]), bool(wanted["use_mlock"])
        params.load_mode = llama.LLAMA_LOAD_MODE_NONE + (0 if self._dry else (1 if mmap else 0) + (2 if mlock else 0))
        params.no_alloc = self._dry
        self._choose_devices(params)
        self._override(params)

        def report(fraction: float, _data: object) -> bool:
            progress(fraction)
            return True

        params.progress_callback = self._keep(llama.llama_progress_callback(report))
        model = llama.llama_model_load_from_file(os.fsencode(self._spec.path), params)
        if not model:
            raise self._failure(f"llama.cpp could not load {self._spec.name}")
        if llama.llama_model_has_encoder(model) or not llama.llama_model_has_decoder(model):
            raise LoadFailed(
                f"{self._spec.name} is not a model that one can chat with",
                "Embedding and encoder models have no decoder.",
            )
        return model

    def context(self, model: Any) -> Any:
        """Make the context, with the adapters."""
        wanted = self._params
        params = llama.llama_context_default_params()
        params.n_ctx = context_size(wanted, llama.llama_model_n_ctx_train(model))
        params.n_batch = int(cast("int", wanted["n_batch"]))
        params.n_ubatch = min(int(cast("int", wanted["n_ubatch"])), params.n_batch)
        # Only the last token's logits are ever read; without this the buffer holds n_batch rows.
        params.n_outputs_max = 1
        params.n_threads = int(cast("int", wanted["n_threads"] or default_threads()))
        params.n_threads_batch = int(cast("int", wanted["n_threads_batch"] or params.n_threads))
        params.flash_attn_type = _FLASH_ATTN[str(wanted["flash_attn"])]
        params.type_k, params.type_v = (_KV_TYPES[str(wanted[name])] for name in ("type_k", "type_v"))
        params.offload_kqv = bool(wanted["offload_kqv"])
        params.rope_scaling_type = _ROPE_SCALING[cast("str | None", wanted["rope_scaling"])]
        for name in _SAME_WHEN_UNSET:
            if wanted[name] is not None:
                setattr(params, name, wanted[name])
        context = llama.llama_init_from_model(model, params)
        if not context:
            raise self._failure(
                f"llama.cpp could not make a context of {params.n_ctx:,} tokens for {self._spec.name}",
                "Try a smaller n_ctx, type_k and type_v = f16, or fewer GPU layers.",
            )
        if not self._dry:
            self._adapt(model, context)
        return context

    def _choose_devices(self, params: Any) -> None:
        wanted = self._params
        if servers := _texts(wanted["rpc_servers"]):
            backends.add_rpc_servers(servers, _reach)
        known = backends.gpus()
        named = _texts(wanted["devices"])
        if missing := [name for name in named if name not in {device.name for device in known}]:
            there = ", ".join(device.name for device in known) or "no GPU"
            raise LoadFailed(
                f"devices names {missing[0]}, which this build of llama.cpp does not have: it has {there}",
                "Empty devices, or name some that it has; `llama-tui doctor` shows why a GPU is not used.",
            )
        if named:
            params.devices = ctypes.cast(self._keep(backends.device_list(named)), ctypes.c_void_p)
        count = len(named or known)
        mode, main = str(wanted["split_mode"]), int(cast("int", wanted["main_gpu"]))
        if count and mode != "layer" and main >= count:
            raise LoadFailed(
                f"main_gpu = {main}, but there {'is' if count == 1 else 'are'} {count} "
                f"GPU{'s' * (count != 1)} to choose from",
                f"Set main_gpu to at most {count - 1}.",
            )
        # Where there is no GPU llama.cpp would look for the main one all the same, and fail.
        params.split_mode = _SPLIT_MODES[mode if count else "layer"]
        params.main_gpu = main
        if shares := cast("tuple[float, ...]", wanted["tensor_split"]):
            if count and len(shares) > count:
                raise LoadFailed(
                    f"tensor_split has {len(shares)} shares for {count} GPU{'s' * (count != 1)}",
                    "Give one share for each, in llama.cpp's order, or none.",
                )
            if not any(shares):
                raise LoadFailed("tensor_split gives no GPU a share", "One must be above 0, or leave it empty.")
            # llama.cpp reads llama_max_devices() numbers from this address.
            size = max(llama.llama_max_devices(), len(shares))
            params.tensor_split = self._keep((ctypes.c_float * size)(*shares))

    def _override(self, params: Any) -> None:
        overrides = [Override.of(item) for item in _texts(self._params["kv_overrides"])]
        if not overrides:
            return
        # llama.cpp reads up to an entry with an empty key.
        array = (llama.llama_model_kv_override * (len(overrides) + 1))()
        for entry, override in zip(array, overrides, strict=False):
            entry.tag, member = _OVERRIDES[override.kind]
            entry.key = override.key.encode()
            value = override.value
            setattr(entry.value, member, value.encode()[:127] if isinstance(value, str) else value)
        params.kv_overrides = self._keep(array)

    def _adapt(self, model: Any, context: Any) -> None:
        adapters = [Adapter.of(item, self._spec.path) for item in _texts(self._params["lora"])]
        if not adapters:
            return
        handles: list[Any] = []
        for adapter in adapters:
            if not _is_gguf(adapter.path):
                raise LoadFailed(f"{adapter.path} is no LoRA adapter that can be read", "Take it out of lora.")
            handle = llama.llama_adapter_lora_init(model, os.fsencode(adapter.path))
            if not handle:
                raise self._failure(
                    f"llama.cpp could not use {adapter.path} with {self._spec.name}",
                    "An adapter fits the model that it was made for; take it out of lora.",
                )
            handles.append(handle)
        pointers = (llama.llama_adapter_lora_p_ctypes * len(handles))(
            *(ctypes.cast(handle, llama.llama_adapter_lora_p_ctypes) for handle in handles)
        )
        scales = (ctypes.c_float * len(handles))(*(adapter.scale for adapter in adapters))
        if llama.llama_set_adapters_lora(context, pointers, len(handles), scales):
            raise self._failure(f"llama.cpp could not put the adapters on {self._spec.name}", "Take one out of lora.")

    def _keep(self, value: Any) -> Any:
        self._kept.append(value)
        return value

    def _failure(self, message: str, hint: str = "") -> LoadFailed:
        errors = self._log.errors()
        reason = next((_reason(line) for line in errors if _reason(line)), "")
        return LoadFailed(f"{message}: {reason}" if reason else message, hint or _advice(reason), self._log.tail())


def context_size(params: dict[str, Value], n_ctx_train: int) -> int:
    """Tokens, a multiple of 256: other sizes break some attention kernels."""
    return -(-(cast("int | None", params["n_ctx"]) or n_ctx_train) // 256) * 256


def _texts(value: Value) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, tuple) else ()


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except (OSError, ValueError):
        return False


_REACH_SECONDS = 5.0


def _reach(server: str) -> None:
    """Raise `LoadFailed` where nobody listens: llama.cpp would end the process."""
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise LoadFailed(
            f"The RPC server {server} cannot be reached: {error}",
            "Start llama.cpp's rpc-server there, or take it out of rpc_servers.",
        ) from error


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
