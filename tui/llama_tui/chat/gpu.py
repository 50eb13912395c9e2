"""A GPU that could be used and is not, because nobody has said how many layers it shall have."""

from __future__ import annotations

import asyncio

from llama_tui.engine.devices import Machine
from llama_tui.library.scan import ModelFile
from llama_tui.settings.layers import Setting


async def unused_gpu(file: ModelFile, n_gpu_layers: Setting, machine: Machine) -> str:
    """What to call that GPU, where this model is loaded without it; "" where that is not so. The built-in
    model needs none."""
    if file.builtin or n_gpu_layers.origin != "default" or n_gpu_layers.value != 0:
        return ""
    return await asyncio.to_thread(machine.usable_gpu)
