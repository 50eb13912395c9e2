"""Everything that a person feels, measured through a pty and printed as one table beside its targets.

    python -m benchmarks [--rounds 3] [--llama-bench PROGRAM]

The parts are benchmarks.start, .wire, .chat and, where there is a llama-bench, .speed; each has more
figures when it is run alone. Medians; times are of this machine, and a busy one disturbs them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import chat, llama_bench, start, wire
from benchmarks.model import model_path
from benchmarks.speed import answer_ratio
from llama_tui.worker.threads import physical_cores

_STREAMS = (50, 200)
_MESSAGES, _TOKENS = 200, 100_000
_LINK = 100


class Row(NamedTuple):
    """A line of the table."""

    what: str
    found: str
    wanted: str


def rows(rounds: int, program: Path | None) -> Iterator[Row]:
    """Measure one thing after another."""
    model = model_path() if program else None  # before the other parts have homes of their own
    with tempfile.TemporaryDirectory(prefix="lt") as bytecode:
        starts = [start.measure(bytecode) for _ in range(rounds + 1)][1:]
        ready, cpu = _median(starts, "ready for keys, s"), _median(starts, "CPU until then, s")
        yield Row("start to ready for keys, s (CPU s)", f"{ready:.2f} ({cpu:.2f})", "≤ 0.40 (0.35)")
        yield Row("peak memory at start, MB", f"{_median(starts, 'peak memory, MB'):.0f}", "≤ 50")
        yield from _streams(rounds)
        chats = [chat.measure(bytecode, _MESSAGES, _TOKENS) for _ in range(rounds)]
    opened, held = _median(chats, "opened, s"), _median(chats, "memory after, MB")
    yield Row(
        f"opening a chat of {_MESSAGES} messages, 100k tokens, s (MB)", f"{opened:.2f} ({held:.0f})", "≤ 0.5 (≤ 80)"
    )
    yield _echo(rounds, "keys:50", "key to echo while streaming at 50/s, p50 / p99, ms", "≤ 30 / 100")
    yield _echo(rounds, f"keys:50@{_LINK}", f"the same over a link of {_LINK} kB/s", "≤ 40 / 150")
    yield _echo(rounds, f"keys:50+{_MESSAGES}", f"the same in a chat of {_MESSAGES} messages", "≤ 30 / 100")
    idle = [wire.measure(wire.PLAIN, "idle") for _ in range(rounds)]
    percent, sent = _middle(idle, "CPU %, at rest"), _middle(idle, "bytes a second, at rest")
    yield Row("idle: CPU %, bytes/s to the terminal", f"{percent:.2f}, {sent:.0f}", "≤ 0.3, ≤ 60")
    if program and model:
        ratio = asyncio.run(answer_ratio(model, max(1, physical_cores() - 1), rounds, program))
        yield Row("decode speed against llama-bench, 2,048 tokens", f"{ratio:.3f}", "≥ 0.95")


def _streams(rounds: int) -> Iterator[Row]:
    found = {pace: [wire.measure(wire.PLAIN, f"stream:{pace}") for _ in range(rounds)] for pace in _STREAMS}

    def both(name: str, digits: int) -> str:
        return " / ".join(f"{_middle(found[pace], name):.{digits}f}" for pace in _STREAMS)

    yield Row("bytes a token at 50 / 200 tokens/s", both("bytes a token", 0), "≤ 85 / 60")
    yield Row("CPU ms a token at 50 / 200 tokens/s", both("CPU ms a token", 1), "≤ 4 / 2")
    last = _middle(found[_STREAMS[-1]], "visible after the last token, ms") / 1000
    yield Row("answer complete after the last token, s (200/s)", f"{last:.2f}", "≤ 0.1")


def _echo(rounds: int, kind: str, what: str, wanted: str) -> Row:
    echoes = sorted(echo for _ in range(rounds) for echo in wire.measure(wire.PLAIN, kind)["key to echo, ms"])
    return Row(what, f"{statistics.median(echoes):.0f} / {wire.percentile(echoes, 99):.0f}", wanted)


def _median(rounds: Sequence[dict[str, float]], name: str) -> float:
    return statistics.median(found[name] for found in rounds)


def _middle(rounds: Sequence[dict[str, list[float]]], name: str) -> float:
    return statistics.median(value for found in rounds for value in found[name])


def main() -> None:
    """Print each line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-bench", type=Path, dest="program", help="the program; see benchmarks/llama_bench")
    given = parser.parse_args()
    print("| | measured | target |\n|---|--:|--:|", flush=True)
    for row in rows(given.rounds, llama_bench.find(given.program)):
        print(f"| {row.what} | {row.found} | {row.wanted} |", flush=True)


if __name__ == "__main__":
    main()
