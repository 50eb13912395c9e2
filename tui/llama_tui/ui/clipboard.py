"""Copying: to the terminal's clipboard over SSH, and to the desktop's where the program runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping

from textual.app import App

LONGEST = 500_000
"""Characters that are sent to a terminal: few take more, and all else waits behind them on the wire."""


async def copy(app: App[object], text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Copy a text and say, in words for the user, where it went.

    OSC 52 hands it to the terminal, which may refuse without a word. Over SSH that is the only
    clipboard that the user has; locally pyperclip reaches the desktop's as well.
    """
    sent = len(text) <= LONGEST
    if sent:
        app.copy_to_clipboard(text)
    said = (
        "Sent to your terminal's clipboard"
        if sent
        else (f"Not copied: of its {len(text):,} characters a terminal's clipboard takes {LONGEST:,}")
    )
    if "SSH_CONNECTION" in environ or "SSH_TTY" in environ:
        return f"{said} (tmux needs set-clipboard on)" if sent and "TMUX" in environ else said
    import pyperclip

    with contextlib.suppress(pyperclip.PyperclipException):
        await asyncio.to_thread(pyperclip.copy, text)
        return "Copied"
    return said
