"""The whole program under test: its app with fixed devices, and ways to wait for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from llama_tui.engine.devices import DeviceMemory, Machine
from llama_tui.paths import Paths
from llama_tui.settings.store import SettingsStore
from llama_tui.settings.values import Value
from llama_tui.ui.app import LlamaTui

GIB = 2**30


class FixedMachine(Machine):
    """The same memory on every machine."""

    def read(self) -> list[DeviceMemory]:
        """24 GiB of RAM and one GPU."""
        return [DeviceMemory("RAM", "RAM", 24 * GIB, 9 * GIB), DeviceMemory("CUDA0", "GPU0", 80 * GIB, 61 * GIB)]


def program(
    paths: Paths, model: str | None = None, models: Path | None = None, flags: dict[str, Value] | None = None
) -> LlamaTui:
    """The app as the command line composes it."""
    environ = {"LLAMA_CPP_MODEL_DIR": str(models)} if models else {}
    settings = SettingsStore(paths, {**os.environ, **environ}, flags or {})
    settings.load()
    return LlamaTui(paths, settings, model, FixedMachine())


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition; fails after a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def leave(app: LlamaTui) -> None:
    """End the program as ctrl+q does."""
    await app.main.finish()
    await app.workbench.close(unload=True)
