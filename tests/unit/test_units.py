"""Sizes and counts in five characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_tui.library.units import short_count, short_size


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (None, "?"),
        (0, "0"),
        (999, "999"),
        (1023, "1.0K"),
        (1024, "1.0K"),
        (6 << 20, "6.0M"),
        (31 << 20, "31M"),
        (int(9.96 * 2**20), "10M"),
        (1023 << 20, "1.0G"),
        ((1 << 30) - 1, "1.0G"),
        (5_027_783_488, "4.7G"),
        (42 << 30, "42G"),
        (3 << 40, "3.0T"),
    ],
)
def test_sizes(n_bytes: int | None, text: str) -> None:
    assert short_size(n_bytes) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (None, "?"),
        (0, "0"),
        (999, "999"),
        (4_100_000, "4.1M"),
        (999_960, "1.0M"),
        (7_241_732_096, "7.2B"),
        (30_532_122_624, "30.5B"),
        (405_853_388_800, "406B"),
        (1_040_000_000_000, "1.0T"),
    ],
)
def test_counts(n: int | None, text: str) -> None:
    assert short_count(n) == text


@given(st.integers(0, 1 << 59))
def test_never_more_than_five_characters(number: int) -> None:
    assert len(short_size(number)) <= 5
    assert len(short_count(number)) <= 5
