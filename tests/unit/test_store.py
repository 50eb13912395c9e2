"""Conversations on disk: kept while they grow, found again, and never half understood."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llama_tui.chat import store as store_module
from llama_tui.chat.conversation import Conversation, Figures, LeftOut, Trouble, Turn
from llama_tui.chat.store import Store
from llama_tui.errors import StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(path)) as store:
        yield store


def a_conversation(*texts: str) -> Conversation:
    conversation = Conversation.new()
    for number, text in enumerate(texts or ("Hello", "Hi")):
        if number % 2:
            turn = conversation.answer("tiny", {"temperature": 0.5, "stop": ("a", "b"), "max_tokens": None})
            conversation.replace(msgspec.structs.replace(turn, content=text, ending="stop"))
        else:
            conversation.ask(text)
    return conversation


def reopened(path: Path, id: str) -> Conversation:
    with contextlib.closing(Store(path)) as again:
        return again.load(id)


def sql(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)


class TestKeeping:
    def test_everything_about_a_turn_comes_back(self, path: Path, store: Store) -> None:
        conversation = a_conversation("Wie geht's? 🦙", "")
        answer = msgspec.structs.replace(
            conversation.path()[-1],
            content="Gut.\n\x00",
            seed=4294967294,
            ending="died",
            figures=Figures(10, 4, 2, 2048, None, 12.5, 1),
            trouble=Trouble("It died.", "F5", ("last", "words")),
            reasoning="Wie wohl?\n",
        )
        conversation.replace(answer)
        store.save(conversation, *conversation.turns)
        again = reopened(path, conversation.id)
        assert again.turns == conversation.turns
        assert again.path() == conversation.path()
        assert (again.title, again.leaf) == (conversation.title, conversation.leaf)

    def test_an_answer_is_there_while_it_still_grows(self, path: Path, store: Store) -> None:
        conversation = a_conversation("Hello", "")
        store.save(conversation, conversation.turns[0])
        for text in ("a", "ab", "abc"):
            answer = conversation.replace(msgspec.structs.replace(conversation.path()[-1], content=text, ending=None))
            store.save(conversation, answer)
            other = reopened(path, conversation.id).path()
            assert [turn.content for turn in other] == ["Hello", text]
            assert other[-1].ending is None

    def test_who_has_less_of_an_answer_does_not_open_it_again(self, path: Path, store: Store) -> None:
        conversation = a_conversation()
        answer = msgspec.structs.replace(conversation.path()[-1], content="word " * 20_000)
        store.save(conversation, *conversation.path()[:-1], answer)
        store.save(conversation, msgspec.structs.replace(answer, content="word", ending=None))
        assert reopened(path, conversation.id).path()[-1] == answer
        # Of one that was thought to be interrupted its program tells more.
        store.save(conversation, msgspec.structs.replace(answer, content="word", ending="interrupted"))
        store.save(conversation, msgspec.structs.replace(answer, content="word by word", ending=None))
        assert reopened(path, conversation.id).path()[-1].content == "word by word"

    def test_the_order_survives_saving_an_early_turn_again(self, path: Path, store: Store) -> None:
        conversation = a_conversation("a", "A", "b", "B")
        store.save(conversation, *conversation.turns)
        store.save(conversation, conversation.turns[0])
        assert [turn.content for turn in reopened(path, conversation.id).turns] == ["a", "A", "b", "B"]

    def test_the_branch_that_was_shown(self, path: Path, store: Store) -> None:
        conversation = a_conversation("a", "A1")
        first = conversation.path()[-1]
        conversation.answer("tiny", {}, beside=first)
        store.save(conversation, *conversation.turns)
        conversation.step(conversation.path()[-1], -1)
        store.save(conversation)
        assert reopened(path, conversation.id).leaf == first.id

    def test_removed_turns_are_gone_and_an_empty_conversation_with_them(self, store: Store) -> None:
        conversation = a_conversation("a", "A", "b", "B")
        store.save(conversation, *conversation.turns)
        two = conversation.path()[2:]
        for turn in reversed(two):
            conversation.remove(turn)
        store.remove(conversation, *two)
        assert [turn.content for turn in store.load(conversation.id).path()] == ["a", "A"]
        rest = conversation.path()
        for turn in reversed(rest):
            conversation.remove(turn)
        store.remove(conversation, *rest)
        assert store.list() == []


class TestList:
    def test_the_latest_first(self, store: Store) -> None:
        older, newer = a_conversation("older", "x"), a_conversation("newer", "y", "z", "w")
        for conversation in (older, newer):
            store.save(conversation, *conversation.turns)
        assert [(listed.title, listed.n_turns, listed.model) for listed in store.list()] == [
            ("newer", 4, "tiny"),
            ("older", 2, "tiny"),
        ]
        assert store.latest() == newer.id
        store.save(older)
        assert store.latest() == older.id

    def test_an_empty_store(self, store: Store) -> None:
        assert store.list() == []
        assert store.latest() is None

    def test_deleted_is_out_of_sight_until_restored(self, store: Store) -> None:
        conversation = a_conversation()
        store.save(conversation, *conversation.turns)
        store.delete(conversation.id)
        assert store.list() == []
        assert store.latest() is None
        store.restore(conversation.id)
        assert [listed.id for listed in store.list()] == [conversation.id]
        assert store.load(conversation.id).turns == conversation.turns

    def test_deleted_for_a_week_is_gone_with_its_turns(self, path: Path, store: Store) -> None:
        conversation = a_conversation()
        store.save(conversation, *conversation.turns)
        store.delete(conversation.id)
        sql(path, f"UPDATE conversations SET deleted = {time.time() - 8 * 86400}")
        with contextlib.closing(Store(path)) as again, pytest.raises(StoreError, match="not there any more"):
            again.load(conversation.id)
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM turns").fetchone() == (0,)

    def test_a_conversation_that_is_not_there(self, store: Store) -> None:
        with pytest.raises(StoreError) as caught:
            store.load("nonesuch")
        assert caught.value.hint


class TestTroubles:
    def test_a_newer_schema_is_left_alone(self, path: Path, store: Store) -> None:
        sql(path, "PRAGMA user_version = 99")
        before = path.read_bytes()
        with pytest.raises(StoreError, match="newer llama-tui") as caught:
            Store(path)
        assert str(path) in caught.value.message
        assert caught.value.hint
        assert path.read_bytes() == before

    def test_a_file_that_is_not_a_database(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"These are my notes, please keep them." * 100)
        with pytest.raises(StoreError, match="not a database") as caught:
            Store(path)
        assert "Move" in caught.value.hint
        assert path.read_bytes().startswith(b"These are my notes")

    def test_a_damaged_turn_is_an_error_of_the_store(self, path: Path, store: Store) -> None:
        conversation = a_conversation()
        store.save(conversation, *conversation.turns)
        sql(path, "UPDATE turns SET params = x'7b'")
        with pytest.raises(StoreError, match="cannot be used"):
            store.load(conversation.id)

    def test_a_place_where_no_folder_can_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError) as caught:
            Store(tmp_path / "file" / "data" / "chats.db")
        assert "file/data" in caught.value.message
        assert caught.value.hint

    def test_a_directory_in_its_place(self, path: Path) -> None:
        path.mkdir(parents=True)
        with pytest.raises(StoreError, match="unable to open") as caught:
            Store(path)
        assert "rights" in caught.value.hint

    def test_a_write_that_fails_leaves_what_was_there(self, path: Path, store: Store) -> None:
        conversation = a_conversation()
        store.save(conversation, *conversation.turns)
        sql(path, "CREATE TRIGGER full BEFORE INSERT ON turns BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        question = conversation.ask("lost?")
        with pytest.raises(StoreError, match="full") as caught:
            store.save(conversation, question)
        assert "disk space" in caught.value.hint
        assert question.id not in store.load(conversation.id)
        sql(path, "DROP TRIGGER full")
        store.save(conversation, question)
        assert question.id in store.load(conversation.id)

    def test_a_paste_that_is_not_unicode_is_kept_all_the_same(self, store: Store) -> None:
        conversation = a_conversation("a\udcffb")
        store.save(conversation, *conversation.turns)
        assert store.load(conversation.id).path()[0].content == "a?b"

    def test_in_memory_nothing_is_written(self, tmp_path: Path) -> None:
        with contextlib.closing(Store(None)) as store:
            conversation = a_conversation()
            store.save(conversation, *conversation.turns)
            assert store.load(conversation.id).turns == conversation.turns
        assert [entry.name for entry in tmp_path.iterdir()] == ["home"]


class TestTwoPrograms:
    def test_each_sees_what_the_other_keeps(self, path: Path, store: Store) -> None:
        with contextlib.closing(Store(path)) as other:
            mine, theirs = a_conversation("mine", "x"), a_conversation("theirs", "y")
            store.save(mine, *mine.turns)
            other.save(theirs, *theirs.turns)
            assert {listed.title for listed in store.list()} == {"mine", "theirs"}
            assert {listed.title for listed in other.list()} == {"mine", "theirs"}

    def test_both_create_it_at_once(self, tmp_path: Path) -> None:
        for round_ in range(20):
            path = tmp_path / f"{round_}.db"
            barrier = threading.Barrier(4)
            problems: list[BaseException] = []

            def create(path: Path = path, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                try:
                    with contextlib.closing(Store(path)) as store:
                        conversation = a_conversation()
                        store.save(conversation, *conversation.turns)
                except BaseException as error:
                    problems.append(error)  # noqa: B023 - joined below

            threads = [threading.Thread(target=create) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert problems == []
            with contextlib.closing(Store(path)) as store:
                assert len(store.list()) == 4

    def test_many_threads_write_at_once(self, path: Path, store: Store) -> None:
        conversations = [a_conversation(str(number), "x") for number in range(8)]
        with contextlib.closing(Store(path)) as other:
            threads = [
                threading.Thread(target=(store, other)[number % 2].save, args=(c, *c.turns))
                for number, c in enumerate(conversations)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(store.list()) == 8


class TestMigration:
    FIRST = (
        "CREATE TABLE conversations (id TEXT PRIMARY KEY, title TEXT NOT NULL, leaf TEXT, updated REAL NOT NULL,"
        " deleted REAL) STRICT",
        "CREATE TABLE turns (id TEXT PRIMARY KEY, conversation TEXT NOT NULL REFERENCES conversations(id) ON DELETE"
        " CASCADE, parent TEXT, role TEXT NOT NULL, content TEXT NOT NULL, created REAL NOT NULL, model TEXT NOT NULL,"
        " params BLOB NOT NULL, seed INTEGER, ending TEXT, figures BLOB, trouble BLOB) STRICT",
        "CREATE INDEX turns_of ON turns(conversation, created)",
        "INSERT INTO conversations VALUES ('c', 'Hello', 'b', 1.0, NULL)",
        "INSERT INTO turns VALUES ('a', 'c', NULL, 'user', 'Hello', 1.0, '', x'7b7d', NULL, NULL, NULL, NULL)",
        "INSERT INTO turns VALUES ('b', 'c', 'a', 'assistant', 'Hi', 2.0, 'm', x'7b7d', 7, 'stop',"
        ' CAST(\'{"prompt_tokens":1,"reused_tokens":0,"completion_tokens":2,"n_ctx":256,'
        '"first_token_seconds":0.5,"tokens_per_second":9.5}\' AS BLOB), NULL)',
        "PRAGMA user_version = 1",
    )

    def test_the_first_version_is_read_and_goes_on(self, path: Path) -> None:
        path.parent.mkdir()
        for statement in self.FIRST:
            sql(path, statement)
        with contextlib.closing(Store(path)) as store:
            conversation = store.load("c")
            assert [(turn.content, turn.reasoning) for turn in conversation.path()] == [("Hello", ""), ("Hi", "")]
            assert conversation.path()[-1].figures == Figures(1, 0, 2, 256, 0.5, 9.5)
            answer = conversation.replace(msgspec.structs.replace(conversation.path()[-1], reasoning="hm"))
            store.save(conversation, answer)
        assert reopened(path, "c").path()[-1].reasoning == "hm"

    def test_the_second_version_is_read_and_goes_on(self, path: Path) -> None:
        path.parent.mkdir()
        for statement in self.FIRST[:-1]:
            sql(path, statement)
        sql(path, "ALTER TABLE turns ADD COLUMN reasoning TEXT NOT NULL DEFAULT ''")
        sql(path, "UPDATE turns SET reasoning = 'hm' WHERE id = 'b'")
        sql(path, "PRAGMA user_version = 2")
        with contextlib.closing(Store(path)) as store:
            conversation = store.load("c")
            answer = conversation.path()[-1]
            assert (answer.reasoning, answer.left_out) == ("hm", None)
            left_out = LeftOut("drop_oldest", ("a",), 1204)
            store.save(conversation, conversation.replace(msgspec.structs.replace(answer, left_out=left_out)))
        assert reopened(path, "c").path()[-1].left_out == left_out

    def test_by_two_programs_at_once(self, path: Path) -> None:
        path.parent.mkdir()
        for statement in self.FIRST:
            sql(path, statement)
        stores: list[Store] = []
        threads = [threading.Thread(target=lambda: stores.append(Store(path))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(store.list()) for store in stores] == [1] * 4
        for store in stores:
            store.close()


class TestJournal:
    def journal(self, path: Path) -> str:
        with contextlib.closing(sqlite3.connect(path)) as db:
            return db.execute("PRAGMA journal_mode").fetchone()[0]

    @pytest.mark.parametrize(
        ("mounts", "journal"),
        [
            ("/dev/sda / ext4 rw 0 0\n", "wal"),
            ("/dev/sda / ext4 rw 0 0\nserver:/home {at} nfs4 rw 0 0\n", "delete"),
            ("server:/root / nfs rw 0 0\n/dev/sda {at} ext4 rw 0 0\n", "wal"),
            ("/dev/sda / ext4 rw 0 0\nserver:/home {at}-other nfs4 rw 0 0\n", "wal"),
            ("broken\n\n", "wal"),
            (None, "wal"),
        ],
    )
    def test_follows_the_file_system(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str | None, journal: str
    ) -> None:
        table = tmp_path / "mounts"
        if mounts is not None:
            table.write_text(mounts.format(at=tmp_path.resolve()))
        monkeypatch.setattr(store_module, "_MOUNTS", table)
        Store(path).close()
        assert self.journal(path) == journal

    def test_a_mount_with_a_space_in_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "my home"
        table = tmp_path / "mounts"
        table.write_text(f"server:/ {tmp_path.resolve()}/my\\040home nfs rw 0 0\n")
        monkeypatch.setattr(store_module, "_MOUNTS", table)
        Store(folder / "chats.db").close()
        assert self.journal(folder / "chats.db") == "delete"


def test_turns_are_plain_values() -> None:
    turn = Turn("id", None, "user", "text", 1.0)
    assert msgspec.structs.replace(turn, content="other") != turn


def test_writing_on_brings_back_a_conversation_that_another_program_deleted(tmp_path: Path) -> None:
    ours, theirs = Store(tmp_path / "chats.db"), Store(tmp_path / "chats.db")
    conversation = Conversation.new()
    ours.save(conversation, conversation.ask("hello"))
    theirs.delete(conversation.id)
    assert not theirs.list()
    ours.save(conversation, conversation.ask("and on"))
    assert [chat.id for chat in theirs.list()] == [conversation.id]
    ours.close()
    theirs.close()
