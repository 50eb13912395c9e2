"""Bytes of tokens become text: UTF-8 across tokens, stray bytes, stop strings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_tui.worker.text import AnswerText, Said


def run(pieces: Sequence[bytes], stop: Sequence[str] = ()) -> tuple[list[str], str, bool]:
    """What each piece brings, what is left at the end, and whether a stop string ended it."""
    text = AnswerText(stop)
    shown: list[str] = []
    for piece in pieces:
        shown.append(said(text.feed(piece)))
        if text.stopped:
            break
    return shown, said(text.finish()), text.stopped


def said(stretches: Sequence[Said]) -> str:
    """The text alone."""
    return "".join(item[1] for item in stretches if isinstance(item, tuple))


class TestUtf8:
    def test_a_character_waits_for_its_last_byte(self) -> None:
        assert run(["é".encode()[:1], "é".encode()[1:]]) == (["", "é"], "", False)

    def test_four_bytes_one_at_a_time(self) -> None:
        assert run([bytes([byte]) for byte in "🦙".encode()])[0] == ["", "", "", "🦙"]

    def test_a_stray_byte_shows_at_once_and_holds_nothing_up(self) -> None:
        assert run([b"a\xffb", b"c"]) == (["a\ufffdb", "c"], "", False)

    def test_a_character_that_is_broken_off_by_another(self) -> None:
        assert run([b"\xf0\x9f", b"ok"]) == (["", "\ufffdok"], "", False)

    def test_half_a_character_at_the_end_becomes_a_mark(self) -> None:
        assert run([b"a", b"\xe2\x82"]) == (["a", ""], "\ufffd", False)


class TestStop:
    def test_ends_before_it(self) -> None:
        assert run([b"one END two"], ["END"]) == (["one "], "", True)

    def test_across_tokens_nothing_of_it_is_shown(self) -> None:
        assert run([b"oneE", b"N", b"D two"], ["END"]) == (["one", "", ""], "", True)

    def test_what_only_began_like_it_is_shown_later(self) -> None:
        assert run([b"oneE", b"Nd"], ["END"]) == (["one", "ENd"], "", False)

    def test_held_text_comes_at_the_end(self) -> None:
        assert run([b"one EN"], ["END"]) == (["one "], "EN", False)

    def test_a_beginning_within_a_beginning(self) -> None:
        assert run([b"aab", b"aac"], ["aabaac"]) == (["", ""], "", True)
        assert run([b"aaa", b"b"], ["aab"])[0] == ["a", ""]

    def test_the_one_that_is_complete_first(self) -> None:
        assert "".join(run([b"abcd"], ["abcd", "bc"])[0]) == "a"
        assert "".join(run([b"a", b"b", b"c"], ["abcd", "bc"])[0]) == "a"

    def test_empty_stop_strings_stop_nothing(self) -> None:
        assert run([b"text"], [""]) == (["text"], "", False)

    def test_a_stop_string_of_several_bytes_a_letter(self) -> None:
        end = "…終".encode()
        assert run([b"x" + end[:4], end[4:]], ["…終"]) == (["x", ""], "", True)

    def test_a_stop_string_that_the_last_byte_completes(self) -> None:
        text = AnswerText(["\ufffd"])
        assert (said(text.feed(b"a\xe2")), said(text.finish()), text.stopped) == ("a", "", True)


def up_to_first_stop(text: str, stop: Sequence[str]) -> str:
    """The definition, letter by letter: the text before the stop string that is complete first."""
    for end in range(len(text) + 1):
        complete = [len(word) for word in stop if word and text[:end].endswith(word)]
        if complete:
            return text[: end - max(complete)]
    return text


@given(
    text=st.text(alphabet="abé🦙\n", max_size=30),
    stop=st.lists(st.text(alphabet="abé\n", max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 120), max_size=12),
)
def test_the_split_into_tokens_does_not_matter(text: str, stop: list[str], cuts: list[int]) -> None:
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    shown, rest, stopped = run([data[a:b] for a, b in itertools.pairwise(edges)], stop)
    assert "".join(shown) + rest == up_to_first_stop(text, stop)
    assert stopped == any(word and word in text for word in stop)


@given(pieces=st.lists(st.binary(max_size=4), max_size=10))
def test_any_bytes_are_what_python_decodes(pieces: list[bytes]) -> None:
    shown, rest, _ = run(pieces)
    assert "".join(shown) + rest == b"".join(pieces).decode("utf-8", "replace")


@pytest.mark.parametrize("stop", [["x"], ["END", "\n\n"], ["aaaa"]])
def test_nothing_is_held_longer_than_a_stop_string(stop: list[str]) -> None:
    text = AnswerText(stop)
    shown = 0
    for count in range(1, 50):
        shown += len(said(text.feed(b"a")))
        if text.stopped:
            break
        assert count - shown < max(map(len, stop))
