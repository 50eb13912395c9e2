"""Copying: to the terminal's clipboard over SSH, and to the desktop's where the program runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping

from textual.app import App


async def copy(app: App[object], text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Copy a text and say, in words for the user, where it went.

    OSC 52 hands it to the terminal, which may refuse without a word. Over SSH that is the only
    clipboard that the user has; locally pyperclip reaches the desktop's as well.
    """
    app.copy_to_clipboard(text)
    if "SSH_CONNECTION" in environ or "SSH_TTY" in environ:
        hint = " (tmux needs set-clipboard on)" if "TMUX" in environ else ""
        return f"Sent to your terminal's clipboard{hint}"
    import pyperclip

    with contextlib.suppress(pyperclip.PyperclipException):
        await asyncio.to_thread(pyperclip.copy, text)
        return "Copied"
    return "Sent to your terminal's clipboard"
