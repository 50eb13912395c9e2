"""How `bench` shows what it measures: a table that fills, plain rows in a pipe, or JSON."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from llama_tui.chat.trial import Run
from llama_tui.commands.output import Narrator, cells, column, cropped, say
from llama_tui.control import one_line
from llama_tui.engine.devices import on_gpus
from llama_tui.engine.protocol import Memory
from llama_tui.errors import LlamaTuiError
from llama_tui.library.units import short_size
from llama_tui.settings.values import Param, Value

_HEADS = ("PREFILL", "DECODE", "FIRST", "LOAD", "PRIVATE", "MAPPED", "GPU")
_WIDTHS = (13, 12, 12, 6, 7, 6, 4)
_REDRAW = "\r\x1b[J"
_BACK = "\r\x1b[A"
"""To the row that fills, from the line below it that says what goes on."""


@dataclass(slots=True)
class Result:
    """One combination and what was found of it so far. `disturbed`: another engine was at work."""

    params: Mapping[str, Value]
    load_seconds: float | None = None
    memory: Memory | None = None
    runs: list[Run] = field(default_factory=list[Run])
    error: LlamaTuiError | None = None
    disturbed: bool = False

    @property
    def decode(self) -> list[float]:
        """Tokens per second, of each repetition."""
        return [run.decode for run in self.runs]

    @property
    def prefill(self) -> list[float]:
        """Tokens per second, of each repetition."""
        return [run.prefill for run in self.runs]


class Figures:
    """Writes to standard output. `swept` are the parameters that differ between the `sets`."""

    def __init__(self, swept: Sequence[Param], sets: Sequence[Mapping[str, Value]], *, json: bool) -> None:
        self._swept = swept
        self._json = json
        self._live = not json and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._narrator = Narrator()
        self._row: Result | None = None
        self._heads = [*(param.name.upper() for param in swept), *_HEADS]
        texts = [[param.name, *(param.format(each[param.name]) for each in sets)] for param in swept]
        self._widths = [*(max(map(cells, several)) for several in texts), *_WIDTHS]

    def begin(self) -> None:
        """The heads of the table."""
        if not self._json:
            say(self._aligned(self._heads))

    def progress(self, result: Result, text: str) -> None:
        """What is going on, below the row that it fills; in a pipe on standard error."""
        if not self._live:
            self._narrator.status(text)
            return
        self._row = result
        width = shutil.get_terminal_size().columns - 1
        print(f"{_REDRAW}{cropped(self._cells(result), width)}\n{cropped(text, width)}{_BACK}", end="", flush=True)

    def note(self, text: str) -> None:
        """Something that a person should know, on standard error."""
        self._clear()
        say(one_line(text), error=True)

    def row(self, result: Result) -> None:
        """A combination, as far as it was measured; it will not change any more."""
        self._clear()
        if self._json:
            say(msgspec.json.encode(_record(result)).decode())
        elif result.error and not result.runs:
            say(f"{self._values(result)}  failed".lstrip())
        else:
            say(self._cells(result))

    def end(self, results: Sequence[Result]) -> None:
        """Say which combination was best."""
        self._clear()
        measured = [result for result in results if result.runs]
        if self._json:
            best = {name: self._named(_best(measured, name)) for name in ("prefill", "decode") if measured}
            say(msgspec.json.encode({"type": "best", **best}).decode())
        elif len(measured) > 1:
            for name in ("prefill", "decode"):
                best = _best(measured, name)
                flags = " ".join(f"{param.flag} {param.format(best.params[param.name])}" for param in self._swept)
                close = [other for other in measured if other is not best and _overlap(other, best, name)]
                doubt = f" ({len(close)} more within the spread)" if close else ""
                say(f"best {name:<8}{flags}{doubt}")

    def _named(self, result: Result) -> dict[str, Value]:
        return {param.name: result.params[param.name] for param in self._swept}

    def _clear(self) -> None:
        self._narrator.clear()
        if self._row:
            print(_REDRAW, end="", flush=True)
            self._row = None

    def _values(self, result: Result) -> str:
        values = [param.format(result.params[param.name]) for param in self._swept]
        return "  ".join(column(value, width, right=True) for value, width in zip(values, self._widths, strict=False))

    def _cells(self, result: Result) -> str:
        first = [run.first_token_seconds for run in result.runs]
        memory = result.memory
        gpu = on_gpus(memory.buffers) if memory else 0
        return self._aligned(
            [
                *(param.format(result.params[param.name]) for param in self._swept),
                _spread(result.prefill),
                _spread(result.decode),
                _spread(first, digits=3),
                "" if result.load_seconds is None else f"{result.load_seconds:.2f}",
                short_size(memory.private) if memory else "",
                short_size(memory.mapped) if memory else "",
                short_size(gpu) if gpu else "–" if memory else "",
            ]
        )

    def _aligned(self, texts: Sequence[str]) -> str:
        return "  ".join(column(text, width, right=True) for text, width in zip(texts, self._widths, strict=True))


def _spread(values: Sequence[float], digits: int | None = None) -> str:
    """The median and half of the range."""
    if not values:
        return ""
    middle, half = statistics.median(values), (max(values) - min(values)) / 2
    digits = (1 if middle < 100 else 0) if digits is None else digits
    return f"{middle:,.{digits}f} ±{half:,.{digits}f}"


def _speeds(result: Result, name: str) -> list[float]:
    return result.prefill if name == "prefill" else result.decode


def _best(results: Sequence[Result], name: str) -> Result:
    return max(results, key=lambda result: statistics.median(_speeds(result, name)))


def _overlap(other: Result, best: Result, name: str) -> bool:
    return max(_speeds(other, name)) >= min(_speeds(best, name))


def _record(result: Result) -> dict[str, object]:
    """A combination as JSON has it: sizes in bytes, times in seconds."""
    memory = result.memory
    return {
        "type": "result",
        "params": result.params,
        "prompt_tokens": [run.prompt_tokens for run in result.runs],
        "prefill": result.prefill,
        "decode": result.decode,
        "first_token_seconds": [run.first_token_seconds for run in result.runs],
        "load_seconds": result.load_seconds,
        "private_bytes": memory.private if memory else None,
        "mapped_bytes": memory.mapped if memory else None,
        "buffers": memory.buffers if memory else (),
        "others_busy": result.disturbed,
        "error": result.error.message if result.error else None,
    }
