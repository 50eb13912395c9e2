"""What is left out of a conversation that does not fit: whole turns, few at a time, never unsaid."""

from __future__ import annotations

import random

import pytest

from llama_tui.engine.protocol import Message
from llama_tui.errors import ContextOverflow
from llama_tui.worker.cut import REPLY_SHARE, SLACK_SHARE, Fitted, Fitting, Told, turns_of
from llama_tui.worker.template import ChatTemplate
from tests.ggufs import CHATML

N_CTX = 1024


class Desk:
    """Fits conversations with a real template, a token for every character."""

    def __init__(self, n_ctx: int = N_CTX, max_tokens: int | None = None) -> None:
        self.n_ctx, self.max_tokens = n_ctx, max_tokens
        self.renderings = 0
        self._template = ChatTemplate(CHATML, "", "", knows_chatml=True)

    def make(self, messages: tuple[Message, ...]) -> Told:
        from llama_tui.worker.renderer import Prompt

        self.renderings += 1
        text = self._template.render(messages)
        return Told(Prompt(text, "model"), [ord(letter) for letter in text])

    def fit(self, messages: list[Message], how: str, before: tuple[int, ...] = ()) -> Fitted:
        self.renderings = 0
        return Fitting(messages, self.make, self.n_ctx, self.max_tokens).fit(how, before)


def talk(turns: int, letters: int = 100, system: str = "") -> list[Message]:
    """A system message, if any, and turns that each need about twice as many tokens as letters."""
    said = [Message("system", system)] if system else []
    for turn in range(turns):
        said += [Message("user", f"{turn:x}" * letters), Message("assistant", "a" * letters)]
    return [*said, Message("user", "last")]


def places(fitted: Fitted) -> tuple[int, ...]:
    return fitted.left_out.places if fitted.left_out else ()


class TestTurns:
    def test_a_question_with_all_that_answers_it(self) -> None:
        roles = ("system", "user", "assistant", "tool", "tool", "assistant", "user", "user", "assistant", "system")
        assert turns_of([Message(role) for role in roles]) == [[1, 2, 3, 4, 5], [6], [7, 8]]

    def test_a_greeting_belongs_to_the_first_question(self) -> None:
        roles = ("assistant", "user", "assistant", "user")
        assert turns_of([Message(role) for role in roles]) == [[0, 1, 2], [3]]


class TestFit:
    @pytest.mark.parametrize("how", ["ask", "drop_oldest", "drop_middle", "stop"])
    def test_what_fits_is_told_whole_after_one_rendering(self, how: str) -> None:
        desk = Desk()
        fitted = desk.fit(talk(2), how)
        assert (fitted.left_out, desk.renderings) == (None, 1)

    def test_the_oldest_turns_go_the_system_message_stays(self) -> None:
        fitted = Desk().fit(talk(8, system="Be brief."), "drop_oldest")
        gone = places(fitted)
        assert gone == tuple(range(1, 1 + len(gone)))
        assert len(gone) % 2 == 0
        text = fitted.told.rendered.text
        assert "Be brief." in text and "last" in text and "0000" not in text and "7777" in text

    def test_the_first_turn_stays_where_the_middle_goes(self) -> None:
        fitted = Desk().fit(talk(8, system="Be brief."), "drop_middle")
        text = fitted.told.rendered.text
        assert places(fitted)[:2] == (3, 4)
        assert "Be brief." in text and "0000" in text and "1111" not in text and "last" in text

    @pytest.mark.parametrize("seed", range(30))
    def test_no_more_goes_than_must(self, seed: int) -> None:
        dice = random.Random(seed)
        desk = Desk(n_ctx=dice.choice([512, 2048, 5000]))
        messages = [Message("system", "s" * dice.randrange(40))] * dice.randrange(2)
        while sum(len(message.content) for message in messages) < desk.n_ctx:
            messages.append(Message("user", "u" * dice.randrange(1, desk.n_ctx // 8)))
            if dice.random() < 0.8:
                messages.append(Message("assistant", "a" * dice.randrange(1, desk.n_ctx // 8)))
        messages.append(Message("user", "last"))
        how = dice.choice(["drop_oldest", "drop_middle"])
        fitted = desk.fit(messages, how)
        goal = desk.n_ctx - desk.n_ctx // REPLY_SHARE - desk.n_ctx // SLACK_SHARE
        assert len(fitted.told.tokens) <= goal
        gone, turns = places(fitted), turns_of(messages)
        dropped = [turn for turn in turns if set(turn) <= set(gone)]
        assert sorted(place for turn in dropped for place in turn) == list(gone), "whole turns only"
        assert turns[-1] not in dropped and (how == "drop_oldest" or turns[0] not in dropped)
        fewer = [message for place, message in enumerate(messages) if place not in gone or place in dropped[-1]]
        assert len(desk.make(tuple(fewer)).tokens) > goal
        whole = len(desk.make(tuple(messages)).tokens)
        assert fitted.left_out and fitted.left_out.tokens == whole - len(fitted.told.tokens)

    def test_few_renderings_do_for_many_turns(self) -> None:
        desk = Desk(n_ctx=20_000)
        assert places(desk.fit(talk(500), "drop_oldest"))
        assert desk.renderings <= 13

    def test_the_same_cut_stays_while_it_fits_and_then_grows(self) -> None:
        desk = Desk()
        messages = talk(6)
        before = places(desk.fit(messages, "drop_oldest"))
        kept, cuts = 0, [before]
        for turn in range(12):
            messages += [Message("assistant", "a" * 60), Message("user", f"more {turn}" + "u" * 30)]
            now = places(desk.fit(messages, "drop_oldest", before))
            kept += now == before
            assert desk.renderings <= 8
            assert now[: len(before)] == before
            before = now
            cuts.append(now)
        assert kept >= 8 and len(set(cuts)) >= 3

    def test_nothing_is_left_out_any_more_once_all_fits(self) -> None:
        messages = talk(8)
        before = places(Desk().fit(messages, "drop_oldest"))
        assert Desk(n_ctx=8192).fit(messages, "drop_oldest", before).left_out is None

    def test_max_tokens_bounds_what_is_kept_for_the_reply(self) -> None:
        messages = talk(4)
        size = len(Desk().make(tuple(messages)).tokens)
        assert Desk(n_ctx=size + 20, max_tokens=20).fit(messages, "stop").left_out is None
        with pytest.raises(ContextOverflow) as caught:
            Desk(n_ctx=size + 19, max_tokens=20).fit(messages, "stop")
        assert (caught.value.prompt_tokens, caught.value.n_ctx, caught.value.reply_room) == (size, size + 19, 20)

    def test_a_long_last_question_takes_the_slack_then_the_replys_room(self) -> None:
        desk = Desk()
        frame = len(desk.make((Message("user", ""),)).tokens)
        for letters in (N_CTX * 7 // 8 - frame, N_CTX - 1 - frame):
            fitted = desk.fit([*talk(3), Message("user", "x" * letters)], "drop_oldest")
            assert len(places(fitted)) == 7
            assert len(fitted.told.tokens) == frame + letters


class TestRefused:
    def test_asking_tells_what_each_way_would_do(self) -> None:
        messages = talk(8, system="Be brief.")
        with pytest.raises(ContextOverflow) as caught:
            Desk().fit(messages, "ask")
        ways = {cut.how: cut for cut in caught.value.cuts}
        assert list(ways) == ["drop_oldest", "drop_middle"]
        for how, cut in ways.items():
            fitted = Desk().fit(messages, how)
            assert (cut.messages, cut.prompt_tokens) == (len(places(fitted)), len(fitted.told.tokens))

    def test_stopping_offers_nothing(self) -> None:
        with pytest.raises(ContextOverflow) as caught:
            Desk().fit(talk(8), "stop")
        assert caught.value.cuts == ()
        assert "drop_oldest" in caught.value.hint

    def test_a_way_that_cannot_help_is_not_offered(self) -> None:
        messages = [Message("user", "x" * 900), Message("assistant", "y"), *talk(1, letters=20)]
        with pytest.raises(ContextOverflow) as caught:
            Desk().fit([*messages, Message("assistant", "z"), Message("user", "q" * 200)], "ask")
        assert [cut.how for cut in caught.value.cuts] == ["drop_oldest"]

    @pytest.mark.parametrize("how", ["ask", "drop_oldest", "drop_middle", "stop"])
    @pytest.mark.parametrize("turns", [0, 3])
    def test_a_last_message_that_alone_is_too_long(self, how: str, turns: int) -> None:
        desk = Desk()
        size = len(desk.make((Message("user", "x" * 2000),)).tokens)
        with pytest.raises(ContextOverflow) as caught:
            desk.fit([*talk(turns)[:-1], Message("user", "x" * 2000)], how)
        assert (caught.value.prompt_tokens, caught.value.n_ctx, caught.value.cuts) == (size, N_CTX, ())
        assert f"{size:,} tokens, {size + 1 - N_CTX:,} more" in caught.value.message

    def test_a_first_turn_that_must_stay_and_leaves_no_room(self) -> None:
        messages = [Message("user", "x" * 800), Message("assistant", "y"), Message("user", "z" * 300)]
        with pytest.raises(ContextOverflow, match="first turn") as caught:
            Desk().fit(messages, "drop_middle")
        assert "drop_oldest" in caught.value.hint
