"""Endless phrasings of a topic from its patterns.

The network learns few answers and must meet each question in as many clothes as possible: frames
around deeds and nouns, synonyms, fillers, dropped and swapped words, typos. Everything is drawn
fresh from a seeded generator, so no phrasing need be stored and a run can be repeated.
"""

from __future__ import annotations

import math
import random
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from guide.topics import ASKED, HERE, REFUSAL, SUGGESTED, Topic

_CHOICE = re.compile(r"\{([^{}]*)\}")
_WORD = re.compile(r"[a-z][a-z'\-]*")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2] + "".join(other[i : i + 1] for other in _ROWS if other != row)
    for row in _ROWS
    for i, key in enumerate(row)
}
_SOUNDS = (("ie", "ei"), ("ei", "ie"), ("ph", "f"), ("ck", "k"), ("ll", "l"), ("ss", "s"), ("tt", "t"), ("mm", "m"))
_SOUNDS += (("a", "e"), ("e", "a"), ("c", "k"), ("c", "s"), ("tion", "sion"), ("ou", "u"), ("er", "r"), ("y", "i"))
_DOMAIN_TEXT = """
model models llm gguf gpu answer answers reply response output chat chats conversation prompt conversations key keys
shortcut shortcuts theme themes parameter parameters setting settings pane panes context token tokens memory vram ram
message engine engines log logs config threads cores layers layer seed temperature quantization clipboard program
llama-tui ssh terminal text value values field cache model's badge repetition penalty list palette files
"""
_SMALL_TEXT = """
a an the to i do does is are can my of in for on it me you how what please so and that this there be was with at would
should could have by
"""
_SYLLABLE_TEXT = """
ba be bo cra dro el fi ga gri ho in ja ka li lo ma mo na ni or pa per qua ra ri sa so ste ta to tra u va vi wo ya zu
ing er tion ent al ous ive ist ness ment an ar on us
"""
_DOMAIN = frozenset(_DOMAIN_TEXT.split())
_SMALL = frozenset(_SMALL_TEXT.split())
_SYLLABLES = _SYLLABLE_TEXT.split()


def expand(pattern: str, rng: random.Random, slots: dict[str, list[str]] | None = None) -> str:
    """One reading of a pattern: `{a|b}` picks one, `{$name}` takes a word from a slot."""

    def pick(match: re.Match[str]) -> str:
        body = match[1]
        if body == "$number":
            return str(rng.choice((rng.randrange(20), rng.randrange(1000))))
        if body.startswith("$"):
            return rng.choice((slots or {})[body[1:]])
        return rng.choice(body.split("|"))

    return " ".join(_CHOICE.sub(pick, pattern).split()).replace(" ,", ",")


def readings(pattern: str) -> int:
    """How many texts a pattern stands for."""
    return math.prod(len(match[1].split("|")) for match in _CHOICE.finditer(pattern))


@dataclass(frozen=True)
class Language:
    """The tables that all topics share."""

    frames: dict[str, list[str]]
    before: list[str]
    after: list[str]
    undo: list[str]
    synonyms: dict[str, list[str]]
    longest: int

    @classmethod
    def load(cls, path: Path = HERE / "synonyms.toml") -> Language:
        """Read the tables."""
        table = tomllib.loads(path.read_text("utf-8"))
        synonyms: dict[str, list[str]] = {}
        for first, *others in table["groups"]:
            synonyms.setdefault(first, []).extend(others)
        frames = {kind: table[kind] for kind in ("do", "what", "where", "problem")}
        longest = max(len(word.split()) for word in synonyms)
        return cls(frames, table["before"], table["after"], table["undo"], synonyms, longest)

    def replace(self, text: str, rng: random.Random, chance: float) -> str:
        """Put synonyms in place of some words."""
        words, out, at = text.split(), [], 0
        while at < len(words):
            for size in range(self.longest, 0, -1):
                phrase = " ".join(words[at : at + size])
                bare = phrase.rstrip("?.,!:")
                if bare in self.synonyms and rng.random() < chance:
                    out.append(rng.choice(self.synonyms[bare]) + phrase[len(bare) :])
                    at += size
                    break
            else:
                out.append(words[at])
                at += 1
        return " ".join(out)


class Phrasings:
    """Draws questions about topics, and questions about everything else."""

    def __init__(self, topics: list[Topic], offtopic: Path = HERE / "offtopic.toml") -> None:
        self.language = Language.load()
        self.topics = {topic.id: topic for topic in topics}
        table = tomllib.loads(offtopic.read_text("utf-8"))
        self._foreign_asks: list[str] = table["ask"]
        self._frames: list[str] = table["frames"]
        self._slots = {
            slot: [word for word in map(str.strip, table[name].replace("\n", " ").split(",")) if word]
            for slot, name in (("thing", "things"), ("place", "places"), ("program", "programs"), ("deed", "deeds"))
        }
        self.typos = 0.2
        self._near = [topic for topic in topics if topic.wide]
        # A pattern that stands for many texts is drawn more often, and one in a frame most.
        self._patterns = {
            topic.id: [
                (kind, pattern, _weight(kind, pattern))
                for kind, patterns in topic.forms.items()
                for pattern in patterns
            ]
            for topic in topics
        }
        self._foreign = [math.log2(readings(pattern)) + 1.0 for pattern in self._foreign_asks]

    def clean(self, topic: Topic, rng: random.Random) -> str:
        """A well-formed question about a topic."""
        patterns = self._patterns[topic.id]
        kind, pattern, _ = rng.choices(patterns, [weight for _, _, weight in patterns])[0]
        if kind == ASKED:
            return pattern
        phrase = expand(pattern, rng)
        if kind == "ask":
            return phrase
        # The phrase goes in after the frame is read: it may hold braces of its own words.
        frame = expand(rng.choice(self.language.frames[kind]).replace("{x}", "\0"), rng)
        return frame.replace("\0", phrase)

    def foreign(self, rng: random.Random) -> str:
        """A question about something else."""
        draw = rng.random()
        if draw < 0.42:
            return rng.choice(self.topics[REFUSAL].forms[ASKED])
        if draw < 0.54:
            return expand(rng.choices(self._foreign_asks, self._foreign)[0], rng)
        if draw < 0.77:
            return expand(rng.choice(self._frames), rng, self._slots)
        if draw < 0.95:
            return self._near_miss(rng)
        return self._gibberish(rng)

    def question(self, topic: Topic, rng: random.Random) -> str:
        """A question as people type it."""
        if topic.id in SUGGESTED and rng.random() < 0.15:
            text = SUGGESTED[topic.id]
            return text if rng.random() < 0.3 else text.lower()
        if topic.id == REFUSAL:
            return self.noisy(self.foreign(rng), rng, wide=rng.random() < 0.5)
        text = self.clean(topic, rng)
        if topic.wide and rng.random() < 0.6:
            text = self.language.replace(text, rng, 0.35)
        return self.noisy(text, rng, wide=topic.wide)

    def undo(self, rng: random.Random) -> str:
        """A wish to take back what the answer before was about."""
        patterns = self.language.undo
        text = expand(rng.choices(patterns, [1.0 + math.log2(readings(pattern)) for pattern in patterns])[0], rng)
        return self.noisy(text, rng, wide=False)

    def noisy(self, text: str, rng: random.Random, *, wide: bool) -> str:
        """Fillers, dropped and swapped words, typos, punctuation, case."""
        words = text.split()
        if wide and rng.random() < 0.15:
            words = rng.choice(self.language.before).split() + words
        if wide and rng.random() < 0.15:
            words[-1] = words[-1].rstrip("?.!")
            words += rng.choice(self.language.after).split()
        if len(words) > 3 and rng.random() < 0.2:
            for _ in range(rng.choice((1, 1, 2))):
                # Mostly small words: without its noun a question may mean anything.
                small = [at for at, word in enumerate(words) if word in _SMALL]
                if small and (len(words) < 8 or rng.random() < 0.8):
                    words.pop(rng.choice(small))
        if len(words) > 3 and rng.random() < 0.08:
            at = rng.randrange(len(words) - 1)
            words[at], words[at + 1] = words[at + 1], words[at]
        if rng.random() < self.typos:
            words = smear(words, rng)
        return punctuate(" ".join(words), rng)

    def _near_miss(self, rng: random.Random) -> str:
        """A question about the program in which the program's words are replaced by others."""
        for _ in range(20):
            text = self.clean(rng.choice(self._near), rng)
            if "_" in text or "+" in text or "`" in text or re.search(r"f\d", text):
                continue
            found = [word for word in _WORD.findall(text) if word in _DOMAIN]
            if not found:
                continue
            for word in dict.fromkeys(found):
                other = rng.choice(self._slots["thing"])
                if rng.random() < 0.15:
                    other = pseudoword(rng)
                text = re.sub(rf"\b{re.escape(word)}\b", other, text)
            return text
        return "how do i switch trains?"

    def _gibberish(self, rng: random.Random) -> str:
        """Words that mean nothing, and heaps of letters."""
        draw = rng.random()
        if draw < 0.4:
            return " ".join(pseudoword(rng) for _ in range(rng.randint(1, 5)))
        if draw < 0.6:
            frame = rng.choice(self.language.frames["what"] + self.language.frames["do"])
            return expand(frame.replace("{x}", "\0"), rng).replace("\0", pseudoword(rng))
        letters = "abcdefghijklmnopqrstuvwxyz" + ("0123456789" if draw < 0.8 else " ;,.#+-")
        return "".join(rng.choice(letters) for _ in range(rng.randint(3, 24))).strip() or "x"


def _weight(kind: str, pattern: str) -> float:
    """How often a pattern is drawn, beside the others of its topic."""
    return 1.0 if kind == ASKED else math.log2(readings(pattern)) + (1.0 if kind == "ask" else 2.5)


def pseudoword(rng: random.Random) -> str:
    """A word nobody knows."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4)))


def misspell(word: str, rng: random.Random) -> str:
    """One slip of the fingers in a word of some length; of an identifier only the lines go."""
    if "_" in word:
        return word.replace("_", rng.choice((" ", "", "-")))
    if len(word) < 4 or not word.strip("?.,!").isalpha():
        return word
    end = len(word.rstrip("?.,!"))
    at = rng.randrange(end - 1)
    slip = rng.random()
    if slip < 0.28:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if slip < 0.53:
        at = rng.randrange(end)
        return word[:at] + word[at + 1 :]
    if slip < 0.68:
        return word[: at + 1] + word[at:]
    at = rng.randrange(end)
    near = rng.choice(_NEIGHBOURS.get(word[at], "e"))
    if slip < 0.76:
        return word[:at] + near + word[at:]
    if slip < 0.8:
        for right, wrong in rng.sample(_SOUNDS, len(_SOUNDS)):
            if right in word:
                return word.replace(right, wrong, 1)
    return word[:at] + near + word[at + 1 :]


def smear(words: list[str], rng: random.Random) -> list[str]:
    """Slips of the fingers in a question: letters, and now and then the space between words."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        if len(words) > 2 and rng.random() < 0.1:
            at = rng.randrange(len(words) - 1)
            words = [*words[:at], words[at] + words[at + 1], *words[at + 2 :]]
            continue
        # Slips are likelier in long words, which are those that carry the meaning.
        at = rng.choices(range(len(words)), [max(1, len(word) - 2) for word in words])[0]
        words = [*words[:at], misspell(words[at], rng), *words[at + 1 :]]
    return words


def punctuate(text: str, rng: random.Random) -> str:
    """Question marks come and go; the template folds case, other programs' templates may not."""
    draw = rng.random()
    if draw < 0.35:
        text = text.rstrip("?.!")
    elif draw < 0.45:
        text = text.rstrip("?.!") + rng.choice(("?", "?", "??", "!", ".", " ?", "..."))
    if rng.random() < 0.1:
        text = text.replace("'", "")
    case = rng.random()
    if case < 0.12:
        text = text[:1].upper() + text[1:]
        text = re.sub(r"\bi\b", "I", text)
    elif case < 0.13:
        text = text.upper()
    return text or "?"
