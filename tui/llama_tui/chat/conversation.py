"""A conversation: a tree of turns, one path through which is what a person sees."""

from __future__ import annotations

import time
import uuid
from typing import Literal

import msgspec

from llama_tui.chat.growth import PIECE
from llama_tui.engine.protocol import Message
from llama_tui.settings.values import Value

Ending = Literal["stop", "length", "cancelled", "died", "failed", "interrupted"]

_TITLE_LENGTH = 60


class Figures(msgspec.Struct, frozen=True):
    """What an answer cost; seconds, None where there was no token. `restored` says that the reused
    tokens came from a KV state that was saved on disk."""

    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int
    n_ctx: int
    first_token_seconds: float | None
    tokens_per_second: float | None
    reasoning_tokens: int = 0
    restored: bool = False


class LeftOut(msgspec.Struct, frozen=True):
    """What an answer was made without, for want of room in the context: the ids of the turns, and
    the tokens that they would have needed. `how` is the value of `context_full` that chose them."""

    how: str
    turns: tuple[str, ...]
    tokens: int


class Trouble(msgspec.Struct, frozen=True):
    """What went wrong with an answer, as it is shown beside it."""

    message: str
    hint: str = ""
    log: tuple[str, ...] = ()


class Turn(msgspec.Struct, frozen=True):
    """One message. An answer without `ending` is still being made, or was when the program ended;
    one without `seed` never began. `reasoning` is what the model thought before it."""

    id: str
    parent: str | None
    role: Literal["user", "assistant"]
    content: str
    created: float
    model: str = ""
    params: dict[str, Value] = {}
    seed: int | None = None
    ending: Ending | None = None
    figures: Figures | None = None
    trouble: Trouble | None = None
    reasoning: str = ""
    left_out: LeftOut | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """The ids of the turns that it was made without."""
        return self.left_out.turns if self.left_out else ()


def new_id() -> str:
    """A name for a conversation or a turn, unique everywhere."""
    return uuid.uuid4().hex


class Conversation:
    """Owns the turns. `leaf` is the last turn of the path that is shown; None while it is empty."""

    def __init__(self, id: str, title: str = "", turns: tuple[Turn, ...] = (), leaf: str | None = None) -> None:
        self.id = id
        self.title = title
        self._turns = {turn.id: turn for turn in turns}
        self.leaf = leaf if leaf in self._turns else next(reversed(self._turns), None)

    @classmethod
    def new(cls) -> Conversation:
        """An empty conversation."""
        return cls(new_id())

    def __getitem__(self, turn_id: str) -> Turn:
        return self._turns[turn_id]

    def __contains__(self, turn_id: str) -> bool:
        return turn_id in self._turns

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Every turn of every branch, the oldest first."""
        return tuple(self._turns.values())

    def path(self) -> list[Turn]:
        """The turns from the first to the leaf."""
        found: list[Turn] = []
        turn = self._turns.get(self.leaf or "")
        while turn:  # a parent that was not kept ends the path, not the program
            found.append(turn)
            turn = self._turns.get(turn.parent or "")
        return found[::-1]

    def ask(self, text: str) -> Turn:
        """Add what the user says after the leaf. What is no Unicode in it becomes "?": neither the
        wire nor the store could hold it."""
        if not _is_unicode(text):
            text = text.encode("utf-8", "replace").decode()
        self.title = self.title or title_of(text)
        return self._add(Turn(new_id(), self.leaf, "user", text, time.time()))

    def answer(self, model: str, params: dict[str, Value], *, beside: Turn | None = None) -> Turn:
        """Add an empty answer after the leaf, or as another one `beside` an answer."""
        parent = beside.parent if beside else self.leaf
        return self._add(Turn(new_id(), parent, "assistant", "", time.time(), model, params))

    def _add(self, turn: Turn) -> Turn:
        self._turns[turn.id] = turn
        self.leaf = turn.id
        return turn

    def replace(self, turn: Turn) -> Turn:
        """Put a changed turn in the place of the one with its id."""
        self._turns[turn.id] = turn
        return turn

    def remove(self, turn: Turn) -> None:
        """Take out a turn that has no children; the leaf falls back to its parent, and the title goes with
        the last turn."""
        del self._turns[turn.id]
        self.title = self.title if self._turns else ""
        if self.leaf == turn.id:
            self.leaf = turn.parent

    def siblings(self, turn: Turn) -> list[Turn]:
        """The turns that stand in this one's place, itself among them, the oldest first."""
        return [other for other in self._turns.values() if other.parent == turn.parent and other.role == turn.role]

    def step(self, turn: Turn, by: int) -> bool:
        """Show the path through the sibling `by` places on; False where there is none."""
        row = self.siblings(turn)
        place = row.index(turn) + by
        if not 0 <= place < len(row):
            return False
        leaf = row[place].id
        # Below a turn the newest branch is shown.
        while below := [other.id for other in self._turns.values() if other.parent == leaf]:
            leaf = below[-1]
        self.leaf = leaf
        return True

    def prompts(self) -> list[str]:
        """What the user has said on the path, the oldest first."""
        return [turn.content for turn in self.path() if turn.role == "user"]

    def messages(self, upto: Turn, system_prompt: str) -> tuple[Message, ...]:
        """What a model is told before it answers as turn `upto`; empty answers are left out, and so
        is what it thought before the last question: models are not trained to see that again."""
        turns = self._before(upto)
        asked = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
        said = [
            Message(turn.role, turn.content, turn.reasoning if place > asked else "")
            for place, turn in enumerate(turns)
            if turn.content
        ]
        return (Message("system", system_prompt), *said) if system_prompt else tuple(said)

    def places(self, upto: Turn, system_prompt: str) -> list[str]:
        """The id of the turn behind each of those messages; empty for the system prompt."""
        return [""] * bool(system_prompt) + [turn.id for turn in self._before(upto) if turn.content]

    def begun_before(self, upto: Turn) -> Turn | None:
        """The last answer on the way to a turn that a model has begun."""
        begun = (turn for turn in reversed(self._before(upto)) if turn.role == "assistant" and turn.seed is not None)
        return next(begun, None)

    def told_otherwise(self, answer: Turn) -> bool:
        """Whether a model was told less of the conversation than for the answer before, or more."""
        before = self.begun_before(answer)
        return answer.seed is not None and answer.missing != (before.missing if before else ())

    def _before(self, upto: Turn) -> list[Turn]:
        """The turns that lead to a turn, the oldest first."""
        turns: list[Turn] = []
        turn = self._turns.get(upto.parent or "")
        while turn:
            turns.append(turn)
            turn = self._turns.get(turn.parent or "")
        return turns[::-1]


def _is_unicode(text: str) -> bool:
    """Whether no halves of characters are in a text; a long one is not copied for that."""
    if not text.isascii():  # which costs nothing to know
        try:
            for at in range(0, len(text), PIECE):
                text[at : at + PIECE].encode()
        except UnicodeEncodeError:
            return False
    return True


def title_of(text: str) -> str:
    """A title from the first words of a conversation."""
    line = " ".join(text.lstrip()[: 9 * _TITLE_LENGTH].split())
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"
