"""Opening a long chat through a pty, and going to its beginning and back.

    python -m benchmarks.chat [--messages 200] [--tokens 100000] [--rounds 3]

A seeded conversation of Markdown is put into an empty home's database. "Opened" counts from the key
that chooses it to the last words on the screen; "a page up" is the slowest of fifty. Times are wall
seconds; memory is what is the UI process's own and resident, in MB, before and after.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from llama_tui.chat.conversation import Conversation, Turn, new_id
from llama_tui.chat.store import Store
from llama_tui.paths import Paths
from tests.e2e.terminal import Terminal

SENTENCE = "the memory of a model is what it takes to hold its weights and the cache for what was said so far"
LAST = "These are the last words."
PAGES = 50


def text_of(tokens: int, chance: random.Random) -> str:
    """Markdown of about so many tokens (a word is one and a bit): paragraphs, lists, tables, code."""
    known = SENTENCE.split()
    parts: list[str] = []
    while (left := tokens - sum(len(part.split()) for part in parts) * 1.3) > 0:
        words = " ".join(chance.choices(known, k=min(60, max(4, int(left / 1.3)))))
        match chance.randrange(6):
            case 0:
                parts.append("\n".join(f"- **{line[:12]}** {line}" for line in (words[:40], words[40:90], words[90:])))
            case 1:
                parts.append(
                    "```python\n" + "\n".join(f"def f{n}(x): return x  # {words[:30]}" for n in range(6)) + "\n```"
                )
            case 2:
                rows = "\n".join(f"| `{word}` | {words[:24]} |" for word in words.split()[:5])
                parts.append(f"| key | what it does |\n|---|---|\n{rows}")
            case _:
                parts.append(words)
    return "\n\n".join(parts)


def seed(database: Path, messages: int, tokens: int) -> None:
    """A conversation of that size, and a newer empty start."""
    chance = random.Random(0)
    chat = Conversation(new_id(), "The long one")
    store = Store(database)
    parent: str | None = None
    turns: list[Turn] = []
    for number in range(messages):
        answer = number % 2 == 1
        size = int(tokens / messages * (1.8 if answer else 0.2))
        content = LAST if number == messages - 1 else text_of(size, chance)
        turn = Turn(
            new_id(),
            parent,
            "assistant" if answer else "user",
            content,
            number,
            "guide",
            ending="stop" if answer else None,
        )
        turns.append(turn)
        parent = turn.id
    whole = Conversation(chat.id, chat.title, tuple(turns))
    store.save(whole, *turns)
    store.close()


def measure(bytecode: str, messages: int, tokens: int) -> dict[str, float]:
    """One start, the chat opened, its beginning and end seen."""
    with tempfile.TemporaryDirectory(prefix="lt") as home:
        runtime = Path(home) / "run"
        runtime.mkdir(mode=0o700)
        os.environ.update(HOME=home, XDG_RUNTIME_DIR=str(runtime), PYTHONPYCACHEPREFIX=bytecode)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        seed(Paths.default().database, messages, tokens)
        with Terminal() as terminal:
            terminal.wait_for(LAST)  # the program opens with the latest chat
            terminal.send("\x0e")
            terminal.wait_for("Ask the guide")
            process = psutil.Process(terminal.pid)
            before = process.memory_full_info().uss
            terminal.send("\x1bOS")
            terminal.wait_for("The long one")
            began = time.monotonic()
            terminal.send("\r")
            terminal.wait_for(LAST)
            opened = time.monotonic() - began
            pages: list[float] = []
            for _ in range(PAGES):
                shown = terminal.text
                began = time.monotonic()
                terminal.send("\x1b[5~")
                terminal.wait_for(lambda text, shown=shown: text != shown)
                pages.append(time.monotonic() - began)
            after = process.memory_full_info().uss
            terminal.send("\x11")
            terminal.wait()
    return {
        "opened, s": opened,
        "a page up, s": max(pages),
        "memory before, MB": before / 1e6,
        "memory after, MB": after / 1e6,
    }


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lt") as bytecode:
        rounds = [measure(bytecode, given.messages, given.tokens) for _ in range(given.rounds)]
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        print(f"{name:<20}{statistics.median(values):8.2f}  ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
