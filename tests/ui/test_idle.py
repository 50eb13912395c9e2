"""A program that nobody uses does next to nothing, counted and not timed."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from textual.widgets import TextArea

from llama_tui.engine.devices import DeviceMemory
from llama_tui.paths import Paths
from llama_tui.settings.layers import Setting
from llama_tui.settings.store import SettingsStore
from llama_tui.ui.app import LlamaTui
from llama_tui.ui.widgets.loaded import LoadedPane
from tests.ui.program import FixedMachine, leave, until

SIZE = (120, 40)


class CountedMachine(FixedMachine):
    """Counts how often it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read(self) -> list[DeviceMemory]:
        """As before."""
        self.reads += 1
        return super().read()


class CountedSettings(SettingsStore):
    """Counts how often all settings are resolved."""

    resolved = 0

    def resolve(self, model: str | None = None) -> dict[str, Setting]:
        """As before."""
        self.resolved += 1
        return super().resolve(model)


async def test_nothing_is_read_for_a_pane_that_is_hidden(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, settings = CountedMachine(), SettingsStore(paths, os.environ, {})
    settings.load()
    app = LlamaTui(paths, settings, machine=machine)
    scans = 0
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: machine.reads > 1)
        scan = app.workbench.discover

        async def counted() -> None:
            nonlocal scans
            scans += 1
            await scan()

        monkeypatch.setattr(app.workbench, "discover", counted)
        await pilot.press("f2")
        await pilot.pause()
        hidden, before = machine.reads, scans
        await until(lambda: scans > before + 1)  # seconds, in which other programs' engines are still noticed
        assert machine.reads <= hidden + 1  # one may have been on its way
        await pilot.press("f2")
        shown = machine.reads
        await until(lambda: machine.reads > shown + 1)
        await leave(app)


async def test_devices_that_answer_slowly_are_shown_all_the_same(paths: Paths) -> None:
    class SlowMachine(CountedMachine):
        """Takes longer than the readout's second."""

        def read(self) -> list[DeviceMemory]:
            time.sleep(1.5)
            return super().read()

    machine, settings = SlowMachine(), SettingsStore(paths, os.environ, {})
    settings.load()
    app = LlamaTui(paths, settings, machine=machine)
    async with app.run_test(size=SIZE):
        loaded = app.main.query_one(LoadedPane)
        await until(lambda: "RAM" in str(loaded.render()))
        await leave(app)


async def test_an_engine_at_rest_costs_a_line_for_each_state(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = CountedSettings(paths, os.environ, {})
    settings.load()
    frames = 0
    display = LlamaTui._display

    def counted(app: LlamaTui, screen: Any, frame: Any) -> None:
        nonlocal frames
        frames += frame is not None
        display(app, screen, frame)

    app = LlamaTui(paths, settings, machine=FixedMachine())
    async with app.run_test(size=SIZE) as pilot:
        app.main.query_one(TextArea).cursor_blink = False
        await until(lambda: (engine := app.workbench.engine) and engine.condition == "ready")
        await until(lambda: not [worker for worker in app.main.workers if worker.group == "load"])
        await pilot.pause(0.3)  # the last of what the load has changed is painted
        engine = app.workbench.engine
        assert engine
        monkeypatch.setattr(LlamaTui, "_display", counted)
        states = [engine.state]
        resolved, frames = settings.resolved, 0

        def three_more() -> bool:
            if engine.state is not states[-1]:
                states.append(engine.state)
            return len(states) > 3

        await until(three_more)
        assert settings.resolved == resolved
        assert frames <= 2 * len(states)  # its time runs; its memory may differ
        assert app.main.side.display
        await leave(app)
