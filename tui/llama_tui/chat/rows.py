"""Turns as rows of the database. A long text is kept in pieces, the first of them in the turn's own row."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from llama_tui.chat.conversation import Figures, LeftOut, Trouble, Turn
from llama_tui.chat.growth import PIECE, Grown, Growth, piece_of
from llama_tui.settings.values import Value

TABLE = """
CREATE TABLE pieces (
    turn TEXT NOT NULL REFERENCES turns(id) ON DELETE CASCADE,
    kind TEXT NOT NULL, place INTEGER NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (turn, kind, place)
) STRICT
"""

Saved = Mapping[str, tuple[int, int]]
"""How many characters of the content and the reasoning of each turn, by its id, are in the database already."""

_COLUMNS = (
    "id", "conversation", "parent", "role", "content", "created", "model", "params", "seed", "ending", "figures",
    "trouble", "reasoning", "left_out",
)  # fmt: skip
_WRITE = (
    f"INSERT INTO turns VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
    # One that only follows an answer may have less of it than the program that has closed it.
    + " WHERE excluded.ending IS NOT NULL OR coalesce(turns.ending, 'interrupted') = 'interrupted'"
)


def write(db: sqlite3.Connection, conversation: str, given: Turn | Grown, saved: Saved) -> None:
    """Write a turn, of its texts what is not there already; an open one does not replace one that is closed.
    The pieces are small: each holds the interpreter for a moment only."""
    turn = given.turn if isinstance(given, Grown) else given
    texts: dict[str, str | Growth] = {"content": given.content, "reasoning": given.reasoning}
    if not db.execute(_WRITE, _row(conversation, turn, *(piece_of(text, 0) for text in texts.values()))).rowcount:
        return
    for (kind, text), before in zip(texts.items(), saved.get(turn.id, (0, 0)), strict=True):
        first, count = max(1, before // PIECE), -(-len(text) // PIECE)
        if isinstance(given, Turn):
            db.execute("DELETE FROM pieces WHERE turn = ? AND kind = ? AND place >= ?", (turn.id, kind, count))
            if first > 1 and not _is_there(db, turn.id, kind, first):
                first = 1  # another program has written the same answer
        for place in range(first, count):
            piece = piece_of(text, place)
            db.execute("INSERT OR REPLACE INTO pieces VALUES (?, ?, ?, ?)", (turn.id, kind, place, piece))


def _is_there(db: sqlite3.Connection, turn: str, kind: str, places: int) -> bool:
    """Whether the pieces up to one, which are all full, are in the database."""
    found = db.execute(
        "SELECT sum(length(text)) FROM pieces WHERE turn = ? AND kind = ? AND place < ?", (turn, kind, places)
    ).fetchone()
    return found[0] == (places - 1) * PIECE


def read(db: sqlite3.Connection, where: str, argument: str) -> Iterator[Turn]:
    """The turns that a condition on `turns` chooses, the oldest first; raises `msgspec.ValidationError`."""
    more: dict[tuple[str, str], list[str]] = {}
    for turn, kind, text in db.execute(
        f"SELECT turn, kind, text FROM pieces WHERE turn IN (SELECT id FROM turns WHERE {where}) ORDER BY kind, place",
        (argument,),
    ):
        more.setdefault((turn, kind), []).append(text)
    for row in db.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM turns WHERE {where} ORDER BY created, rowid", (argument,)
    ):
        turn = _turn(row)
        longer = {
            kind: "".join(_following(text, more[turn.id, kind]))
            for kind, text in (("content", turn.content), ("reasoning", turn.reasoning))
            if (turn.id, kind) in more
        }
        yield msgspec.structs.replace(turn, **longer) if longer else turn


def _following(first: str, pieces: Iterable[str]) -> Iterator[str]:
    """The pieces of a text up to the first that is not full, behind which there is nothing."""
    for piece in (first, *pieces):
        yield piece
        if len(piece) < PIECE:
            return


def _row(conversation: str, turn: Turn, content: str, reasoning: str) -> tuple[object, ...]:
    encode = msgspec.json.encode
    return (
        turn.id,
        conversation,
        turn.parent,
        turn.role,
        content,
        turn.created,
        turn.model,
        encode(turn.params),
        turn.seed,
        turn.ending,
        encode(turn.figures) if turn.figures else None,
        encode(turn.trouble) if turn.trouble else None,
        reasoning,
        encode(turn.left_out) if turn.left_out else None,
    )


def _turn(row: tuple[Any, ...]) -> Turn:
    id, _, parent, role, content, created, model, params, seed, ending, figures, trouble, reasoning, left_out = row
    decode = msgspec.json.decode
    turn = Turn(id, parent, role, content, created, model, decode(params, type=dict[str, Value]), seed, ending)
    return msgspec.structs.replace(
        turn,
        figures=decode(figures, type=Figures) if figures else None,
        trouble=decode(trouble, type=Trouble) if trouble else None,
        reasoning=reasoning,
        left_out=decode(left_out, type=LeftOut) if left_out else None,
    )
