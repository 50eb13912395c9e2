"""Texts of many megabytes that come bit by bit: held, saved and shown without doing anything again."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llama_tui.chat.conversation import Conversation, Turn
from llama_tui.chat.growth import PIECE, Grown, Growth, piece_of
from llama_tui.chat.keeping import Keeper
from llama_tui.chat.store import Store
from llama_tui.ui.entry import Entry
from llama_tui.ui.log import Log
from llama_tui.ui.view import EntryView

MB = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(path)) as store:
        yield store


def said(path: Path, id: str) -> Turn:
    """The last turn as another program finds it."""
    with contextlib.closing(Store(path)) as other:
        return other.load(id).path()[-1]


def begun(text: str = "go") -> tuple[Conversation, Turn]:
    conversation = Conversation.new()
    conversation.ask(text)
    return conversation, conversation.answer("tiny", {})


class TestGrowth:
    def test_it_is_the_text_and_its_pieces_are_those_of_the_whole(self) -> None:
        rng = random.Random(5)
        growth, whole, last = Growth(), "", 0
        for size in (0, 1, PIECE - 1, PIECE, 1, PIECE * 3 + 7, *(rng.randrange(PIECE) for _ in range(20))):
            text = rng.choice("aé我") * size
            growth.add(text)
            whole += text
            assert len(growth) == len(whole)
            last = len(whole) // PIECE
            assert [growth.piece(at) for at in (0, last, last + 1)] == [
                piece_of(whole, at) for at in (0, last, last + 1)
            ]
        assert growth.text() == whole == "".join(growth.piece(at) for at in range(last + 1))


class TestKept:
    @pytest.mark.parametrize("length", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 5 * PIECE + 17])
    def test_a_long_turn_comes_back_whole_and_shorter_when_it_is_shorter(
        self, path: Path, store: Store, length: int
    ) -> None:
        conversation, answer = begun("ü" * length)
        whole = msgspec.structs.replace(answer, content="x" * length, reasoning="我" * length)
        store.save(conversation, conversation.turns[0], whole)
        with contextlib.closing(Store(path)) as other:
            assert other.load(conversation.id).path() == [conversation.turns[0], whole]
            assert other.added(Conversation(conversation.id)) == (conversation.turns[0], whole)
        store.save(conversation, short := msgspec.structs.replace(whole, content="x", reasoning="y" * PIECE))
        assert said(path, conversation.id) == short

    async def test_of_an_answer_that_grows_only_what_is_new_is_written(self, path: Path, store: Store) -> None:
        conversation, answer = begun()
        keeper = Keeper(store, conversation)
        await keeper.keep(*conversation.turns)
        written: list[str] = []
        store._db.set_trace_callback(lambda sql: written.append(sql) if "INTO pieces" in sql else None)  # pyright: ignore[reportPrivateUsage]
        growth, whole = Growth(), ""
        for turn in range(40):
            growth.add(text := f"{turn:04}" * (PIECE // 10))
            whole += text
            written.clear()
            assert await keeper.keep(Grown(answer, growth)) is None
            assert len(written) <= 2, "the piece that was not full, and the next"
            assert said(path, conversation.id).content == whole
        assert len(whole) > 15 * PIECE
        done = msgspec.structs.replace(answer, content=whole, ending="stop")
        written.clear()
        await keeper.keep(conversation.replace(done))
        assert len(written) <= 1
        assert said(path, conversation.id) == done

    async def test_what_another_program_made_shorter_is_whole_at_the_end(self, path: Path, store: Store) -> None:
        conversation, answer = begun()
        keeper = Keeper(store, conversation)
        growth = Growth()
        growth.add("x" * (6 * PIECE))
        await keeper.keep(conversation.turns[0], Grown(answer, growth))
        with contextlib.closing(Store(path)) as other:
            other.save(conversation, msgspec.structs.replace(answer, content="x" * (3 * PIECE + 9), ending="cancelled"))
        assert said(path, conversation.id).content == "x" * (3 * PIECE + 9)
        growth.add("y")
        done = msgspec.structs.replace(answer, content=growth.text(), ending="stop")
        await keeper.keep(done)
        assert said(path, conversation.id) == done

    async def test_what_could_not_be_saved_is_saved_with_what_comes_next(self, path: Path, store: Store) -> None:
        conversation, answer = begun()
        keeper = Keeper(store, conversation)
        await keeper.keep(*conversation.turns)
        growth = Growth()
        growth.add("x" * (2 * PIECE))
        with contextlib.closing(Store(path)) as other:
            other._db.execute("BEGIN IMMEDIATE")  # pyright: ignore[reportPrivateUsage]
            store._db.execute("PRAGMA busy_timeout = 0")  # pyright: ignore[reportPrivateUsage]
            assert await keeper.keep(Grown(answer, growth)) is not None
            other._db.execute("ROLLBACK")  # pyright: ignore[reportPrivateUsage]
        growth.add("y" * (2 * PIECE))
        assert await keeper.keep(Grown(answer, growth)) is None
        assert said(path, conversation.id).content == growth.text()

    def test_a_removed_turn_takes_its_pieces_with_it(self, path: Path, store: Store) -> None:
        conversation, answer = begun("x" * (3 * PIECE))
        store.save(conversation, *conversation.turns)
        for turn in (answer, conversation.turns[0]):
            conversation.remove(turn)
        store.remove(conversation, answer, *conversation.turns)
        store.save(conversation)
        assert store.load(conversation.id).path() == []

    def test_the_third_version_is_read_and_goes_on(self, path: Path, store: Store) -> None:
        conversation, answer = begun()
        whole = msgspec.structs.replace(answer, content="x" * (3 * PIECE))
        store.save(conversation, conversation.turns[0], whole)
        db = store._db  # pyright: ignore[reportPrivateUsage]
        db.execute("UPDATE turns SET content = ? WHERE id = ?", (whole.content, answer.id))  # as it was kept before
        db.execute("DROP TABLE pieces")
        db.execute("PRAGMA user_version = 3")
        store.close()
        with contextlib.closing(Store(path)) as again:
            assert again.load(conversation.id).path()[-1] == whole
            again.save(conversation, longer := msgspec.structs.replace(whole, content=whole.content + "y"))
        assert said(path, conversation.id) == longer


class TestShown:
    def test_more_of_a_long_text_costs_as_little_as_the_first_of_it(self) -> None:
        log = log_of(Entry(key="a", role="assistant", text="", streaming=True))
        log.feed("a", "abcdefgh" * (20 * MB // 8))
        log.settle()
        tracemalloc.start()
        for _ in range(20):
            log.feed("a", "abcdefgh" * 100)
            log.settle()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * MB, "nothing of the length of the text is made"
        assert len(log.entries[0].text) == 20 * MB + 20 * 800

    def test_a_long_thought_too(self) -> None:
        log = log_of(Entry(key="a", role="assistant", title="m", text="", streaming=True))
        log.think("a", "why not " * (20 * MB // 8))
        log.settle()
        tracemalloc.start()
        for _ in range(20):
            log.think("a", "because " * 10)
            log.settle()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * MB
        assert "because" in log.rows_in_view()[-2].text

    def test_a_very_long_text_is_shown_at_its_end_without_rendering_the_rest(self) -> None:
        text = "a line of a log file\r\n" * (30 * MB // 22) + "the end"
        log = log_of(Entry(key="a", role="user", title="you", text=text))
        assert "the end" in "\n".join(row.text for row in log.rows_in_view())
        view = log.views[0]
        assert sum(part.rows is not None for part in view._parts) < 10  # pyright: ignore[reportPrivateUsage]
        log.to_start()
        log.settle()
        assert [row.text.strip() for row in log.rows_in_view()[1:4]] == ["▌ a line of a log file"] * 3

    def test_what_has_come_is_known_from_what_has_not(self) -> None:
        view = EntryView(Entry(key="a", role="assistant", text="", streaming=True), 40, log_of().look)
        for piece in ("one ", "two", ""):
            view.feed(piece)
        before = [id(view.rows(part)) for part in range(1, view.count - 1)]
        view.change({"footer": "still"})
        assert view.entry.text == "one two"
        view.change({"text": "one two"})
        assert view.entry.text == "one two"
        assert [id(view.rows(part)) for part in range(1, view.count - 1)] == before
        view.feed("!")
        assert view.entry.text == "one two!"
        for other in ("one", "one two! three", "one twice"):
            view.change({"text": other, "streaming": False})
            assert view.entry.text == other
            assert other in "\n".join(row.text for part in range(view.count) for row in view.rows(part))


def log_of(*entries: Entry) -> Log:
    log = Log()
    log.show(entries)
    log.resize(60, 20)
    log.settle()
    return log
