"""Engines as the commands show and find them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from llama_tui.chat.access import Access
from llama_tui.engine.devices import on_gpus
from llama_tui.engine.engine import Engine
from llama_tui.engine.protocol import Memory
from llama_tui.engine.silent import SilentEngine
from llama_tui.errors import EngineError, ModelNameError
from llama_tui.library.units import short_size
from llama_tui.settings.layers import model_keys

HEADS = ("NAME", "PID", "STATE", "PRIVATE", "MAPPED", "GPU", "CONTEXT", "IDLE LEFT")
RIGHT = frozenset(HEADS) - {"NAME", "STATE"}


Found = Engine | SilentEngine
"""An engine that runs; one that does not answer is known by its process alone."""

_SILENT = "not answering"
_END_SECONDS = 5.0


def row(engine: Found) -> tuple[str, ...]:
    """One engine as a line of `ps`."""
    held = _held(engine)
    private, mapped = (short_size(held.private), short_size(held.mapped)) if held else ("?", "?")
    state = engine.state if isinstance(engine, Engine) else None
    if state is None or isinstance(engine, SilentEngine):
        return (engine.spec.name, str(engine.pid), _SILENT, private, mapped, *["?"] * 3)
    progress = f" {state.progress:.0%}" if state.progress is not None else ""
    waiting = f" +{state.queued}" if state.queued else ""
    context = f"{state.n_past:,}/{state.model.n_ctx:,}" if state.model else "–"
    left = state.idle_seconds_left
    return (
        engine.spec.name,
        str(engine.pid),
        f"{engine.condition}{progress}{waiting}",
        private,
        mapped,
        short_size(gpu_bytes(engine)) if gpu_bytes(engine) else "–",
        context,
        "kept" if state.kept else "–" if left is None else clock(left),
    )


def record(engine: Found) -> dict[str, object]:
    """One engine as JSON has it: sizes in bytes, times in seconds."""
    held = _held(engine)
    state = engine.state if isinstance(engine, Engine) else None
    return {
        "name": engine.spec.name,
        "path": engine.spec.path,
        "pid": engine.pid,
        "socket": str(engine.place.socket),
        "log": str(engine.place.log),
        "state": engine.condition if state and isinstance(engine, Engine) else _SILENT,
        "progress": state.progress if state else None,
        "private_bytes": held.private if held else None,
        "mapped_bytes": held.mapped if held else None,
        "gpu_bytes": gpu_bytes(engine),
        "buffers": held.buffers if held else None,
        "estimate": engine.spec.estimate,
        "n_gpu_layers": _layers(engine),
        "n_ctx": state.model.n_ctx if state and state.model else None,
        "n_past": state.n_past if state else None,
        "queued": state.queued if state else None,
        "kept": state.kept if state else None,
        "idle_seconds_left": state.idle_seconds_left if state else None,
    }


def _layers(engine: Found) -> object:
    """The layers on GPUs that were asked for, or what "auto" came to."""
    asked = engine.spec.params.get("n_gpu_layers")
    return engine.spec.n_gpu_layers if asked is None else asked


def _held(engine: Found) -> Memory | None:
    if isinstance(engine, SilentEngine):
        return engine.memory
    return engine.state.memory if engine.state else None


def gpu_bytes(engine: Found) -> int:
    """What llama.cpp holds on devices of its own."""
    held = _held(engine)
    return on_gpus(held.buffers) if held else 0


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours before them."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def matching(engines: Sequence[Found], wanted: str) -> list[Found]:
    """The engines of a name, a path or a process id; raises `ModelNameError` where there is none."""
    keys = set(model_keys(wanted))
    found = [
        engine
        for engine in engines
        if wanted in (str(engine.pid), engine.spec.path, engine.spec.name) or keys & set(model_keys(engine.spec.name))
    ]
    if not found:
        names = ", ".join(f"{engine.spec.name} ({engine.pid})" for engine in engines)
        raise ModelNameError(f'No engine runs "{wanted}"', f"Running: {names}." if names else "None is running.")
    return found


@contextlib.asynccontextmanager
async def closing(access: Access, *, unload: bool = False) -> AsyncGenerator[Access]:
    """Lets go of the engines at the end, however it comes; with `unload`, ends those that were started here."""
    try:
        yield access
    finally:
        await access.close(unload=unload)


async def running(access: Access) -> list[Found]:
    """The living engines by name, those that do not answer too."""
    living = [engine for engine in await access.running() if engine.alive]
    found: list[Found] = [*living, *await access.silent()]
    return sorted(found, key=lambda engine: (engine.spec.name, engine.pid))


async def end(engine: Found) -> None:
    """End an engine, whatever it is doing, and wait until it is gone. Raises `EngineError`."""
    if isinstance(engine, Engine):
        await engine.unload()
    elif not await asyncio.to_thread(engine.end, _END_SECONDS):
        raise EngineError(
            f"{engine.spec.name} ({engine.pid}) was killed, but its process is still there.",
            "It waits for a device or a disk; it ends as soon as that answers.",
        )


async def keep(engine: Found, *, keep: bool) -> None:
    """Pin an engine, or let it go. Raises `EngineError`."""
    if isinstance(engine, SilentEngine):
        raise EngineError(
            f"{engine.spec.name} ({engine.pid}) does not answer.", f"`llama-tui stop {engine.pid}` ends it."
        )
    await engine.keep(keep)
