"""Long texts in pieces: what is added to one, or saved of one, costs the same however long it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_tui.chat.conversation import Turn

PIECE = 1 << 16
"""Characters of a piece; only the last one of a text has fewer."""


class Growth:
    """A text that only gets longer."""

    def __init__(self) -> None:
        self._whole: list[str] = []  # pieces that are full
        self._rest: list[str] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, text: str) -> None:
        """Put more behind it."""
        self._rest.append(text)
        self._length += len(text)
        if self._length - len(self._whole) * PIECE >= PIECE:
            rest = "".join(self._rest)
            full = len(rest) - len(rest) % PIECE
            self._whole += [rest[at : at + PIECE] for at in range(0, full, PIECE)]
            self._rest = [rest[full:]]

    def text(self) -> str:
        """All of it, put together for that."""
        return "".join([*self._whole, *self._rest])

    def piece(self, place: int) -> str:
        """A piece by its place, counted from 0; empty behind the last one."""
        if place < len(self._whole):
            return self._whole[place]
        return "".join(self._rest) if place == len(self._whole) else ""


@dataclass(frozen=True, slots=True)
class Grown:
    """An answer that is being made: all about it but its texts, which are beside it."""

    turn: Turn
    content: str | Growth = field(default_factory=Growth)
    reasoning: str | Growth = field(default_factory=Growth)

    @property
    def id(self) -> str:
        """The turn's."""
        return self.turn.id


def piece_of(text: str | Growth, place: int) -> str:
    """A piece of a text by its place, counted from 0."""
    return text.piece(place) if isinstance(text, Growth) else text[place * PIECE : (place + 1) * PIECE]
