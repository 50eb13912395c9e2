"""Where conversations are kept: one SQLite database in the user's data directory."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llama_tui.chat import rows
from llama_tui.chat.conversation import Conversation, Turn
from llama_tui.chat.growth import Grown
from llama_tui.chat.rows import Saved
from llama_tui.errors import LlamaTuiError, StoreError
from llama_tui.paths import ensure

_SCHEMA_VERSION = 4
_SCHEMA = f"""
CREATE TABLE conversations (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, leaf TEXT, updated REAL NOT NULL, deleted REAL
) STRICT;
CREATE TABLE turns (
    id TEXT PRIMARY KEY,
    conversation TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
    parent TEXT, role TEXT NOT NULL, content TEXT NOT NULL, created REAL NOT NULL,
    model TEXT NOT NULL, params BLOB NOT NULL, seed INTEGER, ending TEXT, figures BLOB, trouble BLOB,
    reasoning TEXT NOT NULL DEFAULT '', left_out BLOB
) STRICT;
CREATE INDEX turns_of ON turns(conversation, created);
{rows.TABLE};
"""

_MIGRATIONS = {
    1: ("ALTER TABLE turns ADD COLUMN reasoning TEXT NOT NULL DEFAULT ''",),
    2: ("ALTER TABLE turns ADD COLUMN left_out BLOB",),
    3: (rows.TABLE,),
}
"""What leads from each version of the schema to the next."""

_NOTHING: Saved = {}

_NOT_KEPT = "The conversation goes on, but is not kept."

_MOUNTS = Path("/proc/self/mounts")

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "9p"}
)
"""WAL needs shared memory between all readers, which these do not give."""

_WAIT_SECONDS = 5.0
"""How long one program waits for another that writes."""

_KEEP_DELETED_SECONDS = 7 * 86400
"""A deleted conversation can be brought back for a week."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A conversation as the list shows it; `updated` is a Unix time in seconds."""

    id: str
    title: str
    updated: float
    n_turns: int
    model: str


class Store:
    """Thread-safe: slow disks are waited for in threads, one at a time. Raises `StoreError`."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the database; None keeps everything in memory."""
        self._lock = threading.Lock()
        self._where = str(path) if path else ":memory:"
        try:
            if path:
                ensure(path.parent)
            self._db = sqlite3.connect(
                self._where, timeout=_WAIT_SECONDS, check_same_thread=False, isolation_level=None
            )
            try:
                self._prepare("DELETE" if path and _on_network(path) else "WAL")
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise self._explain(error) from error
        except LlamaTuiError as error:
            raise StoreError(error.message, error.hint) from error

    @classmethod
    def copy_of(cls, path: Path) -> Store:
        """A store in memory with what can be read at `path`, for a database that cannot be written."""
        # Without the second, a database in WAL mode cannot be read where its -shm file cannot be made.
        for how in ("mode=ro", "immutable=1"):
            store = cls(None)
            try:
                with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as source:
                    if source.execute("PRAGMA user_version").fetchone()[0] in (_SCHEMA_VERSION, *_MIGRATIONS):
                        source.backup(store._db)
                store._create_or_migrate()
            except (sqlite3.Error, StoreError):
                store.close()
                continue
            return store
        return cls(None)

    def _prepare(self, journal: str) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise StoreError(
                f"{self._where} was written by a newer llama-tui (version {version}, known here: {_SCHEMA_VERSION})",
                f"{_NOT_KEPT} Use that version, or move the file away.",
            )
        self._set_journal(journal)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if version < _SCHEMA_VERSION:
            self._create_or_migrate()
        self._db.execute("DELETE FROM conversations WHERE deleted < ?", (time.time() - _KEEP_DELETED_SECONDS,))

    def _set_journal(self, mode: str) -> None:
        """SQLite itself does not wait here when another program opens the database at the same time."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                self._db.execute(f"PRAGMA journal_mode = {mode}")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def _create_or_migrate(self) -> None:
        with self._transaction() as db:
            # Another program may have been first.
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                statements = _SCHEMA.split(";")
            else:
                statements = [step for at in range(version, _SCHEMA_VERSION) for step in _MIGRATIONS[at]]
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {max(version, _SCHEMA_VERSION)}")

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._explain(error) from error

    def _explain(self, error: sqlite3.Error) -> StoreError:
        said = str(error)
        hint = _NOT_KEPT
        if "full" in said:
            hint += " Free some disk space."
        elif "malformed" in said or "not a database" in said:
            hint += f" Move {self._where} away; `sqlite3 FILE .recover` can save what is in it."
        elif "readonly" in said or "unable to open" in said:
            hint += " Check the rights of its folder."
        elif "locked" in said:
            hint += " Another program holds the database."
        return StoreError(f"The conversations in {self._where} cannot be used: {said}", hint)

    def save(self, conversation: Conversation, *turns: Turn | Grown, saved: Saved = _NOTHING) -> None:
        """Write a conversation's title and leaf, and the turns that are new or changed; of a text that was
        `saved` in part before, and has only grown since, no more than the rest."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO conversations (id, title, leaf, updated) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET title = excluded.title, leaf = excluded.leaf, "
                "updated = excluded.updated, deleted = NULL",
                (conversation.id, conversation.title, conversation.leaf, time.time()),
            )
            for turn in turns:
                rows.write(db, conversation.id, turn, saved)

    def remove(self, conversation: Conversation, *turns: Turn) -> None:
        """Take out turns that came to nothing; a conversation without any goes with them."""
        with self._transaction() as db:
            db.executemany("DELETE FROM turns WHERE id = ?", [(turn.id,) for turn in turns])
            if conversation.leaf is None:
                db.execute("DELETE FROM conversations WHERE id = ?", (conversation.id,))
            else:
                db.execute("UPDATE conversations SET leaf = ? WHERE id = ?", (conversation.leaf, conversation.id))

    def load(self, id: str) -> Conversation:
        """A whole conversation."""
        with self._reading() as db:
            head = db.execute("SELECT title, leaf FROM conversations WHERE id = ?", (id,)).fetchone()
            turns = tuple(rows.read(db, "conversation = ?", id))
        if head is None:
            raise StoreError("That conversation is not there any more.", "Another program may have deleted it.")
        return Conversation(id, head[0], turns, head[1])

    def turn(self, id: str) -> Turn | None:
        """One turn, if it is there."""
        with self._reading() as db:
            return next(rows.read(db, "id = ?", id), None)

    def added(self, conversation: Conversation) -> tuple[Turn, ...]:
        """The turns of a conversation that it does not have itself: another program's, the oldest first."""
        with self._reading() as db:
            ids = db.execute("SELECT id FROM turns WHERE conversation = ? ORDER BY created, rowid", (conversation.id,))
            new = [id for (id,) in ids.fetchall() if id not in conversation]
            return tuple(turn for id in new for turn in rows.read(db, "id = ?", id))

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            try:
                yield self._db
            except (sqlite3.Error, msgspec.DecodeError) as error:
                raise self._explain(sqlite3.DatabaseError(str(error))) from error

    def list(self) -> list[Listed]:
        """Every conversation that is not deleted, the latest first."""
        with self._reading() as db:
            found = db.execute(
                "SELECT c.id, c.title, c.updated, count(t.id), "
                "coalesce((SELECT model FROM turns WHERE id = c.leaf), '') "
                "FROM conversations c LEFT JOIN turns t ON t.conversation = c.id "
                "WHERE c.deleted IS NULL GROUP BY c.id ORDER BY c.updated DESC"
            ).fetchall()
        return [Listed(*row) for row in found]

    def latest(self) -> str | None:
        """The conversation that was used last."""
        with self._reading() as db:
            row = db.execute(
                "SELECT id FROM conversations WHERE deleted IS NULL ORDER BY updated DESC LIMIT 1"
            ).fetchone()
        return row[0] if row else None

    def delete(self, id: str) -> None:
        """Take a conversation out of the list; `restore` brings it back within a week."""
        with self._transaction() as db:
            db.execute("UPDATE conversations SET deleted = ? WHERE id = ?", (time.time(), id))

    def restore(self, id: str) -> None:
        """Undo `delete`."""
        with self._transaction() as db:
            db.execute("UPDATE conversations SET deleted = NULL WHERE id = ?", (id,))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()


def _on_network(path: Path) -> bool:
    """Whether a path lies on a network file system, by Linux's list of mounts."""
    try:
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return False
    resolved = path.resolve()
    places = [(fields[1].replace("\\040", " "), fields[2]) for fields in mounts if len(fields) > 2]
    inside = [(len(at), kind) for at, kind in places if resolved.is_relative_to(at)]
    return max(inside, default=(0, ""))[1] in _NETWORK_FILE_SYSTEMS
