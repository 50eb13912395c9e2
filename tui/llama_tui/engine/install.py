"""How to install llama-cpp-python, for each kind of machine."""

from __future__ import annotations

_COMMAND = "pip install --force-reinstall --no-cache-dir llama-cpp-python"

# The flags of llama.cpp as it is now; LLAMA_CUBLAS and its like are refused by today's build.
_BACKENDS = (
    ("CPU only", ""),
    ("NVIDIA (CUDA)", "-DGGML_CUDA=on"),
    ("Apple (Metal)", "-DGGML_METAL=on"),
    ("AMD (ROCm)", "-DGGML_HIP=on"),
    ("Vulkan", "-DGGML_VULKAN=on"),
)


def install_hint() -> str:
    """What to run for CPU, CUDA, Metal, ROCm and Vulkan."""
    width = max(len(name) for name, _ in _BACKENDS)
    lines = [
        f"  {name:<{width}}  " + (f'CMAKE_ARGS="{flag}" {_COMMAND}' if flag else _COMMAND) for name, flag in _BACKENDS
    ]
    return (
        "Install it for this machine, in the environment that llama-tui runs in, then load the model again:\n"
        + "\n".join(lines)
    )
