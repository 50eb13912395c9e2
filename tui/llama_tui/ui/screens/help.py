"""Every key of the screen, by the place where it acts."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from llama_tui.ui.bindings import KeyTable, key_words

_KEY_WIDTH = 36


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
            yield Static(Content("\n").join(self._lines()))

    def _lines(self) -> list[Content]:
        lines: list[Content] = []
        for group in self._keys.groups:
            lines.append(Content.styled(("\n" if lines else "") + group.title, "bold $accent"))
            for binding in group.bindings:
                if not binding.show:
                    continue
                keys = key_words(self._keys.of(binding.id or ""))
                lines.append(
                    Content.assemble(
                        (f"  {keys:<{_KEY_WIDTH}}", "bold"), binding.description, (f"  {binding.id}", "$text-muted")
                    )
                )
        return lines
