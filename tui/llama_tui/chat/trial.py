"""What a model does on this machine with one set of load parameters, in an engine of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from llama_tui.chat.access import Access
from llama_tui.engine.engine import Engine
from llama_tui.engine.protocol import Finished, Memory, Message, Prefilled, Token
from llama_tui.errors import EngineError
from llama_tui.library.scan import ModelFile
from llama_tui.settings.params import defaults
from llama_tui.settings.values import Values

_POLL_SECONDS = 0.005
_FEW, _MORE = 16, 80
"""Words of two prompts whose sizes tell what the chat template and what a word takes."""


@dataclass(frozen=True, slots=True)
class Run:
    """One answer. Speeds are tokens per second; `first_token_seconds` counts from the request."""

    prompt_tokens: int
    prefill: float
    decode: float
    first_token_seconds: float


class Trial:
    """Made by `trial`; the engine is loaded. Greedy answers of a fixed length to prompts of which
    the KV cache holds nothing but the template's beginning."""

    def __init__(self, engine: Engine, load_seconds: float) -> None:
        self._engine = engine
        self._numbers = random.Random(0)
        self._per_word = self._around = 0.0
        self.load_seconds = load_seconds

    @property
    def memory(self) -> Memory:
        """What the engine holds now."""
        return self._engine.state.memory if self._engine.state else Memory(None, None)

    async def warm_up(self) -> None:
        """Touch all weights, and learn how many tokens a word is."""
        few, more = [(await self._answer(words, 1)).prompt_tokens for words in (_FEW, _MORE)]
        self._per_word = (more - few) / (_MORE - _FEW)
        self._around = few - _FEW * self._per_word

    async def run(
        self, prompt_tokens: int, answer_tokens: int, progress: Callable[[str], None] = lambda _text: None
    ) -> Run:
        """Read a prompt of about so many tokens and write so many; raises `EngineError`."""
        words = max(1, round((prompt_tokens - self._around) / self._per_word))
        done = await self._answer(words, answer_tokens, progress)
        if not done.tokens_per_second or done.first_token_seconds is None:
            raise EngineError(
                f"The context had room for {done.completion_tokens} tokens of an answer", "Set a larger n_ctx."
            )
        computed = done.prompt_tokens - done.reused_tokens
        prefill = computed / max(done.prefill_seconds, 1e-9)
        return Run(done.prompt_tokens, prefill, done.tokens_per_second, done.first_token_seconds)

    async def _answer(self, words: int, limit: int, progress: Callable[[str], None] = lambda _text: None) -> Finished:
        text = " ".join(str(self._numbers.randrange(1000, 10000)) for _ in range(words))
        params = defaults("sampling") | {"temperature": 0.0, "ignore_eos": True, "max_tokens": limit}
        events = self._engine.generate(uuid.uuid4().hex, (Message("user", text),), params)
        async with contextlib.aclosing(events):
            async for event in events:
                match event:
                    case Prefilled(done=done, total=total):
                        progress(f"prompt {done:,} / {total:,}")
                    case Token(n_tokens=count):
                        progress(f"answer {count:,} / {limit:,}")
                    case Finished():
                        return event
                    case _:
                        pass
        raise EngineError("The engine ended an answer without an end", "See the engine's log.")


@contextlib.asynccontextmanager
async def trial(access: Access, file: ModelFile, given: Values) -> AsyncGenerator[Trial]:
    """Load a model for measuring; its engine ends with the block. Raises `LlamaTuiError`."""
    began = time.monotonic()
    engine = await access.engine(file, given)
    try:
        while engine.condition == "loading":  # noqa: ASYNC110 - the engine itself gives up after `timeout`
            await asyncio.sleep(_POLL_SECONDS)
        if engine.error:
            raise engine.error
        made = Trial(engine, time.monotonic() - began)
        await made.warm_up()
        yield made
    finally:
        await engine.unload()
