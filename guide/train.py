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
from tokenizers import Tokenizer
from torch import Tensor

from guide.caution import be_cautious
from guide.curve import Point, draw
from guide.examples import IGNORE, Batch, Examples, mix_at
from guide.export import export
from guide.model import Guide, Shape
from guide.tokenizer import Codec, train_tokenizer, with_openings
from guide.topics import HERE, UNSURE, Topic, load_heldout, load_topics

MODEL = HERE.parent / "tui" / "llama_tui" / "guide.gguf"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m guide.train", description=__doc__)
    parser.add_argument("--build", type=Path, default=HERE / "build", help="checkpoints and logs")
    parser.add_argument("--out", type=Path, default=MODEL, help="the GGUF file to write")
    parser.add_argument("--steps", type=int, default=4400, help="length of the whole training")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--begin", type=Path, help="folder of an earlier run whose words and weights to begin with")
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--caution", type=float, default=2.0, help="how much sooner to refuse")
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


def rate_at(step: int, steps: int, peak: float) -> float:
    """Warm up, hold for the first half, come down in a cosine."""
    warm = min(1.0, (step + 1) / 200)
    down = max(0.0, (step / steps - 0.5) / 0.5)
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * down)))


def take_over(model: Guide, codec: Codec, folder: Path) -> None:
    """Begin with the weights of an earlier run that had the same words and may have had other openings."""
    words = codec.words
    earlier = Codec.load(folder / "tokenizer.json").words
    pairs = [(at, earlier[word]) for word, at in words.items() if word in earlier]
    mine, theirs = (torch.tensor(ids) for ids in zip(*pairs, strict=True))
    saved: dict[str, Tensor] = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    for name in ("embed.weight", "head.weight"):
        weight = model.state_dict()[name].clone()
        weight[mine] = saved[name][theirs]
        saved[name] = weight
    model.load_state_dict(saved)


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
        words = Tokenizer.from_file(str(args.begin / "tokenizer.json")) if args.begin else None
        tokenizer = with_openings(words, topics) if words else train_tokenizer(topics, args.vocab, args.seed)
        tokenizer.save(str(tokenizer_file))
    codec = Codec.load(tokenizer_file, dropout=0.2)
    model = Guide(Shape(codec.size, n_layer=args.layers), args.dropout)
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=args.rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    start, spent = 0, 0.0
    points: list[Point] = []
    if args.begin and not checkpoint.exists():
        take_over(model, codec, args.begin)
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
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
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, args.steps, args.rate)
        share = step / args.steps
        short, long = examples.step(step, share)
        optimizer.zero_grad(set_to_none=True)
        losses = learn(model, short), learn(model, long, openings if mix_at(share).apart else None)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
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
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done}
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
    facts["begun"] = bool(args.begin)
    (args.build / "run.json").write_text(json.dumps(facts, indent=2))
    if not args.no_report:
        from guide.evaluate import report

        print(report(args.out, args.build, args.report))


if __name__ == "__main__":
    main()
