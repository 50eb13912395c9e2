"""Sizes and counts in at most five characters, to be right-aligned in columns."""

from __future__ import annotations

UNKNOWN = "?"


def short_size(n_bytes: int | None) -> str:
    """Bytes in binary units, as memory is counted: "512", "31M", "4.9G", "42G"; "?" for None."""
    if n_bytes is None:
        return UNKNOWN
    return _short(n_bytes, 1024, ("", "K", "M", "G", "T", "P"), whole_from=10)


def short_count(n: int | None) -> str:
    """A count, such as a model's parameters, in decimal units: "842", "4.1M", "30.5B", "405B"; "?" for None."""
    if n is None:
        return UNKNOWN
    return _short(n, 1000, ("", "k", "M", "B", "T", "Q"), whole_from=100)


def _short(number: int, base: int, units: tuple[str, ...], *, whole_from: int) -> str:
    """One decimal below `whole_from`, none above; from 1,000 on the next unit, so that four characters do."""
    value = float(number)
    for unit in units:
        last = unit == units[-1]
        if not unit:
            if value < 1000:
                return f"{number}"
        elif round(value, 1) < whole_from:
            return f"{value:.1f}{unit}"
        elif round(value) < 1000 or last:
            return f"{value:.0f}{unit}"
        value /= base
    raise AssertionError("the last unit takes every number")
