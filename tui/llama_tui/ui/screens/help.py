"""Every key of the screen, by the place where it acts."""

from __future__ import annotations

from itertools import zip_longest
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from llama_tui.ui.bindings import KeyTable, key_words

_GAP = "  "
_BORDER = 5
"""Cells of the frame, of its padding and of the scrollbar."""


class HelpScreen(ModalScreen[None]):
    """Made from the bindings themselves, so that it says what the keys do now."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q", "dismiss", "close", id="help.close")]

    def __init__(self, keys: KeyTable) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        """One text, which the arrows scroll."""
        with VerticalScroll(classes="overlay") as box:
            box.border_title = "Keys"
            box.border_subtitle = Content("esc close · [keys] in config.toml changes them")
            yield Static()

    def on_resize(self) -> None:
        """Columns as wide as the screen lets them be."""
        for text in self.query(Static):
            text.update(Content("\n").join(self._lines(self.query_one(VerticalScroll).outer_size.width - _BORDER)))

    def _lines(self, width: int) -> list[Content]:
        """Keys, what they do, and the name to change them by: below the words where it fits nowhere else."""
        bindings = [binding for group in self._keys.groups for binding in group.bindings if binding.show]
        keys = {binding.id: key_words(self._keys.of(binding.id or "")).split(" or ") for binding in bindings}
        key_width = max(len(key) for several in keys.values() for key in several)
        words_width = max(len(binding.description) for binding in bindings)
        id_width = max(len(binding.id or "") for binding in bindings)
        beside = 3 * len(_GAP) + key_width + words_width + id_width <= width
        lines: list[Content] = []
        for group in self._keys.groups:
            lines.append(Content.styled(("\n" if lines else "") + group.title, "bold $accent"))
            for binding in group.bindings:
                if not binding.show:
                    continue
                words, name = binding.description, Content.styled(binding.id or "", "$text-muted")
                said = [Content(words.ljust(words_width) + _GAP) + name] if beside else [Content(words), name]
                for key, text in zip_longest(keys[binding.id], said):
                    lines.append(Content.styled(f"{_GAP}{key or '':<{key_width}}{_GAP}", "bold") + (text or Content()))
        return lines
