"""What the program costs the wire and the processor while an answer streams: the real program in a
pty, with an engine that speaks the real protocol at a set pace.

    python -m benchmarks.wire [--paint full] [--columns 120] [--panes no] [stream:50 stream:200 ...]

stream:N       one answer of 1,000 tokens at N tokens a second: bytes and CPU milliseconds for each
               token from the first one until the whole answer is visible, and how long after the last
               token that was
keys:N         the same with a key every 100 to 200 ms: key to echo, in milliseconds
keys:N@K       the same over a link that takes K kilobytes a second
keys:N+M       the same at the end of a chat of M messages and 500 tokens for each
paste:N        N megabytes are pasted: seconds until they are read, then a key every 100 to 200 ms
send:N         they are sent as well, with a key every 100 to 200 ms: no context holds them, so that they come
               back; how soon that is said
line:N         an answer of N megabytes without a line end in it comes within 10 seconds, with such keys
idle           20 seconds at an empty prompt: CPU in percent of a core, bytes a second; first with the
               cursor blinking, then when it has come to rest

Sizes, colours and the answer are the same in every run; times are of this machine.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import chat
from benchmarks.terminal import TimedTerminal
from llama_tui.paths import Paths
from llama_tui.ui.widgets.prompt import STILL_AFTER
from tests.e2e.terminal import COMMAND
from tests.ggufs import write_tiny_llama
from tests.ui.scripted import ScriptedEngine

TOKENS = 1000
KEY = "Z"
"""Typed in the key rounds; no answer and no screen holds it."""
LAST = "ENDOFANSWER"
_QUESTION = "tell me"
_FOLD_PANES = "\x1bOQ\x1bOR"
_WORDS = [
    *(
        "each",
        "layer",
        "of",
        "the",
        "model",
        "reads",
        "what",
        "the",
        "one",
        "before",
        "it",
        "wrote",
        "and",
        "adds",
        "a",
    ),
    *("little", "of", "its", "own", "until", "the", "last", "one", "names", "a", "likely", "next", "word", "while"),
    *("memory", "bandwidth", "rather", "than", "arithmetic", "decides", "how", "quickly", "that", "goes"),
]


@dataclass(frozen=True, slots=True)
class Setup:
    """What is the same in all rounds."""

    paint: str
    columns: int
    rows: int
    panes: bool


PLAIN = Setup("", 120, 40, panes=True)
"""The program as it is for everybody."""


def answer() -> list[str]:
    """Markdown of `TOKENS` tokens of four bytes on average, with all that answers are made of."""
    rng = random.Random(7)

    def words(count: int) -> str:
        return " ".join(rng.choice(_WORDS) for _ in range(count))

    text = ""
    while len(text) < 6 * TOKENS:
        text += f"## {words(5).capitalize()}\n\n{words(45).capitalize()}. **{words(4)}** and `{words(1)}_{words(1)}`: "
        text += f"*{words(6)}*. {words(25).capitalize()}.\n\n"
        text += "".join(f"- {words(rng.randint(6, 12))}\n" for _ in range(4))
        text += f"\n```python\ndef {words(1)}(layers: list[int]) -> int:\n    total = 0\n"
        text += "    for n, width in enumerate(layers):\n        total += n * width\n"
        text += f"    return total  # {words(3)}\n```\n\n| part | cost | note |\n|---|---|---|\n"
        text += "".join(f"| {words(1)} | {rng.randint(1, 99)} ms | {words(3)} |\n" for _ in range(3)) + "\n"
        text += "".join(f"{n}. {words(9)}\n" for n in range(1, 4)) + "\n"
    pieces = re.findall(r" ?[A-Za-z_]{1,8}|\d{1,3}|\n+ *|[^\w\s]{1,3}|\s", text)
    return [*pieces[: TOKENS - 2], "\n\n", LAST]


def environment(home: Path, setup: Setup) -> dict[str, str]:
    """An empty home, a terminal of many colours."""
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    chosen = {"LLAMA_TUI_PAINT": setup.paint} if setup.paint else {}
    return kept | chosen | {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "LC_ALL": "C.UTF-8",
    }  # fmt: skip


class Round:
    """One start of the program with an engine beside it, in a home of its own."""

    def __init__(self, setup: Setup, pace: float, messages: int = 0, said: Sequence[str] = ()) -> None:
        assert COMMAND, "llama-tui is not installed in this environment"
        self._home = tempfile.TemporaryDirectory(prefix="lt")
        home = Path(self._home.name)
        env = environment(home, setup)
        os.environ.update(env)
        model = write_tiny_llama(home / "scripted.gguf")
        if messages:
            chat.seed(Paths.default().database, messages, 500 * messages)
        self.engine = ScriptedEngine(Paths.default(), model, said or answer(), pace=pace)
        self.engine.__enter__()
        self.terminal = TimedTerminal([COMMAND, str(model)], env, setup.columns, setup.rows)
        self.terminal.wait_for("type a message")
        self.terminal.wait_for("/ 2,048")
        if not setup.panes:
            self.terminal.send(_FOLD_PANES)
        self.terminal.read(1.5)

    def __enter__(self) -> Round:
        return self

    def __exit__(self, *_: object) -> None:
        self.terminal.__exit__()
        self.engine.__exit__()
        self._home.cleanup()

    def echoes(self, pressed: list[float]) -> dict[str, list[float]]:
        """Key to echo; a key has come back when one more is on the screen."""
        rows: dict[int, int] = {}
        found: list[float] = []
        for at, screen in self.terminal.replay():
            for y in screen.dirty:
                rows[y] = sum(screen.buffer[y][x].data == KEY for x in range(screen.columns))
            found += [at] * (sum(rows.values()) - len(found))
        assert len(found) >= len(pressed), f"{len(found)} of {len(pressed)} keys on the screen"
        return {"key to echo, ms": [1000 * (echo - key) for key, echo in zip(pressed, found, strict=False)]}

    def ask(self) -> None:
        """Send a question and wait for the first token."""
        self.terminal.send(_QUESTION)
        self.terminal.read(0.7)
        self.terminal.send("\r")
        self.terminal.read(20, lambda: self.engine.sent)
        assert self.engine.sent, "no question came:\n" + self.terminal.screen()

    def visible(self) -> float:
        """When the last word of the answer was first on the screen."""
        for at, screen in self.terminal.replay():
            if any(LAST in "".join(screen.buffer[y][x].data for x in range(screen.columns)) for y in screen.dirty):
                return at
        raise AssertionError("the end of the answer is not visible:\n" + self.terminal.screen())

    def complete(self) -> bool:
        """Whether the engine has said everything and the program is done with it."""
        last = self.engine.sent[-1] if len(self.engine.sent) == TOKENS else None
        return last is not None and time.monotonic() > last + 1


def stream(setup: Setup, pace: float) -> dict[str, list[float]]:
    """Costs of an answer."""
    with Round(setup, pace) as run:
        run.ask()
        began, cpu = run.engine.sent[0], run.terminal.cpu_seconds()
        run.terminal.read(60 + TOKENS / pace, run.complete)
        used = run.terminal.cpu_seconds() - cpu
        shown = run.visible()
        frames = [at for at, _ in run.terminal.chunks if began <= at <= shown]
        return {
            "bytes a token": [run.terminal.bytes_since(began) / TOKENS],
            "CPU ms a token": [1000 * used / TOKENS],
            "visible after the last token, ms": [1000 * (shown - run.engine.sent[-1])],
            "writes a second": [len(frames) / (shown - began)],
        }


def keys(setup: Setup, pace: float, kilobytes: int, messages: int) -> dict[str, list[float]]:
    """Key to echo while an answer streams."""
    with Round(setup, pace, messages) as run:
        run.terminal.bytes_per_second = 1000 * kilobytes
        run.ask()
        pressed = typed(run, random.Random(3), lambda count: len(run.engine.sent) < TOKENS - pace and count < 100)
        return run.echoes(pressed)


def paste(setup: Setup, megabytes: int, *, send: bool = False) -> dict[str, list[float]]:
    """Key to echo after a long paste, which is a note in the prompt; with `send` after it was sent and refused."""
    text = "a line of a log file, as it is pasted\n" * (megabytes * 1_000_000 // 38)
    with Round(setup, 50) as run:
        began = time.monotonic()
        run.terminal.paste(text)
        found = {"read in, s": [time.monotonic() - began]}
        run.terminal.read(2)
        sent = run.terminal.send("\r") if send else 0.0
        pressed = typed(run, random.Random(3), lambda count: count < 60)
        if sent:
            said = next(at for at, screen in run.terminal.replay() if at > sent and "Shorten it" in str(screen.display))
            found = {"refused after, s": [said - sent]}
        return {**found, **run.echoes(pressed)}


def line(setup: Setup, megabytes: int) -> dict[str, list[float]]:
    """Key to echo while one line without end is written."""
    with Round(setup, TOKENS / 10, said=["abcdefgh" * (megabytes * 1_000_000 // 8 // TOKENS)] * TOKENS) as run:
        run.ask()
        return run.echoes(typed(run, random.Random(3), lambda _: len(run.engine.sent) < TOKENS))


def typed(run: Round, rng: random.Random, more: Callable[[int], bool]) -> list[float]:
    """Press a key every 100 to 200 ms; when each was."""
    pressed: list[float] = []
    while more(len(pressed)):
        run.terminal.read(rng.uniform(0.1, 0.2))
        pressed.append(run.terminal.send(KEY))
    run.terminal.read(3)
    return pressed


def idle(setup: Setup) -> dict[str, list[float]]:
    """Costs of an empty prompt."""
    found: dict[str, list[float]] = {}
    with Round(setup, 50) as run:
        for state, wait, seconds in (("blinking", 0, STILL_AFTER / 2), ("at rest", STILL_AFTER, 20)):
            run.terminal.read(wait)
            began, cpu = time.monotonic(), run.terminal.cpu_seconds()
            run.terminal.read(seconds)
            found[f"CPU %, {state}"] = [100 * (run.terminal.cpu_seconds() - cpu) / seconds]
            found[f"bytes a second, {state}"] = [run.terminal.bytes_since(began) / seconds]
    return found


def measure(setup: Setup, what: str) -> dict[str, list[float]]:
    """One round of a kind."""
    kind, _, rest = what.partition(":")
    rest, _, messages = rest.partition("+")
    pace, _, link = rest.partition("@")
    match kind:
        case "stream":
            return stream(setup, float(pace))
        case "keys":
            return keys(setup, float(pace), int(link or 0), int(messages or 0))
        case "paste":
            return paste(setup, int(pace))
        case "send":
            return paste(setup, int(pace), send=True)
        case "line":
            return line(setup, int(pace))
        case "idle":
            return idle(setup)
        case _:
            known = "stream:50, keys:50, keys:50@100, keys:50+200, paste:50, send:50, line:10 and idle"
            raise SystemExit(f"{what!r} is no round; there are {known}")


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many of the sorted values do not exceed."""
    return values[percent * (len(values) - 1) // 100]


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--paint", default="", help="diff or full; the program's own default without it")
    parser.add_argument("--columns", type=int, default=120)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--panes", choices=("yes", "no"), default="yes", help="no: the side panes are folded")
    parser.add_argument("what", nargs="*", default=["stream:50", "stream:200", "keys:50", "keys:50@100", "idle"])
    given = parser.parse_args()
    setup = Setup(given.paint, given.columns, given.rows, given.panes == "yes")
    for what in given.what:
        rounds = [measure(setup, what) for _ in range(given.rounds)]
        for name in rounds[0]:
            values = sorted(value for found in rounds for value in found[name])
            line = f"{what:<14}{name:<36}{statistics.median(values):9.2f}"
            if len(values) > 20:
                line += f"  p99 {percentile(values, 99):.2f}"
            elif len(values) > 1:
                line += f"  ({values[0]:.2f} to {values[-1]:.2f})"
            print(line, flush=True)


if __name__ == "__main__":
    main()
