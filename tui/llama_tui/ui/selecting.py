"""Text of the log that is selected with the mouse: what it says, and how it looks."""

from __future__ import annotations

from rich.style import Style
from textual.selection import Selection
from textual.strip import Strip

from llama_tui.ui.log import Log
from llama_tui.ui.text import graphemes, painted
from llama_tui.ui.view import MARGIN


def selected_text(log: Log, selection: Selection) -> str:
    """The selected text without bars and margins, lines that were wrapped made whole again, and nothing
    of it that is drawn as one cut in two."""
    end = log.tops[-1] - 1
    first = selection.start.y if selection.start is not None else 0
    last = min(end, selection.end.y) if selection.end is not None else end
    text: list[str] = []
    for y in range(first, last + 1):
        row = log.row_at(y)
        start, stop = selection.get_span(y) or (0, 0)
        shown = row.text
        end_of_row = len(shown) - row.tail
        first, past = max(row.lead, start), end_of_row if stop == -1 else min(stop, end_of_row)
        if first < past:
            first, past = graphemes(shown, first, past)
        text.append(shown[first:past])
        text.append("\n" if row.joint is None else row.joint)
    return "".join(text[:-1])


def with_selection(strip: Strip, start: int, end: int, style: Style) -> Strip:
    """A row with the characters from `start` to `end` (-1: all that follow) in the style of the selection."""
    text = strip.text.rstrip()
    end = len(text) if end == -1 else min(end, len(text))
    start = max(start, MARGIN)
    if start >= end:
        return strip
    start, end = graphemes(text, start, end)
    return Strip(painted(strip, start, end, style), strip.cell_length)
