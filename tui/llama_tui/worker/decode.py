"""The decode loop: prefill with what the KV cache already holds, then token by token."""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llama_tui.engine.protocol import FinishReason, TokenKind, TokenLogprob
from llama_tui.errors import EngineError
from llama_tui.settings.values import Value
from llama_tui.worker.binding import AbortFlag, llama
from llama_tui.worker.constraint import Constraint
from llama_tui.worker.logprobs import Logprobs
from llama_tui.worker.model import Model
from llama_tui.worker.sampler import Sampler
from llama_tui.worker.text import AnswerText

_FLUSH_SECONDS = 0.025
"""Text is handed on this often at most: a client's work per event outweighs a token's."""

_ABORTED = 2
"""What llama_decode returns when the abort callback stopped it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a generation ended; times in seconds of `time.monotonic`, `first_token` None without one."""

    reason: FinishReason
    completion_tokens: int
    prefilled: float
    first_token: float | None
    ended: float
    reasoning_tokens: int = 0


Emit = Callable[[TokenKind, str, int, int, tuple[TokenLogprob, ...]], None]
"""Takes a stretch of text with its kind, the number of tokens so far, how many of them thought, and
how likely those since the last time were, if that is wanted."""


class Decoder:
    """Runs one generation at a time on one model, and remembers what its KV cache holds."""

    def __init__(self, model: Model, flag: AbortFlag) -> None:
        self._model = model
        self._flag = flag
        self._memory = llama.llama_get_memory(model.context)
        self._held: list[int] = []
        flag.install(model.context)

    @property
    def n_past(self) -> int:
        """Tokens in the KV cache."""
        return len(self._held)

    def reuse(self, prompt: Sequence[int]) -> int:
        """Drop from the KV cache what differs from the prompt; how many of its tokens stay.

        At least one token is left to compute, since its logits start the answer. Recurrent models
        cannot drop a part: theirs is cleared.
        """
        same = 0
        for ours, theirs in zip(self._held, prompt, strict=False):
            if ours != theirs:
                break
            same += 1
        same = min(same, len(prompt) - 1)
        # Even where nothing differs: a token whose computation was stopped may have left its cell.
        if not llama.llama_memory_seq_rm(self._memory, 0, same, -1):
            llama.llama_memory_clear(self._memory, True)
            same = 0
        del self._held[same:]
        return same

    def prefill(self, prompt: Sequence[int], progress: Callable[[int, int], None]) -> bool:
        """Compute the rest of the prompt after `reuse`; False when it was stopped.

        In chunks of n_ubatch, each waited for: a stop then waits for one chunk at most, on GPUs
        too, whose backends do not look at the abort flag.
        """
        context = self._model.context
        while len(self._held) < len(prompt):
            if self._flag.is_set:
                return False
            chunk = prompt[len(self._held) : len(self._held) + self._model.n_ubatch]
            tokens = (llama.llama_token * len(chunk))(*chunk)
            code = llama.llama_decode(context, llama.llama_batch_get_one(tokens, len(chunk)))
            if code:
                self._resynchronize(prompt)
                if code == _ABORTED:
                    return False
                raise EngineError(f"llama.cpp could not compute the prompt (code {code})", "See the engine's log.")
            llama.llama_synchronize(context)
            self._held += chunk
            progress(len(self._held), len(prompt))
        return True

    def generate(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        params: Mapping[str, Value],
        text: AnswerText,
        emit: Emit,
        *,
        constraint: Constraint | None = None,
    ) -> Outcome:
        """Sample until the model, a limit, a stop string or the abort flag ends it.

        `text` makes text of the tokens, `emit` gets it at most every 25 ms. `constraint` holds for
        the answer, not for the thoughts before it.
        """
        model, flag, context = self._model, self._flag, self._model.context
        sample, decode, piece_of, clock = llama.llama_sampler_sample, llama.llama_decode, model.piece, time.monotonic
        chain, held = sampler.chain, self._held
        limit = _limit(params, model.n_ctx - len(prompt))
        marks = model.mark_tokens
        one = (llama.llama_token * 1)()
        batch = llama.llama_batch_get_one(one, 1)
        pending: list[tuple[TokenKind, str]] = []
        count = thought = 0
        top = params["top_logprobs"]
        logprobs = Logprobs(model, top) if isinstance(top, int) else None
        likely: list[TokenLogprob] = []
        reason: FinishReason = "length"
        prefilled = clock()
        first: float | None = None
        flushed = 0.0
        while count < limit:
            if constraint is None or text.reasoning:
                token = sample(chain, context, -1)
            else:
                token = constraint.sample(chain, context)
            piece = piece_of(token)
            if piece is None:
                reason = "stop"
                break
            count += 1
            thought += text.reasoning
            if logprobs:
                likely.append(logprobs.of(token))
            pending += text.feed(piece, is_mark=token in marks)
            now = clock()
            if first is None:
                first = now
            if pending and now - flushed >= _FLUSH_SECONDS:
                _flush(pending, emit, count, thought, likely)
                flushed = now
            if text.stopped:
                reason = "stop"
                break
            if flag.is_set:
                reason = "cancelled"
                break
            if count == limit:
                break
            one[0] = token
            if code := decode(context, batch):
                if code != _ABORTED:
                    raise EngineError(f"llama.cpp could not compute a token (code {code})", "See the engine's log.")
                reason = "cancelled"
                break
            held.append(token)
        pending += text.finish()
        if likely and not pending:
            pending.append(("answer", ""))
        _flush(pending, emit, count, thought, likely)
        return Outcome(reason, count, prefilled, first, clock(), thought)

    def _resynchronize(self, prompt: Sequence[int]) -> None:
        """After a stop the chunks that were finished stay valid: ask llama.cpp how many."""
        valid = llama.llama_memory_seq_pos_max(self._memory, 0) + 1
        self._held = list(prompt[:valid])


def _flush(
    pending: list[tuple[TokenKind, str]], emit: Emit, count: int, thought: int, likely: list[TokenLogprob]
) -> None:
    """Hand on what has gathered, neighbours of one kind together."""
    for kind, run in itertools.groupby(pending, key=operator.itemgetter(0)):
        emit(kind, "".join(text for _kind, text in run), count, thought, tuple(likely))
        likely.clear()
    pending.clear()


def _limit(params: Mapping[str, Value], room: int) -> int:
    wanted = params["max_tokens"]
    return min(wanted, room) if isinstance(wanted, int) else room
