"""Coming back to a long conversation whose model was unloaded: the first token with and without its saved KV state.

    python -m benchmarks.restore [MODEL] [--tokens 5000] [--threads N] [--rounds 3]

Real engines over their sockets, in a home of their own. Without MODEL a llama with random weights
is made, of 26 M parameters. They take turns. "Never unloaded" is the same next turn in an engine
that still has the conversation, which is as good as it can be. "Unload" is the time until the process is gone,
for which the state is saved; "switch" is the first token of another conversation, before which the
state of the first is copied.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path

from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Finished, Message
from llama_tui.paths import Paths
from llama_tui.settings.params import defaults
from llama_tui.settings.values import Value
from tests.ggufs import write_tiny_llama

_SENTENCE = "The lighthouse keeper wrote down every ship that passed, and the weather of the day. "


async def first_token(
    paths: Paths, model: Path, turns: list[tuple[Message, ...]], given: dict[str, Value], gib: float
) -> tuple[list[Finished], float]:
    """Load, ask for one token after each of the conversations, unload; how each ended, and the seconds that
    unloading took."""
    pool = Pool(paths, lambda _engine: None)
    params = {**defaults("load"), **given, "kv_state_size": gib, "idle_timeout": 0.0}
    engine = await pool.acquire(model.stem, model, params)
    ends: list[Finished] = []
    # What loads the weights into memory and warms the process up is not what is measured.
    for messages in ((Message("user", "?"),), *turns):
        told = engine.generate(uuid.uuid4().hex, messages, {"max_tokens": 1})
        async with contextlib.aclosing(told) as events:
            ends += [event async for event in events if isinstance(event, Finished)]
    began = time.monotonic()
    await engine.unload()
    unload = time.monotonic() - began
    await pool.close(unload=True)
    return ends[1:], unload


async def measure(folder: Path, model: Path, tokens: int, threads: int | None) -> dict[str, float]:
    """One conversation: begun, left, come back to with its saved state and without; and one left for another."""
    paths = Paths(folder, folder, folder, folder / "r", folder)
    begun = (Message("user", _SENTENCE * (tokens // _tokens_a_sentence(model))),)
    after = (*begun, Message("assistant", "Yes."), Message("user", "And on Sunday?"))
    other = (Message("user", "What else?"),)
    given: dict[str, Value] = {"n_ctx": 2 * tokens + 1024, "n_threads": threads}
    _, saving = await first_token(paths, model, [begun], given, 4.0)
    state = sum(file.stat().st_size for file in paths.kv_states.iterdir())
    [restored], _ = await first_token(paths, model, [after], given, 4.0)
    assert restored.restored, "the state was not restored"
    [_, with_copy], _ = await first_token(paths, model, [begun, other], given, 4.0)
    [prefilled], plain = await first_token(paths, model, [after], given, 0.0)
    [_, kept, without_copy], _ = await first_token(paths, model, [begun, after, other], given, 0.0)
    return {
        "prompt tokens": prefilled.prompt_tokens,
        "reused from disk": restored.reused_tokens,
        "state, MiB": state / 2**20,
        "first token, prefilled": _seconds(prefilled),
        "first token, restored": _seconds(restored),
        "first token, never unloaded": _seconds(kept),
        "restored / prefilled": _seconds(restored) / _seconds(prefilled),
        "restored / never unloaded": _seconds(restored) / _seconds(kept),
        "unload, saving": saving,
        "unload, not saving": plain,
        "switch, saving": _seconds(with_copy),
        "switch, not saving": _seconds(without_copy),
    }


def _seconds(end: Finished) -> float:
    assert end.first_token_seconds is not None
    return end.first_token_seconds


def _tokens_a_sentence(model: Path) -> int:
    import llama_cpp

    vocabulary = llama_cpp.Llama(str(model), vocab_only=True, verbose=False)
    count = len(vocabulary.tokenize(_SENTENCE.encode(), add_bos=False))
    vocabulary.close()
    return count


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=5000)
    parser.add_argument("--threads", type=int, help="of an engine; the default is the program's")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lt") as name:
        folder = Path(name)
        os.environ["XDG_RUNTIME_DIR"] = name
        model = options.model or write_tiny_llama(
            folder / "noise.gguf", n_ctx_train=131072, n_embd=512, n_layer=8, quantization="Q8_0"
        )
        rounds = [asyncio.run(measure(folder, model, options.tokens, options.threads)) for _ in range(options.rounds)]
    for key in rounds[0]:
        values = [found[key] for found in rounds]
        print(f"{key:<29}{statistics.median(values):10.3f}  ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
