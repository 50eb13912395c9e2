"""The devices that this build of llama.cpp can compute on, RPC servers among them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from llama_tui.engine.protocol import Device
from llama_tui.errors import LoadFailed
from llama_tui.worker.binding import function

_GPU_TYPES = (1, 2)
"""ggml-backend.h, enum ggml_backend_dev_type: a GPU with memory of its own, one that shares the host's."""


def gpus() -> tuple[Device, ...]:
    """The GPUs, in llama.cpp's order, with their memory; reading that opens a context on each."""
    handles = [_device(number) for number in range(function("ggml_backend_dev_count", ctypes.c_size_t)())]
    kind = function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    return tuple(_described(handle) for handle in handles if kind(handle) in _GPU_TYPES)


def device_list(names: Sequence[str]) -> Any:
    """An array of these devices as `llama_model_params.devices` wants it, ended by a NULL."""
    by_name = function("ggml_backend_dev_by_name", ctypes.c_void_p, ctypes.c_char_p)
    return (ctypes.c_void_p * (len(names) + 1))(*(by_name(name.encode()) for name in names))


def add_rpc_servers(servers: Sequence[str], reach: Callable[[str], None]) -> None:
    """Make the devices of llama.cpp's RPC servers known, as "host:port". `reach` is called with each and
    raises where nobody listens. Raises `LoadFailed` where the build has no RPC or a server cannot be used."""
    registry = function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)(b"RPC")
    if not registry:
        raise LoadFailed(
            "rpc_servers needs llama.cpp's RPC backend, which the installed llama-cpp-python was built without",
            'Build it in: CMAKE_ARGS="-DGGML_RPC=on" pip install --force-reinstall --no-cache-dir llama-cpp-python '
            "(beside the flags of your GPU), or empty rpc_servers.",
        )
    address = function("ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    add = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(address(registry, b"ggml_backend_rpc_add_server"))
    register = function("ggml_backend_register", None, ctypes.c_void_p)
    for server in servers:
        reach(server)
        added = add(server.encode())
        if not added:
            raise LoadFailed(f"The RPC server {server} cannot be used", "It may be of another version of llama.cpp.")
        register(added)


def _device(number: int) -> int:
    return function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)(number)


def _described(handle: int) -> Device:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    pointer = ctypes.POINTER(ctypes.c_size_t)
    function("ggml_backend_dev_memory", None, ctypes.c_void_p, pointer, pointer)(handle, free, total)
    name = function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)(handle)
    return Device(name.decode("utf-8", "replace"), free.value, total.value)
