"""Making answers: one path from a prompt to a kept turn, for sending and for trying again.

The session alone changes the conversation. It yields small events, and has what comes kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from llama_tui.chat.claims import Claims
from llama_tui.chat.conversation import Conversation, Ending, Figures, LeftOut, Trouble, Turn
from llama_tui.chat.events import (
    ChatEvent,
    SendRefused,
    TurnAdded,
    TurnCut,
    TurnEnded,
    TurnGrew,
    TurnNoticed,
    TurnRestarted,
    TurnWaits,
)
from llama_tui.chat.growth import Grown, Growth
from llama_tui.chat.keeping import Keeper
from llama_tui.chat.store import Store
from llama_tui.engine.engine import Engine
from llama_tui.engine.protocol import AnswerEvent, Called, Finished, Prefilled, Queued, Started, Token, TokenKind
from llama_tui.errors import ContextOverflow, EngineDied, EngineError, LlamaTuiError, LoadFailed
from llama_tui.settings.values import Value

_SAVE_SECONDS = 0.5
"""An answer is saved this often while it grows; half of what may be lost when the program is killed."""

_SHARED = "Another llama-tui writes in this conversation too. What it has added is kept beside this, as another branch."

_LEFT = "Another llama-tui has asked for this answer. It is shown when this chat is opened again."
_POLL_SECONDS = 0.5

Acquire = Callable[[], Awaitable[Engine]]
Find = Callable[[], Awaitable[Engine | None]]


class ChatSession:
    """Owns one conversation and the answer that is being made in it."""

    def __init__(self, store: Store, conversation: Conversation | None = None, claims: Claims | None = None) -> None:
        """`claims` tell other programs which answers are made here; without them nobody is told."""
        self._conversation = conversation or Conversation.new()
        self._claims = claims
        self._keeper = Keeper(store, self._conversation)
        self._engine: Engine | None = None
        self._answering: str | None = None
        self._said: Growth | None = None  # what has come of that answer
        self._stop = asyncio.Event()
        self._theirs = False  # whether another program has asked for it

    @property
    def conversation(self) -> Conversation:
        """The conversation that it owns."""
        return self._conversation

    @property
    def answering(self) -> str | None:
        """The turn that is being made now."""
        return self._answering

    def last_answer(self) -> str:
        """What the last answer says, as far as it has come; "" where there is none."""
        turns = [turn for turn in self.conversation.path() if turn.role == "assistant"]
        if turns and turns[-1].id == self._answering and self._said:
            return self._said.text()
        return next((turn.content for turn in reversed(turns) if turn.content), "")

    async def send(
        self, text: str, model: str, acquire: Acquire, params: dict[str, Value]
    ) -> AsyncGenerator[ChatEvent, None]:
        """Ask, and yield the answer as it comes. `acquire` gives the engine, loading it if need be."""
        question = self.conversation.ask(text)
        answer = self.conversation.answer(model, params)
        async with contextlib.aclosing(self._make((question, answer), acquire)) as events:
            async for event in events:
                yield event

    async def retry(self, model: str, acquire: Acquire, params: dict[str, Value]) -> AsyncGenerator[ChatEvent, None]:
        """Make another answer beside the last one, or the first one to an unanswered question."""
        path = self.conversation.path()
        if not path:
            return
        last = path[-1]
        answer = self.conversation.answer(model, params, beside=last if last.role == "assistant" else None)
        async with contextlib.aclosing(self._make((answer,), acquire)) as events:
            async for event in events:
                yield event

    async def resume(self, turn: Turn, engine: Engine) -> AsyncGenerator[ChatEvent, None]:
        """Fetch the rest of an answer that an engine went on making while nobody listened."""
        self._stop.clear()
        whole = self.conversation.replace(msgspec.structs.replace(turn, content="", reasoning=""))
        yield TurnRestarted(whole)
        async with contextlib.aclosing(self._follow(whole, engine, engine.attach(turn.id), turn)) as events:
            async for event in events:
                yield event

    async def resume_from(self, turn: Turn, find: Find) -> AsyncGenerator[ChatEvent, None]:
        """Fetch the rest of an answer from the engine that `find` gives. Where there is none, wait for it as
        long as the program that has asked for the answer lives, then close the answer."""
        self._answering = turn.id
        self._stop.clear()
        try:
            while True:
                self._theirs = not self._claim(turn)
                engine = await (self._unless_stopped(find) if self._theirs else find())
                if engine or not self._theirs or self._stop.is_set():
                    break
                yield TurnWaits(turn.id, "another llama-tui has asked for this")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _POLL_SECONDS)
            if engine:
                if self._stop.is_set():
                    await engine.cancel(turn.id)
                async with contextlib.aclosing(self.resume(turn, engine)) as events:
                    async for event in events:
                        yield event
            elif self._theirs:  # stopped: it stays open for whoever makes it
                yield TurnEnded(turn)
                yield TurnNoticed(turn.id, _LEFT)
            else:
                yield await self._interrupt(turn)
        finally:
            self._answering = None
            self._unclaim(turn)

    async def _interrupt(self, turn: Turn) -> ChatEvent:
        """Close an answer whose engine is gone: what was saved is all there is."""
        stored = await self._keeper.stored(turn)
        if stored and stored.ending:  # the program that made it has closed it meanwhile
            return TurnEnded(self.conversation.replace(stored))
        return await self._end(stored or turn, "interrupted")

    def _claim(self, turn: Turn) -> bool:
        return self._claims is None or self._claims.take(turn.id)

    def _unclaim(self, turn: Turn) -> None:
        if self._claims:
            self._claims.drop(turn.id)

    async def step(self, turn: Turn, by: int) -> bool:
        """Show another of several answers, and keep that choice; False where there is none."""
        moved = self.conversation.step(turn, by)
        if moved:
            await self._keeper.keep()
        return moved

    async def keep(self) -> None:
        """Save once more what could not be saved before."""
        await self._keeper.keep_rest()

    async def stop(self) -> None:
        """Stop the answer that is being made; what came is kept."""
        self._stop.set()
        if self._engine and self._answering:
            await self._engine.cancel(self._answering)

    async def leave(self) -> bool:
        """Stop the answer that is being made, unless it is another program's; whether it is none of those."""
        if self._theirs and self._answering:
            return False
        await self.stop()
        return True

    async def _make(self, added: tuple[Turn, ...], acquire: Acquire) -> AsyncGenerator[ChatEvent, None]:
        answer = added[-1]
        self._answering = answer.id
        self._theirs = False
        self._stop.clear()
        self._claim(answer)
        try:
            for turn in added:
                yield TurnAdded(turn)
            if failure := await self._keeper.keep(*added):
                yield failure
            if await self._keeper.adopt_others():
                yield TurnNoticed(answer.id, _SHARED)
            yield TurnWaits(answer.id, "loading")
            try:
                engine = await self._unless_stopped(acquire)
            except LlamaTuiError as error:
                yield await self._end(answer, "failed", trouble=_trouble(error))
                return
            if engine is None or self._stop.is_set():
                yield await self._end(answer, "cancelled")
                return
            try:
                async with contextlib.aclosing(self._follow(answer, engine, self._told(answer, engine))) as events:
                    async for event in events:
                        yield event
            except ContextOverflow as error:
                yield await self._refuse(added, error)
        finally:
            self._answering = None
            self._unclaim(answer)

    def _told(self, answer: Turn, engine: Engine) -> AsyncGenerator[AnswerEvent, None]:
        """Ask the engine. What a person has chosen to leave out of this conversation holds on in it,
        without being asked again for every message."""
        how, system_prompt = answer.params.get("context_full", "ask"), _system_prompt(answer)
        near = (self.conversation.begun_before(answer), *reversed(self.conversation.siblings(answer)))
        known = next((turn.left_out for turn in near if turn and turn.left_out), None)
        if known and how == "ask":
            how = known.how
        left_out: tuple[int, ...] = ()
        if known and how == known.how:
            ids = self.conversation.places(answer, system_prompt)
            left_out = tuple(place for place, id in enumerate(ids) if id in known.turns)
        messages = self.conversation.messages(answer, system_prompt)
        params = {**answer.params, "context_full": how}
        return engine.generate(answer.id, messages, params, left_out=left_out)

    def _cut(self, answer: Turn, started: Started) -> Turn:
        """The answer with what the engine has left out of its prompt."""
        omitted = started.left_out
        if not omitted:
            return msgspec.structs.replace(answer, left_out=None)
        ids = self.conversation.places(answer, _system_prompt(answer))
        turns = tuple(ids[place] for place in omitted.places if place < len(ids))
        return msgspec.structs.replace(answer, left_out=LeftOut(omitted.how, turns, omitted.tokens))

    async def _unless_stopped(self, acquire: Acquire | Find) -> Engine | None:
        """The engine, or None if the answer is stopped before there is one."""
        getting = asyncio.ensure_future(acquire())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([getting, stopped], return_when=asyncio.FIRST_COMPLETED)
            return None if self._stop.is_set() else await getting
        finally:
            for task in (getting, stopped):
                task.cancel()
            await asyncio.gather(getting, stopped, return_exceptions=True)

    async def _refuse(self, added: tuple[Turn, ...], error: ContextOverflow) -> SendRefused:
        for turn in reversed(added):
            self.conversation.remove(turn)
        if added[0].role == "assistant" and (beside := self.conversation.path()):
            self.conversation.step(beside[-1], 0)
        await self._keeper.remove(*added)
        text = next((turn.content for turn in added if turn.role == "user"), "")
        return SendRefused(tuple(turn.id for turn in added), text, error)

    async def _follow(
        self, answer: Turn, engine: Engine, events: AsyncGenerator[AnswerEvent, None], known: Turn | None = None
    ) -> AsyncGenerator[ChatEvent, None]:
        """Turn an engine's events into the session's, saving on the way. `known` is the answer
        as it was saved before: the answer is never saved with less."""
        self._engine, self._answering = engine, answer.id
        said: dict[TokenKind, Growth] = {"answer": Growth(), "reasoning": Growth()}
        before = known or answer
        self._said = said["answer"]
        saved = time.monotonic()
        started: Started | None = None
        ending: Ending | None = None
        trouble: Trouble | None = None
        figures: Figures | None = None
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    match event:
                        case Queued(place=place):
                            yield TurnWaits(answer.id, f"waiting, {place} before it")
                        case Started():
                            started = event
                            answer = self._cut(msgspec.structs.replace(answer, seed=event.seed), event)
                            if self.conversation.told_otherwise(answer):
                                yield TurnCut(answer)
                            if event.notice:
                                yield TurnNoticed(answer.id, event.notice)
                            reused = event.reused_tokens
                            yield TurnWaits(answer.id, "reading", reused, event.prompt_tokens, reused)
                        case Prefilled(done=done, total=total):
                            yield TurnWaits(answer.id, "reading", done, total, started.reused_tokens if started else 0)
                        case Token():
                            said[event.kind].add(event.text)
                            n_past = (started.prompt_tokens if started else 0) + event.n_tokens
                            yield TurnGrew(answer.id, event.text, event.n_tokens, n_past, event.kind, event.n_reasoning)
                        case Called(call=call, n_tokens=n_tokens):
                            # No tools are offered from here: this one answer was asked for by another program.
                            text = f"{call.name}({call.arguments})\n"
                            said["answer"].add(text)
                            yield TurnGrew(answer.id, text, n_tokens, n_tokens)
                        case Finished():
                            ending = event.reason
                            figures = _figures(event, started)
                    if any(map(len, said.values())) and time.monotonic() - saved >= _SAVE_SECONDS:
                        saved = time.monotonic()
                        if failure := await self._keeper.keep(_so_far(answer, said, before)):
                            yield failure
        except ContextOverflow:
            raise
        except EngineDied as error:
            # A stop that an engine did not heed has ended its process: that is still a stop.
            ending, trouble = "cancelled" if self._stop.is_set() else "died", _trouble(error)
        except EngineError as error:
            ending, trouble = "failed", _trouble(error)
        finally:
            self._engine = self._answering = self._said = None
            answer = _whole(answer, said, before)
            answer = msgspec.structs.replace(answer, ending=ending, trouble=trouble, figures=figures)
            if answer.id in self.conversation:
                self.conversation.replace(answer)
            if ending is None and any(map(len, said.values())):
                # The program is ending: nothing can be awaited any more. The turn stays open, so
                # that the next start can fetch the rest from the engine.
                self._keeper.keep_at_once(answer)
        if failure := await self._keeper.keep(answer):
            yield failure
        yield TurnEnded(answer)

    async def _end(self, answer: Turn, ending: Ending, trouble: Trouble | None = None) -> ChatEvent:
        answer = self.conversation.replace(msgspec.structs.replace(answer, ending=ending, trouble=trouble))
        await self._keeper.keep(answer)
        return TurnEnded(answer)


def _system_prompt(answer: Turn) -> str:
    return str(answer.params.get("system_prompt") or "")


def _so_far(answer: Turn, said: dict[TokenKind, Growth], known: Turn) -> Grown:
    """The answer with what came of it, or what was known before where that is more."""
    return Grown(answer, max(said["answer"], known.content, key=len), max(said["reasoning"], known.reasoning, key=len))


def _whole(answer: Turn, said: dict[TokenKind, Growth], known: Turn) -> Turn:
    """The same in one."""
    texts = _so_far(answer, said, known)
    content, reasoning = (
        text.text() if isinstance(text, Growth) else text for text in (texts.content, texts.reasoning)
    )
    return msgspec.structs.replace(answer, content=content, reasoning=reasoning)


def _figures(event: Finished, started: Started | None) -> Figures:
    return Figures(
        prompt_tokens=event.prompt_tokens,
        reused_tokens=event.reused_tokens,
        completion_tokens=event.completion_tokens,
        n_ctx=started.n_ctx if started else 0,
        first_token_seconds=event.first_token_seconds,
        tokens_per_second=event.tokens_per_second,
        reasoning_tokens=event.reasoning_tokens,
        restored=event.restored,
    )


def _trouble(error: LlamaTuiError) -> Trouble:
    log = error.log if isinstance(error, EngineDied | LoadFailed) else ()
    return Trouble(error.message, error.hint, log)
