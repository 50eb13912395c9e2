"""From topics to `guide.gguf` in one command: `python -m guide.train`.

Tokenizer, training, export and report. Every step's examples follow from the seed and the step's
number, so a run that was broken off goes on from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from guide.caution import be_cautious
from guide.curve import Point, draw
from guide.examples import IGNORE, Batch, Examples, mix_at
from guide.export import export
from guide.model import Guide, Shape
from guide.tokenizer import Codec, train_tokenizer
from guide.topics import HERE, UNSURE, Topic, load_heldout, load_topics

MODEL = HERE.parent / "tui" / "llama_tui" / "guide.gguf"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m guide.train", description=__doc__)
    parser.add_argument("--build", type=Path, default=HERE / "build", help="checkpoints and logs")
    parser.add_argument("--out", type=Path, default=MODEL, help="the GGUF file to write")
    parser.add_argument("--steps", type=int, default=5000, help="length of the whole training")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of the matrices")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--caution", type=float, default=1.5, help="how much sooner to refuse")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--report", type=Path, default=HERE / "REPORT.md")
    parser.add_argument("--curve", type=Path, default=HERE / "curve.svg")
    parser.add_argument("--no-report", action="store_true", help="skip the evaluation at the end")
    return parser.parse_args()


def learn(model: Guide, batches: list[Batch], openings: Tensor | None = None) -> float:
    """Add the gradients of some batches, as of one; return the mean loss.

    With `openings`, the tokens that choose an answer are averaged apart from the others: among
    them a choice would be one token of sixty. The head, which is a fifth of the work, runs only
    where there is something to learn.
    """
    wanted = [batch.targets[batch.targets != IGNORE] for batch in batches]
    choosing = [torch.isin(targets, openings) if openings is not None else targets < 0 for targets in wanted]
    choices = max(1, sum(int(choice.sum()) for choice in choosing))
    others = max(1, sum(int((~choice).sum()) for choice in choosing))
    loss = 0.0
    for batch, targets, choice in zip(batches, wanted, choosing, strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.head(model.hidden(batch.ids)[batch.targets != IGNORE])
        parts = F.cross_entropy(logits.float(), targets, reduction="none")
        part = (parts * torch.where(choice, 1 / choices, 1 / others)).sum()
        part.backward()
        loss += part.item()
    return loss


class Optimizers:
    """Muon for the matrices between the layers, AdamW for words and norms.

    Muon needs two thirds of the steps here, each a tenth dearer: 400 of its steps came as far as 550 of AdamW alone.
    """

    def __init__(self, model: Guide, rate: float) -> None:
        inner = [weight for weight in model.blocks.parameters() if weight.dim() == 2]
        words = [model.embed.weight, model.head.weight]
        norms = [weight for weight in model.parameters() if weight.dim() == 1]
        groups = [{"params": words, "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}]
        self._all: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(inner, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups, lr=0.75 * rate, betas=(0.9, 0.98), fused=True),
        )
        self._rates = [[group["lr"] for group in one.param_groups] for one in self._all]

    def step(self, share: float) -> None:
        """Change the weights, at a share of the peak rates."""
        for one, rates in zip(self._all, self._rates, strict=True):
            for group, rate in zip(one.param_groups, rates, strict=True):
                group["lr"] = share * rate
            one.step()

    def state(self) -> list[dict[str, object]]:
        """What a checkpoint keeps."""
        return [one.state_dict() for one in self._all]

    def load(self, saved: list[dict[str, object]]) -> None:
        """Go on from a checkpoint."""
        for one, state in zip(self._all, saved, strict=True):
            one.load_state_dict(state)


def rate_at(step: int, steps: int) -> float:
    """Share of the peak rate: warm up, hold for the first half, come down in a cosine."""
    warm = min(1.0, (step + 1) / 200)
    down = max(0.0, (step / steps - 0.5) / 0.5)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * down)))


@torch.no_grad()
def held_out(model: Guide, codec: Codec, topics: list[Topic]) -> tuple[float, float, float]:
    """How often the first token, which decides the answer, is right and wrong on unseen questions, and
    a refusal off topic: shares."""
    model.eval()
    names = {codec.answer(topic.answer)[0]: topic.id for topic in topics}
    right = wrong = known = refused = foreign = 0
    for asked in load_heldout():
        logits = model(torch.tensor([codec.question(asked.text)]))[0, -1]
        got = names.get(int(logits.argmax()), "?")
        if asked.topic == "refuse":
            foreign += 1
            refused += got in UNSURE
        else:
            known += 1
            right += got == asked.topic
            wrong += got != asked.topic and got not in UNSURE
    model.train()
    return right / known, wrong / known, refused / foreign


def main() -> None:
    """Train, export, report."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.build.mkdir(parents=True, exist_ok=True)
    topics = load_topics()
    tokenizer_file, checkpoint = args.build / "tokenizer.json", args.build / "checkpoint.pt"
    if not tokenizer_file.exists():
        train_tokenizer(topics, args.vocab, args.seed).save(str(tokenizer_file))
    codec = Codec.load(tokenizer_file, dropout=0.2)
    model = Guide(Shape(codec.size, n_layer=args.layers), args.dropout)
    optimizers = Optimizers(model, args.rate)
    start, spent = 0, 0.0
    points: list[Point] = []
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizers.load(saved["optimizers"])
        start, spent = saved["step"], saved["seconds"]
        points = [Point(*point) for point in saved["points"]]
    examples = Examples(topics, codec, args.seed)
    openings = torch.tensor([codec.answer(topic.answer)[0] for topic in topics])
    count = sum(weight.numel() for weight in model.parameters())
    print(f"{count / 1e6:.2f} M parameters, {len(topics)} topics, from step {start}", file=sys.stderr)
    began = time.monotonic() - spent
    smooth = [0.0, 0.0]
    for step in range(start, args.steps):
        # Dropout draws from torch's own generator: seeded per step, it survives a restart too.
        torch.manual_seed(args.seed * 1_000_003 + step)
        share = step / args.steps
        short, long = examples.step(step, share)
        model.zero_grad(set_to_none=True)
        losses = learn(model, short), learn(model, long, openings if mix_at(share).apart else None)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(rate_at(step, args.steps))
        for at, value in enumerate(losses):
            smooth[at] = value if step == start else 0.98 * smooth[at] + 0.02 * value
        done = step + 1
        if done % 50 == 0:
            seconds = time.monotonic() - began
            line = f"step {done}: choice {smooth[0]:.3f}, text {smooth[1]:.3f}, {seconds:.0f} s"
            if done % args.every == 0 or done == args.steps:
                points.append(Point(done, smooth[0], smooth[1], *held_out(model, codec, topics)))
                line += f", right {points[-1].right:.3f}, wrong {points[-1].wrong:.3f}"
                line += f", refused {points[-1].refused:.3f}"
            print(line, file=sys.stderr, flush=True)
        if done % args.every == 0 or done == args.steps:
            state = {"model": model.state_dict(), "optimizers": optimizers.state(), "step": done}
            state |= {"seconds": time.monotonic() - began, "points": [tuple(point) for point in points]}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
            export(model, codec.tokenizer, args.build / "guide.gguf")
    args.curve.write_text(draw(points), "utf-8")
    be_cautious(model, examples, codec, topics, args.caution)
    torch.save(model.state_dict(), args.build / "final.pt")
    export(model, codec.tokenizer, args.out)
    facts = {"shape": asdict(model.shape), "parameters": count, "steps": args.steps, "seed": args.seed}
    facts["seconds"] = round(time.monotonic() - began)
    (args.build / "run.json").write_text(json.dumps(facts, indent=2))
    if not args.no_report:
        from guide.evaluate import report

        print(report(args.out, args.build, args.report))


if __name__ == "__main__":
    main()
