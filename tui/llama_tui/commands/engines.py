"""Engines as the commands show and find them."""

from __future__ import annotations

from collections.abc import Sequence

from llama_tui.chat.access import Access
from llama_tui.engine.engine import Engine
from llama_tui.errors import ModelNameError
from llama_tui.library.units import short_size
from llama_tui.settings.layers import model_keys

HEADS = ("NAME", "PID", "STATE", "PRIVATE", "MAPPED", "GPU", "CONTEXT", "IDLE LEFT")
RIGHT = frozenset(HEADS) - {"NAME", "STATE"}


def row(engine: Engine) -> tuple[str, ...]:
    """One engine as a line of `ps`."""
    state = engine.state
    if state is None:
        return (engine.spec.name, str(engine.pid), "not answering", *["?"] * 5)
    progress = f" {state.progress:.0%}" if state.progress is not None else ""
    waiting = f" +{state.queued}" if state.queued else ""
    context = f"{state.n_past:,}/{state.model.n_ctx:,}" if state.model else "–"
    left = state.idle_seconds_left
    return (
        engine.spec.name,
        str(engine.pid),
        f"{engine.condition}{progress}{waiting}",
        short_size(state.memory.private),
        short_size(state.memory.mapped),
        short_size(gpu_bytes(engine)) if gpu_bytes(engine) else "–",
        context,
        "–" if left is None else clock(left),
    )


def record(engine: Engine) -> dict[str, object]:
    """One engine as JSON has it: sizes in bytes, times in seconds."""
    state = engine.state
    return {
        "name": engine.spec.name,
        "path": engine.spec.path,
        "pid": engine.pid,
        "socket": str(engine.place.socket),
        "log": str(engine.place.log),
        "state": engine.condition if state else "not answering",
        "progress": state.progress if state else None,
        "private_bytes": state.memory.private if state else None,
        "mapped_bytes": state.memory.mapped if state else None,
        "gpu_bytes": gpu_bytes(engine),
        "buffers": state.memory.buffers if state else None,
        "estimate": engine.spec.estimate,
        "n_gpu_layers": _layers(engine),
        "n_ctx": state.model.n_ctx if state and state.model else None,
        "n_past": state.n_past if state else None,
        "queued": state.queued if state else None,
        "idle_seconds_left": state.idle_seconds_left if state else None,
    }


def _layers(engine: Engine) -> object:
    """The layers on GPUs that were asked for, or what "auto" came to."""
    asked = engine.spec.params.get("n_gpu_layers")
    return engine.spec.n_gpu_layers if asked is None else asked


def gpu_bytes(engine: Engine) -> int:
    """What llama.cpp holds on devices of its own."""
    buffers = engine.state.memory.buffers if engine.state else ()
    return sum(buffer.weights + buffer.kv + buffer.compute for buffer in buffers if not buffer.host)


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours before them."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def matching(engines: Sequence[Engine], wanted: str) -> list[Engine]:
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


async def running(access: Access) -> list[Engine]:
    """The living engines by name."""
    return sorted((e for e in await access.running() if e.alive), key=lambda engine: (engine.spec.name, engine.pid))
