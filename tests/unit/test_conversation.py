"""A conversation is a tree; what is seen is one path through it."""

from __future__ import annotations

import msgspec
import pytest

from llama_tui.chat.conversation import Conversation, Turn, new_id, title_of
from llama_tui.engine.protocol import Message


def talk(conversation: Conversation, *pairs: tuple[str, str]) -> list[Turn]:
    """Add questions and whole answers after the leaf; the answers."""
    answers: list[Turn] = []
    for question, text in pairs:
        conversation.ask(question)
        answers.append(add_answer(conversation, text))
    return answers


def add_answer(conversation: Conversation, text: str, beside: Turn | None = None) -> Turn:
    turn = conversation.answer("m", {}, beside=beside)
    return conversation.replace(Turn(turn.id, turn.parent, "assistant", text, turn.created, model="m", ending="stop"))


def texts(conversation: Conversation) -> list[str]:
    return [turn.content for turn in conversation.path()]


class TestPath:
    def test_a_new_one_is_empty(self) -> None:
        conversation = Conversation.new()
        assert conversation.path() == []
        assert conversation.leaf is None
        assert conversation.title == ""

    def test_grows_at_the_leaf(self) -> None:
        conversation = Conversation.new()
        talk(conversation, ("a", "A"), ("b", "B"))
        assert texts(conversation) == ["a", "A", "b", "B"]
        assert conversation.prompts() == ["a", "b"]

    def test_another_answer_is_a_sibling(self) -> None:
        conversation = Conversation.new()
        (first,) = talk(conversation, ("a", "A1"))
        second = add_answer(conversation, "A2", beside=first)
        assert texts(conversation) == ["a", "A2"]
        assert conversation.siblings(first) == conversation.siblings(second) == [first, second]

    def test_stepping_between_answers_brings_what_followed(self) -> None:
        conversation = Conversation.new()
        (first,) = talk(conversation, ("a", "A1"))
        talk(conversation, ("b", "B"))
        second = add_answer(conversation, "A2", beside=first)
        assert texts(conversation) == ["a", "A2"]
        assert conversation.step(second, -1)
        assert texts(conversation) == ["a", "A1", "b", "B"]
        assert conversation.step(first, 1)
        assert texts(conversation) == ["a", "A2"]

    @pytest.mark.parametrize("by", [-1, 1])
    def test_there_is_nothing_beyond_the_ends(self, by: int) -> None:
        conversation = Conversation.new()
        (only,) = talk(conversation, ("a", "A"))
        assert not conversation.step(only, by)
        assert texts(conversation) == ["a", "A"]

    def test_a_removed_turn_leaves_its_parent_at_the_end(self) -> None:
        conversation = Conversation.new()
        question = conversation.ask("a")
        answer = conversation.answer("m", {})
        conversation.remove(answer)
        assert conversation.leaf == question.id
        assert answer.id not in conversation
        conversation.remove(question)
        assert conversation.path() == []


class TestLoaded:
    def test_shows_the_branch_that_was_shown(self) -> None:
        conversation = Conversation.new()
        (first,) = talk(conversation, ("a", "A1"))
        second = add_answer(conversation, "A2", beside=first)
        again = Conversation(conversation.id, "t", conversation.turns, first.id)
        assert texts(again) == ["a", "A1"]
        assert again[second.id] == second

    def test_a_leaf_that_is_not_there_gives_the_newest(self) -> None:
        conversation = Conversation.new()
        talk(conversation, ("a", "A"))
        assert texts(Conversation(conversation.id, "t", conversation.turns, "gone")) == ["a", "A"]


class TestMessages:
    def test_what_came_before_an_answer(self) -> None:
        conversation = Conversation.new()
        talk(conversation, ("a", "A"), ("b", "B"))
        answer = conversation.path()[-1]
        assert conversation.messages(answer, "") == (
            Message("user", "a"),
            Message("assistant", "A"),
            Message("user", "b"),
        )

    def test_a_system_prompt_is_first(self) -> None:
        conversation = Conversation.new()
        talk(conversation, ("a", "A"))
        assert conversation.messages(conversation.path()[-1], "Be brief.")[0] == Message("system", "Be brief.")

    def test_answers_without_text_are_left_out(self) -> None:
        conversation = Conversation.new()
        talk(conversation, ("a", ""), ("b", "B"))
        assert [m.content for m in conversation.messages(conversation.path()[-1], "")] == ["a", "b"]

    def test_thoughts_are_told_only_after_the_last_question(self) -> None:
        conversation = Conversation.new()
        talk(conversation, ("a", "A"), ("b", "B"))
        for turn in conversation.turns:
            if turn.role == "assistant":
                conversation.replace(msgspec.structs.replace(turn, reasoning=f"about {turn.content}"))
        after = conversation.answer("m", {})
        assert conversation.messages(after, "") == (
            Message("user", "a"),
            Message("assistant", "A"),
            Message("user", "b"),
            Message("assistant", "B", "about B"),
        )

    def test_a_sibling_is_not_told_of_the_others(self) -> None:
        conversation = Conversation.new()
        (first,) = talk(conversation, ("a", "A1"))
        second = add_answer(conversation, "A2", beside=first)
        assert conversation.messages(second, "") == (Message("user", "a"),)


class TestTitle:
    def test_is_the_first_question(self) -> None:
        conversation = Conversation.new()
        talk(conversation, ("How  do\n I?", "A"), ("b", "B"))
        assert conversation.title == "How do I?"

    def test_is_cut_where_it_is_long(self) -> None:
        title = title_of("word " * 40)
        assert len(title) <= 60
        assert title.endswith("word…")


def test_ids_are_unique() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000


def test_a_turn_whose_parent_was_not_kept_begins_the_path() -> None:
    question = Turn("q", "never kept", "user", "and then?", 1.0)
    answer = Turn("a", "q", "assistant", "then this", 2.0)
    conversation = Conversation("c", "title", (question, answer), "a")
    assert conversation.path() == [question, answer]
    assert [message.content for message in conversation.messages(answer, "")] == ["and then?"]
