"""The tokenizer: a small byte-level BPE that llama.cpp reads as its "gpt-2" kind.

Each topic's opening ("**To switch models**") is one token of its own. The network so decides which
answer to give in a single step, as a classifier would, instead of word by word: the choice is
sharper, and a temperature cannot mix two answers.
"""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from guide.phrasings import Phrasings
from guide.topics import REFUSAL, Topic

END_OF_TEXT, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL = (END_OF_TEXT, TURN, END)
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'user' %}{{ message['content'] | trim | lower }}"
    "{% else %}{{ message['content'] | trim }}{% endif %}"
    "{{ '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The case of a question says nothing, so the template folds it: half the words to learn."""


def train_tokenizer(topics: list[Topic], n_vocab: int, seed: int) -> Tokenizer:
    """Learn the merges from all answers and a large sample of questions."""
    rng = random.Random(seed)
    phrasings = Phrasings(topics)
    texts = [topic.answer for topic in topics for _ in range(40)]
    for topic in topics:
        count = 1500 if topic.id == REFUSAL else 250
        texts += [phrasings.clean(topic, rng) for _ in range(count)] if topic.id != REFUSAL else []
        texts += [phrasings.question(topic, rng).lower() for _ in range(count)]
    for first, others in phrasings.language.synonyms.items():
        texts += [f"the {word}" for word in (first, *others)] * 30
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=n_vocab - len(topics),
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(topic.opening, normalized=False) for topic in topics])
    return tokenizer


class Codec:
    """Turns chats into token ids, exactly as template and tokenizer do in llama.cpp."""

    def __init__(self, tokenizer: Tokenizer, dropout: float = 0.0) -> None:
        self.tokenizer = self._plain = tokenizer
        self._dropped = Tokenizer.from_str(tokenizer.to_str())
        self._dropped.model.dropout = dropout or None
        self._kept: dict[str, list[int]] = {}
        self.turn = self._id(TURN)
        self.end = self._id(END)
        self.newline = self._fixed("\n")

    @classmethod
    def load(cls, path: Path, dropout: float = 0.0) -> Codec:
        """Read a tokenizer that was saved."""
        return cls(Tokenizer.from_file(str(path)), dropout)

    def _id(self, token: str) -> int:
        found = self._plain.token_to_id(token)
        assert found is not None, token
        return found

    def _fixed(self, text: str) -> list[int]:
        if text not in self._kept:
            self._kept[text] = self._plain.encode(text, add_special_tokens=False).ids
        return self._kept[text]

    def question(self, text: str, *, drop: bool = False) -> list[int]:
        """A user's turn and the opening of the answer's turn."""
        tokenizer = self._dropped if drop else self._plain
        body = tokenizer.encode("user\n" + text.strip().lower(), add_special_tokens=False).ids
        return [self.turn, *body, self.end, *self.newline, self.turn, *self._fixed("assistant\n")]

    def system(self, text: str) -> list[int]:
        """A system message."""
        return [self.turn, *self._fixed("system\n" + text.strip()), self.end, *self.newline]

    def answer(self, text: str) -> list[int]:
        """An answer up to its end mark."""
        return [*self._fixed(text.strip()), self.end]

    def decode(self, ids: list[int]) -> str:
        """Text of an answer's tokens."""
        return self._plain.decode(ids, skip_special_tokens=False)

    @property
    def words(self) -> dict[str, int]:
        """Every token's text and id."""
        return self._plain.get_vocab(with_added_tokens=True)

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self._plain.get_vocab_size()
