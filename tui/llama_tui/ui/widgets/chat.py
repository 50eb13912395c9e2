"""The middle pane: the transcript, what to begin with, and the prompt."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from llama_tui.chat.events import (
    ChatEvent,
    NotKept,
    SendRefused,
    TurnAdded,
    TurnCut,
    TurnEnded,
    TurnGrew,
    TurnNoticed,
    TurnRestarted,
    TurnWaits,
)
from llama_tui.control import one_line
from llama_tui.errors import EngineDied, LlamaTuiError, LoadFailed
from llama_tui.ui.bindings import KeyTable, key_words
from llama_tui.ui.entry import Entry
from llama_tui.ui.present import entries_of, entries_of_turn, entry_of, mark_of, reused, trouble_of, with_key
from llama_tui.ui.widgets.find import FindBar
from llama_tui.ui.widgets.prompt import Prompt
from llama_tui.ui.widgets.transcript import Transcript

if TYPE_CHECKING:
    from llama_tui.chat.conversation import Conversation, Turn

_SPEED_SECONDS = 2.0
_SPEED_LEAST = 0.2
_REPLAY_SECONDS = 1.0
"""What an engine wrote while nobody listened comes at once: no speed is taken of that."""


class Progress(Struct, frozen=True):
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

    def __init__(self, keys: KeyTable) -> None:
        super().__init__()
        self._keys = keys
        self._reload_key = key_words(keys.of("models.reload"))
        self.progress = Progress()
        self._samples: deque[tuple[float, int]] = deque()
        self._measured_from = 0.0
        self._begun = False
        self._welcome = Entry(key="welcome", role="notice")
        self._thinking = False
        self._told = 0
        self._noticed: set[str] = set()

    def compose(self) -> ComposeResult:
        """Transcript, suggestions, prompt."""
        transcript = Transcript()
        yield transcript
        yield FindBar(transcript, self._keys.keymap)
        yield Suggestions(markup=False)
        yield Prompt(self._keys.keymap)

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
    def find_bar(self) -> FindBar:
        """What looks for a text in the log."""
        return self.query_one(FindBar)

    @property
    def suggestions(self) -> Suggestions:
        """What to begin with."""
        return self.query_one(Suggestions)

    def show(self, conversation: Conversation, suggestions: tuple[str, ...], model: str) -> None:
        """Show a whole conversation, or how to begin one."""
        entries = entries_of(conversation, self._reload_key)
        self._noticed.clear()
        self.find_bar.close()
        self._entitle(conversation)
        self._begun = bool(entries)
        self._welcome = self._welcome_to(model, guided=bool(suggestions))
        self.transcript.show(entries or [self._welcome])
        self.prompt.set_history(conversation.prompts())
        self.progress = _at_rest(conversation)
        picks = self.suggestions
        picks.clear_options()
        picks.add_options([Option(text) for text in suggestions])
        self._suggest(not entries)

    def _suggest(self, empty: bool) -> None:
        """Offer the suggestions, if there are any, while the conversation is empty."""
        picks = self.suggestions
        picks.display = empty and bool(picks.option_count)
        picks.highlighted = 0 if picks.display else None

    def apply(self, conversation: Conversation, event: ChatEvent) -> None:
        """Show what an event changes."""
        match event:
            case TurnAdded(turn):
                if not self._begun:
                    self._suggest(False)
                    self.transcript.drop("welcome")  # what went wrong at the start stays
                self._hide_siblings(conversation, turn)
                self._append(conversation, turn)
                self._begun = True
                self._entitle(conversation)
                self.transcript.follow()
                self.prompt.set_history(conversation.prompts())
            case TurnRestarted(turn):
                self._measured_from = time.monotonic() + _REPLAY_SECONDS
                self.transcript.update(turn.id, text="", thought="", thought_tokens=0, streaming=True)
            case TurnCut(turn):
                if mark := mark_of(conversation, turn):
                    self.transcript.drop(mark.key)  # an answer that is fetched again says it again
                    self.transcript.insert(mark, before=turn.id)
            case TurnWaits(turn_id, doing, done, total, n_reused):
                share = f" {done:,} of {total:,} tokens" if total else ""
                self.progress = Progress(f"{doing}{share}", done)
                self.transcript.update(turn_id, footer=f"{doing}{share}{reused(n_reused)} …")
                self._samples.clear()
            case TurnNoticed(turn_id, text):
                if text not in self._noticed:  # one template says the same of every question
                    self._noticed.add(text)
                    self.transcript.append(Entry(key=f"{turn_id}-notice", role="notice", text=text))
            case TurnGrew(turn_id, text, n_tokens, n_past, kind, n_reasoning):
                if not self._samples:
                    self.transcript.update(turn_id, footer="")
                self.progress = Progress("", n_past, self._speed(n_tokens))
                if kind == "reasoning":
                    self._thinking = True
                    self.transcript.think(turn_id, text)
                    return
                if self._thinking:
                    self._thinking = False
                    self.transcript.update(turn_id, thought_tokens=n_reasoning)
                self.transcript.stream(turn_id, text)
            case TurnEnded(turn):
                whole, trouble = entry_of(conversation, turn), trouble_of(turn, self._reload_key)
                self._thinking = False
                self.transcript.update(
                    turn.id,
                    text=whole.text,
                    thought=whole.thought,
                    thought_tokens=whole.thought_tokens,
                    footer=whole.footer,
                    streaming=False,
                )
                if trouble:
                    self.transcript.append(trouble)
                speed = turn.figures.tokens_per_second if turn.figures else None
                self.progress = Progress("", self.progress.n_past, speed)
            case SendRefused(removed, text, error):
                for turn_id in removed:
                    self.transcript.drop(turn_id)
                path = conversation.path()
                if not path:  # as it was before the first question
                    self._begun = False
                    self.transcript.append(self._welcome)
                    self._suggest(True)
                elif not text:  # the answer that it should have stood beside
                    self._append(conversation, path[-1])
                self._entitle(conversation)
                self.prompt.set_history(conversation.prompts())
                if text:
                    self.prompt.take_back(text)
                if not error.cuts:  # else a person is asked
                    self.tell(error)
                self.progress = _at_rest(conversation)
            case NotKept(error):
                self.tell(error)

    def _append(self, conversation: Conversation, turn: Turn) -> None:
        shown = {view.key for view in self.transcript.chat_log.views}
        for entry in entries_of_turn(conversation, turn, self._reload_key):
            if entry.key not in shown:
                self.transcript.append(entry)

    def _hide_siblings(self, conversation: Conversation, turn: Turn) -> None:
        """Of several answers to one question the last is shown; alt+left and alt+right show the others."""
        for other in conversation.siblings(turn):
            if other is not turn:
                for part in ("", "-cut", "-trouble", "-notice"):
                    self.transcript.drop(other.id + part)

    def _speed(self, n_tokens: int) -> float | None:
        """Tokens per second over the last two seconds."""
        now = time.monotonic()
        if now < self._measured_from:
            self._samples.clear()
        self._samples.append((now, n_tokens))
        while now - self._samples[0][0] > _SPEED_SECONDS:
            self._samples.popleft()
        then, before = self._samples[0]
        return (n_tokens - before) / (now - then) if now - then > _SPEED_LEAST else None

    def tell(self, error: LlamaTuiError) -> None:
        """Put an error into the log, where it stays."""
        self._told += 1
        log = error.log if isinstance(error, LoadFailed | EngineDied) else ()
        hint = with_key(error.hint, self._reload_key) if isinstance(error, LoadFailed | EngineDied) else error.hint
        self.transcript.append(Entry(key=f"told-{self._told}", role="error", text=error.message, hint=hint, log=log))

    def notice(self, text: str) -> None:
        """Put a remark into the log."""
        self._told += 1
        self.transcript.append(Entry(key=f"told-{self._told}", role="notice", text=text))

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

    @on(Transcript.Changed)
    def _search_again(self, event: Transcript.Changed) -> None:
        event.stop()
        self.find_bar.search_again()

    @on(Prompt.FollowAsked)
    def _follow(self, event: Prompt.FollowAsked) -> None:
        event.stop()
        self.transcript.follow()

    @on(Prompt.Submitted)
    def _submit(self, event: Prompt.Submitted) -> None:
        event.stop()
        self.post_message(self.Asked(event.text))

    def _welcome_to(self, model: str, *, guided: bool) -> Entry:
        """What an empty conversation says."""
        switch, every = (key_words(self._keys.of(name)) for name in ("models.switch", "app.help"))
        if guided:
            text = (
                "This is the built-in guide: it answers how to use llama-tui, and nothing else. "
                "Press enter on a question below, or type your own.\n\n"
                f"{switch} chooses a model of yours, {every} shows every key."
            )
        else:
            text = f"A new chat with {one_line(model)}.\n\n{switch} chooses another model, {every} shows every key."
        return Entry(key="welcome", role="notice", title="llama-tui", text=text)


def _at_rest(conversation: Conversation) -> Progress:
    """What the context held after the last answer."""
    figures = next((turn.figures for turn in reversed(conversation.path()) if turn.figures), None)
    return Progress(n_past=figures.prompt_tokens + figures.completion_tokens if figures else 0)
