"""Whether the terminal has true colour (24 bits), as its variables say."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

_NAMES = ("alacritty", "contour", "foot", "foot-extra", "wezterm", "xterm-ghostty", "xterm-kitty")
"""Entries of terminfo whose terminals all have it; so do those whose name ends in `-direct`."""


def has_true_colour(environ: Mapping[str, str]) -> bool:
    """What COLORTERM says, else the terminal's name: of the two only the name crosses SSH. GNU screen hands
    COLORTERM on from the terminal around it, and takes the colours themselves for others."""
    if "STY" in environ:
        return False
    if said := environ.get("COLORTERM", ""):
        return said.strip().lower() in ("truecolor", "24bit")
    name = environ.get("TERM", "")
    return name in _NAMES or name.endswith("-direct")


def declare(environ: MutableMapping[str, str]) -> None:
    """Say the same with COLORTERM: that is where all who paint look."""
    if not has_true_colour(environ):
        environ.pop("COLORTERM", None)
    elif not environ.get("COLORTERM"):
        environ["COLORTERM"] = "truecolor"
