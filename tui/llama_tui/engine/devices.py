"""The memory of this machine: RAM and each NVIDIA GPU, as everybody's share of it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llama_tui.engine.limits import Limit, kernel_text, memory_limits

if TYPE_CHECKING:
    from llama_tui.engine.protocol import Buffer

_MEMINFO = "/proc/meminfo"
_NO_GPU = ("ggml-base", "ggml-cpu", "ggml-blas", "ggml-rpc")
"""Parts of llama.cpp that compute on no GPU of this machine."""


class DeviceMemory(Struct, frozen=True):
    """Bytes of one device. `name` is llama.cpp's name of its buffers ("CUDA0"), "RAM" for the host;
    `label` is what a person calls it."""

    name: str
    label: str
    total: int
    used: int

    @property
    def free(self) -> int:
        """What is left, 0 at the least."""
        return max(0, self.total - self.used)


def ram(limits: Iterable[Limit] | None = None) -> DeviceMemory:
    """The host's memory, within the limits of the control groups around this process; the tightest counts.

    Used is what cannot be had without swapping: page cache, and with it mapped weights, is free.
    """
    host = _host()
    tightest = min([host, *(memory_limits() if limits is None else limits)], key=lambda limit: limit.free)
    return DeviceMemory("RAM", "RAM", min(tightest.total, host.total), min(tightest.used, host.total))


def _host() -> Limit:
    """All of the machine. On Linux as the kernel tells it: psutil would take a megabyte to read these two lines."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in kernel_text(_MEMINFO).splitlines())
        total, available = (1024 * int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        return Limit(total, max(0, total - available))
    import psutil

    host = psutil.virtual_memory()
    return Limit(host.total, host.total - host.available)


class Gpus:
    """Reads NVIDIA GPUs through NVML, which opens no CUDA context. Without a driver: none."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        self._tried = False

    def read(self) -> list[DeviceMemory]:
        """The GPUs that an engine would see, in its order. The first call loads the driver's
        library, which can take a while: call it in a thread."""
        if not self._tried:
            self._tried = True
            self._open()
        found: list[DeviceMemory] = []
        for number, handle in enumerate(self._handles):
            with contextlib.suppress(self._nvml.NVMLError):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                found.append(DeviceMemory(f"CUDA{number}", f"GPU{number}", int(memory.total), int(memory.used)))
        return found

    def _open(self) -> None:
        nvml: Any = importlib.import_module("pynvml")
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError:
            return
        self._nvml, self._handles = nvml, visible(handles, os.environ.get("CUDA_VISIBLE_DEVICES"))


class Machine:
    """The devices of this machine."""

    def __init__(self) -> None:
        self._gpus = Gpus()

    def read(self) -> list[DeviceMemory]:
        """The RAM and every GPU; to be called in a thread."""
        return [ram(), *self._gpus.read()]

    def backends(self) -> tuple[str, ...]:
        """The kinds of GPU that the installed llama.cpp was built for, as "cuda", by its libraries: it is
        not loaded for this."""
        found = importlib.util.find_spec("llama_cpp")
        for folder in (found.submodule_search_locations or ()) if found else ():
            names = {path.name.split(".")[0].removeprefix("lib") for path in Path(folder, "lib").glob("*ggml-*")}
            return tuple(sorted(name.removeprefix("ggml-") for name in names if not name.startswith(_NO_GPU)))
        return ()

    def usable_gpu(self) -> str:
        """What to call the first GPU that is there and that the installed llama.cpp was built for; ""
        where there is none. To be called in a thread."""
        return next((device.label for device in self.read()[1:]), "") if self.backends() else ""


def visible(devices: list[Any], variable: str | None) -> list[Any]:
    """The devices that CUDA_VISIBLE_DEVICES leaves, in its order; a list of UUIDs leaves all, since
    their numbers are not known here. As in CUDA, the first number that is no device ends the list."""
    if variable is None:
        return devices
    chosen: list[Any] = []
    for word in filter(None, (part.strip() for part in variable.split(","))):
        if not word.lstrip("-").isdigit():
            return devices
        if not 0 <= int(word) < len(devices):
            break
        chosen.append(devices[int(word)])
    return chosen


def on_device(buffers: tuple[Buffer, ...], device: str) -> int:
    """Bytes that an engine's buffers take on a device."""
    return sum(b.total for b in buffers if (not b.host and b.name == device) or b.name.startswith(device + "_"))


def on_gpus(buffers: tuple[Buffer, ...]) -> int:
    """Bytes that an engine's buffers take on devices with a memory of their own."""
    return sum(buffer.total for buffer in buffers if not buffer.host)
