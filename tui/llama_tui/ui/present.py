"""Turns as the transcript shows them: who speaks, and the line of figures below an answer."""

from __future__ import annotations

from llama_tui.chat.conversation import Conversation, Ending, Figures, Turn
from llama_tui.ui.entry import Entry

_ENDINGS: dict[Ending, str] = {
    "stop": "stop",
    "length": "length: the limit or the context is reached",
    "cancelled": "stopped by you",
    "died": "the engine died",
    "failed": "failed",
    "interrupted": "interrupted: the program ended",
}


def entries_of(conversation: Conversation, reload_key: str) -> list[Entry]:
    """The path of a conversation, each answer's trouble beside it."""
    return [entry for turn in conversation.path() for entry in entries_of_turn(conversation, turn, reload_key)]


def entries_of_turn(conversation: Conversation, turn: Turn, reload_key: str) -> list[Entry]:
    """A turn, and below it what went wrong with it and the key that loads the model again."""
    entries = [entry_of(conversation, turn)]
    if turn.trouble:
        entries.append(
            Entry(
                key=f"{turn.id}-trouble",
                role="error",
                text=turn.trouble.message,
                hint=with_key(turn.trouble.hint, reload_key),
                log=turn.trouble.log,
            )
        )
    return entries


def with_key(hint: str, reload_key: str) -> str:
    """A hint about an engine, and the key that follows it."""
    return f"{hint}\n{reload_key} loads the model again.".strip()


def entry_of(conversation: Conversation, turn: Turn) -> Entry:
    """One turn without its trouble."""
    row = conversation.siblings(turn)
    return Entry(
        key=turn.id,
        role=turn.role,
        title="you" if turn.role == "user" else turn.model,
        text=turn.content,
        thought=turn.reasoning,
        thought_tokens=turn.figures.reasoning_tokens if turn.figures else 0,
        footer=footer_of(turn),
        streaming=turn.role == "assistant" and turn.ending is None,
        siblings=(row.index(turn) + 1, len(row)) if len(row) > 1 else None,
    )


def footer_of(turn: Turn) -> str:
    """Model, tokens, speed, time to the first token, why it ended."""
    if turn.role == "user" or turn.ending is None:
        return ""
    return " · ".join([turn.model, *(_figures(turn.figures) if turn.figures else ()), _ENDINGS[turn.ending]])


def _figures(figures: Figures) -> list[str]:
    said = [f"{figures.completion_tokens:,} token{'s' * (figures.completion_tokens != 1)}"]
    if figures.tokens_per_second is not None:
        said.append(f"{figures.tokens_per_second:,.0f} tok/s")
    if figures.first_token_seconds is not None:
        said.append(f"first {figures.first_token_seconds:.2f} s")
    if figures.restored:
        said.append(f"reused {figures.reused_tokens:,} of {figures.prompt_tokens:,} from disk")
    return said
