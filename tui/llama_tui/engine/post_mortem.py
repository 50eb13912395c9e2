"""What is said of an engine that died: how it ended, while doing what, its last words, what to try."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from llama_tui.engine.logs import log_tail
from llama_tui.errors import EngineDied

_ENDS = {
    signal.SIGKILL: "was killed",
    signal.SIGSEGV: "crashed: invalid memory access",
    signal.SIGABRT: "gave up on an internal check",
    signal.SIGBUS: "lost a part of its model file",
    signal.SIGILL: "met an instruction that this processor does not have",
    signal.SIGTERM: "was asked to end",
    signal.SIGALRM: "could not load and did not end by itself",
}
_LESS_MEMORY = "try a smaller n_ctx, fewer GPU layers, or type_k and type_v = q8_0."
_ADVICE: dict[int, str] = {
    signal.SIGKILL: f"The kernel kills so when memory runs out: {_LESS_MEMORY}",
    signal.SIGBUS: "The file was changed or cut short while it was loaded, or its disk failed: see that it is whole.",
    signal.SIGILL: "llama-cpp-python was built for another processor: build it anew on this machine.",
    signal.SIGTERM: "Another program has done that; it can be loaded again at any time.",
}
_CRASHED = "If it dies again: fewer GPU layers, a smaller n_ctx, or another build of llama-cpp-python."
_LAST_WORDS = (
    re.compile(r"GGML_ASSERT\(.*"),
    re.compile(r"CUDA error:? .*"),
    re.compile(r"terminate called .*"),
    re.compile(r"what\(\): +.*"),
    re.compile(r".*(?:out of memory|failed to allocate|[Mm]alloc failed).*"),
)
_MEMORY = re.compile(
    "out of memory|failed to allocate|alloc failed|bad_alloc|memory allocation|MemoryError|allocate memory"
    "|can't start new thread|failed to map segment",
    re.IGNORECASE,
)


def post_mortem(name: str, doing: str, exit_code: int | None, log: Path) -> EngineDied:
    """What is known of an engine that died: how it ended, what it was doing, its last words."""
    lines = log_tail(log)
    words = last_words(lines)
    message = f"The engine of {name} {_in_words(exit_code)} while {doing}"
    number = -exit_code if exit_code is not None and exit_code < 0 else 0
    hint = _ADVICE.get(number, _CRASHED if number else "If it ends again, its log says more.")
    if any(map(_MEMORY.search, lines)) and number not in _ADVICE:
        hint = f"Memory ran out: {_LESS_MEMORY}"
    return EngineDied(f"{message}: {words}" if words else f"{message}.", hint, lines)


def last_words(lines: Sequence[str]) -> str:
    """The assertion or the error that explains an end, "" where no line does. Where there are
    several the last one speaks, an assertion before all."""
    for pattern in _LAST_WORDS:
        for line in reversed(lines):
            if match := pattern.search(line):
                return match[0].strip()
    return ""


def _in_words(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended without a word"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        number = signal.Signals(-exit_code)
    except ValueError:
        return f"was ended by signal {-exit_code}"
    return f"{_ENDS.get(number, 'was ended')} ({number.name})"
