"""llama.cpp's own benchmark: found, run, and its figures read."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import platformdirs

HOW = """\
There is no llama-bench. Build one from the sources that llama-cpp-python was built from (three minutes on two cores):
  pip download --no-deps --no-binary :all: llama-cpp-python==VERSION
  python -m benchmarks.llama_bench llama_cpp_python-VERSION.tar.gz
or give one with --llama-bench PATH."""

_SECONDS = 600.0
"""Longest time that one measurement may take."""


def built() -> Path:
    """Where `python -m benchmarks.llama_bench` puts it."""
    return platformdirs.user_cache_path("llama-tui") / "benchmarks" / "llama-bench"


def find(given: Path | None) -> Path | None:
    """The program to use: the one that is given, the one that was built here, or one on PATH."""
    if given:
        return given
    if built().exists():
        return built()
    on_path = shutil.which("llama-bench")
    return Path(on_path) if on_path else None


@dataclass(frozen=True, slots=True)
class LlamaBench:
    """Runs it on one file, each time in a new process with a new context. Its repetitions start from
    the same depth, which it computes only once."""

    program: Path
    model: Path
    threads: int
    n_batch: int
    n_ubatch: int

    def prefill(self, count: int) -> float:
        """Tokens per second of a prompt of so many tokens."""
        return self._measure("-p", count, "-n", 0)

    def whole_answer(self, count: int) -> tuple[float, float]:
        """Tokens per second of so many tokens after none: of wall time, and of CPU time. The process
        does little else, so its own CPU time counts."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall = self._measure("-p", 0, "-n", count)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, count / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def decode(self, count: int, depth: int, repetitions: int) -> float:
        """Tokens per second of so many tokens, one by one, after `depth` others."""
        return self._measure("-p", 0, "-n", count, "-d", depth, repetitions=repetitions)

    def _measure(self, *what: object, repetitions: int = 1) -> float:
        words = [self.program, "-m", self.model, "-t", self.threads, "-b", self.n_batch, "-ub", self.n_ubatch]
        words += ["-ngl", 0, "-fa", "auto", "-ctk", "f16", "-ctv", "f16", "-r", repetitions, "-o", "json", *what]
        done = subprocess.run([str(word) for word in words], capture_output=True, timeout=_SECONDS, check=False)
        if done.returncode:
            raise SystemExit(f"llama-bench failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
        return float(json.loads(done.stdout)[0]["avg_ts"])
