"""`llama-tui bench MODEL`: how fast a model is on this machine, and with which load parameters."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from msgspec.structs import replace

from llama_tui.chat.access import Access
from llama_tui.chat.trial import trial
from llama_tui.commands.engines import closing
from llama_tui.commands.figures import Figures, Result
from llama_tui.commands.flags import add_parameters, combinations
from llama_tui.commands.shell import EXITS, Exit, command, compose, exit_code, on_signals, report
from llama_tui.errors import LlamaTuiError
from llama_tui.library.scan import ModelFile
from llama_tui.paths import Paths, private
from llama_tui.settings.params import BY_NAME, PARAMS
from llama_tui.settings.values import Value

_DESCRIPTION = """\
Measure a model on this machine: how fast it reads a prompt and writes an answer, the time to the first token,
its memory, and how long it loads. Every load parameter is a flag, and takes several values with commas between
them: each combination is loaded in turn, in an engine of its own; models that are loaded already are left alone."""

_EPILOG = f"""\
examples:
  llama-tui bench qwen3-8b-q4_k_m
  llama-tui bench qwen3-8b-q4_k_m --n-threads 2,4,8 --n-batch 512,2048
  llama-tui bench ./model.gguf --type-k f16,q8_0 --prompt-tokens 4096 --json | jq -c '.params, .decode'

Each figure is the median of the repetitions, behind it half the range that they spanned. Prefill and decode are in
tokens per second, FIRST (from the request to the first token) and LOAD in seconds. PRIVATE is the engine's own
memory, MAPPED the pages of the model file. ctrl+c ends it and keeps the rows that are there.

With --json each line is an object: a `result` for each combination (`params`, `seconds` to load, bytes, a list of
each figure's repetitions, or an `error`), and `best` as the last.

{EXITS}"""

_ORPHAN_SECONDS = 60.0
"""An engine whose benchmark was killed unloads itself after so long."""


def parser() -> argparse.ArgumentParser:
    """The arguments of `bench`."""
    made = command(
        "bench", "MODEL [--repetitions N] [--json] [--PARAMETER VALUE[,VALUE...] ...]", _DESCRIPTION, _EPILOG
    )
    made.add_argument("model", metavar="MODEL", help="name or path of a GGUF file")
    for flag, default, minimum, text in (
        ("--prompt-tokens", 512, 64, "length of the prompt, about (default: 512)"),
        ("--answer-tokens", 128, 2, "length of the answer (default: 128)"),
        ("--repetitions", 3, 1, "answers for each combination (default: 3)"),
        ("--max-seconds", 600, 1, "longest time for everything (default: 600)"),
    ):
        made.add_argument(flag, type=_at_least(minimum), default=default, metavar="N", help=text)
    made.add_argument("--json", action="store_true", help="write one JSON object per line")
    no_load = [param.name for param in PARAMS if param.kind != "load" and param.name != "model_dir"]
    add_parameters(made, leave_out=(*no_load, "idle_timeout"), variants=True)
    return made


def _at_least(minimum: int) -> Callable[[str], int]:
    """Reads a whole number that is not too small."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"it must be a whole number of {minimum} or more")
        return int(text)

    return number


def main(arguments: Sequence[str]) -> int:
    """Measure; returns the exit code."""
    given = parser().parse_args(arguments)
    try:
        sets = combinations(vars(given))
    except LlamaTuiError as error:
        report(error)
        return Exit.USAGE
    return asyncio.run(_Bench(given, sets).go())


class _Bench:
    """Everything that is measured, one combination after the other."""

    def __init__(self, given: argparse.Namespace, sets: list[dict[str, Value]]) -> None:
        self._given = given
        self._results = [Result(params) for params in sets]
        self._shown: set[int] = set()
        swept = [name for name in sets[0] if len({params[name] for params in sets}) > 1]
        self._figures = Figures([BY_NAME[name] for name in swept], sets, json=given.json)
        self._busy: set[str] = set()

    async def go(self) -> int:
        """Measure until all is done, the time is over or a signal comes; returns the exit code."""
        stopped = 0
        task = asyncio.create_task(self._measure_all())

        def stop(code: int) -> None:
            nonlocal stopped
            stopped = stopped or code
            task.cancel()

        on_signals(stop)
        late = f"llama-tui: stopped after {self._given.max_seconds} s (--max-seconds)."
        try:
            async with asyncio.timeout(self._given.max_seconds):
                await task
        except TimeoutError:
            self._figures.note(late)
        except asyncio.CancelledError:
            if not stopped:
                raise
        for result in self._results:
            if result.runs:
                self._show(result)
        self._figures.end(self._results)
        return stopped or self._code()

    def _code(self) -> int:
        errors = [result.error for result in self._results if result.error]
        if any(result.runs for result in self._results):
            return Exit.OK
        return exit_code(errors[-1]) if errors else Exit.FAILED

    def _show(self, result: Result) -> None:
        if id(result) not in self._shown:
            self._shown.add(id(result))
            self._figures.row(result)

    async def _measure_all(self) -> None:
        flags = {name: value for name, value in self._results[0].params.items() if name == "model_dir"}
        paths, settings = compose(flags)
        for problem in settings.problems:
            self._figures.note(f"{problem.message}. {problem.hint}")
        with _private_folder(paths) as folder:
            private_paths = replace(paths, runtime=folder, state=folder)
            ours = Access(private_paths, settings, on_warning=self._figures.note)
            async with closing(Access(paths, settings)) as others, closing(ours, unload=True) as own:
                file = await own.find(self._given.model)
                self._figures.begin()
                for number, result in enumerate(self._results, 1):
                    await self._measure(own, others, file, result, f"{number}/{len(self._results)}")
                    self._show(result)

    async def _measure(self, own: Access, others: Access, file: ModelFile, result: Result, place: str) -> None:
        given = self._given

        def progress(text: str) -> None:
            repetition = f"{len(result.runs) + 1} of {given.repetitions}"
            self._figures.progress(result, f"{place} · {repetition} · {text}")

        try:
            await self._look_at(others, result)
            self._figures.progress(result, f"{place} · loading")
            async with trial(own, file, {**result.params, "idle_timeout": _ORPHAN_SECONDS}) as measured:
                result.load_seconds = measured.load_seconds
                while len(result.runs) < given.repetitions:
                    progress("prompt")
                    result.runs.append(await measured.run(given.prompt_tokens, given.answer_tokens, progress))
                    result.memory = measured.memory
                    await self._look_at(others, result)
        except LlamaTuiError as error:
            result.error = error
            self._show(result)
            report(error)

    async def _look_at(self, others: Access, result: Result) -> None:
        """Note engines of others that are at work: they take from what is measured."""
        for engine in await others.running():
            if engine.alive and engine.condition in ("busy", "loading"):
                result.disturbed = True
                if engine.spec.name not in self._busy:
                    self._busy.add(engine.spec.name)
                    self._figures.note(
                        f"llama-tui: {engine.spec.name} ({engine.pid}) is {engine.condition}: the figures suffer."
                    )


@contextlib.contextmanager
def _private_folder(paths: Paths) -> Generator[Path]:
    """A folder for the sockets and logs of engines that nobody else shall find."""
    private(paths.runtime)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=paths.runtime))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
