"""The left side: the model files, and below them what the loaded models hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical

from llama_tui.control import one_line
from llama_tui.errors import EngineError
from llama_tui.ui.widgets.loaded import LoadedPane
from llama_tui.ui.widgets.models import ModelList, ModelPane, ModelRow, model_row

if TYPE_CHECKING:
    from llama_tui.chat.workbench import Workbench
    from llama_tui.engine.devices import DeviceMemory
    from llama_tui.library.scan import ModelFile

_READOUT_SECONDS = 1
_DISCOVER_SECONDS = 3


class SidePane(Vertical):
    """Shows the engines and carries out what concerns an engine alone; which model to talk to is
    the screen's business."""

    def __init__(self, workbench: Callable[[], Workbench]) -> None:
        super().__init__(id="side")
        self._bench = workbench
        self._devices: list[DeviceMemory] = []
        self._silent: set[int] = set()
        self._shown = asyncio.Event()

    def compose(self) -> ComposeResult:
        """The list above the readout."""
        yield ModelPane()
        yield LoadedPane()

    @property
    def _workbench(self) -> Workbench:
        return self._bench()

    def begin(self) -> None:
        """Look for engines from now on, and at the devices as long as they are shown."""
        self._keep_looking()
        self._keep_reading()

    def on_show(self) -> None:
        """What stands here is read again."""
        self._shown.set()

    def on_hide(self) -> None:
        """Nobody looks: nothing is read."""
        self._shown.clear()

    @property
    def models(self) -> ModelList:
        """The list."""
        return self.query_one(ModelList)

    def rows(self) -> list[ModelRow]:
        """Every model file with its state."""
        workbench = self._workbench
        chosen = workbench.current.path if workbench.current else None
        return [model_row(file, workbench.engines_of(file), chosen) for file in workbench.files]

    def show(self, rows: Sequence[ModelRow]) -> None:
        """Show these rows, and the engines as they are now."""
        self.models.show(rows)
        self._show_loaded()

    def _show_loaded(self) -> None:
        if self.display:
            self.query_one(LoadedPane).show(self._workbench.engines, self._devices, self._workbench.engine)

    # Two loops, not timers with a worker for each tick: this is all that a program at rest does.

    @work(group="discover")
    async def _keep_looking(self) -> None:
        while True:
            await _next(_DISCOVER_SECONDS)
            await self._workbench.discover()
            silent = {engine.pid for engine in self._workbench.engines if not engine.responds}
            if silent != self._silent:
                # Nothing is said when an engine falls silent, so it is looked for.
                self._silent = silent
                self.show(self.rows())

    @work(group="readout")
    async def _keep_reading(self) -> None:
        while True:
            await self._shown.wait()
            self._devices = await asyncio.to_thread(self._workbench.machine.read)
            self._show_loaded()
            await _next(_READOUT_SECONDS)

    @on(ModelList.UnloadRequested)
    def _unload_requested(self, event: ModelList.UnloadRequested) -> None:
        event.stop()
        self.unload(event.file)

    @work(group="unload")
    async def unload(self, file: ModelFile) -> None:
        """Give a model's memory back."""
        await self._workbench.unload(file)

    @on(ModelList.KeepRequested)
    def _keep_requested(self, event: ModelList.KeepRequested) -> None:
        event.stop()
        self.keep(event.file)

    @work(group="keep")
    async def keep(self, file: ModelFile) -> None:
        """Pin a model's engines, or let them go again."""
        try:
            kept = await self._workbench.keep(file)
        except EngineError as error:
            self.notify(f"{error.message}\n{error.hint}", severity="warning", timeout=8)
            return
        said: dict[bool | None, str] = {
            True: "stays loaded until you unload it",
            False: "unloads itself again when it is unused",
        }
        name = one_line(file.name)
        self.notify(f"{name} {said.get(kept, 'is not loaded')}", timeout=4)

    @on(ModelList.RescanRequested)
    @work(group="scan", exclusive=True)
    async def rescan(self) -> None:
        """Read the model folders again."""
        await self._workbench.rescan()
        self.show(self.rows())
        self.notify(f"{len(self._workbench.files)} models", timeout=2)


async def _next(period: int) -> None:
    """Wait until the clock is at a multiple of so many seconds: whoever waits so wakes up together."""
    await asyncio.sleep(period - asyncio.get_running_loop().time() % period)
