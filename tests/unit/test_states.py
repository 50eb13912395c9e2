"""The folder of saved KV states: what is found again, what is refused, what is removed, by several at once."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_tui.worker.state import MIN_TOKENS, SavedState, StateFolder, StateUnusable

MODEL = "/models/a.gguf"
BASE = list(range(MIN_TOKENS))
DATA = bytearray(os.urandom(100_000))


def never() -> bool:
    return False


def plain(_saved: int, common: int) -> int:
    """What a model with ordinary attention can use of a state."""
    return common


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "kv"


@pytest.fixture
def folder(path: Path) -> StateFolder:
    return StateFolder(path, 10_000_000, MODEL, "f16")


def put(folder: StateFolder, *tail: int, data: bytearray = DATA) -> list[int]:
    tokens = BASE + list(tail)
    folder.write(tokens, data, 1.0, never)
    return tokens


def files(path: Path) -> list[Path]:
    return sorted(path.iterdir())


class TestFinding:
    def test_gives_back_what_was_written(self, folder: StateFolder) -> None:
        tokens = put(folder, 7, 8, 9)
        found = folder.find([*tokens, 10], plain)
        assert found
        assert (found.tokens, found.reusable, found.seconds) == (tokens, len(tokens), 1.0)
        assert folder.read(found, never) == DATA
        assert folder.read(found, lambda: True) is None

    def test_the_one_that_spares_most(self, folder: StateFolder) -> None:
        put(folder, 1, 2, 3)
        put(folder, 1, 2, 9, 9, 9, 9)
        best = put(folder, 1, 4, 5, 6)
        found = folder.find([*BASE, 1, 4, 5, 0, 0], plain)
        assert found
        assert (found.tokens, found.reusable) == (best, MIN_TOKENS + 3)

    def test_the_model_says_what_it_can_use(self, folder: StateFolder) -> None:
        whole = put(folder, 1, 2)
        put(folder, 1, 3, 4)
        found = folder.find([*BASE, 1, 3, 9], lambda saved, common: saved if common == saved else 0)
        assert found is None
        found = folder.find([*whole, 9], lambda saved, common: saved if common == saved else 0)
        assert found
        assert found.tokens == whole

    def test_nothing_for_another_beginning_or_a_short_prompt(self, folder: StateFolder) -> None:
        tokens = put(folder, 1)
        assert folder.find([*BASE[:-1], 9999, 1], plain) is None
        assert folder.find(tokens[:MIN_TOKENS], plain) is None

    def test_nothing_of_other_models_or_parameters(self, folder: StateFolder, path: Path) -> None:
        tokens = put(folder, 1)
        for model, identity in ((MODEL, "q8_0"), ("/models/b.gguf", "f16")):
            assert StateFolder(path, 10_000_000, model, identity).find([*tokens, 2], plain) is None
        assert StateFolder(path, 10_000_000, MODEL, "f16").find([*tokens, 2], plain)

    def test_a_longer_one_takes_the_place_of_its_beginning(self, folder: StateFolder, path: Path) -> None:
        put(folder, 1)
        put(folder, 2)
        longer = put(folder, 1, 5)
        assert len(files(path)) == 2
        found = folder.find([*longer, 0], plain)
        assert found
        assert found.tokens == longer


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda raw: raw[: len(raw) // 2],
            lambda raw: raw[:-1],
            lambda raw: raw + b"\0",
            lambda raw: b"",
            lambda raw: raw[:10],
            lambda raw: b"GGUF" + raw[4:],
            lambda raw: bytes(len(raw)),
            lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:],
            lambda raw: raw[:600] + bytes([raw[600] ^ 1]) + raw[601:],
            lambda raw: raw[:8] + b"\xff\xff\xff\xff" + raw[12:],
        ],
        ids=["half", "short", "long", "empty", "stub", "foreign", "zeros", "header", "tokens", "length"],
    )
    def test_of_the_header_is_no_state(
        self, folder: StateFolder, path: Path, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
    ) -> None:
        tokens = put(folder, 1)
        [file] = files(path)
        file.write_bytes(damage(file.read_bytes()))
        assert folder.find([*tokens, 2], plain) is None
        assert not files(path)
        assert "removed" in capfd.readouterr().out

    def test_of_the_state_is_noticed_before_it_is_used(self, folder: StateFolder, path: Path) -> None:
        tokens = put(folder, 1)
        [file] = files(path)
        raw = bytearray(file.read_bytes())
        raw[-500] ^= 1
        file.write_bytes(raw)
        found = folder.find([*tokens, 2], plain)
        assert found
        with pytest.raises(StateUnusable, match="damaged"):
            folder.read(found, never)
        assert not files(path)

    def test_one_that_is_cut_after_it_was_found(self, folder: StateFolder, path: Path) -> None:
        tokens = put(folder, 1)
        found = folder.find([*tokens, 2], plain)
        assert found
        os.truncate(found.path, 5000)
        with pytest.raises(StateUnusable, match="damaged"):
            folder.read(found, never)

    def test_one_that_vanishes(self, folder: StateFolder) -> None:
        tokens = put(folder, 1)
        found = folder.find([*tokens, 2], plain)
        assert found
        found.path.unlink()
        with pytest.raises(OSError):
            folder.read(found, never)


class TestWriting:
    def test_for_nobody_elses_eyes(self, folder: StateFolder, path: Path) -> None:
        before = os.umask(0)
        try:
            put(folder, 1)
            StateFolder(path.parent / "open", 1, MODEL, "")
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o700
        assert (path.parent / "open").stat().st_mode & 0o777 == 0o700
        assert [file.stat().st_mode & 0o777 for file in files(path)] == [0o600]

    def test_a_disk_that_takes_no_more_leaves_nothing_half(self, folder: StateFolder, path: Path) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            with pytest.raises(OSError):
                put(folder, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert not files(path)

    def test_stops_when_told_and_leaves_nothing_half(self, folder: StateFolder, path: Path) -> None:
        asked = iter((False, False, True))
        with pytest.raises(StateUnusable, match="too long"):
            folder.write(BASE, DATA, 1.0, lambda: next(asked))
        assert not files(path)

    def test_a_folder_that_is_a_file(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_text("")
        with pytest.raises(OSError):
            StateFolder(path, 1, MODEL, "")

    def test_what_dead_writers_left_is_removed(self, folder: StateFolder, path: Path) -> None:
        put(folder, 1)
        [file] = files(path)
        dead, alive = (path / f"{name}-{file.name}.tmp" for name in ("dead", "alive"))
        for temporary in (dead, alive):
            temporary.write_bytes(b"half")
        os.utime(dead, (time.time() - 3600, time.time() - 3600))
        put(folder, 2)
        assert alive.exists()
        assert not dead.exists()

    def test_forgetting_a_model_leaves_the_others(self, folder: StateFolder, path: Path) -> None:
        put(folder, 1)
        put(StateFolder(path, 10_000_000, MODEL, "q8_0"), 1)
        other = StateFolder(path, 10_000_000, "/models/b.gguf", "f16")
        tokens = put(other, 1)
        folder.forget()
        assert len(files(path)) == 1
        assert other.find([*tokens, 2], plain)


class TestBound:
    def test_the_least_recently_used_go_first(self, path: Path) -> None:
        folder = StateFolder(path, 350_000, MODEL, "f16")

        def found(number: int) -> SavedState | None:
            return folder.find([*BASE, number, 9], lambda saved, common: saved if common == saved else 0)

        for number in range(3):
            put(folder, number)
            state = found(number)
            assert state
            os.utime(state.path, (1000.0 + number, 1000.0 + number))
        oldest = found(0)
        assert oldest
        folder.touch(oldest)
        put(folder, 3)
        assert [number for number in range(4) if found(number)] == [0, 2, 3]
        assert sum(file.stat().st_size for file in files(path)) <= 350_000

    def test_holds_for_all_models_together(self, path: Path) -> None:
        for model in ("/a", "/b", "/c", "/d"):
            put(StateFolder(path, 250_000, model, ""), 1)
            assert sum(file.stat().st_size for file in files(path)) <= 250_000
        assert len(files(path)) == 2

    def test_one_that_is_too_large_is_refused_and_costs_the_others_nothing(self, path: Path) -> None:
        folder = StateFolder(path, 150_000, MODEL, "")
        put(folder, 1)
        with pytest.raises(StateUnusable, match="kv_state_size"):
            put(folder, 2, data=DATA * 2)
        assert len(files(path)) == 1

    def test_other_peoples_files_are_left_alone(self, folder: StateFolder, path: Path) -> None:
        (path / "notes.txt").write_text("mine")
        put(StateFolder(path, 110_000, MODEL, ""), 1)
        put(StateFolder(path, 110_000, MODEL, ""), 2)
        assert (path / "notes.txt").read_text() == "mine"
        assert len(files(path)) == 2

    def test_with_many_writers_and_readers_at_once(self, path: Path) -> None:
        limit = 450_000
        wrong: list[object] = []

        def work(number: int) -> None:
            folder = StateFolder(path, limit, MODEL, "f16")
            data = bytearray([number]) * 100_000
            for round_ in range(10):
                try:
                    folder.write([*BASE, number, round_], data, 1.0, never)
                    if (found := folder.find([*BASE, number, round_, 0], plain)) and found.tokens[-2] == number:
                        read = folder.read(found, never)
                        if read != data:
                            wrong.append((number, round_))
                except OSError:
                    pass  # removed by another between finding and reading
                except BaseException as error:
                    wrong.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert files(path)
        assert all(file.suffix == ".kv" for file in files(path))
        assert sum(file.stat().st_size for file in files(path)) <= limit
