"""The model switcher: type a few letters, enter loads, one key unloads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from llama_tui.library.scan import ModelFile
from llama_tui.ui.bindings import KeyTable
from llama_tui.ui.screens.overlay import Overlay
from llama_tui.ui.widgets.models import ModelFilter, ModelList, ModelRow


class ModelSwitcher(Overlay[ModelFile | None]):
    """Answers with the chosen file, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss_none", "close", id="switcher.close"),
        Binding("ctrl+u", "unload", "unload", id="switcher.unload", priority=True),
    ]

    def __init__(
        self, rows: Sequence[ModelRow], unload: Callable[[ModelFile], object], keys: KeyTable, letters: str = ""
    ) -> None:
        super().__init__()
        self._letters = letters
        self._help = f"enter load · {keys.said('switcher.unload', 'switcher.close')}"
        self._rows = rows
        self._unload = unload

    def compose(self) -> ComposeResult:
        """A filter, the list, the keys."""
        with Vertical(classes="overlay") as box:
            box.border_title = "Switch model"
            models = ModelList()
            yield ModelFilter(models, self._letters)
            yield models
            yield Static(self._help, classes="keys", markup=False)

    def on_mount(self) -> None:
        """Letters go to the filter."""
        self.query_one(ModelFilter).focus()
        self._show()

    def show(self, rows: Sequence[ModelRow]) -> None:
        """Show the states as they are now, or keep them until the list is there: a screen is on the
        stack before its widgets are, and engines tell of themselves at any time."""
        self._rows = rows
        if self.query(ModelList):
            self._show()

    def _show(self) -> None:
        self.query_one(ModelList).show(self._rows)
        if not self._rows:
            self.query_one(".keys", Static).update(f"No models found: set model_dir in config.toml\n{self._help}")

    @on(ModelList.Chosen)
    def _chosen(self, event: ModelList.Chosen) -> None:
        event.stop()
        self.dismiss(event.file)

    @on(ModelFilter.Left)
    def action_dismiss_none(self) -> None:
        """Choose nothing."""
        self.dismiss(None)

    @on(ModelList.UnloadRequested)
    def action_unload(self) -> None:
        """Give back the memory of the model under the cursor."""
        if file := self.query_one(ModelList).highlighted_file:
            self._unload(file)
