"""The decode loop: prefill with what the KV cache already holds, then token by token."""

from __future__ import annotations

import ctypes
import itertools
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llama_tui.engine.protocol import FinishReason, TokenLogprob, ToolCall
from llama_tui.errors import EngineError
from llama_tui.settings.values import Value
from llama_tui.worker.binding import AbortFlag, llama
from llama_tui.worker.constraint import Constraint
from llama_tui.worker.logprobs import Logprobs
from llama_tui.worker.model import Model
from llama_tui.worker.sampler import Sampler
from llama_tui.worker.state import common_prefix
from llama_tui.worker.text import AnswerText, Said

_FLUSH_SECONDS = 0.033
"""Text is handed on this often at most: a client's work per event outweighs a token's."""

_MEASURED_TOKENS = 64
"""Chunks of fewer tokens take longer per token than a prefill does, and are not measured."""

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


Emit = Callable[[Said, int, int, tuple[TokenLogprob, ...]], None]
"""Takes a stretch of text or a call, the number of tokens so far, how many of them thought, and
how likely those since the last time were, if that is wanted."""


class Decoder:
    """Runs one generation at a time on one model, and remembers what its KV cache holds."""

    def __init__(self, model: Model, flag: AbortFlag) -> None:
        self._model = model
        self._flag = flag
        self._memory = llama.llama_get_memory(model.context)
        self._held: list[int] = []
        self._prefilled_tokens = 0
        self._prefilled_seconds = 0.0
        flag.install(model.context)

    @property
    def n_past(self) -> int:
        """Tokens in the KV cache."""
        return len(self._held)

    def reuse(self, prompt: Sequence[int]) -> int:
        """Drop from the KV cache what differs from the prompt; how many of its tokens stay.

        At least one token is left to compute, since its logits start the answer. Where the cache
        cannot go back to that place, it is cleared.
        """
        same = self.reusable(prompt)
        # Even where nothing differs: a token whose computation was stopped may have left its cell.
        if not same or not llama.llama_memory_seq_rm(self._memory, 0, same, -1):
            self._forget()
            same = 0
        del self._held[same:]
        return same

    def _forget(self) -> None:
        """Empty the KV cache. Its bytes stay: nothing reads cells that are free, and to clear those
        of a long context takes longer than many a prefill."""
        llama.llama_memory_clear(self._memory, False)

    def reusable(self, prompt: Sequence[int]) -> int:
        """How many tokens of the prompt need not be computed, if `reuse` were called now."""
        same = min(common_prefix(self._held, prompt), len(prompt) - 1)
        if same == len(self._held):
            return same
        if self._model.is_recurrent:
            return 0
        if window := self._model.n_swa:
            # Attention looks back over a window, and what lies before the last one may be gone.
            oldest = llama.llama_memory_seq_pos_min(self._memory, 0)
            return same if oldest <= max(0, same - window + 1) else 0
        return same

    def usable(self, saved: int, common: int) -> int:
        """How many of `saved` tokens could be used after `restore` if the prompt begins with
        `common` of them: a sliding window is saved alone, and recurrent models cannot go back."""
        if saved > self._model.n_ctx:
            return 0
        if common == saved:
            return saved
        if self._model.is_recurrent:
            return 0
        window = self._model.n_swa
        return common if not window or saved <= window or common == saved - 1 else 0

    @property
    def can_rewind(self) -> bool:
        """Whether a restored state can go back to any of its tokens."""
        return not self._model.is_recurrent and not self._model.n_swa

    @property
    def held(self) -> Sequence[int]:
        """The tokens in the KV cache."""
        return self._held

    @property
    def prefill_rate(self) -> float:
        """Tokens a second that prefills took; 0 before the first of more than a few tokens."""
        return self._prefilled_tokens / self._prefilled_seconds if self._prefilled_seconds else 0.0

    def state_size(self) -> int:
        """Bytes that `state` would have; 0 where the KV cache cannot be copied."""
        # A token whose computation was stopped may have left its cell.
        if not llama.llama_memory_seq_rm(self._memory, 0, len(self._held), -1):
            return 0
        return llama.llama_state_seq_get_size(self._model.context, 0)

    def state(self) -> bytearray:
        """A copy of the KV cache as llama.cpp writes it; empty where it cannot."""
        data = bytearray(self.state_size())
        buffer = (ctypes.c_uint8 * len(data)).from_buffer(data)
        written = llama.llama_state_seq_get_data(self._model.context, buffer, len(data), 0)
        return data if written == len(data) else bytearray()

    def restore(self, tokens: Sequence[int], data: bytearray) -> bool:
        """Put a copy back in place of what the KV cache holds; False where llama.cpp refuses it,
        and then the cache is empty."""
        self._held.clear()
        self._forget()
        buffer = (ctypes.c_uint8 * len(data)).from_buffer(data)
        read = llama.llama_state_seq_set_data(self._model.context, buffer, len(data), 0)
        if read != len(data) or llama.llama_memory_seq_pos_max(self._memory, 0) + 1 != len(tokens):
            # What was half read may hold anything, and a masked cell that is no number still spoils a sum.
            llama.llama_memory_clear(self._memory, True)
            return False
        self._held += tokens
        return True

    def prefill(self, prompt: Sequence[int], progress: Callable[[int, int], None]) -> bool:
        """Compute the rest of the prompt after `reuse`; False when it was stopped.

        In chunks of n_ubatch, each waited for: a stop then waits for one chunk at most, on GPUs
        too, whose backends do not look at the abort flag.
        """
        context = self._model.context
        while len(self._held) < len(prompt):
            if self._flag.is_set:
                return False
            began = time.monotonic()
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
            if len(chunk) >= _MEASURED_TOKENS:
                self._prefilled_tokens += len(chunk)
                self._prefilled_seconds += time.monotonic() - began
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
        spelled: Mapping[int, bytes] | None = None,
    ) -> Outcome:
        """Sample until the model, a limit, a stop string or the abort flag ends it.

        `text` makes text of the tokens, `emit` gets it at most every 33 ms. `constraint` holds for
        the answer, not for the thoughts before it unless it says so. `spelled` are control tokens that are text here,
        since they mark calls.
        """
        model, flag, context = self._model, self._flag, self._model.context
        sample, decode, clock = llama.llama_sampler_sample, llama.llama_decode, time.monotonic
        piece_of = model.piece
        if marked := spelled:

            def piece_of(token: int) -> bytes | None:
                return marked.get(token) or model.piece(token)

        chain, held = sampler.chain, self._held
        limit = _limit(params, model.n_ctx - len(prompt))
        marks = model.mark_tokens
        one = (llama.llama_token * 1)()
        batch = llama.llama_batch_get_one(one, 1)
        pending: list[Said] = []
        count = thought = 0
        top = params["top_logprobs"]
        logprobs = Logprobs(model, top) if isinstance(top, int) else None
        likely: list[TokenLogprob] = []
        reason: FinishReason = "length"
        prefilled = clock()
        first: float | None = None
        flushed = 0.0
        while count < limit:
            if constraint is None or (text.reasoning and not constraint.everywhere):
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
        if likely and not any(isinstance(item, tuple) for item in pending):
            pending.append(("answer", ""))
        _flush(pending, emit, count, thought, likely)
        return Outcome(reason, count, prefilled, first, clock(), thought)

    def _resynchronize(self, prompt: Sequence[int]) -> None:
        """After a stop the chunks that were finished stay valid: ask llama.cpp how many."""
        valid = llama.llama_memory_seq_pos_max(self._memory, 0) + 1
        self._held = list(prompt[:valid])


def _flush(pending: list[Said], emit: Emit, count: int, thought: int, likely: list[TokenLogprob]) -> None:
    """Hand on what has gathered, neighbours of one kind together."""
    for is_call, items in itertools.groupby(pending, key=lambda item: isinstance(item, ToolCall)):
        if is_call:
            for call in items:
                emit(call, count, thought, ())
            continue
        stretches = (item for item in items if isinstance(item, tuple))
        for kind, run in itertools.groupby(stretches, key=operator.itemgetter(0)):
            emit((kind, "".join(text for _kind, text in run)), count, thought, tuple(likely))
            likely.clear()
    pending.clear()


def _limit(params: Mapping[str, Value], room: int) -> int:
    wanted = params["max_tokens"]
    return min(wanted, room) if isinstance(wanted, int) else room
