"""The middle pane: the transcript, what to begin with, and the prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from llama_tui.chat.conversation import Conversation
from llama_tui.chat.session import (
    ChatEvent,
    NotKept,
    SendRefused,
    TurnAdded,
    TurnEnded,
    TurnGrew,
    TurnNoticed,
    TurnWaits,
)
from llama_tui.errors import EngineDied, LlamaTuiError, LoadFailed
from llama_tui.ui.entry import Entry
from llama_tui.ui.present import entries_of, entries_of_turn
from llama_tui.ui.text import one_line
from llama_tui.ui.widgets.prompt import Prompt
from llama_tui.ui.widgets.transcript import Transcript


@dataclass(frozen=True, slots=True)
class Progress:
    """The answer that is being made, for the status line."""

    doing: str = ""
    n_past: int = 0
    tokens_per_second: float | None = None


class Suggestions(OptionList, can_focus=False):
    """Questions to begin with; the empty prompt's keys choose among them."""


class ChatPane(Vertical):
    """Shows a conversation, and the events of an answer as they come."""

    @dataclass
    class Asked(Message):
        """The user has sent something."""

        text: str

    def __init__(self, keymap: Mapping[str, str]) -> None:
        super().__init__()
        self._keymap = keymap
        self.progress = Progress()
        self._first_token: float | None = None
        self._begun = False
        self._thinking = False
        self._told = 0
        self._noticed: set[str] = set()

    def compose(self) -> ComposeResult:
        """Transcript, suggestions, prompt."""
        yield Transcript()
        yield Suggestions(markup=False)
        yield Prompt(self._keymap)

    def on_mount(self) -> None:
        """Suggestions come with an empty conversation."""
        self.suggestions.border_title = "Ask the guide"
        self.suggestions.display = False

    @property
    def transcript(self) -> Transcript:
        """The log."""
        return self.query_one(Transcript)

    @property
    def prompt(self) -> Prompt:
        """The editor."""
        return self.query_one(Prompt)

    @property
    def suggestions(self) -> Suggestions:
        """What to begin with."""
        return self.query_one(Suggestions)

    def show(self, conversation: Conversation, suggestions: tuple[str, ...], model: str) -> None:
        """Show a whole conversation, or how to begin one."""
        entries = entries_of(conversation)
        self._noticed.clear()
        self._entitle(conversation)
        self._begun = bool(entries)
        self.transcript.show(entries or [_welcome(model, guided=bool(suggestions))])
        self.prompt.set_history(conversation.prompts())
        figures = next((turn.figures for turn in reversed(conversation.path()) if turn.figures), None)
        self.progress = Progress(n_past=figures.prompt_tokens + figures.completion_tokens if figures else 0)
        picks = self.suggestions
        picks.display = bool(suggestions) and not entries
        if picks.display:
            picks.clear_options()
            picks.add_options([Option(text) for text in suggestions])
            picks.highlighted = 0

    def apply(self, conversation: Conversation, event: ChatEvent) -> None:
        """Show what an event changes."""
        match event:
            case TurnAdded(turn):
                if self.suggestions.display or not self._begun:
                    self.suggestions.display = False
                    self.transcript.show([])
                for entry in entries_of_turn(conversation, turn):
                    self.transcript.append(entry)
                self._begun = True
                self._entitle(conversation)
                self.transcript.follow()
                self.prompt.set_history(conversation.prompts())
            case TurnWaits(turn_id, doing, done, total):
                share = f" {done:,} of {total:,} tokens" if total else ""
                self.progress = Progress(f"{doing}{share}", done)
                self.transcript.update(turn_id, footer=f"{doing}{share} …")
                self._first_token = None
            case TurnNoticed(turn_id, text):
                if text not in self._noticed:  # one template says the same of every question
                    self._noticed.add(text)
                    self.transcript.append(Entry(key=f"{turn_id}-notice", role="notice", text=text))
            case TurnGrew(turn_id, text, n_tokens, n_past, kind, n_reasoning):
                now = time.monotonic()
                if self._first_token is None:
                    self._first_token = now
                    self.transcript.update(turn_id, footer="")
                took = now - self._first_token
                self.progress = Progress("", n_past, (n_tokens - 1) / took if took > 0.2 else None)
                if kind == "reasoning":
                    self._thinking = True
                    self.transcript.think(turn_id, text)
                    return
                if self._thinking:
                    self._thinking = False
                    self.transcript.update(turn_id, thought_tokens=n_reasoning)
                self.transcript.stream(turn_id, text)
            case TurnEnded(turn):
                whole, *trouble = entries_of_turn(conversation, turn)
                self._thinking = False
                self.transcript.update(
                    turn.id,
                    text=whole.text,
                    thought=whole.thought,
                    thought_tokens=whole.thought_tokens,
                    footer=whole.footer,
                    streaming=False,
                )
                for entry in trouble:
                    self.transcript.append(entry)
                speed = turn.figures.tokens_per_second if turn.figures else None
                self.progress = Progress("", self.progress.n_past, speed)
            case SendRefused(removed, text, error):
                for turn_id in removed:
                    self.transcript.drop(turn_id)
                self.prompt.load(text)
                self.tell(error)
                self.progress = Progress()
            case NotKept(error):
                self.tell(error)

    def tell(self, error: LlamaTuiError) -> None:
        """Put an error into the log, where it stays."""
        self._told += 1
        log = error.log if isinstance(error, LoadFailed | EngineDied) else ()
        self.transcript.append(
            Entry(key=f"told-{self._told}", role="error", text=error.message, hint=error.hint, log=log)
        )

    def _entitle(self, conversation: Conversation) -> None:
        self.border_title = Content(one_line(conversation.title) or "New chat")

    @on(Prompt.Declined)
    def _choose_suggestion(self, event: Prompt.Declined) -> None:
        event.stop()
        picks = self.suggestions
        if not picks.display:
            return
        if event.step == 0:
            picks.action_select()
        elif event.step > 0:
            picks.action_cursor_down()
        else:
            picks.action_cursor_up()

    @on(OptionList.OptionSelected)
    def _pick(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Asked(str(event.option.prompt)))

    @on(Prompt.PageTurned)
    def _turn_page(self, event: Prompt.PageTurned) -> None:
        event.stop()
        self.transcript.page(event.pages)

    @on(Prompt.FollowAsked)
    def _follow(self, event: Prompt.FollowAsked) -> None:
        event.stop()
        self.transcript.follow()

    @on(Prompt.Submitted)
    def _submit(self, event: Prompt.Submitted) -> None:
        event.stop()
        self.post_message(self.Asked(event.text))


def _welcome(model: str, *, guided: bool) -> Entry:
    """What an empty conversation says."""
    if guided:
        text = (
            "This is the built-in guide: it answers how to use llama-tui, and nothing else. "
            "Press enter on a question below, or type your own.\n\n"
            "ctrl+o chooses a model of yours, f1 shows every key."
        )
    else:
        text = f"A new chat with {one_line(model)}.\n\nctrl+o chooses another model, f1 shows every key."
    return Entry(key="welcome", role="notice", title="llama-tui", text=text)
