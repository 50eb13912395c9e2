"""What a session tells of an answer that is being made; whoever shows it keeps nothing but the view."""

from __future__ import annotations

from dataclasses import dataclass

from llama_tui.chat.conversation import Turn
from llama_tui.engine.protocol import TokenKind
from llama_tui.errors import ContextOverflow, StoreError


@dataclass(frozen=True, slots=True)
class TurnAdded:
    """A turn stands at the end of the path."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class TurnGrew:
    """An answer has more text, or more reasoning before it; `n_tokens` counts both so far,
    `n_reasoning` the reasoning, `n_past` the context used."""

    turn_id: str
    text: str
    n_tokens: int
    n_past: int
    kind: TokenKind = "answer"
    n_reasoning: int = 0


@dataclass(frozen=True, slots=True)
class TurnNoticed:
    """Something about an answer that is no error, in words for a person."""

    turn_id: str
    text: str


@dataclass(frozen=True, slots=True)
class TurnCut:
    """An answer has begun that is told less of the conversation than the one before it, or more."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class TurnWaits:
    """Nothing to show yet: `doing` says what it waits for, `done` of `total` tokens if it is known,
    `reused` of which the KV cache held already."""

    turn_id: str
    doing: str
    done: int = 0
    total: int = 0
    reused: int = 0


@dataclass(frozen=True, slots=True)
class TurnRestarted:
    """An answer that was shown in part is told again from its beginning."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """An answer is complete, or as complete as it will be."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class SendRefused:
    """Nothing was sent and nothing is kept: the text goes back to where it was typed. It is empty
    where another answer was wanted. `error` holds the ways out that there are to choose from."""

    removed: tuple[str, ...]
    text: str
    error: ContextOverflow


@dataclass(frozen=True, slots=True)
class NotKept:
    """The store failed; the conversation goes on in memory."""

    error: StoreError


ChatEvent = TurnAdded | TurnRestarted | TurnGrew | TurnNoticed | TurnCut | TurnWaits | TurnEnded | SendRefused | NotKept
