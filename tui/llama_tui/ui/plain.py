"""A screen without colours (NO_COLOR): what they mean is said by attributes.

What is chosen or selected is reversed, what has the focus or is wrong is bold, what matters less is dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

from llama_tui.background import luminance

_BOLD = ("primary", "border", "error", "warning")
_DIM = ("text-muted", "border-blurred")
_GROUND = 0.01
"""Luminance up to which a ground is the screen's, or but a shade of it."""

_READABLE = 0.175
"""Luminance on black below which a text was meant to stand back: 4.5:1."""


class Plain(LineFilter):
    """Takes the colours out of what is shown, those of a theme on black, which are given by their names."""

    def __init__(self, colours: Mapping[str, str]) -> None:
        super().__init__()
        self._bold = {_seen(colours[name]) for name in _BOLD}
        self._dim = {_seen(colours[name]) for name in _DIM}
        self._said = lru_cache(4096)(self._say)

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same texts, without colours."""
        return [
            Segment(text, style if style is None else self._said(style), control) for text, style, control in segments
        ]

    def _say(self, style: Style) -> Style:
        said = style.without_color
        if style.meta:
            said += Style.from_meta(style.meta)
        below = _colour(style.bgcolor)
        if below and below.rgb not in self._dim and luminance(*below.normalized) > _GROUND:
            return said + Style(reverse=not style.reverse, dim=False)
        if text := _colour(style.color):
            if text.rgb in self._bold:
                return said + Style(bold=True)
            if text.rgb in self._dim or luminance(*text.normalized) < _READABLE:
                return said + Style(dim=True)
        return said


def _colour(color: RichColor | None) -> Color | None:
    return None if color is None or color.is_default else Color.from_rich_color(color)


def _seen(colour: str) -> tuple[int, int, int]:
    return Color.parse(colour).rgb
