"""Judges the finished file as users meet it: by llama.cpp, with its own template and sampling.

`python -m guide.evaluate` prints the report, which is kept as REPORT.md.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guide.agreement import compare
from guide.phrasings import Phrasings, misspell
from guide.runtime import Message, Runtime
from guide.topics import (
    HERE,
    REFUSAL,
    SUGGESTED,
    UNCLEAR,
    UNSURE,
    Asked,
    Topic,
    bare,
    load_heldout,
    load_topics,
    load_undo,
)

SAMPLES = 20
TEMPERATURE = 0.7
JUDGED = HERE / "heldout2.toml"


@dataclass(frozen=True)
class Score:
    """Shares of a set of questions."""

    count: int
    right: int
    unsure: int
    wrong: int
    whole: int

    def row(self, name: str) -> str:
        """A line of the report's table."""
        share = [f"{100 * part / self.count:.1f} %" for part in (self.right, self.unsure, self.wrong)]
        return f"| {name} | {self.count} | {' | '.join(share)} | {100 * self.whole / self.count:.1f} % |"


@dataclass(frozen=True)
class Miss:
    """A question that got another topic's answer."""

    asked: Asked
    got: str


class Judge:
    """Asks questions and tells which topic's answer came back."""

    def __init__(self, runtime: Runtime, topics: list[Topic]) -> None:
        self.runtime = runtime
        self.topics = {topic.id: topic for topic in topics}
        self.misses: list[Miss] = []
        self.openers = load_heldout()

    def topic_of(self, answer: str) -> str:
        """The topic whose opening the answer has."""
        return next((t.id for t in self.topics.values() if answer.startswith(t.opening)), "?")

    def score(
        self,
        questions: list[Asked],
        *,
        temperature: float = 0.0,
        shape: Callable[[Asked], list[Message]] | None = None,
        keep: bool = False,
    ) -> Score:
        """Ask all and count. `shape` makes a chat of a question; the plain one has one turn."""
        counts: Counter[str] = Counter()
        for at, asked in enumerate(questions):
            chat = shape(asked) if shape else [{"role": "user", "content": asked.text}]
            answer = self.runtime.answer(chat, temperature=temperature, seed=at + 1)
            got = self.topic_of(answer)
            counts["whole"] += got in self.topics and answer.strip() == self.topics[got].answer
            right = got == asked.topic or (asked.topic == REFUSAL and got in UNSURE)
            counts["right" if right else "unsure" if got in UNSURE else "wrong"] += 1
            if keep and not right:
                self.misses.append(Miss(asked, got))
        return Score(len(questions), counts["right"], counts["unsure"], counts["wrong"], counts["whole"])

    def after(self, asked: Asked, rng: random.Random, turns: int = 1) -> list[Message]:
        """The question at the end of a chat, after some others and their right answers."""
        chat: list[Message] = []
        for other in rng.sample(self.openers, turns):
            chat.append({"role": "user", "content": other.text})
            chat.append({"role": "assistant", "content": self.topics[other.topic].answer})
        return [*chat, {"role": "user", "content": asked.text}]

    def undo(self, path: Path, *, temperature: float = 0.0, keep: bool = False) -> Score:
        """Wishes to take back what the turn before was about, which alone says what is right."""
        openers = {one.topic: one.text for one in load_heldout(path)}
        counts: Counter[str] = Counter()
        for at, asked in enumerate(load_undo(path)):
            said = {"role": "assistant", "content": self.topics[asked.topic].answer}
            chat = [{"role": "user", "content": openers[asked.topic]}, said, {"role": "user", "content": asked.text}]
            answer = self.runtime.answer(chat, temperature=temperature, seed=at + 1)
            got, wanted = self.topic_of(answer), self.topics[asked.topic].undo or UNCLEAR
            counts["whole"] += got in self.topics and answer.strip() == self.topics[got].answer
            counts["right" if got == wanted else "unsure" if got in UNSURE else "wrong"] += 1
            if keep and got != wanted:
                self.misses.append(Miss(Asked(wanted, f"{asked.text} (after `{asked.topic}`)"), got))
        count = counts["right"] + counts["unsure"] + counts["wrong"]
        return Score(count, counts["right"], counts["unsure"], counts["wrong"], counts["whole"])


def report(path: Path, build: Path, out: Path) -> str:
    """Measure everything, write the report, return it."""
    runtime, rng = Runtime(path), random.Random(7)
    judge = Judge(runtime, load_topics())
    watched, judged = load_heldout(), load_heldout(JUDGED)
    known = [one for one in judged if one.topic != REFUSAL]
    foreign = [one for one in judged if one.topic == REFUSAL]
    typos = [Asked(one.topic, slip(one.text, rng)) for one in known]
    new = unmet(known, judge.topics)
    suggested = [Asked(topic, text) for topic, text in SUGGESTED.items() for _ in range(SAMPLES)]
    rows = [
        judge.score(known, keep=True).row("second set"),
        judge.score(new).row("of these, met by no pattern"),
        judge.score(foreign, keep=True).row("off topic"),
        judge.score(known, temperature=TEMPERATURE).row(f"second set at {TEMPERATURE}"),
        judge.score(foreign, temperature=TEMPERATURE).row(f"off topic at {TEMPERATURE}"),
        judge.score(typos).row("second set with a typo"),
        judge.score(known, shape=lambda one: judge.after(one, rng)).row("as second turn"),
        judge.score(foreign, shape=lambda one: judge.after(one, rng)).row("off topic as second turn"),
        judge.undo(JUDGED, keep=True).row("how do I undo that?"),
        judge.undo(JUDGED, temperature=TEMPERATURE).row(f"how do I undo that? at {TEMPERATURE}"),
        judge.score(known, shape=lambda one: judge.after(one, rng, 4)).row("as fifth turn"),
        judge.score([one for one in watched if one.topic != REFUSAL]).row("first set"),
        judge.score([one for one in watched if one.topic == REFUSAL]).row("first set, off topic"),
        judge.score(suggested, temperature=TEMPERATURE).row(f"suggested, {SAMPLES} each at {TEMPERATURE}"),
    ]
    same = compare(runtime, build)
    facts = json.loads((build / "run.json").read_text())
    lines = [
        "# How good the guide is",
        "",
        "Written by `python -m guide.evaluate`: every answer by llama.cpp from the finished file. "
        "*Right*: the topic's answer, or off topic a refusal. *Unsure*: a refusal or a request for "
        "more words. *Wrong*: another topic's answer. *Whole*: the text is some topic's, to the letter. "
        "The second set judges: it was written by hand by someone who had seen neither "
        "patterns nor misses, and asked only of the finished model. The first was looked at while patterns were "
        "written, and watches the training. Neither is trained on.",
        "",
        "| questions | count | right | unsure | wrong | whole |",
        "|---|--:|--:|--:|--:|--:|",
        *rows,
        "",
        f"- {facts['parameters'] / 1e6:.2f} M parameters, {path.stat().st_size / 1e6:.1f} MB, "
        f"loaded in {1000 * runtime.load_seconds:.0f} ms",
        f"- trained in {facts['seconds'] / 60:.0f} minutes on one core: {facts['steps']} steps",
        f"- equal to PyTorch: tokens of {same.tokens} of {same.texts} questions, "
        f"greedy text of {same.answers} of {same.questions} answers",
        "",
        "## Questions of the second set it missed",
        "",
        *(f"- `{miss.asked.topic}` got `{miss.got}`: {miss.asked.text}" for miss in judge.misses),
        "",
    ]
    text = "\n".join(lines)
    out.write_text(text, "utf-8")
    return text


def unmet(questions: list[Asked], topics: dict[str, Topic]) -> list[Asked]:
    """Those that 6,000 draws of their topic's patterns do not contain, apart from punctuation."""
    phrasings, rng = Phrasings(list(topics.values())), random.Random(0)
    made = {
        topic.id: {bare(phrasings.clean(topic, rng)) for _ in range(6000)} for topic in topics.values() if topic.forms
    }
    return [one for one in questions if bare(one.text) not in made[one.topic]]


def slip(text: str, rng: random.Random) -> str:
    """The question with one typo in one of its longer words."""
    words = text.split()
    long = [at for at, word in enumerate(words) if len(word) > 3 and word.strip("?.,").isalpha()]
    if long:
        at = rng.choice(long)
        words[at] = misspell(words[at].lower(), rng)
    return " ".join(words)


def main() -> None:
    """Report on the shipped model."""
    from guide.train import MODEL

    parser = argparse.ArgumentParser(prog="python -m guide.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--build", type=Path, default=HERE / "build")
    parser.add_argument("--report", type=Path, default=HERE / "REPORT.md")
    args = parser.parse_args()
    print(report(args.model, args.build, args.report))


if __name__ == "__main__":
    main()
