"""The three panes side by side; what a narrow terminal has no room for is folded, and unfolds over the chat."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Container
from textual.widget import Widget

from llama_tui.ui.bindings import KeyTable
from llama_tui.ui.widgets.chat import ChatPane
from llama_tui.ui.widgets.form import ParameterForm
from llama_tui.ui.widgets.side import SidePane

if TYPE_CHECKING:
    from llama_tui.chat.workbench import Workbench

FORM_FOLDS_BELOW = 100
SIDE_FOLDS_BELOW = 80


class Panes(Container):
    """Models at the left, the chat, parameters at the right."""

    def __init__(self, workbench: Callable[[], Workbench], keys: KeyTable) -> None:
        super().__init__(id="panes")
        self._workbench = workbench
        self._keys = keys
        self._arranged = False

    def compose(self) -> ComposeResult:
        """From left to right."""
        yield SidePane(self._workbench)
        yield ChatPane(self._keys)
        yield ParameterForm(self._keys)

    def on_mount(self) -> None:
        """The first frame has no pane that the second folds."""
        self.fit(self.screen.size.width)

    @property
    def side(self) -> SidePane:
        """The left pane."""
        return self.query_one(SidePane)

    @property
    def chat(self) -> ChatPane:
        """The middle pane."""
        return self.query_one(ChatPane)

    @property
    def form(self) -> ParameterForm:
        """The right pane."""
        return self.query_one(ParameterForm)

    def fit(self, width: int) -> None:
        """Fold what does not fit into so many columns. What a person has folded or unfolded stays so
        until the width crosses a limit. Nothing happens before the panes are there."""
        if not self.query(ParameterForm):
            return
        for pane, narrow in ((self.side, width < SIDE_FOLDS_BELOW), (self.form, width < FORM_FOLDS_BELOW)):
            if pane.has_class("-overlay") != narrow or not self._arranged:
                pane.set_class(narrow, "-overlay")
                if pane.display == narrow:
                    pane.display = not narrow
        self._arranged = True

    def toggle_side(self) -> None:
        """Show or fold the left pane."""
        self._toggle(self.side, self.side.models)

    def toggle_form(self) -> None:
        """Show or fold the right pane."""
        self._toggle(self.form, self.form.fields)

    def _toggle(self, pane: Widget, inside: Widget) -> None:
        pane.display = not pane.display
        (inside if pane.display else self.chat.prompt).focus()

    def uncover(self) -> None:
        """Fold what lies over the chat, and go back to the prompt."""
        for pane in self.query(".-overlay"):
            pane.display = False
        self.chat.prompt.focus()
