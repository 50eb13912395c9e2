"""A line of letters that narrows a list; the arrows move in the list meanwhile."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input, OptionList


def matches(letters: str, text: str) -> bool:
    """Whether every word of the letters is somewhere in a text, in any case."""
    text = text.lower()
    return all(word in text for word in letters.lower().split())


class Filter(Input):
    """Keeps the focus while the cursor of its list moves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", show=False),
        Binding("up", "move(-1)", show=False),
    ]

    def __init__(self, target: OptionList, placeholder: str) -> None:
        super().__init__(placeholder=placeholder, compact=True)
        self._target = target

    def action_move(self, by: int) -> None:
        """Move the list's cursor."""
        if by > 0:
            self._target.action_cursor_down()
        else:
            self._target.action_cursor_up()
