"""Markdown as rows: what it looks like, and that a growing text always looks like a whole one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style

from llama_tui.control import Sanitizer, sanitize
from llama_tui.ui.blocks import Splitter
from llama_tui.ui.code import Code
from llama_tui.ui.entry import Entry
from llama_tui.ui.look import Look
from llama_tui.ui.markdown import MEASURE
from llama_tui.ui.text import Row, chop, expand_tabs, fit, wrap
from llama_tui.ui.view import MARKDOWN_LIMIT, EntryView

LOOK = Look(**{name: Style(color=f"color({index})") for index, name in enumerate(Look.names())})
"""A colour of its own for every role, so that rows that look the same are the same."""


def view(text: str = "", width: int = 60, **changes: object) -> EntryView:
    made = EntryView(Entry(**{"key": "a", "role": "assistant", "text": text, **changes}), width, LOOK)  # type: ignore[arg-type]
    made.open()
    return made


def rows(made: EntryView) -> list[Row]:
    return [row for part in range(made.count) for row in made.rows(part)]


def lines(text: str, width: int = 60) -> list[str]:
    """The rows as text, without the margin and the empty one at the end."""
    return [row.text[2:].rstrip() for row in rows(view(text, width))][:-1]


def style_of(text: str, part: str) -> Style:
    """The style that a piece of the text has."""
    for row in rows(view(text)):
        for segment in row.segments:
            if segment.text == part and segment.style is not None:
                return segment.style
    raise AssertionError(f"{part!r} is not a segment")


def has(style: Style, role: Style, **attributes: bool) -> bool:
    return style.color == role.color and all(getattr(style, name) is value for name, value in attributes.items())


def test_inline_styles() -> None:
    text = "**bold** *italic* ~~gone~~ `code` [text](https://x.org) ***both*** <https://y.org>"
    assert has(style_of(text, "bold"), LOOK.text, bold=True)
    assert has(style_of(text, "italic"), LOOK.text, italic=True)
    assert has(style_of(text, "gone"), LOOK.text, strike=True)
    assert has(style_of(text, "both"), LOOK.text, bold=True, italic=True)
    assert style_of(text, "code") == LOOK.code
    assert style_of(text, "text") == LOOK.link
    assert style_of(text, " (https://x.org)") == LOOK.muted
    assert lines(text, 90) == ["bold italic gone code text (https://x.org) both https://y.org"]


def test_nested_lists_and_tasks() -> None:
    text = "3. three\n   - dot\n     - ring\n\n       more\n4. four\n\n- [x] done\n- [ ] open\n* other list"
    assert lines(text) == [
        "3. three",
        "   • dot",
        "     ◦ ring",
        "",
        "       more",
        "4. four",
        "",
        "☑ done",
        "☐ open",
        "• other list",
    ]


def test_numbers_count_on_whatever_the_source_says() -> None:
    assert lines("1. a\n1. b\n1. c\n\n1) d") == ["1. a", "2. b", "3. c", "", "1. d"]


def test_an_item_keeps_its_indent_when_wrapped() -> None:
    assert lines("10. one two three four", 16) == ["10. one two", "    three four"]


def test_prose_has_a_measure_and_code_and_tables_take_what_there_is() -> None:
    words = "word " * 100
    prose = f"# {words}\n\n{words}\n\n- {words}\n\n> {words}"
    assert 0 < max(len(row) for row in lines(prose, 300)) <= MEASURE + 2
    assert max(len(row) for row in lines(f"```\n{words}\n```", 300)) > 250
    assert max(len(row) for row in lines(f"| a | b |\n|---|---|\n| {words} | x |", 300)) > 250


def test_a_long_log_leaves_the_error_above_it_in_view() -> None:
    made = view("The engine died", role="error", hint="Do this.", log=tuple(f"line {number}" for number in range(40)))
    said = [row.text[2:].rstrip() for row in rows(made)]
    assert said[:2] == ["The engine died", "Do this."]
    assert said[2:-1] == ["… all of it is in the engine's log", *(f"line {number}" for number in range(35, 40))]


def test_headings_quotes_rules_and_html() -> None:
    text = "# One\n\nTwo\n---\n> a\n> - b\n>\n> c\n\n***\n\n<div>\n*x*\n</div>\n\na<br>b <i>c</i>"
    assert lines(text, 20) == [
        *("One", "", "Two", "▎ a", "▎ • b", "▎", "▎ c", "", "─" * 18, ""),
        *("<div>", "*x*", "</div>", "", "a", "b <i>c</i>"),
    ]
    assert has(style_of("# One", "One"), LOOK.heading)


def test_reference_links_are_found_wherever_they_are_defined() -> None:
    assert lines("[a] and [b][A]\n\n> [a]: /x") == ["a (/x) and b (/x)"]
    assert lines("[a]: /x 'title'\n\n[a]") == ["a (/x)"]


def test_tables_align_and_fit() -> None:
    text = "| a | b | c |\n|:--|--:|:-:|\n| x | 1 | m |\n| long | 22 | mmm |"
    assert lines(text) == ["a    │  b │  c", "─────┼────┼────", "x    │  1 │  m", "long │ 22 │ mmm"]
    wide = "| name | text |\n|---|---|\n| a | " + "word " * 12 + "|\n| b | x |"
    made = lines(wide, 32)
    assert max(map(len, made)) <= 30
    assert made[0].startswith("name │ text")
    assert " ".join(line.split("│")[1].strip() for line in made[2:5]).split() == ["word"] * 12


def test_a_table_that_cannot_fit_becomes_lists() -> None:
    text = "| " + " | ".join("abcdefgh") + " |\n" + "|---" * 8 + "|\n" + "| " + " | ".join("12345678") + " |"
    assert lines(text, 40)[:2] == ["a: 1", "b: 2"]


def test_code_has_a_panel_a_label_and_colours() -> None:
    made = rows(view("```python\ndef f():\n\treturn 'x'  # note\n```", 30))
    assert [row.text for row in made][:3] == [
        "   python" + " " * 21,
        "   def f():" + " " * 19,
        "       return 'x'  # note" + " " * 5,
    ]
    found = {segment.text: segment.style for row in made for segment in row.segments}
    assert found["def"] == LOOK.code_keyword
    assert found["f"] == LOOK.code_name
    assert found["'x'"] == LOOK.code_string
    assert found["# note"] == LOOK.code_comment


def test_an_unknown_language_is_plain() -> None:
    made = rows(view("```nosuchlanguage\nif x\n```"))
    assert {segment.style for segment in made[1].segments[1:]} == {LOOK.code_block}


def test_long_code_lines_wrap_anywhere() -> None:
    assert lines("```\n" + "ab " * 10 + "\n```", 16) == [" ab ab ab ab", " ab ab ab ab", " ab ab"]


def test_code_in_pieces_has_the_colours_of_code_as_a_whole() -> None:
    source = []
    for index in range(60):
        source += [
            f"def f{index}(a):",
            '    """Over',
            "",
            f"    {index} lines.",
            '    """',
            "    return 'x' + 1  # y",
            "",
        ]
    pieces = Code("python", 60, LOOK).rows(source)
    from pygments.lexers import find_lexer_class_by_name

    from llama_tui.ui import code

    whole: list[tuple[str, Style]] = []
    for kind, value in find_lexer_class_by_name("python")(stripnl=False).get_tokens("\n".join(source) + "\n"):
        whole += [(character, getattr(LOOK, code._role(kind))) for character in value if not character.isspace()]
    shown = [
        (character, segment.style)
        for row in pieces[1:]
        for segment in row.segments
        for character in segment.text
        if not character.isspace()
    ]
    assert shown == whole


def test_a_growing_fence_is_not_coloured_again_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Code("python", 60, LOOK)
    source = [f"x{index} = {index}" for index in range(2000)]
    made.rows(source)
    coloured: list[int] = []
    original = Code._coloured

    def counted(self: Code, lexer: object, part: list[str]) -> object:
        coloured.append(len(part))
        return original(self, lexer, part)  # type: ignore[arg-type]

    monkeypatch.setattr(Code, "_coloured", counted)
    made.rows([*source, "y = 1"])
    assert sum(coloured) <= 128


# What a growing text looks like

PIECES = [
    *("- ", "* ", "+ ", "1. ", "2) ", "10. ", "0. ", "  ", "    ", "   ", "\t", "\n", "\n\n", "\n", "\n   ", "\n\n   "),
    *("# ", "#", "##", "---", "***", "- - -", "===", "```", "```py\n", "~~~", "`", "\n- ", "\n1. ", "\n  - "),
    *("| a | b |\n|---|---|\n", "| x | y |\n", "--- | :-:", "a | b\n", "|", "> ", ">", "- [ ] t\n", "\r\n", "\r"),
    *("[foo]: /url\n", "[foo]:", "[foo]", "[foo\\]o]:", "'t'", "<div>", "</div>", "<!--", "-->", "<p", "&#8238;"),
    *("text", "word ", "Some words ", "x", "*b*", "**", "_i_ ", "\\", "&amp;", "我", "def f(x):\n", "    '''a\n"),
]
WORDS = [
    *("lorem ", "ipsum ", "**dolor** ", "*sit ", "amet* ", "`con ", "sec` ", "a*b ", "_x ", "[l](u) ", "[r ", "<b "),
    *("long" * 9 + " ", "\\ ", "é ", "我们 ", "1. ", "&lt; ", "~~s~~ ", "end. ", "\n", "  \n"),
]


def without_definitions(splitter: Splitter) -> list[tuple[object, ...]]:
    """What the units are, less those that show nothing, whose number is nobody's concern."""
    return [
        (unit.source, unit.kind, unit.number, unit.blank, unit.continued)
        for unit in splitter.units
        if unit.kind != "empty"
    ]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=25), st.data())
def test_units_of_a_growing_text_are_those_of_the_whole(pieces: list[str], data: st.DataObject) -> None:
    text = sanitize("".join(pieces))
    growing, taken = Splitter(), 0
    while taken < len(text):
        size = data.draw(st.sampled_from((1, 1, 2, 3, 5, 9, 30)))
        growing.feed(text[taken : taken + size])
        taken += size
        assert without_definitions(growing) == without_definitions(Splitter(text[:taken]))
    assert "".join(unit.source for unit in growing.units) in (text, "")


def streamed(text: str, sizes: list[int], width: int) -> None:
    """Grow a text in fragments of these sizes, and compare it with the whole at times and at the end."""
    growing = view(width=width, streaming=True)
    taken = turn = 0
    while taken < len(text):
        size = sizes[turn % len(sizes)]
        growing.feed(text[taken : taken + size])
        taken += size
        turn += 1
        if turn % 4 == 0 and not text[:taken].endswith("\r"):
            assert rows(growing) == rows(view(text[:taken], width, streaming=True))
    growing.change({"text": text, "streaming": False})
    assert rows(growing) == rows(view(text, width))
    assert growing.height == len(rows(growing))


SIZES = st.lists(st.sampled_from((1, 2, 3, 5, 9, 30, 100)), min_size=1, max_size=9)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=40), SIZES, st.sampled_from((20, 40, 80)))
def test_streamed_rows_are_those_of_the_whole(pieces: list[str], sizes: list[int], width: int) -> None:
    streamed("".join(pieces), sizes, width)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(WORDS), min_size=200, max_size=500), SIZES, st.sampled_from((20, 80)))
def test_a_long_paragraph_streams_to_what_it_is_as_a_whole(words: list[str], sizes: list[int], width: int) -> None:
    streamed("".join(words), sizes, width)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(PIECES), min_size=80, max_size=250), SIZES)
def test_a_long_fence_streams_to_what_it_is_as_a_whole(pieces: list[str], sizes: list[int]) -> None:
    streamed("```py\n" + "".join(pieces), sizes, 40)


# Text

TEXT = st.text(st.sampled_from("abc  .,我饭。，é👨🎉e\u0301\u3000"), max_size=60)


@settings(max_examples=300)
@given(TEXT, st.integers(2, 20), st.integers(0, 10))
def test_wrapping_loses_nothing_and_fits(text: str, width: int, cut: int) -> None:
    spans = [(text[:cut], LOOK.text), (text[cut:], LOOK.muted)]
    wrapped = wrap(spans, width)
    assert "".join(row.text + (row.joint or "") for row in wrapped).rstrip() == text.rstrip()
    assert all(cell_len(row.text) <= width for row in wrapped)
    chopped = chop(spans, width)
    assert "".join(row.text for row in chopped) == text
    assert all(cell_len(row.text) <= width for row in chopped)
    styles = [(character, segment.style) for row in chopped for segment in row.segments for character in segment.text]
    assert styles == [(character, style) for part, style in spans for character in part]


def test_words_break_between_wide_characters_but_not_before_their_punctuation() -> None:
    made = [row.text for row in wrap([("我们去吃饭。然后再说，好吗？", LOOK.text)], 10)]
    assert made == ["我们去吃", "饭。然后再", "说，好吗？"]


def test_a_word_of_ten_megabytes_is_wrapped_in_time_that_is_linear() -> None:
    made = wrap([("x" * 1_000_000, LOOK.text)], 100)
    assert len(made) == 10_000


@given(st.text(max_size=80), st.lists(st.integers(1, 9), min_size=1))
def test_sanitizing_in_fragments_is_sanitizing(text: str, sizes: list[int]) -> None:
    text = text.replace("a", "\r").replace("b", "\n")
    sanitizer, taken, parts, turn = Sanitizer(), 0, list[str](), 0
    while taken < len(text):
        size = sizes[turn % len(sizes)]
        parts.append(sanitizer.feed(text[taken : taken + size]))
        taken += size
        turn += 1
    parts.append(sanitizer.end())
    assert "".join(parts) == sanitize(text)


def test_sanitizing_shows_what_it_replaces() -> None:
    assert sanitize("a\x1b[31m\x07\x9b\x7f\u202e\u2066\ud800\r\nb\rc\u2028d\te") == "a␛[31m␇�␡���\nb␍c\nd\te"
    harmless = "plain, tab\t, newline\n, 我, é, 👩\u200d👧, \u05d0\u200f"
    assert sanitize(harmless) is harmless
    every = sanitize("".join(map(chr, range(0x110000))))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", every)
    every.encode()


def test_tabs_and_fit() -> None:
    assert expand_tabs("a\tb\t\tc") == "a   b       c"
    assert expand_tabs("我\tb") == "我  b"
    assert fit("abcdef", 6) == "abcdef"
    assert fit("abcdef", 4) == "abc…"
    assert fit("我们去", 4) == "我…"
    assert fit("abc", 1) == "…"
    assert fit("abc", 0) == ""


def test_a_long_text_is_read_anew_once_however_its_lines_end() -> None:
    line = "word " * 200 + "\r\n\r\n"
    made = view(line * (MARKDOWN_LIMIT // len(line)))
    made.feed(line)
    first = made.unit(1)
    made.feed(line)
    assert first is not None and first.kind == "plain"
    assert made.unit(1) is first
