"""Requests that are refused before they are sent: to write them out alone would hold up the program."""

from __future__ import annotations

from collections.abc import Sequence

from llama_tui.engine.protocol import LINE_LIMIT, Message
from llama_tui.errors import ContextOverflow

_LONGEST_TOKEN = 1024
"""Characters that a token of no vocabulary has more of."""

_USUAL_TOKEN = 4
"""Characters that a token of a text in English has on average."""


def far_too_long(messages: Sequence[Message], n_ctx: int | None) -> ContextOverflow | None:
    """Why a conversation cannot be sent whose last question alone, with the system prompt, fills the
    context however few tokens it may be; None where it can, or where `n_ctx` is not known."""
    last = max((place for place, message in enumerate(messages) if message.role == "user"), default=-1)
    needed = [message for place, message in enumerate(messages) if message.role == "system" or place == last]
    characters = sum(len(message.content.strip()) for message in needed)
    if n_ctx is None or characters <= n_ctx * _LONGEST_TOKEN:
        return None
    tokens = characters // _USUAL_TOKEN
    return ContextOverflow(
        f"The last message has {characters:,} characters, about {tokens:,} tokens: {tokens - n_ctx:,} more than the "
        f"context of {n_ctx:,} can hold",
        "Shorten it, or set a larger n_ctx and reload.",
        tokens,
        n_ctx,
    )


def too_long_a_line(size: int) -> ContextOverflow:
    """Why a conversation of so many bytes cannot be sent."""
    return ContextOverflow(
        f"The conversation has {size:,} bytes, and an engine takes {LINE_LIMIT:,} at a time",
        "Shorten the message, or start a new chat.",
        size // _USUAL_TOKEN,
        0,
    )
