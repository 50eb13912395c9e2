"""What the screen does about a model that does not fit, and about a GPU that is not used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from llama_tui.engine.devices import DeviceMemory
from llama_tui.errors import NoRoom, Offer, Shortage
from llama_tui.paths import Paths
from llama_tui.ui.app import LlamaTui
from llama_tui.ui.screens.room import RoomScreen
from llama_tui.ui.widgets.loaded import LoadedPane
from llama_tui.ui.widgets.status import StatusLine
from tests.ui.program import GIB, FixedMachine, leave, program, until
from tests.ui.scripted import ScriptedEngine
from tests.ui.test_main import log
from tests.ui.test_screens import SIZES, Snap, settled

MIB = 2**20


class TightMachine(FixedMachine):
    """Little RAM is free."""

    def read(self) -> list[DeviceMemory]:
        return [DeviceMemory("RAM", "RAM", 24 * GIB, 24 * GIB - 320 * MIB)]


class GpuBuild(FixedMachine):
    """A build that could use the GPU that is there, which llama.cpp here cannot."""

    def backends(self) -> tuple[str, ...]:
        return ("cuda",)

    def read(self) -> list[DeviceMemory]:
        # A full one: "auto" comes to none of the layers, which this machine's llama.cpp can do.
        return [DeviceMemory("RAM", "RAM", 24 * GIB, 9 * GIB), DeviceMemory("CUDA0", "GPU0", 80 * GIB, 80 * GIB)]


class SlowMachine(FixedMachine):
    """A driver that does not answer before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def read(self) -> list[DeviceMemory]:
        self.go_on.wait(30)
        return super().read()


@pytest.fixture
def large_context(paths: Paths) -> None:
    """The user's own file asks for more than there is room for."""
    paths.config_file.parent.mkdir(parents=True)
    paths.config_file.write_text("n_ctx = 65536\n")


def asked(app: LlamaTui) -> bool:
    return isinstance(app.screen, RoomScreen) and bool(app.screen.query(OptionList))


def said(app: LlamaTui) -> str:
    """The status line."""
    lines = app.main.query(StatusLine)
    return lines.first().status.doing if lines else ""


class TestOverlay:
    async def test_enter_takes_an_offer_saves_it_and_loads(
        self, paths: Paths, large_context: None, tmp_path: Path
    ) -> None:
        app = program(paths, models=tmp_path, machine=TightMachine())
        async with app.run_test(size=(80, 24)) as pilot:
            await until(lambda: asked(app))
            await pilot.press("down", "enter")
            await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
            engine = app.workbench.engine
            assert engine
            assert engine.spec.params["type_k"] == engine.spec.params["type_v"] == "q8_0"
            assert engine.spec.params["n_ctx"] == 65536
            assert app.workbench.resolved()["type_k"].origin == "saved"
            assert not app.workbench.reload_pending
            app.main.show_engines()
            await until(lambda: "planned" in str(app.main.query_one(LoadedPane).render()))
            await leave(app)

    async def test_esc_loads_nothing_and_the_log_says_what_would_fit(
        self, paths: Paths, large_context: None, tmp_path: Path
    ) -> None:
        app = program(paths, models=tmp_path, machine=TightMachine())
        async with app.run_test() as pilot:
            await until(lambda: asked(app))
            await pilot.press("escape")
            await until(lambda: "too little" in log(app))
            assert "n_ctx = " in log(app)
            assert app.workbench.engines == ()
            # Asking the model asks again, and the answer says why there is none.
            await pilot.press(*"hello", "enter")
            await until(lambda: asked(app))
            await pilot.press("escape")
            await until(lambda: app.workbench.session.answering is None and app.workbench.conversation.path())
            trouble = app.workbench.conversation.path()[-1].trouble
            assert trouble
            assert "too little" in trouble.message
            await leave(app)

    async def test_esc_while_room_is_looked_for(self, paths: Paths, tmp_path: Path) -> None:
        machine = SlowMachine()
        app = program(paths, models=tmp_path, machine=machine)
        try:
            async with app.run_test() as pilot:
                await until(lambda: "looking for room" in said(app))
                await pilot.press("escape")
                await until(lambda: "looking for room" not in said(app))
                machine.go_on.set()
                assert app.workbench.engines == ()
                await pilot.press("f5")
                await until(lambda: app.workbench.engine and app.workbench.engine.condition == "ready")
                await leave(app)
        finally:
            machine.go_on.set()

    @pytest.mark.parametrize("size", [*SIZES, (60, 18)])
    def test_looks(
        self, snap_compare: Snap, paths: Paths, guide_model: Path, tmp_path: Path, size: tuple[int, int]
    ) -> None:
        error = NoRoom(
            "qwen3-8b-q4_k_m does not fit with n_ctx = 32,768: it needs 9.8G of RAM and 7.1G are free, 2.7G too little "
            "(weights 4.7G, KV cache 4.5G, compute 0.4G)",
            (Shortage("RAM", 10 * GIB, 7 * GIB),),
            (
                Offer("n_ctx = 12,544 in place of 32,768", {"n_ctx": 12544}),
                Offer("type_k = type_v = q8_0, with a KV cache of 2.4G", {"type_k": "q8_0", "type_v": "q8_0"}),
                Offer("unload llama-[bold]3 (4711), unused for 12 min", {}, (4711,), ("llama-[bold]3",)),
            ),
        )

        async def run(pilot: Pilot[Any]) -> None:
            app = await settled(pilot)
            app.push_screen(RoomScreen(error, app.keys))
            await pilot.pause()

        with ScriptedEngine(paths, guide_model):
            assert snap_compare(program(paths, models=tmp_path), terminal_size=size, run_before=run)


class TestGpu:
    async def test_one_that_is_not_used_is_told_of_once_and_one_key_uses_it(
        self, paths: Paths, tiny_model: Path
    ) -> None:
        app = program(paths, str(tiny_model), machine=GpuBuild())
        async with app.run_test(size=(120, 40)) as pilot:
            await until(lambda: "GPU0 is there" in log(app))
            assert "^g" in log(app)
            await loaded(app, lambda value: value == 0)
            await pilot.press("ctrl+g")
            await loaded(app, lambda value: value is None)
            assert app.workbench.resolved()["n_gpu_layers"].origin == "saved"
            app.main.show_engines()
            await until(lambda: "auto: 0 of 3" in str(app.main.query_one(LoadedPane).render()))
            assert log(app).count("GPU0 is there") == 1
            await leave(app)

    async def test_layers_that_were_set_for_none_are_told_of_once_an_engine(
        self, paths: Paths, tiny_model: Path
    ) -> None:
        app = program(paths, str(tiny_model), flags={"n_gpu_layers": 32})
        async with app.run_test(size=(120, 40)) as pilot:
            await until(lambda: "n_gpu_layers = 32 does nothing" in log(app))
            await pilot.press("f5")
            await loaded(app, lambda value: value == 32)
            assert log(app).count("does nothing") == 1
            await leave(app)

    async def test_a_build_without_one_says_so(self, paths: Paths, tiny_model: Path) -> None:
        app = program(paths, str(tiny_model))
        async with app.run_test(size=(120, 40)) as pilot:
            await loaded(app, lambda value: value == 0)
            assert "is there" not in log(app)
            await pilot.press("ctrl+g")
            await until(lambda: "without GPU support" in log(app))
            await loaded(app, lambda value: value is None)
            await leave(app)


async def loaded(app: LlamaTui, layers: Callable[[object], bool]) -> None:
    """Wait for an engine that was started with such an n_gpu_layers."""
    await until(
        lambda: (
            (engine := app.workbench.engine)
            and engine.condition == "ready"
            and layers(engine.spec.params["n_gpu_layers"])
        )
    )
