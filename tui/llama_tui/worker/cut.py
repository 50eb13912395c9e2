"""What is left out of a conversation that the context cannot hold: whole turns, never a silent part."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from llama_tui.engine.protocol import Message, Omission
from llama_tui.errors import ContextOverflow, Cut, EngineError
from llama_tui.worker.renderer import Prompt

REPLY_SHARE = 8
"""One part in so many of n_ctx is kept for the reply, or max_tokens where that is less."""

SLACK_SHARE = 4
"""A cut frees one part in so many of n_ctx beyond that: every cut moves what the KV cache holds, so
that all behind it is computed again, and should last for some turns."""

CUTS = ("drop_oldest", "drop_middle")


@dataclass(frozen=True, slots=True)
class Told:
    """A conversation as the template renders it, in text and in tokens. One that is `far_too_long` is not
    rendered: that is about how many tokens it would have."""

    rendered: Prompt
    tokens: list[int]
    far_too_long: int = 0

    @property
    def size(self) -> int:
        """Its tokens."""
        return self.far_too_long or len(self.tokens)

    @property
    def said(self) -> str:
        """The number of its tokens in words."""
        return f"{'about ' if self.far_too_long else ''}{self.size:,} tokens"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits, and what it is without."""

    told: Told
    left_out: Omission | None = None


class Fitting:
    """Fits one conversation into `n_ctx` tokens. `make` renders some of its messages, which goes
    through another process: it is asked a number of times that grows with the logarithm of the turns."""

    def __init__(
        self,
        messages: Sequence[Message],
        make: Callable[[tuple[Message, ...]], Told],
        n_ctx: int,
        max_tokens: int | None,
    ) -> None:
        self._messages = tuple(messages)
        self._make = make
        self._n_ctx = n_ctx
        self._room = min(max_tokens or n_ctx, max(1, n_ctx // REPLY_SHARE))
        self._turns = turns_of(messages)
        self._made: dict[tuple[int, ...], Told] = {}

    def fit(self, how: str, before: Collection[int] = ()) -> Fitted:
        """The prompt, whole where it leaves room for the reply, else as `context_full` says in `how`.

        What the conversation was cut by `before` is left out again for as long as that suffices.
        A conversation of which nothing can be left out may take the reply's room down to one token.
        Raises `ContextOverflow`; with "ask" it holds the cuts that there are to choose from.
        """
        whole = self._told(())
        size = whole.size
        if not size:
            raise EngineError(
                "The model's chat template makes an empty prompt of this conversation",
                "The file needs a repaired tokenizer.chat_template.",
            )
        alone = len(self._turns) < 2
        if size <= self._n_ctx - self._room or (alone and size < self._n_ctx):
            return Fitted(whole)
        if alone:
            raise self._too_long("The prompt", whole)
        least = self._told(self._places("drop_oldest", len(self._turns) - 1))
        if least.size >= self._n_ctx:
            raise self._too_long("The last message alone makes a prompt that", least)
        if how in CUTS:
            count = self._count(how, before)
            if count is None:
                least = self._told(self._places(how, len(self._droppable(how))))
                raise self._too_long("With the first turn the prompt", least, "Set context_full to drop_oldest.")
            places = self._places(how, count)
            told = self._told(places)
            return Fitted(told, Omission(how, places, size - told.size))
        raise ContextOverflow(
            f"The conversation has {whole.said}; {self._room:,} more are kept for the reply, and the context "
            f"holds {self._n_ctx:,}",
            "Set context_full to drop_oldest or drop_middle to leave earlier messages out, start a new chat, "
            "or set a larger n_ctx and reload.",
            size,
            self._n_ctx,
            reply_room=self._room,
            cuts=self._cuts() if how == "ask" else (),
        )

    def _too_long(self, what: str, told: Told, hint: str = "") -> ContextOverflow:
        return ContextOverflow(
            f"{what} has {told.said}, {told.size + 1 - self._n_ctx:,} more than the context of "
            f"{self._n_ctx:,} can hold with an answer",
            f"{hint} Shorten it, start a new chat, or set a larger n_ctx and reload.".lstrip(),
            told.size,
            self._n_ctx,
            reply_room=self._room,
        )

    def _cuts(self) -> tuple[Cut, ...]:
        """What each way would leave out."""
        found: list[Cut] = []
        for how in CUTS:
            count = self._count(how, ())
            if count is not None:
                found.append(Cut(how, len(self._places(how, count)), self._size(how, count)))
        return tuple(found)

    def _count(self, how: str, before: Collection[int]) -> int | None:
        """How many turns are left out, the oldest first; None where even all of them are too few."""
        droppable = self._droppable(how)
        every = len(droppable)
        if not every:
            return None
        fits = self._n_ctx - self._room
        known = next((at for at, turn in enumerate(droppable) if not before or not set(turn) <= set(before)), every)
        if known and self._size(how, known) <= fits:
            return known
        lowest = max(1, known)
        for limit in (fits - self._n_ctx // SLACK_SHARE, fits):
            if self._size(how, every) <= limit:
                counts = range(lowest, every)
                return lowest + bisect_left(
                    counts, True, key=lambda count, limit=limit: self._size(how, count) <= limit
                )
        return every if self._size(how, every) < self._n_ctx else None

    def _droppable(self, how: str) -> list[list[int]]:
        """The turns that may go: not the last question, and not the first turn where that is to stay."""
        return self._turns[1 if how == "drop_middle" else 0 : -1]

    def _places(self, how: str, count: int) -> tuple[int, ...]:
        return tuple(place for turn in self._droppable(how)[:count] for place in turn)

    def _size(self, how: str, count: int) -> int:
        return self._told(self._places(how, count)).size

    def _told(self, left_out: tuple[int, ...]) -> Told:
        if left_out not in self._made:
            without = set(left_out)
            kept = tuple(message for place, message in enumerate(self._messages) if place not in without)
            self._made[left_out] = self._make(kept)
        return self._made[left_out]


def turns_of(messages: Sequence[Message]) -> list[list[int]]:
    """The places of each turn's messages: a question with all that answers it, calls of tools and
    their results too. System messages belong to none."""
    turns: list[list[int]] = []
    asked = False
    for place, message in enumerate(messages):
        if message.role == "system":
            continue
        if not turns or (message.role == "user" and asked):
            turns.append([])
            asked = False
        asked = asked or message.role == "user"
        turns[-1].append(place)
    return turns
