"""Where an engine listens and logs, and what is said of one that died."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from llama_tui.engine.install import install_hint
from llama_tui.engine.logs import log_tail, note_death, noted_death, open_log, read_log
from llama_tui.engine.post_mortem import post_mortem
from llama_tui.engine.process import engine_place, remove_stale
from llama_tui.errors import LlamaTuiError
from llama_tui.paths import SOCKET_PATH_LIMIT, Paths
from llama_tui.settings.params import PARAMS, defaults
from llama_tui.settings.values import Value

PARAMETERS = defaults("load")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


class TestPlace:
    def test_same_file_and_parameters_same_place(self, paths: Paths, model: Path) -> None:
        assert engine_place(paths, model, PARAMETERS) == engine_place(paths, model, dict(reversed(PARAMETERS.items())))

    def test_however_the_file_is_named(
        self, paths: Paths, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = tmp_path / "link.gguf"
        link.symlink_to(model)
        monkeypatch.chdir(tmp_path)
        sockets = {engine_place(paths, name, PARAMETERS).socket for name in (model, link, Path("model.gguf"))}
        assert len(sockets) == 1
        assert engine_place(paths, Path("model.gguf"), PARAMETERS).model.is_absolute()

    def test_a_default_that_is_left_out_changes_nothing(self, paths: Paths, model: Path) -> None:
        assert engine_place(paths, model, {}).socket == engine_place(paths, model, PARAMETERS).socket

    @pytest.mark.parametrize(
        ("change", "same"),
        [
            ({"n_ctx": 4096}, False),
            ({"type_k": "q8_0"}, False),
            ({"tensor_split": (1.0, 2.0)}, False),
            ({"idle_timeout": 1.0}, True),
            ({"timeout": 1.0}, True),
            ({"temperature": 0.1}, True),
        ],
    )
    def test_only_what_needs_a_reload_makes_another(
        self, paths: Paths, model: Path, change: dict[str, Value], same: bool
    ) -> None:
        place, other = engine_place(paths, model, PARAMETERS), engine_place(paths, model, PARAMETERS | change)
        assert (place.socket == other.socket) is same

    def test_every_load_parameter_that_needs_a_reload_is_part_of_it(self, paths: Paths, model: Path) -> None:
        sockets = {engine_place(paths, model, PARAMETERS).socket}
        reload = [param for param in PARAMS if param.reload]
        for param in reload:
            value: Value = {"bool": not param.default, "choice": "x", "floats": (3.0,)}.get(param.type, 77)
            sockets.add(engine_place(paths, model, PARAMETERS | {param.name: value}).socket)
        assert len(sockets) == len(reload) + 1

    def test_a_replaced_file_is_another(self, paths: Paths, model: Path) -> None:
        before = engine_place(paths, model, PARAMETERS).socket
        os.utime(model, ns=(1, 1))
        touched = engine_place(paths, model, PARAMETERS).socket
        model.write_bytes(b"GGUF2")
        os.utime(model, ns=(1, 1))
        assert len({before, touched, engine_place(paths, model, PARAMETERS).socket}) == 3

    def test_a_file_that_is_gone(self, paths: Paths, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            engine_place(paths, tmp_path / "none.gguf", PARAMETERS)

    def test_a_runtime_folder_that_is_too_deep(self, paths: Paths, model: Path, tmp_path: Path) -> None:
        deep = Paths(paths.config, paths.data, paths.state, tmp_path / ("x" * 90), paths.cache)
        with pytest.raises(LlamaTuiError, match="too long") as caught:
            engine_place(deep, model, PARAMETERS)
        assert str(SOCKET_PATH_LIMIT) in caught.value.hint
        assert "XDG_RUNTIME_DIR" in caught.value.hint

    def test_the_log_is_named_after_the_model(self, paths: Paths, tmp_path: Path) -> None:
        long = tmp_path / ("m" * 200 + ".gguf")
        long.touch()
        place = engine_place(paths, long, PARAMETERS)
        assert place.log.name.startswith("mmmm")
        assert len(place.log.name) < 120
        assert place.log.parent == paths.logs


class TestPostMortem:
    @pytest.mark.parametrize(
        ("exit_code", "words"),
        [
            (-signal.SIGKILL, "was killed (SIGKILL)"),
            (-signal.SIGSEGV, "crashed: invalid memory access (SIGSEGV)"),
            (-signal.SIGABRT, "gave up on an internal check (SIGABRT)"),
            (-signal.SIGBUS, "lost a part of its model file (SIGBUS)"),
            (-signal.SIGTERM, "was asked to end (SIGTERM)"),
            (-signal.SIGFPE, "was ended (SIGFPE)"),
            (-99, "was ended by signal 99"),
            (3, "ended with exit code 3"),
            (None, "ended without a word"),
        ],
    )
    def test_says_how_it_ended_and_while_doing_what(self, log: Path, exit_code: int | None, words: str) -> None:
        died = post_mortem("tiny", "generating", exit_code, log)
        assert died.message == f"The engine of tiny {words} while generating."
        assert died.hint

    def test_a_kill_may_have_been_the_kernels(self, log: Path) -> None:
        assert "memory" in post_mortem("tiny", "loading", -signal.SIGKILL, log).hint

    @pytest.mark.parametrize(
        ("printed", "said", "advice"),
        [
            (
                "x\n/src/ggml.c:12: GGML_ASSERT(a->ne[0] == b) failed\nmore\n",
                "GGML_ASSERT(a->ne[0] == b) failed",
                "GPU",
            ),
            (
                "GGML_ASSERT(buffer) failed\ncudaMalloc failed: out of memory\n",
                "GGML_ASSERT(buffer) failed",
                "Memory ran out",
            ),
            ("alloc: cudaMalloc failed: out of memory\n", "cudaMalloc failed: out of memory", "Memory ran out"),
            ("terminate called\n  what():  std::bad_alloc\n", "what():  std::bad_alloc", "Memory ran out"),
            ("CUDA error: an illegal memory access\n", "CUDA error: an illegal memory access", "GPU"),
        ],
    )
    def test_names_the_check_that_failed_and_what_to_try(self, log: Path, printed: str, said: str, advice: str) -> None:
        log.write_text(printed)
        died = post_mortem("tiny", "generating", -signal.SIGABRT, log)
        assert died.message.endswith(said)
        assert advice in died.hint

    def test_what_to_try_depends_on_the_signal(self, log: Path) -> None:
        hints = {number: post_mortem("tiny", "idle", -number, log).hint for number in (4, 7, 9, 11)}
        assert "built for another processor" in hints[4]
        assert "cut short" in hints[7]
        assert len(set(hints.values())) == 4

    def test_stands_below_the_last_words_for_whoever_asks_later(self, log: Path) -> None:
        with open_log(log) as file:
            file.write(b"GGML_ASSERT(x) failed")
        died = post_mortem("tiny", "generating", -signal.SIGABRT, log)
        note_death(log, died)
        again = noted_death(log)
        assert again
        assert (again.message, again.hint, again.log) == (died.message, died.hint, died.log)
        open_log(log).close()
        assert noted_death(log) is None, "the engine that starts now is another"

    def test_holds_the_last_words(self, log: Path) -> None:
        log.write_text("one\ntwo\n")
        assert post_mortem("tiny", "loading", 1, log).log == ("one", "two")


class TestLogTail:
    def test_the_last_lines_without_blank_ones(self, log: Path) -> None:
        log.write_text("".join(f"line {number}  \n\n" for number in range(100)))
        assert log_tail(log) == tuple(f"line {number}" for number in range(92, 100))

    def test_only_the_end_of_a_long_one_is_read(self, log: Path) -> None:
        log.write_bytes(b"x" * 5_000_000 + b"\nlast\n")
        tail = log_tail(log)
        assert tail[-1] == "last"
        assert sum(map(len, tail)) < 20_000

    def test_pythons_own_account_is_left_out(self, log: Path) -> None:
        log.write_text("GGML_ASSERT(x) failed\nFatal Python error: Aborted\n\nThread 0x1:\n  File x\n")
        assert log_tail(log) == ("GGML_ASSERT(x) failed",)

    def test_an_earlier_engines_crash_is_not_this_ones(self, log: Path) -> None:
        for words in (b"first\nFatal Python error: Aborted\n", b"second\n"):
            with open_log(log) as file:
                file.write(words)
        assert log_tail(log) == ("second",)

    def test_bytes_that_are_no_text(self, log: Path) -> None:
        log.write_bytes(b"a\xff\n")
        assert log_tail(log) == ("a\ufffd",)

    def test_no_log(self, log: Path) -> None:
        assert log_tail(log) == ()


class TestReadLog:
    def test_goes_on_where_it_ended_with_whole_lines(self, log: Path) -> None:
        log.write_text("one\ntwo\nthr")
        part = read_log(log)
        assert part.lines == ("one", "two")
        with log.open("a") as file:
            file.write("ee\nfour\n")
        part = read_log(log, part.end)
        assert part.lines == ("three", "four")
        assert read_log(log, part.end).lines == ()

    def test_of_a_long_one_only_the_end_and_of_a_new_one_everything(self, log: Path) -> None:
        log.write_text("".join(f"line {number:06}\n" for number in range(50_000)))
        part = read_log(log)
        assert part.lines[-1] == "line 049999"
        assert 10_000 < len(part.lines) < 40_000
        assert all(len(line) == 11 for line in part.lines)
        log.write_text("put aside\n")
        assert read_log(log, part.end).lines == ("put aside",)


class TestRotation:
    def open(self, log: Path) -> None:
        open_log(log).close()

    def test_a_small_log_is_continued(self, log: Path) -> None:
        log.write_text("before\n")
        self.open(log)
        assert log.read_text().startswith("before\n")
        assert not log.with_suffix(".log.1").exists()

    def test_a_large_one_moves_aside_and_the_oldest_goes(self, log: Path) -> None:
        for generation in "abc":
            log.write_text(generation * 1_100_000)
            self.open(log)
        kept = {path.name: path.read_text()[:1] for path in log.parent.glob("engine.log*")}
        assert kept == {"engine.log": "\n", "engine.log.1": "c", "engine.log.2": "b"}


class TestStale:
    async def test_a_socket_that_nobody_serves_is_removed(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.mktemp("s") / "x.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        await remove_stale(path)
        assert not path.exists()

    async def test_one_that_is_served_stays(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.mktemp("s") / "x.sock"
        with socket.socket(socket.AF_UNIX) as served:
            served.bind(str(path))
            served.listen(1)
            await remove_stale(path)
            assert path.exists()

    async def test_so_does_one_that_is_too_busy_to_answer(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.mktemp("s") / "x.sock"
        with socket.socket(socket.AF_UNIX) as served:
            served.bind(str(path))
            served.listen(0)
            with socket.socket(socket.AF_UNIX) as first:
                first.connect(str(path))
                await remove_stale(path)
                assert path.exists()


class TestInstallHint:
    @pytest.mark.parametrize("flag", ["-DGGML_CUDA=on", "-DGGML_METAL=on", "-DGGML_HIP=on", "-DGGML_VULKAN=on"])
    def test_holds_todays_flags(self, flag: str) -> None:
        assert f'CMAKE_ARGS="{flag}" pip install' in install_hint()

    def test_holds_none_of_the_old_ones(self) -> None:
        assert "LLAMA_" not in install_hint()
        assert "CUBLAS" not in install_hint()

    def test_works_for_a_cpu_too(self) -> None:
        assert any("CPU" in line and "CMAKE_ARGS" not in line for line in install_hint().splitlines())
