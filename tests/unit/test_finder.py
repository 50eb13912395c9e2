"""Finding in a conversation: what is found and where, and that it is what a person sees."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.style import Style

from llama_tui.ui.entry import Entry
from llama_tui.ui.finder import Finder
from llama_tui.ui.log import Log
from llama_tui.ui.look import Look
from llama_tui.ui.passage import BLOCK, Passage, counted, said
from llama_tui.ui.text import cells
from llama_tui.ui.view import EntryView
from tests.ui.sample import RICH

FOUND, NOW = Style(color="yellow"), Style(color="red")
LOOK = Look.of(lambda name: {"transcript--found": FOUND, "transcript--found-now": NOW}.get(name, Style.null()))
"""Matches alone have colours."""

DOCUMENTS = [
    RICH,
    "> a quote that is long enough to be wrapped into several rows of the screen, and then some more of it\n> end",
    "- an item that is long enough to be wrapped into several rows\n\n  ```python\n  x = 'in an item'\n  ```\n- next",
    "```python\n" + "\n".join(f"value_{n} = {'x' * n}\tend" for n in range(0, 90, 7)) + "\n```\n\n    indented code",
    "我们去吃饭。" * 20 + "\n\n👩‍👩‍👧 family é e\u0301 \t tab\n\n| a | b |\n|---|---|\n| " + "word " * 30 + "| 我 |",
    "[link](https://example.org) &amp; <b>html</b>\n\n#### A heading of level four, wrapped over rows\n\n1. a\n1. b",
    "```\n" + "z" * 300 + "\n\n   trailing   \n```",
]


def answer(key: str, text: str, **changes: Any) -> Entry:
    return Entry(key=key, role="assistant", title="guide", text=text, **changes)


def log_of(*entries: Entry, width: int = 60, height: int = 20) -> Log:
    log = Log()
    log.restyle(LOOK)
    log.show(entries)
    log.resize(width, height)
    log.settle()
    return log


def finish(finder: Finder) -> Finder:
    while finder.busy:
        finder.step(1)
    return finder


def search(log: Log, text: str) -> Finder:
    finder = Finder(log)
    log.marker = finder.mark
    finder.seek(text)
    return finish(finder)


def go(log: Log, finder: Finder, by: int) -> list[str]:
    finder.go(by)
    finish(finder).show()
    log.settle()
    return marked(log, NOW)


def marked(log: Log, style: Style = FOUND) -> list[str]:
    """The characters in view that are marked, row by row."""
    rows = [
        "".join(s.text for s in row.segments if s.style and s.style.color == style.color) for row in log.rows_in_view()
    ]
    return [row for row in rows if row]


@pytest.mark.parametrize(
    ("text", "sought", "total"),
    [
        ("Press **ctrl**+o", "press ctrl+o", 1),
        ("Press **ctrl**+o", "**", 0),
        ("see [the guide](https://x.org)", "guide (https", 1),
        ("a &amp; b", "&", 1),
        ("a &amp; b", "amp", 0),
        ("```python\nTotal = 1\n```", "total = 1", 1),
        ("```python\nTotal = 1\n```", "python", 1),
        ("[/bold] [red]x", "[RED]", 0),
        ("[/bold] [red]x", "[red]", 1),
        ("two\nlines", "two lines", 1),
        ("two\n\nparagraphs", "two paragraphs", 0),
        ("1. a\n1. b", "2. b", 1),
        ("a.c abc", "a.c", 1),
        ("我们去吃饭", "去吃", 1),
        ("aaaa", "aa", 2),
        ("x\x1b]0;t\x07", "␛]0;t␇", 1),
    ],
)
def test_what_is_searched_is_what_is_seen(text: str, sought: str, total: int) -> None:
    assert search(log_of(answer("a", text)), sought).total == total


@pytest.mark.parametrize(("sought", "total"), [("guide", 3), ("Guide", 1), ("GUIDE", 1), ("straße", 1)])
def test_an_upper_case_letter_makes_the_case_count(sought: str, total: int) -> None:
    assert search(log_of(answer("a", "guide Guide GUIDE Straße")), sought).total == total


def test_titles_figures_and_folded_thoughts_are_left_out() -> None:
    entry = answer("a", "the answer", footer="guide · stop", thought="secret", thought_tokens=3)
    error = Entry(key="e", role="error", title="guide", text="it died", hint="secret hint", log=("secret line",))
    log = log_of(entry, error)
    assert search(log, "guide").total == 0
    assert search(log, "secret").total == 2, "what to do about an error is searched"
    assert marked(log) + marked(log, NOW) == ["secret"] * 2


@pytest.mark.parametrize("width", [24, 61, 140])
def test_a_match_across_wrapped_rows_is_one_and_all_of_it_is_marked(width: int) -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    for text in (words, f"- {words}", f"> {words}", f"- x\n  - {words}", f"#### {words}"):
        log = log_of(answer("a", text), width=width)
        finder = search(log, words)
        assert (finder.number, finder.total) == (1, 1), text
        assert " ".join(marked(log, NOW)) == words
    code = "```\n" + words.replace(" ", "_") + "\n```"
    log = log_of(answer("a", code), width=width)
    assert search(log, words.replace(" ", "_")).total == 1
    assert "".join(marked(log, NOW)) == words.replace(" ", "_")


def test_what_is_drawn_as_one_is_marked_as_one() -> None:
    log = log_of(answer("a", "x 👩‍👩‍👧 e\u0301 y 我们"))
    for sought, shown in (("👩", "👩‍👩‍👧"), ("e", "e\u0301"), ("们", "们")):
        rows = [row.text for row in log.rows_in_view()]
        search(log, sought)
        assert marked(log, NOW) == [shown]
        assert [row.text for row in log.rows_in_view()] == rows
        assert all(cells(row.text) == sum(cells(s.text) for s in row.segments) for row in log.rows_in_view())


@pytest.mark.parametrize("width", [20, 45, 90])
@pytest.mark.parametrize("text", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_what_is_counted_is_what_is_marked(text: str, width: int) -> None:
    """Plain text and code are searched without wrapping or colouring them; it comes to the same."""
    for entry in (answer("a", text), Entry(key="u", role="user", text=text)):
        view = EntryView(entry, width, LOOK)
        for part in range(view.count):
            assert said(view, part).strip("\n") == Passage(view.rows(part)).text.strip("\n")


@settings(max_examples=60)
@given(text=st.text(alphabet="ab", max_size=60), sought=st.text(alphabet="ab", min_size=1, max_size=4))
def test_counting_in_blocks_is_counting(text: str, sought: str) -> None:
    pattern = re.compile(sought)
    whole = text * (2 * BLOCK // (len(text) + 1))
    assert sum(counted(pattern, len(sought), whole)) == len(pattern.findall(whole))


def test_the_nearest_below_is_first_then_the_nearest_above() -> None:
    entries = [answer(str(n), f"entry {n} needle\n\n" + "filler\n\n" * 30) for n in range(9)]
    log = log_of(*entries)
    assert search(log, "needle").number == 9, "at the end there is none below"
    log.to_start()
    log.settle()
    finder = search(log, "needle")
    assert finder.number == 1
    finder.seek("entry 4")
    finish(finder).show()
    log.settle()
    assert marked(log, NOW) == ["entry 4"]
    finder.seek("needle")
    assert finish(finder).number == 1, "letters that are taken back lead back"


def test_next_and_previous_go_round_and_say_so() -> None:
    log = log_of(*(answer(str(n), f"n{n} needle and needle\n\n" + "filler\n\n" * 30) for n in range(4)))
    log.to_start()
    log.settle()
    finder = search(log, "needle")
    seen = [finder.number]
    for _ in range(8):
        assert go(log, finder, 1) == ["needle"]
        seen.append(finder.number)
        assert finder.wrapped == (1 if len(seen) == 9 else 0)
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert go(log, finder, -1) == ["needle"]
    assert (finder.number, finder.wrapped) == (8, -1)
    finder.go(-1)
    finder.go(-1)
    assert finish(finder).number == 6


def test_a_step_into_what_is_not_searched_yet_is_taken_when_it_is() -> None:
    entries = [answer(str(n), "filler\n\n" * 20 + "needle") for n in range(50)]
    log = log_of(*entries)
    finder = Finder(log)
    finder.seek("needle")
    while finder.current is None:
        finder.step(0)
    assert finder.current.key == "49"
    for _ in range(3):
        finder.go(-1)
    while finder.current.key != "46":
        finder.step(0)
        assert finder.busy
    assert finder.total < 10, "what lies in the way is searched first"
    assert (finish(finder).number, finder.total) == (47, 50)


def test_of_one_match_alone_next_is_itself() -> None:
    log = log_of(answer("a", "x needle"), answer("b", "y"))
    finder = search(log, "needle")
    assert go(log, finder, 1) == ["needle"]
    assert (finder.number, finder.total, finder.wrapped) == (1, 1, 1)
    assert go(log, search(log, "nothing"), 1) == []


def test_a_growing_answer_is_searched_again_and_moves_nothing() -> None:
    log = log_of(answer("a", "needle\n\n" + "filler\n\n" * 5), answer("b", "", streaming=True), height=30)
    finder = search(log, "needle")
    finder.show()
    log.settle()
    before = [row.text for row in log.rows_in_view()][:12]
    for _ in range(40):
        log.feed("b", "more of a needle\n\n")
        log.settle()
    assert [row.text for row in log.rows_in_view()][:12] == before
    assert not log.following
    finder.again()
    assert (finish(finder).number, finder.total) == (1, 41)
    log.update("b", {"text": "short", "streaming": False})
    log.drop("a")
    finder.again()
    assert (finish(finder).number, finder.total) == (0, 0)


def test_a_long_conversation_is_searched_in_slices_and_stays_closed() -> None:
    chance = random.Random(1)
    words = RICH.split()
    entries = [
        Entry(key=str(n), role="assistant" if n % 2 else "user", text=" ".join(chance.choices(words, k=60)) + " needle")
        for n in range(2000)
    ]
    log = log_of(*entries)
    finder = Finder(log)
    finder.seek("needle")
    steps = 0
    while finder.busy:
        finder.step(0)
        steps += 1
    assert finder.total == 2000
    assert steps > 2000
    assert log.opened < 10
    finder.seek("needle")
    finish(finder)
    assert (finder.total, log.opened < 10) == (2000, True)


def test_questions_are_jumped_to() -> None:
    entries = [
        Entry(
            key=f"{n}", role="assistant" if n % 2 else "user", title=f"T{n}", text="filler\n\n" * (30 if n % 2 else 1)
        )
        for n in range(8)
    ]
    log = log_of(*entries)

    def top(by: int) -> str:
        log.to_question(by)
        log.settle()
        return log.rows_in_view()[0].text.strip("▌ ")

    assert [top(-1) for _ in range(5)] == ["T6", "T4", "T2", "T0", "T0"]
    assert [top(1) for _ in range(3)] == ["T2", "T4", "T6"]
    assert not log.following
    top(1)
    assert log.following, "behind the last question the end is followed again"
    empty = log_of()
    empty.to_question(1)
    empty.settle()
    assert empty.rows_in_view() == []


@pytest.mark.parametrize("sought", ["gh1abc", "needle of wo", "needle"])
@pytest.mark.parametrize("joint", ["", " "])
def test_a_match_that_a_cut_goes_through_is_found_and_marked_as_one(sought: str, joint: str) -> None:
    plain = f"a needle of words and abcdefgh1abc {joint}" if joint else "abcdefgh1abcneedle_of_wo"
    sought = sought if joint else sought.replace(" ", "_")
    text = (plain * 20_000)[:300_000]
    log = log_of(answer("a", text))
    view = log.views[0]
    assert view.count > 30
    finder = search(log, sought)
    whole = "".join(said(view, part) for part in range(1, view.count - 1))
    assert finder.total == whole.count(sought) > 1000
    units = [view.unit(part) for part in range(1, view.count - 1)]
    cuts = [len(said(view, part)) for part in range(1, view.count - 2)]
    crossed = 0
    for part, unit in enumerate(units[:-1], 1):
        assert unit is not None and unit.joint is not None
        both = said(view, part) + said(view, part + 1)
        begins = both.find(sought, max(0, cuts[part - 1] - len(sought) + 1), cuts[part - 1] + len(sought) - 1)
        if not 0 <= begins < cuts[part - 1] < begins + len(sought):
            continue
        crossed += 1
        marked = "".join(painted_text(finder.mark(view, at)) for at in (part, part + 1))
        assert marked.count(sought.replace(" ", "")) == sum(
            len(list(finder._rows(view, at))) for at in (part, part + 1)
        )  # pyright: ignore[reportPrivateUsage]
    assert crossed or joint


def painted_text(rows: list[Any]) -> str:
    """What is marked in some rows."""
    return "".join(part.text for row in rows for part in row.segments if part.style in (FOUND, NOW)).replace(" ", "")
