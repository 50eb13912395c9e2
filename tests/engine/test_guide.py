"""The built-in model answers what it suggests, every time, and says when it cannot."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from guide.topics import SUGGESTED, load_topics
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Message, Token
from llama_tui.paths import Paths
from llama_tui.settings.params import defaults

TOPICS = {topic.id: topic for topic in load_topics()}
ANSWERS = {id: topic.answer for id, topic in TOPICS.items()}
OFF_TOPIC = ("What is the capital of France?", "Write a poem about the sea", "How do I bake bread?")


async def ask(pool: Pool, model: Path, questions: list[tuple[str, int]]) -> list[str]:
    """The answers at the default settings, each with its seed."""
    engine = await pool.acquire("guide", model, defaults("load"))
    said: list[str] = []
    for number, (text, seed) in enumerate(questions):
        params = {**defaults("sampling"), "seed": seed}
        events = engine.generate(f"g{number}", (Message("user", text),), params)
        async with contextlib.aclosing(events):
            said.append("".join([event.text async for event in events if isinstance(event, Token)]))
    return said


@pytest.mark.parametrize("topic", SUGGESTED)
async def test_a_suggested_question_is_answered_right_with_every_seed(
    paths: Paths, guide_model: Path, topic: str
) -> None:
    pool = Pool(paths, lambda _engine: None)
    try:
        said = await ask(pool, guide_model, [(SUGGESTED[topic], seed) for seed in range(25)])
    finally:
        await pool.close(unload=True)
    assert set(said) == {ANSWERS[topic]}


async def test_it_says_plainly_that_it_knows_nothing_else(paths: Paths, guide_model: Path) -> None:
    pool = Pool(paths, lambda _engine: None)
    try:
        said = await ask(pool, guide_model, [(text, seed) for text in OFF_TOPIC for seed in range(5)])
    finally:
        await pool.close(unload=True)
    assert set(said) == {ANSWERS["refuse"]}


@pytest.mark.parametrize(
    ("before", "question"),
    [
        ("temperature", "What is temperature?"),
        ("theme", "How do I change the theme?"),
        ("new_chat", "Start a new chat"),
    ],
)
async def test_how_to_undo_that_is_answered_from_the_turn_before(
    paths: Paths, guide_model: Path, before: str, question: str
) -> None:
    pool = Pool(paths, lambda _engine: None)
    try:
        engine = await pool.acquire("guide", guide_model, defaults("load"))
        chat = (
            Message("user", question),
            Message("assistant", ANSWERS[before]),
            Message("user", "and how do I undo that?"),
        )
        async with contextlib.aclosing(
            engine.generate("g", chat, {**defaults("sampling"), "temperature": 0.0})
        ) as events:
            said = "".join([event.text async for event in events if isinstance(event, Token)])
    finally:
        await pool.close(unload=True)
    assert said == ANSWERS[TOPICS[before].undo]
