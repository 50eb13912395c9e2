"""What a piece of work costs, counted so that no other process and no garbage collection changes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Effort:
    """How many functions were entered, Python's and those of C."""

    calls = 0


@contextmanager
def counted() -> Iterator[Effort]:
    """Count the calls of this thread, those of an event loop included that it waits for."""
    effort = Effort()

    def count(_frame: object, event: str, _argument: Any) -> None:
        if event in ("call", "c_call"):
            effort.calls += 1

    sys.setprofile(count)
    try:
        yield effort
    finally:
        sys.setprofile(None)
