"""The editor below the transcript, in which a message is written and sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from llama_tui.control import sanitize
from llama_tui.ui.bindings import actions_of
from llama_tui.ui.intake import Paste

PASTE_SHOWN = 20_000
"""Characters of a pasted text from which on a note stands for it, so that typing stays quick."""

STILL_AFTER = 10.0
"""Seconds without a key after which the cursor stops blinking: it would cost more than all else that is idle."""

PLACEHOLDER = "type a message, enter sends, ctrl+j new line"


class Prompt(TextArea, inherit_bindings=False):
    """A multi-line editor. Enter sends; up and down at its edges recall what was sent before."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "send", id="prompt.send"),
        Binding("ctrl+j,shift+enter,alt+enter", "newline", "new line", id="prompt.newline"),
        Binding("up", "earlier", "earlier prompt", id="prompt.earlier"),
        Binding("down", "later", "later prompt", id="prompt.later"),
        Binding("pageup", "turn_page(-1)", "page up in the chat", id="prompt.page_up"),
        Binding("pagedown", "turn_page(1)", "page down in the chat", id="prompt.page_down"),
        Binding("ctrl+end", "follow", "follow the answer", id="prompt.follow"),
        Binding("left", "cursor_left", "left", show=False, id="prompt.left"),
        Binding("right", "cursor_right", "right", show=False, id="prompt.right"),
        Binding("ctrl+left", "cursor_word_left", "word left", show=False, id="prompt.word_left"),
        Binding("ctrl+right", "cursor_word_right", "word right", show=False, id="prompt.word_right"),
        Binding("home,ctrl+a", "cursor_line_start", "start of the line", show=False, id="prompt.line_start"),
        Binding("end,ctrl+e", "cursor_line_end", "end of the line", show=False, id="prompt.line_end"),
        Binding("shift+left", "cursor_left(True)", "select left", show=False, id="prompt.select_left"),
        Binding("shift+right", "cursor_right(True)", "select right", show=False, id="prompt.select_right"),
        Binding("shift+up", "cursor_up(True)", "select up", show=False, id="prompt.select_up"),
        Binding("shift+down", "cursor_down(True)", "select down", show=False, id="prompt.select_down"),
        Binding("shift+home", "cursor_line_start(True)", "select to start", show=False, id="prompt.select_start"),
        Binding("shift+end", "cursor_line_end(True)", "select to end", show=False, id="prompt.select_end"),
        Binding("backspace", "delete_left", "delete left", show=False, id="prompt.delete_left"),
        Binding("delete,ctrl+d", "delete_right", "delete right", show=False, id="prompt.delete_right"),
        Binding("ctrl+w", "delete_word_left", "delete word", show=False, id="prompt.delete_word"),
        Binding("ctrl+u", "delete_to_start_of_line", "delete to start", show=False, id="prompt.delete_to_start"),
        Binding("ctrl+k", "delete_to_end_of_line", "delete to end", show=False, id="prompt.delete_to_end"),
        Binding("ctrl+x", "cut", "cut", show=False, id="prompt.cut"),
        Binding("ctrl+c,super+c", "copy", "copy", show=False, id="prompt.copy"),
        Binding("ctrl+v", "paste", "paste", show=False, id="prompt.paste"),
        Binding("ctrl+z", "undo", "undo", show=False, id="prompt.undo"),
        Binding("ctrl+shift+z", "redo", "redo", show=False, id="prompt.redo"),
    ]

    DEFAULT_CSS = """
    Prompt {
        height: auto;
        min-height: 3;
        max-height: 10;
        padding: 0 1;
        border: round $border-blurred;
        background: $background;
        color: $foreground;
        scrollbar-size-vertical: 1;
        &:focus { border: round $border; }
        & .text-area--placeholder { color: $text-muted; }
    }
    """

    @dataclass
    class Submitted(Message):
        """The user has sent a text, which is not blank."""

        text: str

    @dataclass
    class PageTurned(Message):
        """The user wants to see another page of the transcript: -1 for up, 1 for down."""

        pages: int

    @dataclass
    class FollowAsked(Message):
        """The user wants to see the end of the transcript."""

    @dataclass
    class Declined(Message):
        """Enter, up or down in an empty editor: there is nothing to send or to recall."""

        step: int
        """0 for enter, -1 for up, 1 for down."""

    def __init__(self, keymap: Mapping[str, str] | None = None) -> None:
        """`keymap` gives other keys to bindings, by their id."""
        super().__init__(soft_wrap=True, tab_behavior="focus", placeholder=PLACEHOLDER, highlight_cursor_line=False)
        self._actions = actions_of(self.BINDINGS, keymap or {})
        self._history: list[str] = []
        self._position = 0  # in the history; its length is the draft
        self._edited: dict[int, str] = {}  # texts that were left while browsing, the draft among them
        self._pasted: dict[str, str] = {}  # long pastes, by the note that stands for each
        self._still = self._blinks = False
        self._touched = 0.0  # when the last key came, on the monotonic clock

    def on_mount(self) -> None:
        """The cursor blinks for a while."""
        self._touch()
        self._rest()

    @property
    def message(self) -> str:
        """What would be sent: the text with the notes of long pastes replaced by them."""
        text = self.text.strip()
        if alone := self._pasted.get(text):  # as long as can be, and not to be copied for the white space around it
            return "" if alone.isspace() else alone
        for note, pasted in self._pasted.items():
            text = text.replace(note, pasted)
        return text.strip()

    def set_history(self, prompts: Sequence[str]) -> None:
        """The prompts that up and down recall, the latest last. What is being written stays."""
        self._history = list(prompts)
        self._position = len(self._history)
        self._edited.clear()

    def load(self, text: str) -> None:
        """Put a text back into the editor, the cursor at its end."""
        self._pasted.clear()
        self._position = len(self._history)
        self._edited.clear()
        self.text = self._shown(text)
        self.move_cursor(self.document.end)

    def take_back(self, text: str) -> None:
        """Put a message that was sent before what has been typed since."""
        typed, pasted = self.text, self._pasted
        self._pasted = {}
        shown = self._shown(text)
        notes = {note: self._noted(more) for note, more in pasted.items()}  # those have other numbers now
        if notes:
            typed = re.sub("|".join(map(re.escape, notes)), lambda note: notes[note[0]], typed)
        self._position = len(self._history)
        self._edited.clear()
        self.text = f"{shown}\n{typed}" if typed else shown
        self.move_cursor(self.document.end)

    def action_send(self) -> None:
        """Send, unless there is nothing to send."""
        text = self.message
        if not text:
            if not self.text:
                self.post_message(self.Declined(0))
            return
        self._history.append(text)
        self.load("")
        self.post_message(self.Submitted(text))

    def action_newline(self) -> None:
        """Begin another line."""
        self.insert("\n")

    def action_earlier(self) -> None:
        """Up, or at the first line the prompt before."""
        if not self.navigator.is_first_wrapped_line(self.cursor_location):
            self.action_cursor_up()
        elif self._position > 0:
            self._recall(self._position - 1)
            self.move_cursor((0, len(self.document.get_line(0))))
        elif not self.text:
            self.post_message(self.Declined(-1))

    def action_later(self) -> None:
        """Down, or at the last line the prompt after."""
        if not self.navigator.is_last_wrapped_line(self.cursor_location):
            self.action_cursor_down()
        elif self._position < len(self._history):
            self._recall(self._position + 1)
            self.move_cursor(self.document.end)
        elif not self.text:
            self.post_message(self.Declined(1))

    def action_turn_page(self, pages: int) -> None:
        """Let the transcript scroll; the editor is too small to need pages of its own."""
        self.post_message(self.PageTurned(pages))

    def action_follow(self) -> None:
        """Let the transcript go to its end."""
        self.post_message(self.FollowAsked())

    def action_delete_left(self) -> None:
        """Delete what is left of the cursor: a character, or the note of a long paste as a whole."""
        row, column = self.cursor_location
        before = self.document.get_line(row)[:column]
        note = next((note for note in self._pasted if before.endswith(note)), None)
        if note is None or not self.selection.is_empty:
            super().action_delete_left()
        else:
            self.delete((row, column - len(note)), (row, column))

    async def _on_key(self, event: events.Key) -> None:
        """Act on a key of ours here and now.

        Bindings are looked up by the app, in another queue: in a burst of keys, as a slow link
        delivers them, enter would come before the letters that were typed before it.
        """
        self._touch()
        if action := self._actions.get(event.key):
            event.stop()
            event.prevent_default()
            await self.run_action(action)

    async def _on_paste(self, event: events.Paste) -> None:
        """Insert a pasted text, whatever it holds, as one piece of the message."""
        event.stop()
        event.prevent_default()
        text = event.text
        if not isinstance(event, Paste):
            text = sanitize(text.replace("\r\n", "\n").replace("\r", "\n"))
        shown = self._noted(text)
        result = self.replace(shown, *self.selection, maintain_selection_offset=False)
        self.move_cursor(result.end_location)

    def _touch(self) -> None:
        self._touched = monotonic()
        if self._still:
            self._still, self.cursor_blink = False, self._blinks
            self._rest()

    def _rest(self) -> None:
        """Let the cursor stand still, unless there was a key meanwhile."""
        left = self._touched + STILL_AFTER - monotonic()
        if left > 0:
            self.set_timer(left, self._rest)
        else:
            self._still, self._blinks, self.cursor_blink = True, self.cursor_blink, False

    def _recall(self, position: int) -> None:
        """Show another text of the history, and keep the one that was being written."""
        self._edited[self._position] = self.text
        self._position = position
        text = self._edited.get(position)
        if text is None:
            text = self._shown(self._history[position])
        self.text = text

    def _shown(self, text: str) -> str:
        """A text as the editor shows it: safe, or a note in its place if it is very long."""
        if len(text) < PASTE_SHOWN:
            return sanitize(text.replace("\r\n", "\n").replace("\r", "\n"))
        return self._noted(text)

    def _noted(self, text: str) -> str:
        """The text, or the note that stands for it."""
        if len(text) < PASTE_SHOWN:
            return text
        lines = text.count("\n") + 1
        size = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
        note = f"[text {len(self._pasted) + 1}: {size}]"
        self._pasted[note] = text
        return note
