"""Random frames as Textual writes them: whole screens, parts of rows, rows that move, overlays."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

EASY = ("the", "model ", "   ", "─────", "│", "日本語", "한국", "é", "ñandú", "→", "█▁", "0x1F", "שלום", "ق", " ")
HARD = ("e\u0301", "👍", "👩‍👩‍👧", "❤️", "🇩🇪", "नि", "👍🏽", "☺", "a\u200b", "©\ufe0f", "b\u202e", "\ue0b0", "ᄒ\u1161ᆫ")
SYSTEMS = ("standard", "256", "truecolor")


def random_style(rng: random.Random) -> Style:
    """Any attribute and colour that Textual can write."""

    def colour() -> str | None:
        return rng.choice([None, f"color({rng.randrange(256)})", "red", "bright_blue", "#102030", "#405060"])

    def sometimes(share: float) -> bool:
        return rng.random() < share

    return Style(
        color=colour(),
        bgcolor=colour(),
        bold=sometimes(0.2),
        dim=sometimes(0.1),
        italic=sometimes(0.1),
        underline=sometimes(0.1),
        blink=sometimes(0.02),
        reverse=sometimes(0.1),
        strike=sometimes(0.05),
        underline2=sometimes(0.03),
        frame=sometimes(0.02),
        overline=sometimes(0.03),
        link=rng.choice([None] * 12 + ["https://example.org/a;b", "file:///tmp"]),
    )


class FrameMaker:
    """Keeps the rows of a screen, changes them at random, and writes what changed as Textual does.

    `whole` rows only: terminals differ in how they leave half of a wide character.
    """

    def __init__(
        self, rng: random.Random, width: int, height: int, words: Sequence[str], *, whole: bool = False
    ) -> None:
        self._whole_rows = whole
        self._rng, self.width, self.height, self._words = rng, width, height, words
        self._console = Console(color_system=rng.choice(SYSTEMS), force_terminal=True, file=io.StringIO())  # type: ignore[arg-type]
        self._styles = [None, *(random_style(rng) for _ in range(4))]
        self._rows = [self._line() for _ in range(height)]

    def frames(self, count: int) -> Iterator[str]:
        """A whole screen, then changes of it."""
        yield self._whole()
        for _ in range(count - 1):
            kind = self._rng.random()
            if kind < 0.1:
                self._rows = [self._line() for _ in range(self.height)]
                yield self._whole()
            elif kind < 0.4:
                yield self._part(self._move())
            elif kind < 0.55:
                yield self._part(self._overlay())
            else:
                yield self._part(self._touch())

    def _line(self) -> Strip:
        segments: list[Segment] = []
        while sum(segment.cell_length for segment in segments) < self.width:
            segments.append(Segment(self._rng.choice(self._words), self._rng.choice(self._styles)))
        return Strip(segments).crop(0, self.width).adjust_cell_length(self.width)

    def _replace(self, y: int, left: int, right: int, strip: Strip) -> tuple[int, int, int]:
        row = self._rows[y]
        self._rows[y] = Strip.join([row.crop(0, left), strip, row.crop(right, self.width)])
        return y, left, right

    def _span(self) -> tuple[int, int]:
        if self._whole_rows:
            return 0, self.width
        left = self._rng.randrange(self.width - 1)
        return left, self._rng.randrange(left + 1, self.width + 1)

    def _touch(self) -> list[tuple[int, int, int]]:
        """Parts of some rows, many of them blank."""
        spans: list[tuple[int, int, int]] = []
        for y in sorted(self._rng.sample(range(self.height), self._rng.randint(1, 3))):
            left, right = self._span()
            blank = Strip.blank(self.width, self._rng.choice(self._styles))
            strip = blank if self._rng.random() < 0.4 else self._line()
            spans.append(self._replace(y, left, right, strip.crop(left, right)))
        return spans

    def _overlay(self) -> list[tuple[int, int, int]]:
        """A box over the rows."""
        left, right = self._span()
        top = self._rng.randrange(self.height)
        style = self._rng.choice(self._styles)
        inside = Strip([Segment("╳" * (right - left), style)])
        return [self._replace(y, left, right, inside) for y in range(top, min(self.height, top + 4))]

    def _move(self) -> list[tuple[int, int, int]]:
        """Rows that move up or down, over the whole width or between panes."""
        top = self._rng.randrange(self.height - 2)
        bottom = self._rng.randrange(top + 2, self.height + 1)
        left, right = (0, self.width) if self._whole_rows or self._rng.random() < 0.6 else (5, self.width - 6)
        by = self._rng.choice([1, 1, 1, 2, 3, -1, -2])
        before = self._rows[top:bottom]
        fresh = [self._line() for _ in range(abs(by))]
        after = before[by:] + fresh if by > 0 else fresh + before
        pairs = zip(range(top, bottom), after, strict=False)
        return [self._replace(y, left, right, strip.crop(left, right)) for y, strip in pairs]

    def _cursor(self) -> str:
        return f"\x1b[{self._rng.randrange(self.height) + 1};{self._rng.randrange(self.width) + 1}H"

    def _whole(self) -> str:
        region = Region(0, 0, self.width, self.height)
        return LayoutUpdate([[row] for row in self._rows], region).render_segments(self._console) + self._cursor()

    def _part(self, spans: list[tuple[int, int, int]]) -> str:
        chops: list[dict[int, Strip | None]] = [{} for _ in range(self.height)]
        ends: list[list[int]] = [[] for _ in range(self.height)]
        for y, left, right in spans:
            for start, end in ((0, left), (left, right), (right, self.width)):
                if end > start:
                    chops[y][start] = self._rows[y].crop(start, end) if start == left else None
                    ends[y].append(end)
        return ChopsUpdate(chops, spans, ends).render_segments(self._console) + self._cursor()
