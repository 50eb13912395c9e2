"""What an engine answers: the right tokens, counted right, again and again the same, until stopped."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid

import pytest

from llama_tui.engine.client import EngineClient
from llama_tui.engine.protocol import Finished, Message, Prefilled, Queued, Started, Token
from llama_tui.errors import ContextOverflow, EngineError
from llama_tui.settings.values import Value
from tests.engine.conftest import GREEDY, HELLO, Running, collect, end_of, first, text_of, until
from tests.ggufs import CHATML


def new() -> str:
    return uuid.uuid4().hex


async def answer(client: EngineClient, text: str = "hello there", /, **params: Value) -> tuple[str, Finished]:
    events = await collect(client.generate(new(), (Message("user", text),), {"max_tokens": 40, **params}))
    return text_of(events), end_of(events)


def prompt_of(*messages: Message) -> str:
    turns = "".join(f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n" for message in messages)
    return turns + "<|im_start|>assistant\n"


class TestTokens:
    async def test_are_those_of_llama_cpps_own_loop(self, client: EngineClient, running: Running) -> None:
        from llama_cpp import Llama

        theirs = Llama(str(running.model), n_ctx=1024, n_threads=1, verbose=False)
        try:
            said = theirs.create_completion(prompt_of(*HELLO), max_tokens=60, temperature=0.0)
            n_prompt = len(theirs.tokenize(prompt_of(*HELLO).encode(), add_bos=True, special=True))
        finally:
            theirs.close()
        events = await collect(client.generate(new(), HELLO, {**GREEDY, "max_tokens": 60}))
        assert text_of(events) == said["choices"][0]["text"]  # pyright: ignore[reportIndexIssue, reportArgumentType]
        assert end_of(events).prompt_tokens == n_prompt

    async def test_events_come_in_order(self, client: EngineClient) -> None:
        events = await collect(client.generate("in-order", HELLO, {"max_tokens": 40}))
        assert [event.seq for event in events] == list(range(len(events)))
        assert {event.generation for event in events} == {"in-order"}
        kinds = [kind for kind, _ in itertools.groupby(type(event) for event in events)]
        assert kinds == [Started, Token, Finished]
        counts = [event.n_tokens for event in events if isinstance(event, Token)]
        assert counts == sorted(counts)

    async def test_are_counted(self, client: EngineClient) -> None:
        events = await collect(client.generate(new(), HELLO, {"max_tokens": 33}))
        started, end = events[0], end_of(events)
        assert isinstance(started, Started)
        assert (end.reason, end.completion_tokens) == ("length", 33)
        assert end.prompt_tokens == started.prompt_tokens
        assert started.n_ctx == 65536
        last_token = [event for event in events if isinstance(event, Token)][-1]
        assert last_token.n_tokens == 33

    async def test_times_are_plausible(self, client: EngineClient) -> None:
        began = time.monotonic()
        _, end = await answer(client, max_tokens=400)
        whole = time.monotonic() - began
        assert end.first_token_seconds is not None
        assert 0 < end.first_token_seconds <= whole
        assert 0 < end.decode_seconds <= whole
        assert end.prefill_seconds <= end.first_token_seconds
        assert end.tokens_per_second == pytest.approx(399 / end.decode_seconds)

    async def test_text_comes_in_batches(self, client: EngineClient) -> None:
        events = await collect(client.generate(new(), HELLO, {"max_tokens": 2000, "ignore_eos": True}))
        end = end_of(events)
        batches = sum(isinstance(event, Token) for event in events)
        assert batches <= end.decode_seconds / 0.033 + 2

    async def test_one_token_only(self, client: EngineClient) -> None:
        text, end = await answer(client, max_tokens=1)
        assert (end.reason, end.completion_tokens, end.tokens_per_second) == ("length", 1, None)
        assert text

    async def test_the_system_prompt_is_part_of_the_prompt(self, client: EngineClient) -> None:
        events = await collect(client.generate(new(), (Message("system", "the hello"), *HELLO), {"max_tokens": 1}))
        plain = await collect(client.generate(new(), HELLO, {"max_tokens": 1}))
        assert end_of(events).prompt_tokens > end_of(plain).prompt_tokens


class TestSeeds:
    async def test_greedy_is_always_the_same(self, client: EngineClient) -> None:
        texts = {(await answer(client, seed=seed, **GREEDY))[0] for seed in (1, 2, None)}
        assert len(texts) == 1

    async def test_the_same_seed_the_same_text(self, client: EngineClient) -> None:
        one, other = await answer(client, seed=5, temperature=2.0), await answer(client, seed=5, temperature=2.0)
        assert one[0] == other[0]

    async def test_another_seed_another_text(self, client: EngineClient) -> None:
        texts = {(await answer(client, seed=seed, temperature=2.0))[0] for seed in range(4)}
        assert len(texts) == 4

    async def test_a_random_seed_is_told_and_repeats_the_answer(self, client: EngineClient) -> None:
        events = await collect(client.generate(new(), HELLO, {"temperature": 2.0, "max_tokens": 40}))
        started = events[0]
        assert isinstance(started, Started)
        again = await answer(client, temperature=2.0, seed=started.seed)
        assert again[0] == text_of(events)

    async def test_without_a_seed_every_answer_is_another(self, client: EngineClient) -> None:
        texts = {(await answer(client, temperature=2.0))[0] for _ in range(4)}
        assert len(texts) == 4


class TestReuse:
    async def test_the_second_turn_computes_only_what_is_new(self, client: EngineClient) -> None:
        first_events = await collect(client.generate(new(), HELLO, {**GREEDY, "max_tokens": 20}))
        said = text_of(first_events)
        turns = (*HELLO, Message("assistant", said), Message("user", "the other one"))
        second = await collect(client.generate(new(), turns, {**GREEDY, "max_tokens": 20}))
        before, after = end_of(first_events), end_of(second)
        # What it generated may be tokenized another way as a prompt; the first prompt is the same.
        assert before.prompt_tokens <= after.reused_tokens < after.prompt_tokens
        assert after.reused_tokens <= before.prompt_tokens + before.completion_tokens

    async def test_the_common_beginning_to_the_token(self, client: EngineClient) -> None:
        await answer(client, "zzzzefgh", max_tokens=1)
        _, end = await answer(client, "zzzzXYZ", max_tokens=1)
        _, alone = await answer(client, "", max_tokens=1)
        # Of "<|im_start|>user\n" + text + "<|im_end|>\n<|im_start|>assistant\n" the beginning and
        # the four letters are common, a token each but for "er", which has one of its own.
        before_text = 1 + len("user\n") - 1
        assert end.reused_tokens == before_text + 4
        assert alone.reused_tokens == before_text

    async def test_the_same_prompt_again_leaves_one_token_to_compute(self, client: EngineClient) -> None:
        await answer(client, "again and again", max_tokens=8)
        _, end = await answer(client, "again and again", max_tokens=8)
        assert end.reused_tokens == end.prompt_tokens - 1

    async def test_makes_no_difference_to_the_text(self, client: EngineClient) -> None:
        question = "x" * 50 + " the end"
        await answer(client, "something else entirely", max_tokens=30)
        fresh, first_end = await answer(client, question, **GREEDY)
        await answer(client, "x" * 50 + " in between", max_tokens=30)
        reused, second_end = await answer(client, question, **GREEDY)
        assert second_end.reused_tokens > first_end.reused_tokens
        assert reused == fresh

    async def test_penalties_see_the_whole_prompt_either_way(self, client: EngineClient) -> None:
        params: dict[str, Value] = {**GREEDY, "repeat_penalty": 1.5, "penalty_last_n": -1}
        await answer(client, "other", max_tokens=3)
        fresh, _ = await answer(client, "the hello in the hello", **params)
        reused, end = await answer(client, "the hello in the hello", **params)
        assert end.reused_tokens == end.prompt_tokens - 1
        assert reused == fresh


class TestStop:
    async def test_ends_before_the_text(self, client: EngineClient) -> None:
        whole, _ = await answer(client, max_tokens=200, **GREEDY)
        stop = whole[60:64]
        text, end = await answer(client, max_tokens=200, stop=("never this", stop), **GREEDY)
        assert text == whole[: whole.index(stop)]
        assert end.reason == "stop"
        assert end.completion_tokens < 200

    async def test_what_was_held_back_comes_at_the_limit(self, client: EngineClient) -> None:
        whole, _ = await answer(client, max_tokens=40, **GREEDY)
        text, end = await answer(client, max_tokens=40, stop=(whole[-3:] + "\0",), **GREEDY)
        assert text == whole
        assert end.reason == "length"

    async def test_the_model_ends_by_itself(self, client: EngineClient) -> None:
        # At this temperature every token is about as likely as any other, the end among them.
        ends = [
            (await answer(client, max_tokens=1500, temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed))[1]
            for seed in range(3)
        ]
        assert {end.reason for end in ends} == {"stop"}

    async def test_or_goes_on_where_it_is_told_to(self, client: EngineClient) -> None:
        _, end = await answer(
            client, max_tokens=1500, temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=0, ignore_eos=True
        )
        assert (end.reason, end.completion_tokens) == ("length", 1500)


class TestCancel:
    async def test_while_generating(self, client: EngineClient) -> None:
        name = new()
        events = client.generate(name, HELLO, {"ignore_eos": True})
        seen = await first(events, Token)
        await client.cancel(name)
        seen += await collect(events)
        end = end_of(seen)
        assert end.reason == "cancelled"
        assert end.completion_tokens > 0
        assert [event for event in seen if isinstance(event, Token)][-1].n_tokens <= end.completion_tokens

    async def test_leaves_no_trace_in_the_next_answer(self, client: EngineClient) -> None:
        expected, _ = await answer(client, "a question", max_tokens=60, **GREEDY)
        for _ in range(5):
            name = new()
            events = client.generate(name, (Message("user", "a question"),), {**GREEDY, "ignore_eos": True})
            seen = await first(events, Token)
            await client.cancel(name)
            said = text_of(seen + await collect(events))
            assert said
            turns = (Message("user", "a question"), Message("assistant", said[:40]), Message("user", "and?"))
            await collect(client.generate(new(), turns, {"max_tokens": 3}))
            text, end = await answer(client, "a question", max_tokens=60, **GREEDY)
            assert text == expected
            assert end.reused_tokens > 0

    async def test_while_reading_a_long_prompt(self, client: EngineClient) -> None:
        name = new()
        long = (Message("user", "zq" * 25_000),)
        events = client.generate(name, long, {"max_tokens": 1})
        await first(events, Prefilled)
        await client.cancel(name)
        end = end_of(await collect(events))
        assert (end.reason, end.completion_tokens, end.first_token_seconds) == ("cancelled", 0, None)
        # What was read before the stop is not read again, and is right.
        short = (Message("user", "zq" * 400),)
        after = await collect(client.generate(new(), short, {**GREEDY, "max_tokens": 30}))
        assert end_of(after).reused_tokens > 700
        await answer(client, "something else", max_tokens=1)
        fresh = await collect(client.generate(new(), short, {**GREEDY, "max_tokens": 30}))
        assert end_of(fresh).reused_tokens < 10
        assert text_of(after) == text_of(fresh)

    async def test_while_waiting(self, client: EngineClient) -> None:
        running_one, waiting_one = new(), new()
        busy = client.generate(running_one, HELLO, {"ignore_eos": True})
        await first(busy, Token)
        waiting = client.generate(waiting_one, HELLO, {"max_tokens": 3})
        await first(waiting, Queued)
        await client.cancel(waiting_one)
        end = end_of(await collect(waiting))
        assert (end.reason, end.completion_tokens, end.prompt_tokens) == ("cancelled", 0, 0)
        await client.cancel(running_one)
        assert end_of(await collect(busy)).reason == "cancelled"

    async def test_what_has_ended_or_never_was_is_no_error(self, client: EngineClient) -> None:
        name = new()
        await collect(client.generate(name, HELLO, {"max_tokens": 1}))
        await client.cancel(name)
        await client.cancel("nonesuch")
        assert (await answer(client, max_tokens=3))[1].reason == "length"


class TestQueue:
    async def test_each_is_told_its_place_until_its_turn(self, client: EngineClient) -> None:
        blocker, *names = [new() for _ in range(4)]
        busy = client.generate(blocker, HELLO, {"ignore_eos": True})
        await first(busy, Token)
        ended: list[str] = []
        places: dict[str, list[int]] = {name: [] for name in names}

        async def follow(name: str) -> None:
            async for event in client.generate(name, HELLO, {"max_tokens": 5}):
                if isinstance(event, Queued):
                    places[name].append(event.place)
            ended.append(name)

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(follow(name))
                await until(lambda name=name: places[name])
            await client.cancel(blocker)
            await collect(busy)
        assert sorted(ended) == sorted(names)
        assert [places[name][0] for name in names] == [1, 2, 3]
        for own in places.values():
            assert own == sorted(own, reverse=True)

    async def test_two_programs_wait_for_each_other(self, client: EngineClient, running: Running) -> None:
        other = await EngineClient.connect(running.socket)
        try:
            name = new()
            busy = client.generate(name, HELLO, {"ignore_eos": True})
            await first(busy, Token)
            theirs = other.generate(new(), HELLO, {"max_tokens": 3})
            queued = (await first(theirs, Queued))[-1]
            assert isinstance(queued, Queued)
            assert queued.place == 1
            await client.cancel(name)
            assert end_of(await collect(busy)).reason == "cancelled"
            assert end_of(await collect(theirs)).reason == "length"
        finally:
            await other.close()


class TestAttach:
    async def test_replays_exactly_what_is_missing(self, client: EngineClient) -> None:
        name = new()
        events = await collect(client.generate(name, HELLO, {"max_tokens": 800, "ignore_eos": True}))
        for after in (-1, 0, 3, len(events) - 2):
            again = await collect(client.attach(name, after))
            assert [(event.seq, type(event)) for event in again] == [
                (event.seq, type(event)) for event in events[after + 1 :]
            ]
            assert text_of(again) == text_of(events[after + 1 :])

    async def test_an_answer_goes_on_when_the_client_has_gone(self, client: EngineClient, running: Running) -> None:
        gone = await EngineClient.connect(running.socket)
        name = new()
        events = gone.generate(name, HELLO, {**GREEDY, "max_tokens": 1500, "ignore_eos": True})
        seen = await first(events, Token)
        await gone.close()
        rest = await collect(client.attach(name, seen[-1].seq))
        assert rest[0].seq == seen[-1].seq + 1
        assert end_of(rest).completion_tokens == 1500
        whole = await collect(client.generate(new(), HELLO, {**GREEDY, "max_tokens": 1500, "ignore_eos": True}))
        assert text_of(seen) + text_of(rest) == text_of(whole)

    async def test_two_watch_the_same_answer(self, client: EngineClient, running: Running) -> None:
        other = await EngineClient.connect(running.socket)
        try:
            name = new()
            events = client.generate(name, HELLO, {"max_tokens": 800, "ignore_eos": True})
            seen = await first(events, Token)
            theirs = await collect(other.attach(name))
            assert text_of(seen + await collect(events)) == text_of(theirs)
        finally:
            await other.close()

    async def test_an_unknown_one_is_refused(self, client: EngineClient) -> None:
        with pytest.raises(EngineError, match="does not know"):
            await collect(client.attach("nonesuch"))

    async def test_a_name_is_used_once(self, client: EngineClient) -> None:
        name = new()
        await collect(client.generate(name, HELLO, {"max_tokens": 1}))
        with pytest.raises(EngineError, match="exists"):
            await collect(client.generate(name, HELLO, {"max_tokens": 1}))

    async def test_old_answers_are_forgotten_the_latest_are_kept(self, client: EngineClient) -> None:
        names = [new() for _ in range(40)]
        for name in names:
            await collect(client.generate(name, HELLO, {"max_tokens": 1}))

        async def forgotten(name: str) -> bool:
            try:
                await collect(client.attach(name))
            except EngineError:
                return True
            return False

        async with asyncio.timeout(20):
            while not await forgotten(names[0]):
                await asyncio.sleep(0.05)
        assert not await forgotten(names[-1])


class TestRefusals:
    @pytest.mark.parametrize(
        ("params", "named"),
        [
            ({"temperature": -1.0}, "temperature"),
            ({"top_k": 1.5}, "top_k"),
            ({"top_p": "much"}, "top_p"),
            ({"max_tokens": 0}, "max_tokens"),
            ({"stop": "END"}, "stop"),
            ({"seed": -1}, "seed"),
            ({"mirostat": 3}, "mirostat"),
            ({"ignore_eos": 1}, "ignore_eos"),
            ({"temprature": 0.5}, "temprature"),
            ({"n_ctx": 512}, "n_ctx"),
        ],
    )
    async def test_a_bad_parameter_is_named(self, client: EngineClient, params: dict[str, Value], named: str) -> None:
        with pytest.raises(EngineError, match=named) as caught:
            await collect(client.generate(new(), HELLO, params))
        assert caught.value.hint
        assert (await answer(client, max_tokens=2))[1].reason == "length"

    async def test_a_prompt_that_is_too_long_says_by_how_much(self, client: EngineClient) -> None:
        long = (Message("user", "q" * 66_000),)
        with pytest.raises(ContextOverflow) as caught:
            await collect(client.generate(new(), long, {}))
        error = caught.value
        assert error.n_ctx == 65536
        assert error.prompt_tokens > 66_000
        over = error.prompt_tokens + 1 - 65536
        assert f"{over:,} more" in error.message
        assert f"{error.prompt_tokens:,}" in error.message
        assert error.hint
        assert (await answer(client, max_tokens=2))[1].reason == "length"

    async def test_a_failed_answer_can_be_asked_for_again(self, client: EngineClient) -> None:
        name = new()
        long = (Message("user", "q" * 66_000),)
        with pytest.raises(ContextOverflow):
            await collect(client.generate(name, long, {}))
        with pytest.raises(ContextOverflow):
            await collect(client.attach(name))


def test_the_tiny_models_template_is_the_one_used_here() -> None:
    from llama_tui.worker.template import ChatTemplate

    assert ChatTemplate(CHATML, "", "", knows_chatml=True).render(HELLO) == prompt_of(*HELLO)
