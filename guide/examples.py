"""Batches for training: what the network sees at a step, drawn from the seed and the step alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from guide.phrasings import Phrasings
from guide.tokenizer import Codec
from guide.topics import REFUSAL, SUGGESTED, UNCLEAR, Topic

IGNORE = -100
_SYSTEM = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "Be concise.",
    "You are an expert.",
    "Answer in German.",
    "You are a pirate.",
    "Think step by step.",
    "Use Markdown.",
)


@dataclass(frozen=True)
class Batch:
    """Padded rows: token ids, and the next token wherever it is to be learned."""

    ids: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Mix:
    """What makes up a step.

    Most rows end with the question and teach only the choice of the answer: they are short, and
    choosing is what is hard. A few rows teach the answers themselves, and chats of several turns.
    """

    choices: int = 72
    answers: int = 5
    chats: int = 3
    turns: tuple[int, ...] = (2, 2, 2, 3)
    typos: float = 0.45
    """Share of the questions in which fingers slip."""
    groups: int = 2
    apart: bool = False
    """Whether choices in the longer rows count as much as all the text there, not as one token each."""


@dataclass(frozen=True)
class Stage:
    """A part of the training, up to a share of its steps."""

    until: float
    mix: Mix


PLAN = (
    Stage(0.45, Mix()),
    Stage(0.80, Mix(choices=64, answers=4, chats=6, typos=0.6)),
    Stage(1.0, Mix(choices=48, answers=3, chats=8, turns=(2, 2, 3, 4, 5, 6), typos=0.6, groups=4, apart=True)),
)
"""Easy things first: single questions, then more typos and second turns, then long chats."""


def mix_at(share: float) -> Mix:
    """What a step is made of, after this share of all steps."""
    return next((stage.mix for stage in PLAN if share < stage.until), PLAN[-1].mix)


class Examples:
    """Draws batches."""

    def __init__(self, topics: list[Topic], codec: Codec, seed: int) -> None:
        self.topics = topics
        self.codec = codec
        self.seed = seed
        self.phrasings = Phrasings(topics)
        self._by_id = {topic.id: topic for topic in topics}
        wide = sum(topic.wide for topic in topics)
        self._weights = [self._weight(topic, wide) for topic in topics]

    @staticmethod
    def _weight(topic: Topic, wide: int) -> float:
        """Everything that is not the program is one topic of infinite variety: a fifth of all."""
        if topic.id == REFUSAL:
            return 0.28 * wide
        return 1.5 if topic.id in SUGGESTED else 1.0

    def step(self, number: int, share: float = 1.0) -> tuple[list[Batch], list[Batch]]:
        """The short and the long rows of one step, in groups of like length: padding costs."""
        rng = random.Random(f"{self.seed}/{number}")
        mix = mix_at(share)
        self.phrasings.typos = mix.typos
        choices = [self._choice(rng) for _ in range(mix.choices)]
        longer = [self._chat(rng, 1) for _ in range(mix.answers)]
        longer += [self._chat(rng, rng.choice(mix.turns)) for _ in range(mix.chats)]
        return grouped(choices, 6), grouped(longer, mix.groups)

    def _draw(self, rng: random.Random, before: Topic | None = None, undo: float = 0.25) -> tuple[Topic, list[int]]:
        """A question, and the topic that answers it after the topic `before`; `undo` is how often it is undone."""
        topic = rng.choices(self.topics, self._weights)[0]
        if rng.random() < undo if before else topic.id == UNCLEAR and rng.random() < 0.2:
            # What "undo that" asks for follows from the turn before alone.
            topic = self._by_id[(before and before.undo) or UNCLEAR]
            text = self.phrasings.undo(rng)
        else:
            text = self.phrasings.question(topic, rng)
        ids = self.codec.question(text, drop=rng.random() < 0.4)
        if rng.random() < 0.2:
            # A token of noise here and there: no single token may decide alone.
            body = range(3, len(ids) - 5)
            for at in body:
                if rng.random() < 0.06:
                    ids[at] = rng.randrange(3, self.codec.size)
        return topic, ids

    def _start(self, rng: random.Random) -> list[int]:
        return self.codec.system(rng.choice(_SYSTEM)) if rng.random() < 0.1 else []

    def _choice(self, rng: random.Random) -> tuple[list[int], list[int]]:
        start = self._start(rng) if rng.random() < 0.3 else []
        before = None
        if rng.random() < 0.15:
            # A turn before, often cut off after a few words: a second turn at the price of a first.
            before, asked = self._draw(rng)
            answer = self.codec.answer(before.answer)[:-1]
            if rng.random() < 0.5:
                answer = answer[: rng.randint(1, 9)]
            start += [*asked, *answer, self.codec.end, *self.codec.newline]
        topic, ids = self._draw(rng, before, undo=0.6)
        opening = self.codec.answer(topic.answer)[0]
        return start + ids, [IGNORE] * (len(start) + len(ids) - 1) + [opening]

    def _chat(self, rng: random.Random, turns: int) -> tuple[list[int], list[int]]:
        ids = self._start(rng)
        learned = [False] * len(ids)
        topic = None
        for turn in range(turns):
            topic, question = self._draw(rng, topic)
            answer = self.codec.answer(topic.answer)
            last = turn == turns - 1
            if not last and rng.random() < 0.5:
                # A person may stop an answer; it also keeps these rows short.
                answer = [*answer[: rng.randint(3, max(4, len(answer) // 2))], self.codec.end]
                teach = [True, *[False] * (len(answer) - 1)]
            else:
                teach = [True] * len(answer)
            if turns > 1 and last and rng.random() < 0.35:
                answer, teach = answer[:6], teach[:6]
            ids += question + answer
            learned += [False] * len(question) + teach
            if not last:
                ids += self.codec.newline
                learned += [False] * len(self.codec.newline)
        targets = [ids[at] if learned[at] else IGNORE for at in range(1, len(ids))]
        return ids[:-1], targets


def grouped(rows: list[tuple[list[int], list[int]]], groups: int) -> list[Batch]:
    """Several batches of rows of about the same length."""
    rows = sorted(rows, key=lambda row: len(row[0]))
    bounds = [len(rows) * at // groups for at in range(groups + 1)]
    return [collate(rows[low:high]) for low, high in pairwise(bounds)]


def collate(rows: list[tuple[list[int], list[int]]]) -> Batch:
    """Pad rows at the end to the longest."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    targets = torch.full((len(rows), longest), IGNORE, dtype=torch.long)
    for at, (row, target) in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
        targets[at, : len(target)] = torch.tensor(target)
    return Batch(ids, targets)
