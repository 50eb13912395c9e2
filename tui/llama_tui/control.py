"""Control characters made visible.

A model, a file name or an error can hold escape sequences. On a terminal they would move the cursor,
set a title, write the clipboard or turn the direction of a line; here each control character becomes
a picture of itself.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb]"
)
_PICTURES = (
    {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)}
    | {0x7F: "␡", 0xAD: "", 0x061C: "�", 0x2028: "\n", 0x2029: "\n"}
    | dict.fromkeys((*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "�")
    | dict.fromkeys((*range(0xD800, 0xE000), *range(0xFFF9, 0xFFFC)), "�")
)


def sanitize(text: str) -> str:
    """The text with line ends as `\\n` and every other control character made visible."""
    if _UNSAFE.search(text) is None:
        return text
    return text.replace("\r\n", "\n").translate(_PICTURES)


class Sanitizer:
    """`sanitize` for a text that comes in fragments, which may split a CR LF."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, fragment: str) -> str:
        """What can be said of the text so far, less what was returned before."""
        fragment = self._held + fragment
        self._held = "\r" if fragment.endswith("\r") else ""
        return sanitize(fragment[: len(fragment) - len(self._held)])

    def end(self) -> str:
        """What is left when nothing more will come."""
        held, self._held = self._held, ""
        return sanitize(held)


def one_line(text: str) -> str:
    """A text for a place that has a single row: titles, footers, names."""
    return " ".join(sanitize(text).split())
