"""What a session tells of an answer that is being made; whoever shows it keeps nothing but the view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from llama_tui.chat.conversation import Turn
    from llama_tui.engine.protocol import TokenKind
    from llama_tui.errors import ContextOverflow, StoreError


class TurnAdded(Struct, frozen=True):
    """A turn stands at the end of the path."""

    turn: Turn


class TurnGrew(Struct, frozen=True):
    """An answer has more text, or more reasoning before it; `n_tokens` counts both so far,
    `n_reasoning` the reasoning, `n_past` the context used."""

    turn_id: str
    text: str
    n_tokens: int
    n_past: int
    kind: TokenKind = "answer"
    n_reasoning: int = 0


class TurnNoticed(Struct, frozen=True):
    """Something about an answer that is no error, in words for a person."""

    turn_id: str
    text: str


class TurnCut(Struct, frozen=True):
    """An answer has begun that is told less of the conversation than the one before it, or more."""

    turn: Turn


class TurnWaits(Struct, frozen=True):
    """Nothing to show yet: `doing` says what it waits for, `done` of `total` tokens if it is known,
    `reused` of which the KV cache held already."""

    turn_id: str
    doing: str
    done: int = 0
    total: int = 0
    reused: int = 0


class TurnRestarted(Struct, frozen=True):
    """An answer that was shown in part is told again from its beginning."""

    turn: Turn


class TurnEnded(Struct, frozen=True):
    """An answer is complete, or as complete as it will be."""

    turn: Turn


class SendRefused(Struct, frozen=True):
    """Nothing was sent and nothing is kept: the text goes back to where it was typed. It is empty
    where another answer was wanted. `error` holds the ways out that there are to choose from."""

    removed: tuple[str, ...]
    text: str
    error: ContextOverflow


class NotKept(Struct, frozen=True):
    """The store failed; the conversation goes on in memory."""

    error: StoreError


ChatEvent = TurnAdded | TurnRestarted | TurnGrew | TurnNoticed | TurnCut | TurnWaits | TurnEnded | SendRefused | NotKept
