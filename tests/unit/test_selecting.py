"""Words without end, right-to-left text, emoji of several, accents, tabs: laid out within the width, copied whole."""

from __future__ import annotations

import pytest
from rich.cells import split_graphemes
from rich.style import Style
from textual.geometry import Offset
from textual.selection import Selection
from textual.strip import Strip

from llama_tui.ui.entry import Entry, Role
from llama_tui.ui.log import Log
from llama_tui.ui.selecting import selected_text, with_selection
from llama_tui.ui.text import cells

TEXTS = {
    "a long word": "see " + "Donaudampfschifffahrtsgesellschaft" * 9 + " there",
    "an address": "https://example.org/" + "a/very-long_path.html?with=values&" * 9,
    "Hebrew": "שלום עולם, זהו משפט ארוך מספיק כדי להישבר לכמה שורות על המסך " * 3,
    "Arabic with marks": "السَّلامُ عَلَيْكُم وَرَحْمَةُ اللهِ وَبَرَكاتُهُ " * 5,
    "both directions": "the word שלום means peace, و السلام too, 123 " * 4,
    "emoji of several": "a 👩‍👩‍👧‍👦 family 🏳️‍🌈 flag 👍🏽 hand 🇩🇪 land ❤️ " * 4,
    "emoji without spaces": "👩‍👩‍👧‍👦🏳️‍🌈👍🏽🇩🇪" * 12,
    "accents apart": "e\u0301a\u0308o\u0302\u0323 " * 20,
    "accents without spaces": "e\u0301o\u0302\u0323" * 40,
    "Devanagari": "नमस्ते दुनिया, यह एक लंबा वाक्य है जो टूटता है " * 3,
    "Chinese": "我们去吃饭，然后回家。" * 9,
    "Hangul jamo": "\u1112\u1161\u11ab\u1100\u1173\u11af " * 20,
}
WIDTHS = [14, 23, 60]


def log_of(text: str, width: int, role: Role) -> Log:
    log = Log()
    log.show([Entry(key="a", role=role, text=text)])
    log.resize(width, 400)
    log.settle()
    return log


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TEXTS)
def test_rows_fit_and_are_copied_as_they_were_written(name: str, width: int, role: Role) -> None:
    text = TEXTS[name].strip()
    log = log_of(text, width, role)
    assert all(cells(row.text) <= width for row in log.rows_in_view())
    assert selected_text(log, Selection(None, None)).strip("\n") == text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TEXTS)
def test_wrapping_cuts_nothing_that_is_drawn_as_one(name: str, width: int) -> None:
    text = TEXTS[name].strip()
    whole = {text[start:end] for start, end, _ in split_graphemes(text)[0]}
    for row in log_of(text, width, "user").rows_in_view():
        said = row.text[row.lead :]
        assert {said[start:end] for start, end, _ in split_graphemes(said)[0]} <= whole


@pytest.mark.parametrize("name", TEXTS)
def test_any_selection_keeps_the_row_and_takes_whole_characters(name: str) -> None:
    log = log_of(TEXTS[name].strip(), 40, "user")
    row = log.rows_in_view()[0]
    strip = Strip(row.segments)
    whole = {row.text[start:end] for start, end, _ in split_graphemes(row.text)[0]}
    for start in range(row.lead, len(row.text), 3):
        for end in (start + 1, start + 2, start + 7):
            marked = with_selection(strip, start, end, Style(reverse=True))
            assert marked.text == row.text
            assert marked.cell_length == strip.cell_length == sum(cells(segment.text) for segment in marked)
            shown = "".join(segment.text for segment in marked if segment.style and segment.style.reverse)
            copied = selected_text(log, Selection(Offset(start, 0), Offset(end, 0)))
            assert copied.rstrip() == shown.rstrip()
            assert {copied[a:b] for a, b, _ in split_graphemes(copied)[0]} <= whole | {" "}


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("a\tb\n我\tc\nabcd\te", "a   b\n我  c\nabcd    e"),
        ("```\n\tx = 1\n\t\ty\n```", "    x = 1\n        y"),
        ("- an item that is wrapped over several rows of it\n- next", None),
        ("> a quote that is wrapped over several rows of the log", None),
        ("#### a heading of the fourth level that is wrapped", None),
        ("```\nlong_line_of_code_that_is_wrapped_over_several_rows\n```", None),
    ],
)
def test_what_frames_a_text_is_not_copied(text: str, copied: str | None) -> None:
    role: Role = "user" if copied and "```" not in text else "assistant"
    got = selected_text(log_of(text, 24, role), Selection(None, None)).strip("\n")
    wanted = copied or text.replace("- ", "• ").replace("> ", "▎ ").strip("#` \n")
    assert got.removeprefix("▎ ") == wanted.removeprefix("▎ ")
