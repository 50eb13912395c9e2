"""A list over the chat that a few letters narrow, for one thing to be chosen from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from llama_tui.control import sanitize
from llama_tui.ui.screens.overlay import Overlay
from llama_tui.ui.widgets.filter import Filter, matches


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to choose: its key is the answer, its text has what letters look for."""

    key: str
    text: str
    row: Content


class FilteredList(Overlay[str | None]):
    """Answers with the key of the entry that enter took, or with None. `hint` stands in the empty filter,
    `nothing` in the empty list, `help` below it."""

    def __init__(self, title: str, *, hint: str, nothing: str, help: str) -> None:
        super().__init__()
        self._title, self._hint, self._nothing, self._help = title, hint, nothing, help
        self._entries: Sequence[Entry] = ()
        self._shown: list[Entry] = []

    def compose(self) -> ComposeResult:
        """A filter, the list, the keys."""
        options = OptionList(markup=False)
        options.can_focus = False
        with Vertical(classes="overlay") as box:
            box.border_title = self._title
            yield Filter(options, self._hint)
            yield options
            yield Static(self._help, classes="keys", markup=False)

    def fill(self, entries: Sequence[Entry]) -> None:
        """List these from now on."""
        self._entries = entries
        self._show()

    def cursor(self, shown: Sequence[Entry], before: int) -> int:
        """Where the cursor goes when other entries are shown, of which there is one at least."""
        return min(before, len(shown) - 1)

    def say(self, text: str) -> None:
        """Show a text above the keys."""
        self.query_one(".keys", Static).update(f"{sanitize(text)}\n{self._help}")

    @property
    def entry(self) -> Entry | None:
        """What the cursor is on."""
        at = self.query_one(OptionList).highlighted
        return self._shown[at] if at is not None and at < len(self._shown) else None

    def _show(self) -> None:
        letters = self.query_one(Filter).value
        self._shown = [entry for entry in self._entries if matches(letters, entry.text)]
        options = self.query_one(OptionList)
        before = options.highlighted or 0
        options.clear_options()
        if self._shown:
            options.add_options([Option(entry.row) for entry in self._shown])
            options.highlighted = self.cursor(self._shown, before)
        else:
            options.add_option(Option(Content.styled(self._nothing, "$text-muted"), disabled=True))

    @on(Input.Changed)
    def _filter(self, event: Input.Changed) -> None:
        event.stop()
        self._show()

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _take(self) -> None:
        if entry := self.entry:
            self.dismiss(entry.key)

    def action_close(self) -> None:
        """Choose nothing."""
        self.dismiss(None)
