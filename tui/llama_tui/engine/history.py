"""The engines that run and those that have ended, each with its log."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from llama_tui.engine.engine import Condition, Engine
from llama_tui.engine.logs import logs_of, model_of, noted_death
from llama_tui.errors import LlamaTuiError


class EngineLog(Struct, frozen=True):
    """An engine and its log. `account` is how it died or why it failed, where that is known;
    `written` is the Unix time of the log's last line, in seconds."""

    name: str
    log: Path
    condition: Condition
    account: LlamaTuiError | None = None
    written: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.condition in ("loading", "ready", "busy")


def engine_logs(engines: Sequence[Engine], folder: Path) -> list[EngineLog]:
    """The log of each engine, the living first, then those that ended, the latest before the others."""
    known = {engine.place.log: engine for engine in engines}
    found: list[EngineLog] = []
    for log in [*known, *(log for log in logs_of(folder) if log not in known)]:
        engine = known.get(log)
        account = engine.error if engine else noted_death(log)
        ended: Condition = "died" if account else "unloaded"
        written = 0.0
        with contextlib.suppress(OSError):
            written = log.stat().st_mtime
        name, condition = (engine.spec.name, engine.condition) if engine else (model_of(log), ended)
        found.append(EngineLog(name, log, condition, account, written))
    return sorted(found, key=lambda one: (not one.alive, -one.written))
