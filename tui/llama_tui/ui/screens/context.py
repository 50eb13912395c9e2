"""What to do with a chat that the context cannot hold any more."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from llama_tui.errors import ContextOverflow
from llama_tui.ui.bindings import KeyTable

_WORDS = {"drop_oldest": "leave out the oldest turns", "drop_middle": "leave out the turns after the first"}
_WORD_WIDTH = 38


class Choice(Struct, frozen=True):
    """A way to make a chat fit: a value of `context_full`, with `always` as the setting from now on,
    or a larger `n_ctx`."""

    context_full: str = "ask"
    n_ctx: int | None = None
    always: bool = False


class ContextScreen(ModalScreen[Choice | None]):
    """Answers with what was chosen, or None where the message shall stay in the editor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "keep", "do not send", id="context.close"),
        Binding("ctrl+d", "always", "always, with this model", id="context.always", priority=True),
    ]

    def __init__(self, refused: ContextOverflow, larger: int | None, keys: KeyTable) -> None:
        super().__init__()
        self._help = f"enter choose · {keys.said('context.always', 'context.close')}"
        self._refused = refused
        self._ways: list[tuple[Choice, str, str]] = [
            (
                Choice(cut.how),
                _WORDS[cut.how],
                f"{cut.messages:,} message{'s' * (cut.messages != 1)} fewer: {cut.prompt_tokens:,} tokens",
            )
            for cut in refused.cuts
        ]
        if larger:
            self._ways.append((Choice(n_ctx=larger), f"n_ctx = {larger:,}, load again", "every message is kept"))
        self._ways.append((Choice("stop"), "do not send", "it stays in the editor"))

    def compose(self) -> ComposeResult:
        """The figures, the ways out, the keys."""
        refused = self._refused
        with Vertical(classes="overlay") as box:
            box.border_title = "The chat is longer than the context"
            yield Static(
                f"{refused.prompt_tokens:,} tokens, {refused.reply_room:,} more for the reply; "
                f"n_ctx is {refused.n_ctx:,}.",
                markup=False,
            )
            yield OptionList(*[Option(_row(word, figures)) for _choice, word, figures in self._ways], markup=False)
            yield Static(self._help, classes="keys", markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """No action before there is a list."""
        return bool(self.query(OptionList))

    def on_mount(self) -> None:
        """The first way is under the cursor."""
        self.query_one(OptionList).highlighted = 0

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._answer(always=False)

    def action_always(self) -> None:
        """Choose, and not be asked again with this model."""
        self._answer(always=True)

    def action_keep(self) -> None:
        """Leave everything as it is."""
        self.dismiss(None)

    def _answer(self, *, always: bool) -> None:
        choice, _word, _figures = self._ways[self.query_one(OptionList).highlighted or 0]
        if choice.n_ctx:
            self.dismiss(choice)
        elif choice.context_full == "stop" and not always:
            self.dismiss(None)
        else:
            self.dismiss(Choice(choice.context_full, always=always))


def _row(word: str, figures: str) -> Content:
    return Content.assemble(word.ljust(_WORD_WIDTH), (figures, "$text-muted"))
