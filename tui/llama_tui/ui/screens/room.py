"""What to do about a model that does not fit: the offers that would work, enter takes one."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from llama_tui.control import one_line
from llama_tui.errors import NoRoom, Offer
from llama_tui.ui.bindings import KeyTable


class RoomScreen(ModalScreen[Offer | None]):
    """Answers with the offer that was taken, or None."""

    AUTO_FOCUS = "OptionList"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "do not load", id="room.close")]

    def __init__(self, error: NoRoom, keys: KeyTable) -> None:
        super().__init__()
        self._error = error
        takes = "enter take it and load · " if error.offers else ""
        self._help = takes + keys.said("room.close")

    def compose(self) -> ComposeResult:
        """What is short, the offers, the keys."""
        with Vertical(classes="overlay") as box:
            box.border_title = "No room"
            yield Static(one_line(self._error.message), markup=False)
            if self._error.offers:
                yield OptionList(*(Option(Content(one_line(o.words))) for o in self._error.offers), markup=False)
            else:
                yield Static(self._error.hint, markup=False)
            yield Static(self._help, classes="keys", markup=False)

    @on(OptionList.OptionSelected)
    def _take(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self._error.offers[event.option_index])

    def action_close(self) -> None:
        """Load nothing."""
        self.dismiss(None)
