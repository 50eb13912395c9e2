"""Makes the finished network readier to refuse.

A network trained to answer is too sure of itself on words it never met. There is no bias in a
llama's head to move, so a direction is sought on which all hidden states before an answer have the
same component, and the refusal's row of the head is moved along it: its score rises by about the
same amount everywhere, and close calls become refusals.
"""

from __future__ import annotations

import torch
from torch import Tensor

from guide.examples import IGNORE, Examples
from guide.model import Guide
from guide.tokenizer import Codec
from guide.topics import REFUSAL, Topic

_STEPS = 40
_BEYOND = 10**6
"""First step to draw from: far beyond any that was trained on."""


@torch.no_grad()
def be_cautious(model: Guide, examples: Examples, codec: Codec, topics: list[Topic], strength: float) -> None:
    """Raise the refusal's score by `strength` (a log-odds) wherever an answer begins."""
    model.eval()
    states: list[Tensor] = []
    for step in range(_BEYOND, _BEYOND + _STEPS):
        batches, _ = examples.step(step)
        states += [model.hidden(batch.ids)[batch.targets != IGNORE] for batch in batches]
    hidden = torch.cat(states)
    square = hidden.T @ hidden / len(hidden)
    # Least squares for "component 1 everywhere", with a little ridge: some directions are empty.
    ridge = 1e-3 * square.diag().mean() * torch.eye(len(square))
    direction = torch.linalg.solve(square + ridge, hidden.mean(0))
    refusal = next(codec.answer(topic.answer)[0] for topic in topics if topic.id == REFUSAL)
    model.head.weight[refusal] += strength * direction
