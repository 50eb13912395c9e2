"""The line in which one value is typed."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from llama_tui.control import sanitize

LINE_END = "␤"
"""What stands for a line end while a value of several lines is one line."""

_SHOWN = {"\n": LINE_END, "\t": "␉"}
_MEANT = {LINE_END: "\n"} | {chr(0x2400 + code): chr(code) for code in range(0x20) if code != 0x0A} | {"␡": "\x7f"}


class ValueEditor(Input):
    """Shows a value's line ends and control characters as signs, and takes the signs for them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", show=False),
        Binding("ctrl+j", "line_end", "new line in a value", id="form.newline"),
    ]

    class Cancelled(Message):
        """The old value stays."""

    def open(self, text: str) -> None:
        """Begin to edit a text."""
        self._given = text
        self._signs = self.value = sanitize(text.translate(str.maketrans(_SHOWN)))
        self.cursor_position = len(self.value)

    @property
    def text(self) -> str:
        """What the line stands for; what was opened, to the letter, where nothing was changed."""
        return self._given if self.value == self._signs else self.value.translate(str.maketrans(_MEANT))

    def _on_paste(self, event: events.Paste) -> None:
        """All of its lines, where an `Input` takes the first."""
        event.stop()
        event.prevent_default()
        self.replace(event.text.replace("\r\n", "\n").replace("\r", "\n"), *self.selection)

    def replace(self, text: str, start: int, end: int) -> None:
        """Put a text in the place of another, its line ends and control characters as signs."""
        super().replace(sanitize(text.translate(str.maketrans(_SHOWN))), start, end)

    def action_line_end(self) -> None:
        """Put a line end in."""
        self.replace("\n", *self.selection)

    def action_cancel(self) -> None:
        """Give up."""
        self.post_message(self.Cancelled())
