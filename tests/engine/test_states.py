"""Coming back to a conversation whose model was unloaded: its saved KV state takes the prefill's place."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import struct
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Finished, Message, Started, Token
from llama_tui.paths import Paths
from llama_tui.settings.values import Value
from tests.engine.conftest import GREEDY, collect, end_of, first, load_params, ready, text_of, until
from tests.ggufs import write_tiny_cohere, write_tiny_mamba

LONG = (Message("user", "zq" * 200),)
OTHER = (Message("user", "xw" * 200),)


async def load(pool: Pool, model: Path, **params: Value) -> Engine:
    engine = await ready(
        await pool.acquire(model.stem, model, load_params(**{"n_ctx": 2048, "kv_state_size": 1.0, **params}))
    )
    assert engine.condition == "ready", engine.error
    return engine


async def ask(
    engine: Engine, messages: tuple[Message, ...], /, max_tokens: int = 30, **params: Value
) -> tuple[str, Finished]:
    events = engine.generate(uuid.uuid4().hex, messages, {**GREEDY, "max_tokens": max_tokens, **params})
    seen = await collect(events, 30)
    started, end = seen[0], end_of(seen)
    assert isinstance(started, Started)
    assert (started.reused_tokens, started.restored) == (end.reused_tokens, end.restored)
    return text_of(seen), end


def followed(messages: tuple[Message, ...], said: str, text: str = "and then?") -> tuple[Message, ...]:
    return (*messages, Message("assistant", said), Message("user", text))


def states(paths: Paths) -> list[Path]:
    return sorted(paths.kv_states.glob("*.kv"))


def said_of_states(engine: Engine) -> str:
    return "\n".join(line for line in engine.place.log.read_text().splitlines() if line.startswith("KV state"))


def computed(end: Finished) -> int:
    """Tokens of the prompt that were not reused."""
    return end.prompt_tokens - end.reused_tokens


class TestComingBack:
    async def test_computes_only_what_is_new_and_says_the_same(
        self, pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        engine = await load(pool, tiny_model)
        said, end = await ask(engine, LONG)
        assert (end.reused_tokens, end.restored) == (0, False)
        await engine.unload()
        again = await load(pool, tiny_model)
        assert again.pid != engine.pid
        turns = followed(LONG, said)
        restored, end = await ask(again, turns)
        assert end.restored
        assert computed(end) < 60  # the answer may be tokenized another way, and the new question
        _, end = await ask(again, followed(turns, restored))
        assert not end.restored
        assert computed(end) < 60
        await again.unload()
        log = said_of_states(again)
        assert re.search(r"saved \d+ tokens", log)
        assert re.search(r"restored \d+ tokens", log)
        assert len(states(paths)) == 1, "the longer state takes the place of the shorter"
        alone = await load(pool, tiny_model, kv_state_size=0.0)
        fresh, end = await ask(alone, turns)
        assert (end.reused_tokens, end.restored) == (0, False)
        assert fresh == restored
        assert not states(paths), "a size of 0 removes what there is of the model"

    @pytest.mark.parametrize("how", ["idle", "asked while it answered"])
    async def test_however_it_ended(self, pool: Pool, paths: Paths, tiny_model: Path, how: str) -> None:
        engine = await load(pool, tiny_model, n_ctx=16384, idle_timeout=1.0 if how == "idle" else 0.0)
        if how == "idle":
            await ask(engine, LONG)
        else:
            events = engine.generate(uuid.uuid4().hex, LONG, {**GREEDY, "ignore_eos": True})
            await first(events, Token)
            os.kill(engine.pid, signal.SIGTERM)
        await until(lambda: not engine.alive and states(paths))
        [state] = states(paths)
        again = await load(pool, tiny_model, n_ctx=16384)
        _, end = await ask(again, LONG, max_tokens=1)
        assert end.restored
        assert computed(end) == 1
        await again.unload()
        assert states(paths) == [state], "what is saved already is not written again"

    async def test_after_other_parameters_and_back(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        for type_k, restored in (("f16", False), ("q8_0", False), ("f16", True)):
            engine = await load(pool, tiny_model, type_k=type_k)
            _, end = await ask(engine, LONG)
            assert end.restored == restored
            await engine.unload()

    @pytest.mark.parametrize("flash_attn", ["on", "off"])
    async def test_in_a_context_of_another_size_that_holds_it(
        self, pool: Pool, paths: Paths, tiny_model: Path, flash_attn: str
    ) -> None:
        engine = await load(pool, tiny_model, flash_attn=flash_attn)
        text, _ = await ask(engine, LONG, max_tokens=700, ignore_eos=True)
        await engine.unload()
        sizes = ((1024, False), (4096, True)) if flash_attn == "on" else ((4096, True),)
        for n_ctx, restored in sizes:
            engine = await load(pool, tiny_model, flash_attn=flash_attn, n_ctx=n_ctx)
            again, end = await ask(engine, LONG)
            assert end.restored == restored
            assert text.startswith(again)

    async def test_two_engines_share_what_they_save(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        one, other = await asyncio.gather(load(pool, tiny_model), load(pool, tiny_model, n_threads=2))
        (text, _), (theirs, _) = await asyncio.gather(ask(one, LONG), ask(other, OTHER))
        await asyncio.gather(one.unload(), other.unload())
        assert len(states(paths)) == 2
        one, other = await asyncio.gather(load(pool, tiny_model), load(pool, tiny_model, n_threads=2))
        (crossed, end), (also, other_end) = await asyncio.gather(ask(one, OTHER), ask(other, LONG))
        assert end.restored
        assert other_end.restored
        assert (crossed, also) == (theirs, text)


class TestSwitching:
    async def test_between_two_conversations_costs_neither_its_prefill(
        self, pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        engine = await load(pool, tiny_model)
        said, _ = await ask(engine, LONG)
        other, end = await ask(engine, OTHER)
        assert not end.restored
        await until(lambda: len(states(paths)) == 1)
        _, end = await ask(engine, followed(LONG, said))
        assert end.restored
        assert computed(end) < 60
        await until(lambda: len(states(paths)) == 2)
        again, end = await ask(engine, OTHER)
        assert end.restored
        assert again == other

    async def test_nothing_is_saved_of_short_ones_or_for_another_answer(
        self, pool: Pool, paths: Paths, tiny_model: Path
    ) -> None:
        engine = await load(pool, tiny_model)
        for seed in range(3):
            await ask(engine, LONG, temperature=1.0, seed=seed)
        await ask(engine, (*LONG, Message("assistant", "so")), max_tokens=1)
        assert not states(paths)
        await ask(engine, (Message("user", "hello"),))
        await until(lambda: len(states(paths)) == 1)
        await ask(engine, (Message("user", "there"),))
        await engine.unload()
        assert len(states(paths)) == 1

    async def test_within_the_bound(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        engine = await load(pool, tiny_model, kv_state_size=0.0003)
        for letters in ("ab", "cd", "ef"):
            await ask(engine, (Message("user", letters * 200),))
        await engine.unload()
        [state] = states(paths)
        assert 0 < state.stat().st_size <= 0.0003 * 2**30


class TestOtherMemories:
    @pytest.mark.parametrize("write", [write_tiny_cohere, write_tiny_mamba])
    async def test_go_on_where_a_state_ends_and_never_go_back(
        self, pool: Pool, paths: Paths, tmp_path: Path, write: Callable[[Path], Path]
    ) -> None:
        model = write(tmp_path / "other.gguf")
        engine = await load(pool, model)
        # One token is sampled and none of the answer computed: the state ends with the prompt.
        _, end = await ask(engine, LONG, max_tokens=1)
        whole = end.prompt_tokens
        await engine.unload()
        engine = await load(pool, model)
        texts: list[str] = []
        for said in ("so", "no"):
            text, end = await ask(engine, followed(LONG, said))
            # A window that still holds what is before the end of the state can go back to there.
            assert end.restored == (said == "so" or write is write_tiny_mamba)
            assert end.reused_tokens == whole
            texts.append(text)
        text, end = await ask(engine, (Message("user", LONG[0].content[:-20]),))
        assert (end.restored, end.reused_tokens) == (False, 0)
        texts.append(text)
        await engine.unload()
        engine = await load(pool, model, kv_state_size=0.0)
        for text, turns in zip(texts, (followed(LONG, "so"), followed(LONG, "no")), strict=False):
            await ask(engine, (Message("user", "!"),), max_tokens=1)
            fresh, end = await ask(engine, turns)
            assert end.reused_tokens < 10
            assert fresh == text


class TestFaults:
    @pytest.mark.parametrize("fault", ["a flipped bit", "a state that is none"])
    async def test_in_a_file_cost_a_prefill_and_no_more(
        self, pool: Pool, paths: Paths, tiny_model: Path, fault: str
    ) -> None:
        engine = await load(pool, tiny_model)
        text, _ = await ask(engine, LONG)
        await engine.unload()
        [state] = states(paths)
        if fault == "a flipped bit":
            raw = bytearray(state.read_bytes())
            raw[-1000] ^= 16
            state.write_bytes(raw)
        else:
            forge(state)
        engine = await load(pool, tiny_model)
        again, end = await ask(engine, LONG)
        assert (end.restored, end.reused_tokens) == (False, 0)
        assert again == text
        assert not state.exists()
        assert ("is damaged" if fault == "a flipped bit" else "llama.cpp does not take") in said_of_states(engine)

    async def test_without_a_folder_nothing_is_saved(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        paths.cache.parent.mkdir(parents=True)
        paths.cache.write_text("in the way")
        engine = await load(pool, tiny_model)
        text, _ = await ask(engine, LONG)
        await ask(engine, OTHER)
        again, end = await ask(engine, LONG)
        assert (again, end.restored) == (text, False)
        assert "none are saved" in said_of_states(engine)

    async def test_a_disk_that_is_full(self, pool: Pool, paths: Paths, tiny_model: Path) -> None:
        engine = await load(pool, tiny_model)
        await ask(engine, LONG)
        # From here on the kernel refuses to let any file of this process grow.
        psutil.Process(engine.pid).rlimit(psutil.RLIMIT_FSIZE, (1, 1))
        other, _ = await ask(engine, OTHER)
        await ask(engine, LONG)
        again, _ = await ask(engine, OTHER)
        assert again == other
        await engine.unload()
        assert not list(paths.kv_states.iterdir())


def forge(state: Path) -> None:
    """Put zeros in place of llama.cpp's part of a file, with checksums that are right."""
    raw = state.read_bytes()
    length = int.from_bytes(raw[8:12], "little")
    header = json.loads(raw[16 : 16 + length])
    tokens = raw[16 + length : 16 + length + 4 * header["n_tokens"]]
    zeros = bytes(header["n_bytes"])
    head = json.dumps(header | {"checksum": zlib.crc32(zeros)}).encode() + tokens
    prologue = raw[:8] + struct.pack("<II", len(head) - len(tokens), zlib.crc32(head))
    state.write_bytes(prologue + head + zeros)
