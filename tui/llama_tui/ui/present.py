"""Turns as the transcript shows them: who speaks, and the line of figures below an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_tui.ui.entry import Entry

if TYPE_CHECKING:
    from llama_tui.chat.conversation import Conversation, Ending, Figures, Turn

_ENDINGS: dict[Ending, str] = {
    "stop": "stop",
    "length": "length: max_tokens is reached",
    "cancelled": "stopped by you",
    "died": "the engine died",
    "failed": "failed",
    "interrupted": "interrupted: the program ended",
}


def entries_of(conversation: Conversation, reload_key: str) -> list[Entry]:
    """The path of a conversation, each answer's trouble beside it."""
    return [entry for turn in conversation.path() for entry in entries_of_turn(conversation, turn, reload_key)]


def entries_of_turn(conversation: Conversation, turn: Turn, reload_key: str) -> list[Entry]:
    """A turn, above it what changed in what the model is told, below it what went wrong and the key
    that loads the model again."""
    entries = (mark_of(conversation, turn), entry_of(conversation, turn), trouble_of(turn, reload_key))
    return [entry for entry in entries if entry]


def trouble_of(turn: Turn, reload_key: str) -> Entry | None:
    """What went wrong with an answer, and the key that loads the model again."""
    trouble = turn.trouble
    if not trouble:
        return None
    hint = with_key(trouble.hint, reload_key)
    return Entry(key=f"{turn.id}-trouble", role="error", text=trouble.message, hint=hint, log=trouble.log)


def mark_of(conversation: Conversation, turn: Turn) -> Entry | None:
    """Where an answer is told less of the conversation than the one before it, or more: a line that
    says so."""
    if not conversation.told_otherwise(turn):
        return None
    if left_out := turn.left_out:
        count = len(left_out.turns)
        which = "earlier" if left_out.how == "drop_oldest" else "middle"
        text = (
            f"{count:,} {which} message{'s' * (count != 1)} left out from here on · {left_out.tokens:,} tokens · "
            "a larger n_ctx brings them back"
        )
    else:
        text = "every message is told again from here on"
    return Entry(key=f"{turn.id}-cut", role="notice", text=text)


def reused(n_reused: int, n_prompt: int | None = None, *, restored: bool = False) -> str:
    """How much of a prompt need not be computed, as it is added to a line; empty for nothing."""
    whole = "" if n_prompt is None else f" of {n_prompt:,}"
    return f" · reused {n_reused:,}{whole}{' from disk' * restored}" if n_reused else ""


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
    figures, ending = turn.figures, _ENDINGS[turn.ending]
    if figures and turn.ending == "length" and figures.prompt_tokens + figures.completion_tokens >= figures.n_ctx:
        ending = f"length: n_ctx of {figures.n_ctx:,} is full"
    return " · ".join([turn.model, *(_figures(figures) if figures else ()), ending])


def _figures(figures: Figures) -> list[str]:
    said = [f"{figures.completion_tokens:,} token{'s' * (figures.completion_tokens != 1)}"]
    if figures.tokens_per_second is not None:
        said.append(f"{figures.tokens_per_second:,.0f} tok/s")
    if figures.first_token_seconds is not None:
        said.append(f"first {figures.first_token_seconds:.2f} s")
    said[-1] += reused(figures.reused_tokens, figures.prompt_tokens, restored=figures.restored)
    return said
