"""Checks that PyTorch and llama.cpp agree: the same tokens of a text, the same greedy answer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch

from guide.export import dequantized
from guide.model import Guide, Shape
from guide.phrasings import Phrasings
from guide.runtime import Runtime
from guide.tokenizer import Codec
from guide.topics import load_topics


@dataclass(frozen=True)
class Agreement:
    """How many of how many were equal."""

    tokens: int
    texts: int
    answers: int
    questions: int


def load_model(build: Path, codec: Codec) -> Guide:
    """The trained network with the weights that are left after Q8_0."""
    saved = torch.load(build / "final.pt", weights_only=True)
    layers = 1 + max(int(name.split(".")[1]) for name in saved if name.startswith("blocks."))
    model = Guide(Shape(codec.size, n_layer=layers))
    for name, weight in saved.items():
        if weight.dim() == 2:
            saved[name] = torch.from_numpy(dequantized(weight.numpy()))
    model.load_state_dict(saved)
    return model.eval()


def compare(runtime: Runtime, build: Path, *, texts: int = 2000, questions: int = 60) -> Agreement:
    """Tokenize questions on both sides, and answer some of them greedily on both."""
    codec = Codec.load(build / "tokenizer.json")
    model = load_model(build, codec)
    topics, rng = load_topics(), random.Random(99)
    phrasings = Phrasings(topics)
    same_tokens = same_answers = 0
    for at in range(texts):
        text = phrasings.question(rng.choice(topics), rng)
        ids = codec.question(text)
        same_tokens += ids == runtime.tokens(runtime.prompt([{"role": "user", "content": text}]))
        if at < questions:
            ours = codec.decode(model.greedy(ids, codec.end))
            same_answers += ours == runtime.answer([{"role": "user", "content": text}])
    return Agreement(same_tokens, texts, same_answers, questions)
