"""The themes: each is seen live while the cursor is on it; enter keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from llama_tui.ui.bindings import KeyTable
from llama_tui.ui.screens.overlay import Overlay

_NAME_WIDTH = 12


class ThemeList(Overlay[str | None]):
    """Answers with the name of the chosen theme, or with None; `preview` shows one for the time being."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "close", id="themes.close"),
        Binding("down", "move(1)", show=False),
        Binding("up", "move(-1)", show=False),
    ]

    def __init__(
        self, descriptions: Mapping[str, str], used: str, preview: Callable[[str], None], keys: KeyTable
    ) -> None:
        super().__init__()
        self._descriptions = descriptions
        self._used = used
        self._preview = preview
        self._help = f"up, down look · enter keep · {keys.said('themes.close')}"
        self._shown: list[str] = []

    def compose(self) -> ComposeResult:
        """A filter, the list, the keys."""
        with Vertical(classes="overlay") as box:
            box.border_title = "Themes"
            yield Input(placeholder="filter", compact=True)
            yield OptionList(markup=False)
            yield Static(self._help, classes="keys", markup=False)

    def on_mount(self) -> None:
        """The cursor begins at the theme in use."""
        self.query_one(OptionList).can_focus = False
        self._show()

    @on(Input.Changed)
    def _filter(self, event: Input.Changed) -> None:
        event.stop()
        self._show()

    def _show(self) -> None:
        words = self.query_one(Input).value.lower().split()
        self._shown = [
            name for name, said in self._descriptions.items() if all(word in f"{name} {said}".lower() for word in words)
        ]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(self._row(name)) for name in self._shown])
        if self._shown:
            options.highlighted = self._shown.index(self._used) if self._used in self._shown else 0
        else:
            options.add_option(Option(Content.styled("no theme has these letters", "$text-muted"), disabled=True))

    def _row(self, name: str) -> Content:
        sign = "● " if name == self._used else "  "
        return Content.assemble((sign, "$success"), name.ljust(_NAME_WIDTH), (self._descriptions[name], "$text-muted"))

    @property
    def _theme(self) -> str | None:
        at = self.query_one(OptionList).highlighted
        return self._shown[at] if at is not None and at < len(self._shown) else None

    @on(OptionList.OptionHighlighted)
    def _look(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        # One that comes after the screen is left would undo what was decided.
        if self.is_current and (theme := self._theme):
            self._preview(theme)

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _keep(self) -> None:
        if theme := self._theme:
            self.dismiss(theme)

    def action_move(self, by: int) -> None:
        """Move the cursor while the filter has the focus."""
        options = self.query_one(OptionList)
        if by > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def action_close(self) -> None:
        """Go back to the theme that was."""
        self._preview(self._used)
        self.dismiss(None)
