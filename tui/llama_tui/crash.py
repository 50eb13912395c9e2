"""An error of the program itself: its traceback goes into a file, a person gets two sentences."""

from __future__ import annotations

import contextlib
import time
import traceback
from pathlib import Path

from llama_tui.control import one_line
from llama_tui.errors import LlamaTuiError

KEPT = "Your chats are kept, loaded models go on; `llama-tui` opens them again."
"""What holds however the program ends."""

_BYTES = 256 * 1024


class Crash(LlamaTuiError):
    """What has ended the program, and where more is said of it."""


def crash(log: Path, error: BaseException, details: str = "") -> Crash:
    """Write an error's traceback, or what else is known of it, into the log; what to tell a person."""
    said = one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    text = details or "".join(traceback.format_exception(error))
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            if log.stat().st_size > _BYTES:
                log.replace(log.with_suffix(".log.1"))
        with log.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S %z')} ---\n{text}\n")
    except OSError as reason:
        return Crash(f"An error of its own ended it: {said}", f"{log} cannot be written: {reason.strerror}.\n{KEPT}")
    return Crash(f"An error of its own ended it: {said}", f"What happened is in {log}\n{KEPT}")
