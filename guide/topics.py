"""The topics: what the guide knows, read from TOML files that a person writes."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
REFUSAL = "refuse"
UNCLEAR = "unclear"
ASKED = "asked"
"""Kind of the questions that were written one by one; the other kinds are patterns."""
UNSURE = (REFUSAL, UNCLEAR)
"""Answers that promise nothing: giving one of them is never confidently wrong."""
SUGGESTIONS = ("How do I switch models?", "What do the keys do?", "How do I use my GPU?")
SUGGESTED = {"switch": SUGGESTIONS[0], "keys": SUGGESTIONS[1], "gpu": SUGGESTIONS[2]}


@dataclass(frozen=True)
class Topic:
    """One answer and the ways to ask for it."""

    id: str
    answer: str
    opening: str
    forms: dict[str, list[str]] = field(default_factory=dict)
    wide: bool = True
    undo: str = ""
    """The topic that answers "and how do I undo that?" right after this one; none: more words are asked for."""


@dataclass(frozen=True)
class Asked:
    """A question written by hand apart from the training data, and the topic that answers it."""

    topic: str
    text: str


def load_asked(folder: Path = HERE / "asked") -> dict[str, list[str]]:
    """Questions to train on that were written one by one, by topic."""
    tables = [tomllib.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.toml"))]
    return {topic: texts for table in tables for topic, texts in table.items()}


def load_topics(folder: Path = HERE / "topics") -> list[Topic]:
    """Every topic, in a fixed order."""
    asked = load_asked()
    topics: list[Topic] = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text("utf-8"))["topic"]:
            answer = entry["answer"].strip()
            opening = entry.get("opening") or answer[: answer.index("**", 2) + 2]
            if not answer.startswith(opening):
                raise ValueError(f"{path.name}: {entry['id']} does not begin with {opening!r}")
            kinds = ("ask", "do", "what", "where", "problem")
            forms = {kind: entry[kind] for kind in kinds if entry.get(kind)}
            forms[ASKED] = asked.pop(entry["id"], [])
            topics.append(Topic(entry["id"], answer, opening, forms, entry.get("wide", True), entry.get("undo", "")))
    openings = [topic.opening for topic in topics]
    if len(set(openings)) != len(openings):
        raise ValueError("two topics open with the same words")
    if asked:
        raise ValueError(f"questions about topics that there are not: {set(asked)}")
    unknown = {topic.undo for topic in topics if topic.undo} - {topic.id for topic in topics}
    if unknown:
        raise ValueError(f"undone by topics that there are not: {unknown}")
    return topics


def load_heldout(path: Path = HERE / "heldout.toml") -> list[Asked]:
    """Questions never trained on, with the topic each belongs to."""
    table = tomllib.loads(path.read_text("utf-8"))
    return [Asked(topic, text) for topic, texts in table.items() if isinstance(texts, list) for text in texts]


def load_undo(path: Path) -> list[Asked]:
    """What comes after an answer, each with the topic of that answer."""
    table = tomllib.loads(path.read_text("utf-8"))["undo"]
    return [Asked(topic, text) for topic, texts in table.items() for text in texts]


def bare(text: str) -> str:
    """Letters, digits and spaces of a text, in lower case."""
    return "".join(char for char in text.lower() if char.isalnum() or char == " ").strip()
