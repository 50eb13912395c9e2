"""What the engine needs of llama.cpp beyond the functions that llama-cpp-python declares.

Importing this module imports `llama_cpp`, which takes about half a second and can fail: with
ImportError where it is not installed, with OSError or RuntimeError where a library is missing.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import importlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

from llama_tui.engine.protocol import Buffer

llama: Any = importlib.import_module("llama_cpp.llama_cpp")
"""llama.cpp's C API. Its declared types vary with the release; here they are ctypes' business."""

_library: Any = llama._lib
"""The handle of libllama; its dependencies (ggml) are reachable through it."""


# ggml.h, enum ggml_log_level.
_DEBUG, _ERROR, _CONTINUED = 1, 4, 5


class Log:
    """Keeps the last lines that llama.cpp logged and passes everything on to stderr.

    The reasons behind "failed to load" stand nowhere else. An assertion's text arrives just before
    the process aborts; it reaches stderr too, which is the engine's log file.
    """

    def __init__(self, keep: int = 400) -> None:
        self._lines: collections.deque[tuple[int, str]] = collections.deque(maxlen=keep)
        self._level = 0
        self._part = ""
        # llama.cpp keeps the bare pointers: the callback objects must live as long as the process.
        self._on_log = llama.llama_log_callback(self._write)
        llama.llama_log_set(self._on_log, ctypes.c_void_p(0))

    def _write(self, level: int, text: bytes | None, _data: object) -> None:
        if level != _CONTINUED:
            self._level = level
        if self._level == _DEBUG:
            return
        part = (text or b"").decode("utf-8", "replace")
        *lines, self._part = (self._part + part).split("\n")
        self._lines.extend((self._level, line) for line in lines if line.strip(" ."))
        with contextlib.suppress(OSError):  # the log's disk is full
            sys.stderr.write(part)
            sys.stderr.flush()

    def tail(self, count: int = 12) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(line for _, line in list(self._lines)[-count:])

    def errors(self) -> tuple[str, ...]:
        """The lines of level error, oldest first."""
        return tuple(line for level, line in self._lines if level == _ERROR)

    def clear(self) -> None:
        """Forget what was logged before, so that `errors` speaks of what comes now."""
        self._lines.clear()


class AbortFlag:
    """Stops a running `llama_decode` from any thread, without the decode thread taking the GIL.

    llama.cpp asks a C callback whether to go on. libc's `strlen` serves as that callback, on a
    buffer of two bytes: an empty string is 0, go on; one character is 1, stop. A Python callback
    costs 2.3 % of decode speed, this one nothing that can be measured.
    """

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(2)
        strlen = ctypes.CDLL(None).strlen
        self._callback = ctypes.cast(strlen, llama.ggml_abort_callback)

    def install(self, context: Any) -> None:
        """Make a context obey this flag."""
        llama.llama_set_abort_callback(context, self._callback, ctypes.cast(self._buffer, ctypes.c_void_p))

    def set(self) -> None:
        """Ask the decode loop to stop."""
        self._buffer[0] = b"\x01"

    def clear(self) -> None:
        """Let the next generation run."""
        self._buffer[0] = b"\x00"

    @property
    def is_set(self) -> bool:
        """Whether a stop was asked for."""
        return self._buffer[0] != b"\x00"


class _Map(ctypes.Structure):
    """libstdc++'s std::map: a red-black tree whose header node holds the root as its parent."""

    _fields_ = (
        ("compare", ctypes.c_void_p),
        ("color", ctypes.c_void_p),
        ("root", ctypes.c_void_p),
        ("leftmost", ctypes.c_void_p),
        ("rightmost", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
    )


class _Node(ctypes.Structure):
    """One node of that tree with its pair of buffer type and three sizes."""

    _fields_ = (
        ("color", ctypes.c_void_p),
        ("parent", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("buffer_type", ctypes.c_void_p),
        ("model", ctypes.c_size_t),
        ("context", ctypes.c_size_t),
        ("compute", ctypes.c_size_t),
    )


_BREAKDOWN = "_Z26llama_get_memory_breakdownPK13llama_context"


def memory_breakdown(context: Any) -> tuple[Buffer, ...] | None:
    """Exact bytes per buffer type, or None where llama.cpp's C++ map cannot be read.

    The function returns a std::map through a hidden pointer that x86-64 passes as first argument;
    other processors and other C++ libraries do it differently, and there the log is read instead.
    """
    if platform.machine() != "x86_64" or sys.platform != "linux" or not hasattr(_library, _BREAKDOWN):
        return None
    call = _function(_BREAKDOWN, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    name = _function("ggml_backend_buft_name", ctypes.c_char_p, ctypes.c_void_p)
    is_host = _function("ggml_backend_buft_is_host", ctypes.c_bool, ctypes.c_void_p)
    tree = _Map()
    call(ctypes.addressof(tree), ctypes.cast(context, ctypes.c_void_p))
    found: list[Buffer] = []
    waiting: list[int | None] = [tree.root]
    while waiting:
        address = waiting.pop()
        if not address:
            continue
        node = _Node.from_address(address)
        waiting += [node.left, node.right]
        found.append(
            Buffer(
                name=name(node.buffer_type).decode(),
                host=bool(is_host(node.buffer_type)),
                weights=node.model,
                kv=node.context,
                compute=node.compute,
            )
        )
    return tuple(sorted(found, key=lambda buffer: buffer.name))


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_library, name)
    function.restype = result
    function.argtypes = arguments
    return function


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(llama.llama_supports_gpu_offload())


def build() -> str:
    """Which build of llama.cpp this is, by its library's size and time of change: two builds of one
    release can differ, too."""
    status = Path(_library._name).stat()
    return f"{status.st_size} {status.st_mtime_ns} {sys.byteorder}"


def initialize() -> None:
    """Start llama.cpp's backends."""
    # Without this ggml runs a debugger for about a second when an assertion fails.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    llama.llama_backend_init()
