"""The list of model files, and how each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from llama_tui.control import one_line
from llama_tui.library.units import short_count, short_size
from llama_tui.ui.text import column, fit
from llama_tui.ui.widgets.filter import Filter, matches

if TYPE_CHECKING:
    from llama_tui.engine.engine import Condition, Engine
    from llama_tui.library.scan import ModelFile

MARKS: dict[Condition, tuple[str, str]] = {
    "ready": ("●", "$success"),
    "busy": ("▶", "$accent"),
    "loading": ("◐", "$warning"),
    "failed": ("✗", "$error"),
    "died": ("✗", "$error"),
    "unloaded": (" ", ""),
}

_SILENT_MARK = ("?", "$warning")


class ModelRow(Struct, frozen=True):
    """A file with what its engines do; the most telling one of several speaks for all. It is `silent` where
    that one does not respond."""

    file: ModelFile
    condition: Condition = "unloaded"
    progress: float | None = None
    current: bool = False
    silent: bool = False


def model_row(file: ModelFile, engines: Sequence[Engine], current: Path | None) -> ModelRow:
    """The row of a file."""
    order: list[Condition] = ["busy", "loading", "ready", "died", "failed", "unloaded"]
    told = min(engines, key=lambda engine: order.index(engine.condition), default=None)
    progress = told.state.progress if told and told.state else None
    silent = bool(told and not told.responds)
    return ModelRow(file, told.condition if told else "unloaded", progress, file.path == current, silent)


def row_content(row: ModelRow, width: int) -> Content:
    """Two lines: name and state, then parameters, quantization and size in columns."""
    file = row.file
    mark, style = MARKS[row.condition]
    if row.silent:
        mark, style = _SILENT_MARK
    elif row.condition == "loading":
        mark = "◐ …" if row.progress is None else f"◐ {row.progress:>4.0%}"
    name = one_line(file.name)
    room = max(4, width - len(mark) - 3)
    # The end of a name tells more: it holds the size and the quantization.
    name = column(name, room, head=room // 3)
    here = ("▸ ", "$accent") if row.current else ("  ", "")
    first = Content.assemble(here, (name, "bold" if row.current else ""), " ", (mark, style))
    if file.problem:
        problem = file.problem.removeprefix(f"{file.path} ")
        second = Content.styled(fit("  ✗ " + one_line(problem), width), "$error")
    else:
        figures = f"  {short_count(file.n_params):>6}  {file.quantization or '?':<8} {short_size(file.size_bytes):>6}"
        second = Content.styled(figures, "$text-muted")
    return Content("\n").join([first, second])


class ModelList(OptionList, inherit_bindings=True):
    """The rows, kept in place while their states change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "load the model", id="models.load"),
        Binding("u", "unload", "unload the model", id="models.unload"),
        Binding("k", "keep", "keep it loaded, or let it go", id="models.keep_this"),
        Binding("slash", "filter", "filter the list", id="models.filter"),
        Binding("r", "rescan", "read the folders again", id="models.rescan"),
    ]

    @dataclass
    class Chosen(Message):
        """The user wants to talk to this model."""

        file: ModelFile

    @dataclass
    class UnloadRequested(Message):
        """The user wants this model's memory back."""

        file: ModelFile

    @dataclass
    class KeepRequested(Message):
        """The user wants this model to stay loaded, or to unload itself again."""

        file: ModelFile

    class RescanRequested(Message):
        """The user has changed the folders."""

    def __init__(self) -> None:
        super().__init__(markup=False)
        self.filter_line: ModelFilter | None = None
        self._filtering = False
        self._rows: list[ModelRow] = []
        self._shown: list[ModelRow] = []
        self._filter = ""

    @property
    def highlighted_file(self) -> ModelFile | None:
        """The file under the cursor."""
        return None if self.highlighted is None or not self._shown else self._shown[self.highlighted].file

    def show(self, rows: Sequence[ModelRow]) -> None:
        """Show these rows; those that are there already change in place."""
        self._rows = list(rows)
        self._apply()

    def filter(self, letters: str) -> None:
        """Show only names that have all these words in them."""
        self._filter = letters
        self._apply()

    def _apply(self) -> None:
        shown = [row for row in self._rows if matches(self._filter, row.file.name)]
        width = self._width
        if [row.file.path for row in shown] == [row.file.path for row in self._shown]:
            for index, (old, new) in enumerate(zip(self._shown, shown, strict=True)):
                if old != new:
                    self.replace_option_prompt_at_index(index, row_content(new, width))
            self._shown = shown
            return
        before = self.highlighted_file
        self._shown = shown
        self.clear_options()
        self.add_options([Option(row_content(row, width)) for row in shown])
        kept = next((at for at, row in enumerate(shown) if before and row.file.path == before.path), None)
        now = next((at for at, row in enumerate(shown) if row.current), 0)
        self.highlighted = (kept if kept is not None else now) if shown else None
        self.call_after_refresh(self.scroll_to_highlight)

    @property
    def _width(self) -> int:
        return max(20, self.scrollable_content_region.width or 28)

    def on_resize(self) -> None:
        """Fit the columns to the new width."""
        for index, row in enumerate(self._shown):
            self.replace_option_prompt_at_index(index, row_content(row, self._width))
        self.call_after_refresh(self.scroll_to_highlight)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter, or a click."""
        event.stop()
        self.post_message(self.Chosen(self._shown[event.option_index].file))

    def action_unload(self) -> None:
        """Give the memory back."""
        if file := self.highlighted_file:
            self.post_message(self.UnloadRequested(file))

    def action_keep(self) -> None:
        """Pin the model's engines, or let them go."""
        if file := self.highlighted_file:
            self.post_message(self.KeepRequested(file))

    def action_rescan(self) -> None:
        """Read the folders again."""
        self.post_message(self.RescanRequested())

    def action_filter(self) -> None:
        """Go to the filter."""
        if self.filter_line:
            self._filtering = True
            self.filter_line.can_focus = True
            self.screen.set_focus(self.filter_line)

    async def on_key(self, event: events.Key) -> None:
        """Act in the order of the keys: what follows the filter's key in one burst belongs to it,
        and must not unload a model."""
        if self._filtering and self.filter_line and event.character and event.is_printable:
            event.stop()
            event.prevent_default()
            self.filter_line.insert_text_at_cursor(event.character)
        elif event.key == "slash" and self.filter_line:
            event.stop()
            event.prevent_default()
            self.action_filter()

    def on_focus(self) -> None:
        """The filter has been left."""
        self._filtering = False


class ModelFilter(Filter):
    """Narrows a `ModelList`."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False)]

    class Left(Message):
        """Escape: the filter is given up."""

    def __init__(self, target: ModelList, letters: str = "") -> None:
        super().__init__(target, "/ filter")
        self.value = letters
        self._models = target

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow the list as letters come."""
        event.stop()
        self._models.filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter takes the row under the cursor."""
        event.stop()
        self._models.action_select()

    def action_leave(self) -> None:
        """Show everything again, and go."""
        self.value = ""
        self.post_message(self.Left())


class ModelPane(Vertical):
    """The list with its filter and a line that says what is wrong or empty."""

    def compose(self) -> ComposeResult:
        """The filter above the list."""
        models = ModelList()
        yield ModelFilter(models)
        yield models

    def on_mount(self) -> None:
        """Name the pane. Tab goes through the panes: the filter has a key of its own."""
        self.border_title = "Models"
        filter_line = self.query_one(ModelFilter)
        filter_line.can_focus = False
        self.models.filter_line = filter_line

    @property
    def models(self) -> ModelList:
        """The list."""
        return self.query_one(ModelList)

    @on(ModelFilter.Left)
    @on(ModelList.Chosen)
    def _to_list(self) -> None:
        filter_line = self.query_one(ModelFilter)
        if filter_line.has_focus:
            self.models.focus()
        filter_line.can_focus = False
