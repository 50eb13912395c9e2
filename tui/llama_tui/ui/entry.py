"""What the transcript is given to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["user", "assistant", "notice", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the transcript is given to show: a message, or a notice or an error among them.

    `footer` is the line below an answer; `siblings` its position among several answers and their
    number. `thought` is what the model thought before its answer, of `thought_tokens` tokens, shown
    dim: its end while it comes, then one line. `hint` says what to do about an error, `log` are lines
    that explain it, shown dim.
    """

    key: str
    role: Role
    title: str = ""
    text: str = ""
    footer: str = ""
    streaming: bool = False
    siblings: tuple[int, int] | None = None
    thought: str = ""
    thought_tokens: int = 0
    hint: str = ""
    log: tuple[str, ...] = ()
