"""The styles of the transcript, taken from the theme once and used for every row until it changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from rich.style import Style

BOLD = Style(bold=True)
ITALIC = Style(italic=True)
STRIKE = Style(strike=True)
UNDERLINE = Style(underline=True)


@dataclass(frozen=True, slots=True)
class Look:
    """One complete style (colour and background) for each role of a text.

    The names are those of the transcript's component classes: `code_keyword` is
    `transcript--code-keyword`. Two looks are equal when nothing needs to be painted again.
    """

    text: Style
    muted: Style
    heading: Style
    link: Style
    quote: Style
    bullet: Style
    rule: Style
    code: Style
    code_block: Style
    code_label: Style
    code_keyword: Style
    code_string: Style
    code_number: Style
    code_comment: Style
    code_name: Style
    user_bar: Style
    user_title: Style
    assistant_title: Style
    notice: Style
    error: Style
    error_title: Style
    error_bar: Style
    hint: Style
    found: Style
    found_now: Style
    more: Style

    @classmethod
    def names(cls) -> dict[str, str]:
        """Component class of each role, by the role's name."""
        return {field.name: "transcript--" + field.name.replace("_", "-") for field in fields(cls)}

    @classmethod
    def of(cls, style: Callable[[str], Style]) -> Look:
        """The look that a widget's component styles make."""
        return cls(**{role: style(name) for role, name in cls.names().items()})
