"""The themes: each is seen live while the cursor is on it; enter keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList

from llama_tui.ui.bindings import KeyTable
from llama_tui.ui.screens.filtered import Entry, FilteredList

_NAME_WIDTH = 12


class ThemeList(FilteredList):
    """Answers with the name of the chosen theme, or with None; `preview` shows one for the time being."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "close", id="themes.close")]

    def __init__(
        self, descriptions: Mapping[str, str], used: str, preview: Callable[[str], None], keys: KeyTable
    ) -> None:
        help = f"up, down look · enter keep · {keys.said('themes.close')}"
        super().__init__("Themes", hint="filter", nothing="no theme has these letters", help=help)
        self._descriptions = descriptions
        self._used = used
        self._preview = preview

    def on_mount(self) -> None:
        """The cursor begins at the theme in use."""
        self.fill([Entry(name, f"{name} {said}", self._row(name, said)) for name, said in self._descriptions.items()])

    def cursor(self, shown: Sequence[Entry], before: int) -> int:
        """At the theme in use, whatever else is shown."""
        return next((at for at, entry in enumerate(shown) if entry.key == self._used), 0)

    def _row(self, name: str, said: str) -> Content:
        sign = "● " if name == self._used else "  "
        return Content.assemble((sign, "$success"), name.ljust(_NAME_WIDTH), (said, "$text-muted"))

    @on(OptionList.OptionHighlighted)
    def _look(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        # One that comes after the screen is left would undo what was decided.
        if self.is_current and (entry := self.entry):
            self._preview(entry.key)

    def action_close(self) -> None:
        """Go back to the theme that was."""
        self._preview(self._used)
        super().action_close()
