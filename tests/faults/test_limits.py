"""Memory that cannot be had, a clock that jumps, a template's process that dies or stands still."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Message, Started
from llama_tui.errors import EngineError, MissingLlamaCpp
from llama_tui.worker import renderer as renderer_module
from tests.engine.conftest import HELLO, PATIENCE, answered, collect, end_of, gone, load_params, until
from tests.ggufs import CHATML
from tests.unit.test_renderer import rendering


class TestMemory:
    @pytest.mark.parametrize(
        "kilobytes",
        [
            pytest.param(10_000, id="for Python itself"),
            pytest.param(40_000, id="for the engine's own modules"),
            pytest.param(150_000, id="for llama.cpp's libraries"),
            pytest.param(800_000, id="for the context"),
        ],
    )
    async def test_too_little_is_said_and_leaves_no_process(
        self, kilobytes: int, pool: Pool, tiny_model: Path, limited: Callable[[str], None]
    ) -> None:
        limited(f"-v {kilobytes}")
        with pytest.raises(EngineError) as caught:
            engine = await pool.acquire("tiny", tiny_model, load_params(n_ctx=2_097_152))
            await collect(engine.generate("g", HELLO, {}), 3 * PATIENCE)
        error = caught.value
        assert "tiny" in error.message
        assert error.hint
        if kilobytes > 10_000:
            assert not isinstance(error, MissingLlamaCpp), "it is installed"
            assert "emory" in error.message + error.hint or "GiB" in error.message
            assert "n_ctx" in error.hint
        await until(lambda: all(gone(engine.pid) for engine in pool.engines))

    async def test_the_log_holds_what_llama_cpp_said(
        self, pool: Pool, tiny_model: Path, limited: Callable[[str], None]
    ) -> None:
        limited("-v 800000")
        engine = await pool.acquire("tiny", tiny_model, load_params(n_ctx=2_097_152))
        await until(lambda: engine.condition == "failed", 3 * PATIENCE)
        assert engine.place.log.read_text()


async def test_a_clock_that_jumps_neither_ends_nor_keeps_an_engine(
    pool: Pool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look at the wall clock finds another year."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "years = itertools.cycle((0, 3e9, -1e9, 4e9))\n"
        "time.time = lambda now=time.time: now() + next(years)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    engine = await pool.acquire("tiny", tiny_model, load_params(idle_timeout=0.5, timeout=60.0))
    for _ in range(3):
        await answered(engine)
    end = end_of(await collect(engine.generate("g", HELLO, {"max_tokens": 40, "ignore_eos": True})))
    assert end.first_token_seconds is not None
    assert 0 <= end.first_token_seconds < 60
    assert 0 <= end.decode_seconds < 60
    await until(lambda: engine.condition == "unloaded")
    assert engine.end_reason == "idle"


class TestTemplateProcess:
    def child(self) -> psutil.Process:
        (found,) = (each for each in psutil.Process().children() if "llama_tui.worker.renderer" in each.cmdline())
        return found

    def test_killed_again_and_again_it_comes_back(self) -> None:
        """By the kernel, when memory runs out; that is not the template's fault."""
        with rendering(CHATML) as renderer:
            for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
                assert renderer.render(HELLO).template == "model"
                child = self.child()
                child.send_signal(number)
                child.wait()
                assert renderer.render(HELLO).notice == ""

    @pytest.mark.parametrize("size", [10, 3_000_000], ids=["waiting for it", "writing to it"])
    def test_one_that_stands_still_is_replaced(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(renderer_module, "_WALL_SECONDS", 0.3)
        with rendering(CHATML) as renderer:
            child = self.child()
            child.suspend()
            prompt = renderer.render((Message("user", "z" * size),))
            assert prompt.template == "fallback"
            assert "was stopped" in prompt.notice
            assert len(prompt.text) > size
            assert not child.is_running()

    def test_a_long_conversation_passes_through(self) -> None:
        with rendering(CHATML) as renderer:
            prompt = renderer.render((Message("user", "é" * 3_000_000),))
            assert prompt.notice == ""
            assert prompt.text.count("é") == 3_000_000

    def test_none_to_be_had(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(12, "Cannot allocate memory")

        with monkeypatch.context() as lack:
            lack.setattr(renderer_module.subprocess, "Popen", refuse)
            with rendering(CHATML) as renderer:
                prompt = renderer.render(HELLO)
                assert prompt.template == "fallback"
                assert "Cannot allocate memory" in prompt.notice
                lack.undo()
                assert renderer.render(HELLO).template == "model"

    async def test_an_engine_goes_on_without_it(self, pool: Pool, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params())
        await answered(engine)
        for _ in range(2):
            (child,) = psutil.Process(engine.pid).children()
            child.kill()
            events = await collect(engine.generate(os.urandom(4).hex(), HELLO, {"max_tokens": 2}))
            started = next(event for event in events if isinstance(event, Started))
            assert (started.template, started.notice) == ("model", "")
