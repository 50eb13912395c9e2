"""The engine against llama-bench and `llama_cpp.Llama`, on the same file, as ratios within one run.

    python -m benchmarks.speed [loop decode prefill package logprobs attach cancel turns] [--model FILE]
                               [--rounds 5] [--llama-bench PROGRAM] [--threads N]

Those that are compared take turns, so that a noisy machine disturbs all alike; each line is the
median with the least and the greatest. Where the machine is busy, look at the ratios of CPU time:
those of whole answers, and those of `loop` (see benchmarks/loop.py). The engine is a real one with a
client at its socket; its answers are greedy, and the end of text is ignored. Both sides have the same
threads, batches, flash attention and KV types. Without --model, one of random weights is made
(benchmarks/model.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import llama_cpp

from benchmarks import llama_bench
from benchmarks.engine import LoadedEngine, an_engine
from benchmarks.llama_bench import LlamaBench
from benchmarks.loop import Loop
from benchmarks.model import model_path
from llama_tui.worker.threads import physical_cores

_N_BATCH, _N_UBATCH = 2048, 512
_N_CTX = 8448
_SLICE, _SLICES = 128, 4
"""Tokens that are measured at a time, and how often: short turns share a noisy machine more evenly than long ones."""
_CPU_SLICE = 64
_LONG = 7000
"""Tokens of the long prompts."""
_CANCELS = 6
"""Stops a round."""
_TEMPLATE = 64
"""Room for what the chat template puts around a prompt, and for a token of an answer."""
_Measured = TypeVar("_Measured", float, tuple[float, float])
MEASURES = ("loop", "decode", "prefill", "package", "logprobs", "attach", "cancel", "turns")


class Package:
    """`llama_cpp.Llama` as its users call it."""

    def __init__(self, path: Path, threads: int) -> None:
        self._llama = llama_cpp.Llama(
            str(path), n_ctx=_N_CTX, n_batch=_N_UBATCH, n_threads=threads, flash_attn=True, verbose=False
        )

    def decode(self, count: int) -> float:
        """Speed of so many tokens through its streaming interface."""
        never = {self._llama.token_eos(): -1e9}
        first: float | None = None
        self._llama.reset()
        for _ in self._llama.create_completion(
            "7", max_tokens=count, temperature=0.0, repeat_penalty=1.0, stream=True, logit_bias=never
        ):
            first = first or time.monotonic()
        assert first is not None
        return (count - 1) / (time.monotonic() - first)


class Report:
    """Prints each figure as soon as it is known."""

    def ratio(self, name: str, ours: Sequence[float], theirs: Sequence[float], target: float | None = None) -> None:
        """Two speeds that were measured in turns, and what one is of the other."""
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        goal = f"  target {target:.2f}" if target else ""
        print(
            f"{name:<52}{statistics.median(ratios):7.3f}  ({min(ratios):.3f} to {max(ratios):.3f}){goal}"
            f"  {statistics.median(ours):,.0f} and {statistics.median(theirs):,.0f} tok/s",
            flush=True,
        )

    def milliseconds(self, name: str, seconds: Sequence[float], target: float | None = None) -> None:
        """Times, with the worst of them."""
        goal = f"  target {target:.0f}" if target else ""
        print(
            f"{name:<52}{statistics.median(seconds) * 1000:7.1f} ms  (worst {max(seconds) * 1000:.1f}, "
            f"of {len(seconds)}){goal}",
            flush=True,
        )

    def line(self, name: str, text: str) -> None:
        """Anything else."""
        print(f"{name:<52}{text}", flush=True)


class Comparison:
    """Measures what is asked for, `rounds` times each."""

    def __init__(self, model: Path, threads: int, rounds: int, program: Path | None) -> None:
        self._model = model
        self._threads = threads
        self._rounds = rounds
        self._program = program
        self._report = Report()

    async def run(self, wanted: Sequence[str]) -> None:
        """Measure what is asked for."""
        measures: dict[str, Callable[[], Awaitable[None]]] = {
            "loop": self._loop,
            "decode": self._decode,
            "prefill": self._prefill,
            "package": self._package,
            "logprobs": self._logprobs,
            "attach": self._attach,
            "cancel": self._cancel,
            "turns": self._turns,
        }
        for name in wanted:
            await measures[name]()

    @contextlib.asynccontextmanager
    async def _engine(self, n_ctx: int = _N_CTX) -> AsyncIterator[LoadedEngine]:
        """A new engine, warm, that knows what the chat template puts around a prompt."""
        async with an_engine(
            self._model, n_ctx=n_ctx, n_threads=self._threads, n_batch=_N_BATCH, n_ubatch=_N_UBATCH
        ) as engine:
            await engine.measure_template()
            yield engine

    def _bench(self) -> LlamaBench:
        if not self._program:
            raise SystemExit(llama_bench.HOW)
        return LlamaBench(self._program, self._model, self._threads, _N_BATCH, _N_UBATCH)

    async def _in_turns(
        self, ours: Callable[[LoadedEngine], Awaitable[_Measured]], theirs: Callable[[], _Measured], tokens: int
    ) -> tuple[list[_Measured], list[_Measured]]:
        """Both sides as often as there are rounds, each time in new processes: where the pages of
        a process happen to lie decides over some percent of its speed. Their contexts have the same
        size too, apart from what the chat template needs."""
        pairs: list[tuple[_Measured, _Measured]] = []
        for _ in range(self._rounds):
            async with self._engine(n_ctx=tokens + _TEMPLATE) as engine:
                one = await ours(engine)
            pairs.append((one, await asyncio.to_thread(theirs)))
        return [a for a, _ in pairs], [b for _, b in pairs]

    async def _loop(self) -> None:
        loop = Loop(self._model, _N_CTX)
        for end in (256, 2048, 8000):
            depth = end - _CPU_SLICE
            for name, changes in (("greedy", {}), ("sampled", {"temperature": 0.7}), ("logprobs", {"top_logprobs": 5})):
                pairs = [
                    (loop.ours(_CPU_SLICE, depth, **changes), loop.bare(_CPU_SLICE, depth))
                    for _ in range(2 * self._rounds)
                ]
                ours, bare = zip(*pairs, strict=True)
                goal = 0.95 if end > 256 and name != "logprobs" else None
                self._report.ratio(f"loop at the {end:,}th token, {name} / llama_decode", ours, bare, goal)

    async def whole_answers(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Answers of 2,048 tokens after next to none, and llama-bench's: each by wall and CPU time."""
        bench = self._bench()
        return await self._in_turns(lambda engine: engine.whole_answer(2048), lambda: bench.whole_answer(2048), 2048)

    async def _decode(self) -> None:
        bench = self._bench()
        answers = await self.whole_answers()
        for place, what in enumerate(("", ", CPU time") if self._threads == 1 else ("",)):
            ours, theirs = [[answer[place] for answer in side] for side in answers]
            self._report.ratio(f"an answer of 2,048 tokens / llama-bench{what}", ours, theirs, 0.95)
        for end in (2048, 8000):
            depth = end - _SLICE
            pair = await self._in_turns(
                lambda engine: _several(engine, depth),  # noqa: B023
                lambda: bench.decode(_SLICE, depth, _SLICES),  # noqa: B023
                end,
            )
            self._report.ratio(f"decode up to the {end:,}th token / llama-bench", *pair, 0.95)

    async def _prefill(self) -> None:
        bench = self._bench()
        for count in (512, 2048):
            pair = await self._in_turns(
                lambda engine: _warm(engine, count),  # noqa: B023
                lambda: bench.prefill(count),  # noqa: B023
                count,
            )
            self._report.ratio(f"prefill of {count:,} tokens / llama-bench", *pair, 0.97)

    async def _package(self) -> None:
        package = await asyncio.to_thread(Package, self._model, self._threads)
        async with self._engine() as engine:
            pairs = [
                (await engine.decode(2048), await asyncio.to_thread(package.decode, 2048)) for _ in range(self._rounds)
            ]
        self._report.ratio("decode of 2,048 tokens / llama_cpp.Llama", [a for a, _ in pairs], [b for _, b in pairs])

    async def _logprobs(self) -> None:
        async with self._engine() as engine:
            pairs = [(await engine.decode(512, top_logprobs=5), await engine.decode(512)) for _ in range(self._rounds)]
            self._report.ratio("decode with top_logprobs = 5 / without", [a for a, _ in pairs], [b for _, b in pairs])

    async def _attach(self) -> None:
        async with self._engine() as engine:
            await engine.attach()
            self._report.milliseconds(
                "attach, from the call to Welcome", [await engine.attach() for _ in range(10 * self._rounds)], 50
            )
            self._report.milliseconds(
                "llama-tui run, from its start to the first byte",
                [await engine.run_command() for _ in range(self._rounds)],
            )

    async def _cancel(self) -> None:
        async with self._engine() as engine:
            count = range(_CANCELS * self._rounds)
            self._report.milliseconds(
                "cancel while decoding", [await engine.cancel_while_decoding() for _ in count], 50
            )
            self._report.milliseconds(
                f"cancel in a prefill of {_LONG:,} tokens", [await engine.cancel_in_prefill(_LONG) for _ in count], 50
            )

    async def _turns(self) -> None:
        async with self._engine() as engine:
            turns = [await engine.two_turns(_LONG) for _ in range(self._rounds)]
            second = turns[-1][1].started
            self._report.line(
                "second turn of a long chat",
                f"{second.prompt_tokens:,} tokens, {second.reused_tokens:,} of them reused, "
                f"{second.prompt_tokens - second.reused_tokens} computed",
            )
            times = [[answer.finished.first_token_seconds or 0.0 for answer in both] for both in turns]
            ratios = [later / first for first, later in times]
            self._report.line(
                "its first token / that of the first turn",
                f"{statistics.median(ratios):7.3f}  ({min(ratios):.3f} to {max(ratios):.3f})  "
                f"{statistics.median(a for a, _ in times):.2f} and {statistics.median(b for _, b in times):.3f} s",
            )


async def answer_ratio(model: Path, threads: int, rounds: int, program: Path) -> float:
    """Median speed of an answer of 2,048 tokens, as a share of llama-bench's."""
    ours, theirs = await Comparison(model, threads, rounds, program).whole_answers()
    return statistics.median(a / b for (a, _), (b, _) in zip(ours, theirs, strict=True))


async def _warm(engine: LoadedEngine, count: int) -> float:
    """A prefill after one of the same length, as llama-bench does it: the first touches its memory."""
    await engine.prefill(count)
    return await engine.prefill(count)


async def _several(engine: LoadedEngine, depth: int) -> float:
    """The mean of some slices after the same depth, as llama-bench makes it of its repetitions."""
    return statistics.mean([await engine.decode(_SLICE, depth) for _ in range(_SLICES)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"some of {', '.join(MEASURES)}")
    parser.add_argument("--model", type=Path, help="a model without an end of its own, with a context of 8,448 tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=max(1, physical_cores() - 1), help="all cores but one")
    parser.add_argument("--llama-bench", type=Path, dest="program", help="the program; see benchmarks/llama_bench")
    options = parser.parse_args()
    if unknown := set(options.measures) - set(MEASURES):
        parser.error(f"no such measure: {', '.join(unknown)}")
    model = options.model or model_path()
    program = llama_bench.find(options.program)
    print(f"{model.name}, {options.threads} threads, {options.rounds} rounds, llama-bench: {program}")
    asyncio.run(Comparison(model, options.threads, options.rounds, program).run(options.measures or MEASURES))


if __name__ == "__main__":
    main()
