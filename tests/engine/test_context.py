"""Conversations that grow past the context, with real engines: cut as chosen, told of, kept."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llama_tui import Client
from llama_tui.chat.conversation import Turn
from llama_tui.chat.events import ChatEvent, SendRefused, TurnCut, TurnGrew, TurnWaits
from llama_tui.chat.session import ChatSession
from llama_tui.chat.store import Store
from llama_tui.engine.engine import Engine
from llama_tui.engine.lines import PIECE
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import LINE_LIMIT, Message, Started
from llama_tui.errors import ContextOverflow
from llama_tui.paths import Paths
from llama_tui.settings.params import sampling
from llama_tui.settings.values import Value
from tests.engine.conftest import GREEDY, PATIENCE, collect, end_of, load_params
from tests.engine.desk import ended, everything

N_CTX = 512


def talk(turns: int, letters: int = 40) -> tuple[Message, ...]:
    """A system message, turns, and a last question."""
    said = [Message("system", "Be brief.")]
    for turn in range(turns):
        said += [Message("user", f"{turn}" * letters), Message("assistant", "x" * letters)]
    return (*said, Message("user", "and now?"))


class Desk:
    """A session with a model whose context is small."""

    def __init__(self, pool: Pool, paths: Paths, model: Path, n_ctx: int = N_CTX) -> None:
        self.store = Store(paths.database)
        self.session = ChatSession(self.store)
        self.n_ctx = n_ctx
        self._pool, self._model = pool, model

    async def engine(self) -> Engine:
        return await self._pool.acquire("small", self._model, load_params(n_ctx=self.n_ctx))

    async def send(self, text: str, /, **params: Value) -> list[ChatEvent]:
        values = sampling({**GREEDY, "max_tokens": 40, "ignore_eos": True, **params})
        return await everything(self.session.send(text, "small", self.engine, values))

    async def retry(self, **params: Value) -> list[ChatEvent]:
        values = sampling({**GREEDY, "max_tokens": 40, "ignore_eos": True, **params})
        return await everything(self.session.retry("small", self.engine, values))

    async def until_refused(self) -> SendRefused:
        """Ask until the context is full."""
        for turn in range(20):
            last = (await self.send(f"question {turn} " + "q" * 40))[-1]
            if isinstance(last, SendRefused):
                return last
        raise AssertionError("it always fitted")

    def kept(self) -> list[Turn]:
        """The path as the next start finds it."""
        with contextlib.closing(Store(Path(self.store._where))) as other:  # pyright: ignore[reportPrivateUsage]
            return other.load(self.session.conversation.id).path()


@pytest.fixture
async def desk(pool: Pool, paths: Paths, tiny_model: Path) -> AsyncIterator[Desk]:
    desk = Desk(pool, paths, tiny_model)
    yield desk
    desk.store.close()


class TestEngine:
    @pytest.mark.parametrize("how", ["drop_oldest", "drop_middle"])
    async def test_says_exactly_what_it_left_out(self, pool: Pool, guide_model: Path, how: str) -> None:
        """On the guide, whose template and tokenizer are those of a trained model."""
        engine = await pool.acquire("guide", guide_model, load_params(n_ctx=N_CTX))
        messages = tuple(
            message
            for turn in range(12)
            for message in (
                Message("user", f"How do I unload model number {turn} from memory?"),
                Message("assistant", "Press ctrl+o, choose the model, then press ctrl+u to unload it at once."),
            )
        )
        messages = (*messages, Message("user", "And how do I load it again?"))
        params: dict[str, Value] = {**GREEDY, "max_tokens": 8, "context_full": how}
        whole = await pool.acquire("guide", guide_model, load_params(n_ctx=2048))
        everything = end_of(await collect(whole.generate(uuid.uuid4().hex, messages, params)))
        events = await collect(engine.generate(uuid.uuid4().hex, messages, params))
        started = next(event for event in events if isinstance(event, Started))
        left_out = started.left_out
        assert left_out and left_out.how == how
        first = 0 if how == "drop_oldest" else 2
        assert left_out.places == tuple(range(first, first + len(left_out.places)))
        assert started.prompt_tokens + left_out.tokens == everything.prompt_tokens
        kept = tuple(message for place, message in enumerate(messages) if place not in left_out.places)
        alone = end_of(await collect(whole.generate(uuid.uuid4().hex, kept, params)))
        assert alone.prompt_tokens == started.prompt_tokens == end_of(events).prompt_tokens < N_CTX * 3 // 4

    async def test_the_same_cut_keeps_the_cache_of_use(self, pool: Pool, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params(n_ctx=1024))
        params: dict[str, Value] = {**GREEDY, "max_tokens": 1, "context_full": "drop_oldest"}
        messages = talk(12)
        events = await collect(engine.generate("one", messages, params))
        started = next(event for event in events if isinstance(event, Started))
        assert started.left_out
        more = (*messages, Message("assistant", "so"), Message("user", "go on"))
        again = end_of(await collect(engine.generate("two", more, params, left_out=started.left_out.places)))
        assert again.reused_tokens >= started.prompt_tokens

    async def test_what_cannot_fit_is_neither_rendered_nor_counted(self, pool: Pool, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params(n_ctx=N_CTX))
        params: dict[str, Value] = {**GREEDY, "max_tokens": 1, "context_full": "drop_oldest"}
        text = "x" * 400_000
        with pytest.raises(
            ContextOverflow, match="about 400,000 tokens, 399,489 more than the context of 512"
        ) as caught:
            await collect(engine.generate("one", (Message("user", text),), params))
        assert caught.value.prompt_tokens == 400_000
        talk = (Message("user", text), Message("assistant", "so"), Message("user", "and now?"))
        events = await collect(engine.generate("two", talk, params))
        started = next(event for event in events if isinstance(event, Started))
        assert started.left_out and started.left_out.places == (0, 1)
        assert started.template == "model" and not started.notice, "its own template is as good as before"

    async def test_what_no_model_could_hold_is_not_even_sent(self, desk: Desk) -> None:
        text = "word " * 200_000
        refused = (await desk.send(text))[-1]
        assert isinstance(refused, SendRefused)
        assert refused.text == text and "999,999 characters" in refused.error.message
        engine = await desk.engine()
        assert not await engine.knows(refused.removed[-1])
        assert desk.session.conversation.path() == [] and desk.store.list() == []
        assert ended(await desk.send("short")).ending == "length"

    async def test_a_long_request_is_written_with_room_for_all_else(self, pool: Pool, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params(n_ctx=65536))
        text = "x" * 20_000_000
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        with pytest.raises(ContextOverflow, match="about 20,000,000 tokens"):
            await collect(engine.generate("one", (Message("user", text),), GREEDY))
        counting.cancel()
        assert turns > len(text) // PIECE, "the program is free between two pieces"
        left = asyncio.create_task(collect(engine.generate("two", (Message("user", text),), GREEDY)))
        for _ in range(len(text) // PIECE + 20):  # until the line has been begun
            await asyncio.sleep(0)
        left.cancel()
        await engine.keep(True)
        await engine.keep(False)
        assert end_of(await collect(engine.generate("three", (Message("user", "hello"),), {**GREEDY, "max_tokens": 1})))

    async def test_what_is_too_long_for_the_wire_leaves_the_engine_well(self, pool: Pool, tiny_model: Path) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params(n_ctx=N_CTX))
        before = (Message("user", "x" * LINE_LIMIT), Message("assistant", "so"))
        with pytest.raises(ContextOverflow, match="bytes, and an engine takes"):
            await collect(engine.generate("one", (*before, Message("user", "and now?")), GREEDY))
        params: dict[str, Value] = {**GREEDY, "max_tokens": 1}
        assert end_of(await collect(engine.generate("two", (Message("user", "hello"),), params)))

    async def test_an_answer_that_reaches_the_end_says_so(self, desk: Desk) -> None:
        answer = ended(await desk.send("hello", max_tokens=None))
        assert answer.ending == "length"
        assert answer.figures
        assert answer.figures.prompt_tokens + answer.figures.completion_tokens == N_CTX


class TestSession:
    async def test_asking_keeps_everything_and_the_choice_then_holds(self, desk: Desk) -> None:
        refused = await desk.until_refused()
        before = desk.kept()
        assert desk.session.conversation.path() == before
        assert refused.error.reply_room == 40
        assert refused.error.prompt_tokens + 40 > N_CTX
        desk.n_ctx = 256
        retried = (await desk.retry())[-1]
        assert isinstance(retried, SendRefused) and retried.text == "" and retried.error.cuts
        assert desk.session.conversation.path() == desk.kept() == before
        desk.n_ctx = N_CTX
        ways = {cut.how: cut for cut in refused.error.cuts}
        assert set(ways) == {"drop_oldest", "drop_middle"}
        events = await desk.send(refused.text, context_full="drop_oldest")
        answer = ended(events)
        assert answer.left_out and answer.figures
        assert answer.figures.prompt_tokens == ways["drop_oldest"].prompt_tokens
        assert answer.missing == tuple(turn.id for turn in before[: len(answer.missing)])
        assert len(answer.missing) == ways["drop_oldest"].messages
        assert [event.turn.id for event in events if isinstance(event, TurnCut)] == [answer.id]
        waits = [event for event in events if isinstance(event, TurnWaits) and event.total]
        assert waits[0].total == answer.figures.prompt_tokens
        assert waits[0].reused == waits[0].done == answer.figures.reused_tokens
        assert desk.kept()[-1] == answer
        # Though the setting still says "ask": the same is left out, and what is told is computed once.
        then = ended(events := await desk.send("short"))
        assert then.missing == answer.missing
        assert not any(isinstance(event, TurnCut) for event in events)
        assert then.figures and then.figures.reused_tokens >= answer.figures.prompt_tokens
        for turn in range(8):
            last = ended(await desk.send(f"more {turn} " + "q" * 40))
            assert last.figures and last.figures.prompt_tokens + 40 <= N_CTX
        assert last.missing[: len(answer.missing)] == answer.missing != last.missing  # pyright: ignore[reportPossiblyUnboundVariable]

    async def test_the_setting_decides_without_asking(self, desk: Desk) -> None:
        first = ended(await desk.send("first " + "q" * 40, context_full="drop_middle"))
        answers = [
            ended(await desk.send(f"question {turn} " + "q" * 40, context_full="drop_middle")) for turn in range(8)
        ]
        question = desk.session.conversation.path()[0]
        gone = {id for answer in answers for id in answer.missing}
        assert gone and not gone & {question.id, first.id}

    async def test_stopping_then_another_answer_then_a_larger_context(self, desk: Desk) -> None:
        refused = await desk.until_refused()
        before = desk.kept()
        stopped = (await desk.send(refused.text, context_full="stop"))[-1]
        assert isinstance(stopped, SendRefused)
        assert stopped.error.cuts == ()
        assert "drop_oldest" in stopped.error.hint
        assert desk.kept() == before
        answer = ended(await desk.send(refused.text, context_full="drop_oldest"))
        again = ended(await desk.retry())
        assert again.missing == answer.missing, "the choice holds for another answer too"
        desk.n_ctx = 1024
        events = await desk.send("all of it?")
        assert ended(events).left_out is None
        assert any(isinstance(event, TurnCut) for event in events)

    async def test_an_answer_that_is_fetched_later_is_still_marked(self, desk: Desk) -> None:
        refused = await desk.until_refused()
        values = sampling({**GREEDY, "max_tokens": 40, "ignore_eos": True, "context_full": "drop_oldest"})
        async with asyncio.timeout(PATIENCE):
            events = desk.session.send(refused.text, "small", desk.engine, values)
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, TurnGrew):
                        break
        again = ChatSession(desk.store, desk.store.load(desk.session.conversation.id))
        turn = again.conversation.path()[-1]
        assert turn.ending is None and turn.left_out
        async with asyncio.timeout(PATIENCE):
            answer = ended([event async for event in again.resume(turn, await desk.engine())])
        assert answer.ending == "length"
        assert answer.left_out == turn.left_out
        assert desk.kept()[-1] == answer

    async def test_a_system_prompt_shifts_nothing(self, desk: Desk) -> None:
        answers = [
            ended(await desk.send(f"q{turn} " + "q" * 60, context_full="drop_oldest", system_prompt="Be brief."))
            for turn in range(6)
        ]
        path = [turn.id for turn in desk.session.conversation.path()]
        cut = [answer.missing for answer in answers if answer.missing]
        assert cut
        assert all(missing == tuple(path[: len(missing)]) for missing in cut)


async def test_a_program_that_nobody_can_ask_is_told_what_to_pass(home: Path, tiny_model: Path) -> None:
    (home / "llama_models").mkdir()
    (home / "llama_models" / "tiny.gguf").symlink_to(tiny_model)
    said = [{"role": message.role, "content": message.content} for message in talk(12)]
    client = Client(n_ctx=N_CTX, max_tokens=4, n_threads=1)
    try:
        with pytest.raises(ContextOverflow) as caught:
            await client.chat.completions.create(model="tiny", messages=said)
        assert all(word in caught.value.hint for word in ("ask", "drop_oldest", "drop_middle", "stop"))
        with pytest.warns(RuntimeWarning, match="messages .* are left out: context_full is drop_middle"):
            made = await client.chat.completions.create(model="tiny", messages=said, context_full="drop_middle")
        assert made.usage.prompt_tokens < N_CTX
        made = await client.chat.completions.create(
            model="tiny", messages=said[-1:], max_tokens=None, ignore_eos=True, temperature=0.0
        )
        assert made.choices[0].finish_reason == "length"
        assert made.usage.total_tokens == N_CTX
    finally:
        await client.close(unload=True)
