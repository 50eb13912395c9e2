"""The program in its terminal, ended in the middle of an answer: the next start has all of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import msgspec
import pytest

from llama_tui.chat.conversation import Figures
from llama_tui.chat.store import Store
from llama_tui.engine.client import EngineClient
from llama_tui.paths import Paths
from tests.e2e.terminal import Terminal
from tests.e2e.test_program import CTRL_Q, ENTER, RESTORED, answers, end_engines
from tests.ui.scripted import ScriptedEngine

TOKENS = 8000
SECONDS = 60
SLOWLY = ("--ignore-eos", "true", "--n-ctx", "32768", "--n-threads", "1")


async def until_written(paths: Paths) -> None:
    """Wait for the engine to have said everything, with nobody listening."""
    (path,) = paths.runtime.glob("*.sock")
    client = await EngineClient.connect(path)
    async with asyncio.timeout(SECONDS):
        async for state in client.watch():
            if state.phase == "ready":
                break
    await client.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_the_next_start_has_the_whole_answer(paths: Paths, tiny_model: Path, number: signal.Signals) -> None:
    folder = ("--model-dir", str(tiny_model.parent))
    try:
        with Terminal("tiny", *folder, *SLOWLY, "--max-tokens", str(TOKENS)) as terminal:
            terminal.wait_for("A new chat with")
            terminal.send("go on" + ENTER)
            terminal.wait_for(lambda text: "tok/s" in text and "esc stops the answer" in text)
            os.kill(terminal.pid, number)
            terminal.wait()
            assert (RESTORED in terminal.raw) or number == signal.SIGKILL
        partial, ending = answers(paths)[-1]
        assert ending is None
        asyncio.run(until_written(paths))
        with Terminal(*folder) as terminal:
            terminal.wait_for("tok/s · first", SECONDS)
            terminal.send(CTRL_Q)
            assert terminal.wait() == 0
        whole, ending = answers(paths)[-1]
        assert ending == "length"
        assert whole.startswith(partial)
        with sqlite3.connect(paths.database) as db:
            (figures,) = db.execute("SELECT figures FROM turns WHERE role = 'assistant'").fetchone()
        assert msgspec.json.decode(figures, type=Figures).completion_tokens == TOKENS
    finally:
        end_engines(paths)


def test_killed_in_a_line_of_megabytes_it_has_kept_what_it_had(paths: Paths, tiny_model: Path) -> None:
    piece, count = "abcdefgh" * 2_500, 500

    def kept() -> str:
        with contextlib.closing(Store(paths.database)) as store:
            return store.load(latest).path()[-1].content if (latest := store.latest()) else ""

    with ScriptedEngine(paths, tiny_model, [piece] * count, pace=100), Terminal(str(tiny_model)) as terminal:
        terminal.wait_for("/ 2,048")
        terminal.send("go on" + ENTER)
        terminal.wait_for(lambda _: len(kept()) > 2_000_000)
        known = kept()
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.wait()
    left = kept()
    assert len(known) <= len(left) <= len(piece) * count
    assert left == (piece * count)[: len(left)], "each piece is in its place, and none is there twice"


def test_two_of_them_on_one_conversation_lose_nothing(paths: Paths, tiny_model: Path) -> None:
    arguments = ("tiny", "--model-dir", str(tiny_model.parent), *SLOWLY, "--max-tokens", "20")
    with Terminal(*arguments) as one:
        one.wait_for("A new chat with")
        one.send("alpha" + ENTER)
        one.wait_for("tok/s · first")
        with Terminal(*arguments) as two:
            two.wait_for("tok/s · first")
            two.send("beta" + ENTER)
            two.wait_for(lambda text: text.count("tok/s · first") == 2)
            one.send("gamma" + ENTER)
            one.wait_for("Another llama-tui writes in this conversation")
            one.wait_for(lambda text: text.count("tok/s · first") == 2)
            two.send(CTRL_Q)
            assert two.wait() == 0
        one.send(CTRL_Q)
        assert one.wait() == 0
    with sqlite3.connect(paths.database) as db:
        said = [text for (text,) in db.execute("SELECT content FROM turns WHERE role = 'user' ORDER BY created")]
        assert db.execute("SELECT count(DISTINCT conversation) FROM turns").fetchone() == (1,)
    assert said == ["alpha", "beta", "gamma"]
    assert [ending for _, ending in answers(paths)] == ["length"] * 3
