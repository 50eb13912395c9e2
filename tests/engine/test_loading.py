"""Files that are no models, models that do not fit: each a message and a hint, and nothing breaks."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Message, Started
from llama_tui.engine.room import Policy
from llama_tui.errors import EngineError, LoadFailed, NoRoom
from tests import ggufs
from tests.conftest import CORPUS
from tests.engine.conftest import GREEDY, HELLO, collect, end_of, load_params, ready, text_of, until


async def failure(pool: Pool, path: Path, **params: object) -> LoadFailed:
    """What a file that cannot be loaded is answered with; the engine ends by itself."""
    engine = await pool.acquire("broken", path, load_params(**params))  # pyright: ignore[reportArgumentType]
    with pytest.raises(LoadFailed) as caught:
        await collect(engine.generate("g", HELLO, {}))
    await until(lambda: engine.condition == "failed")
    assert isinstance(engine.error, LoadFailed)
    assert engine.error.message == caught.value.message
    await until(lambda: not psutil.pid_exists(engine.pid))
    return caught.value


def notes(path: Path) -> None:
    path.write_text("Dear diary, this is not a model.\n" * 200)


def cut(bytes_: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        ggufs.write_tiny_llama(path)
        ggufs.truncate(path, bytes_)

    return damage


def damaged(damage: Callable[[Path], Path]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        ggufs.write_tiny_llama(path)
        damage(path)

    return write


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "not a GGUF": (notes, "magic"),
    "empty": (Path.touch, ""),
    "one byte short": (cut(-1), "not within the file bounds|corrupted|incomplete"),
    "half of its tensors": (cut(200_000), "not within the file bounds|corrupted|incomplete"),
    "in the header": (cut(300), ""),
    "in the magic": (cut(3), ""),
    "another version": (damaged(ggufs.wrong_version), "version"),
    "big endian": (damaged(ggufs.big_endian), "endian|version"),
    "another magic": (damaged(ggufs.bad_magic), "magic"),
    "unknown architecture": (ggufs.unknown_architecture, "unknown model architecture: 'nonesuch'"),
    "missing tensor": (
        lambda path: ggufs.write_tiny_llama(path, drop_tensor="blk.1.ffn_up.weight"),
        r"broken: (missing )?tensor 'blk\.1\.ffn_up\.weight'",
    ),
    "missing key": (
        lambda path: ggufs.write_tiny_llama(path, drop_key="llama.embedding_length"),
        r"llama\.embedding_length",
    ),
    "missing vocabulary": (lambda path: ggufs.write_tiny_llama(path, drop_key="tokenizer.ggml.tokens"), "vocab|tokens"),
    "metadata alone": (lambda path: ggufs.write_metadata_only(path, {}), ""),
}


class TestBrokenFiles:
    @pytest.mark.parametrize("kind", BROKEN)
    async def test_says_what_is_wrong_and_what_to_do(self, pool: Pool, tmp_path: Path, kind: str) -> None:
        write, reason = BROKEN[kind]
        path = tmp_path / "broken.gguf"
        write(path)
        error = await failure(pool, path)
        import re

        assert re.search(reason, error.message), error.message
        assert "broken" in error.message
        assert len(error.message) > len("llama.cpp could not load broken") + 5
        assert error.hint

    async def test_a_repaired_file_loads(self, pool: Pool, tmp_path: Path) -> None:
        path = tmp_path / "model.gguf"
        notes(path)
        await failure(pool, path)
        ggufs.write_tiny_llama(path)
        engine = await ready(await pool.acquire("model", path, load_params()))
        assert engine.condition == "ready"

    async def test_a_file_that_vanishes_before_it_is_read(
        self, pool: Pool, tiny_model: Path, tmp_path: Path, gate: Path
    ) -> None:
        path = tmp_path / "brief.gguf"
        shutil.copy(tiny_model, path)
        engine = await pool.acquire("brief", path, load_params())
        path.unlink()
        gate.touch()
        with pytest.raises(LoadFailed, match="brief") as caught:
            await collect(engine.generate("g", HELLO, {}))
        assert caught.value.hint

    @pytest.mark.corpus
    @pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not on this machine")
    @pytest.mark.parametrize("name", ["ggml-vocab-llama-spm.gguf", "ggml-vocab-bert-bge.gguf"])
    async def test_a_vocabulary_without_a_model(self, pool: Pool, name: str) -> None:
        error = await failure(pool, CORPUS / "vocabs" / name)
        assert error.hint


class TestTemplates:
    async def test_without_one_there_is_a_neutral_one(self, pool: Pool, tmp_path: Path, tiny_model: Path) -> None:
        path = ggufs.write_tiny_llama(tmp_path / "bare.gguf", chat_template=None)
        engine = await ready(await pool.acquire("bare", path, load_params()))
        assert engine.state
        assert engine.state.model
        assert engine.state.model.template == "fallback"
        said = text_of(await collect(engine.generate("g", HELLO, {**GREEDY, "max_tokens": 30})))
        # The tokens of ChatML are there, so it is ChatML: the same prompt as with the template.
        other = await pool.acquire("tiny", tiny_model, load_params())
        assert said == text_of(await collect(other.generate("g", HELLO, {**GREEDY, "max_tokens": 30})))

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            (
                "{% if messages[0].content == 'hello there' %}{{ raise_exception('I said no') }}{% endif %}x",
                "I said no",
            ),
            ("{% for m in messages %}", "not valid Jinja"),
            ("{{ 9 ** (9 ** 99) }}", "was stopped"),
            ("{# nothing #}", "it leaves out what the user says"),
        ],
    )
    async def test_one_that_cannot_be_used_is_replaced_and_named(
        self, pool: Pool, tmp_path: Path, tiny_model: Path, source: str, reason: str
    ) -> None:
        path = ggufs.write_tiny_llama(tmp_path / "picky.gguf", chat_template=source)
        engine = await pool.acquire("picky", path, load_params())
        events = await collect(engine.generate("a", HELLO, {**GREEDY, "max_tokens": 30}))
        started = next(event for event in events if isinstance(event, Started))
        assert started.template == "fallback"
        assert "picky" in started.notice
        assert reason in started.notice
        # The tokens of ChatML are there, so the neutral one is the same as the other model's own.
        other = await pool.acquire("tiny", tiny_model, load_params())
        events_there = await collect(other.generate("g", HELLO, {**GREEDY, "max_tokens": 30}))
        assert text_of(events) == text_of(events_there)
        started = next(event for event in events_there if isinstance(event, Started))
        assert (started.template, started.notice) == ("model", "")

    async def test_its_process_ends_with_the_engine(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        (renderer,) = psutil.Process(engine.pid).children()
        assert "llama_tui.worker.renderer" in renderer.cmdline()
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: not renderer.is_running() or renderer.status() == psutil.STATUS_ZOMBIE)

    async def test_one_that_says_nothing_makes_no_prompt(self, pool: Pool, tmp_path: Path) -> None:
        path = ggufs.write_tiny_llama(tmp_path / "mute.gguf", chat_template="{# nothing #}")
        engine = await pool.acquire("mute", path, load_params())
        with pytest.raises(EngineError, match="empty prompt") as caught:
            await collect(engine.generate("a", (Message("user"),), {}))
        assert caught.value.hint
        assert engine.alive


class TestText:
    async def test_bytes_that_are_no_text_do_not_hold_the_answer_up(self, pool: Pool, tmp_path: Path) -> None:
        path = ggufs.write_tiny_llama(tmp_path / "bytes.gguf", readable=False)
        engine = await pool.acquire("bytes", path, load_params())
        events = await collect(engine.generate("g", HELLO, {"max_tokens": 300, "seed": 1, "ignore_eos": True}))
        assert end_of(events).completion_tokens == 300
        assert "\ufffd" in text_of(events)
        assert len(text_of(events)) > 100

    async def test_tokens_that_are_long(self, pool: Pool, tmp_path: Path) -> None:
        words = [letter * 3000 for letter in "ABCDEFGH"]
        path = ggufs.write_tiny_llama(tmp_path / "long.gguf", vocab=words)
        engine = await pool.acquire("long", path, load_params())
        events = await collect(
            engine.generate("g", HELLO, {"max_tokens": 400, "temperature": 3.0, "seed": 1, "ignore_eos": True})
        )
        assert any(word in text_of(events) for word in words)

    async def test_the_guide_answers(self, pool: Pool, guide_model: Path) -> None:
        engine = await pool.acquire("guide", guide_model, load_params(n_threads=None))
        question = (Message("user", "How do I switch models?"),)
        events = await collect(engine.generate("g", question, {**GREEDY, "max_tokens": 300}))
        assert end_of(events).reason == "stop"
        assert "ctrl+o" in text_of(events).lower()


class TestSize:
    async def test_a_context_that_cannot_be_had_says_how_much_it_would_take(
        self, pool: Pool, tmp_path: Path, tiny_model: Path
    ) -> None:
        other = await ready(await pool.acquire("tiny", tiny_model, load_params()))
        path = ggufs.write_tiny_llama(tmp_path / "wide.gguf", n_embd=256, n_layer=4)
        with pytest.raises(NoRoom) as caught:
            await pool.acquire("wide", path, load_params(n_ctx=16777216))
        # 4 layers of 256 values for K and V each, two bytes a value.
        assert f"KV cache {4 * 16777216 * 2 * 256 * 2 // 2**30}G" in caught.value.message
        assert "n_ctx = 16,777,216" in caught.value.message
        assert caught.value.shortages[0].need > 64 * 2**30
        assert caught.value.offers[0].params["n_ctx"]
        assert other.condition == "ready"
        assert end_of(await collect(other.generate("g", HELLO, {"max_tokens": 2}))).completion_tokens == 2

    async def test_without_the_check_llama_cpp_says_so(self, pool: Pool, tmp_path: Path) -> None:
        path = ggufs.write_tiny_llama(tmp_path / "wide.gguf", n_embd=256, n_layer=4)
        engine = await ready(await pool.acquire("wide", path, load_params(n_ctx=16777216), Policy(check=False)))
        assert isinstance(engine.error, LoadFailed)
        assert "16,777,216 tokens" in engine.error.message
        assert "n_ctx" in engine.error.hint

    @pytest.mark.parametrize("type_", ["q8_0", "q4_0", "bf16", "f32"])
    async def test_a_cache_of_another_type(self, pool: Pool, tiny_model: Path, type_: str) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(type_k=type_, type_v=type_)))
        assert engine.state
        bits = {"q8_0": 8.5, "q4_0": 4.5, "bf16": 16, "f32": 32}[type_]
        assert sum(buffer.kv for buffer in engine.state.memory.buffers) == 2 * 1024 * 2 * 64 * bits / 8
        assert end_of(await collect(engine.generate("g", HELLO, {"max_tokens": 5}))).completion_tokens == 5

    async def test_a_quantized_v_cache_without_flash_attention_is_refused(self, pool: Pool, tiny_model: Path) -> None:
        error = await failure(pool, tiny_model, type_v="q8_0", flash_attn="off")
        assert "context" in error.message
        assert error.hint

    @pytest.mark.parametrize(
        "params",
        [
            {"n_batch": 1},
            {"n_ubatch": 1},
            {"n_batch": 7, "n_ubatch": 65536},
            {"flash_attn": "off"},
            {"flash_attn": "on"},
            {"use_mlock": True},
            {"n_gpu_layers": -1},
            {"split_mode": "row", "tensor_split": (1.0, 0.0)},
            {"rope_freq_base": 20000.0, "rope_freq_scale": 0.5},
            {"rope_scaling": "yarn", "yarn_orig_ctx": 256, "yarn_beta_fast": 16.0},
            {"n_threads": 3, "n_threads_batch": 2},
            {"split_mode": "none", "main_gpu": 1},
            {"n_gpu_layers": None},
            {"kv_overrides": ("general.name=str:other", "llama.rope.freq_base=float:1e6")},
        ],
        ids="-".join,
    )
    async def test_other_load_parameters(self, pool: Pool, tiny_model: Path, params: dict[str, object]) -> None:
        engine = await pool.acquire("tiny", tiny_model, load_params(**params))  # pyright: ignore[reportArgumentType]
        events = await collect(
            engine.generate(os.urandom(4).hex(), (Message("user", "z" * 300),), {**GREEDY, "max_tokens": 20})
        )
        assert end_of(events).completion_tokens == 20


class TestAdapters:
    async def test_act_by_their_scales(self, pool: Pool, tmp_path: Path) -> None:
        model = ggufs.write_tiny_llama(tmp_path / "model.gguf")
        ggufs.write_lora(tmp_path / "strong.gguf")

        async def said(*lora: str) -> str:
            engine = await pool.acquire("model", model, load_params(lora=lora))
            return text_of(await collect(engine.generate("g", HELLO, {**GREEDY, "max_tokens": 30})))

        plain = await said()
        assert await said("strong.gguf:0") == plain
        assert await said(str(tmp_path / "strong.gguf")) != plain

    @pytest.mark.parametrize(
        ("write", "reason"),
        [
            (notes, "not a GGUF"),
            (lambda _path: None, "does not exist"),
            (ggufs.write_tiny_llama, "no LoRA adapter"),
            (lambda path: ggufs.write_lora(path, kind="aLoRA"), "no LoRA adapter"),
            (lambda path: ggufs.write_lora(path, architecture="qwen2"), "for qwen2, the model is llama"),
        ],
    )
    async def test_one_that_cannot_be_used_is_refused_before_a_process_starts(
        self, pool: Pool, tiny_model: Path, tmp_path: Path, write: Callable[[Path], object], reason: str
    ) -> None:
        write(tmp_path / "bad.gguf")
        with pytest.raises(LoadFailed, match=reason) as caught:
            await pool.acquire("tiny", tiny_model, load_params(lora=(f"{tmp_path}/bad.gguf:0.5",)))
        assert caught.value.hint
        assert pool.engines == ()

    async def test_one_of_another_shape_is_refused_by_llama_cpp(
        self, pool: Pool, tiny_model: Path, tmp_path: Path
    ) -> None:
        ggufs.write_lora(tmp_path / "wide.gguf", n_embd=96)
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(lora=(f"{tmp_path}/wide.gguf",))))
        assert isinstance(engine.error, LoadFailed)
        assert "wide.gguf" in engine.error.message


class TestDevices:
    @pytest.mark.parametrize(
        ("params", "reason", "advice"),
        [
            ({"rpc_servers": ("127.0.0.1:1",)}, "built without", "GGML_RPC=on"),
            ({"devices": ("CUDA7",)}, "CUDA7.*no GPU", "doctor"),
            ({"tensor_split": (0.0, 0.0)}, "no GPU a share", "above 0"),
        ],
    )
    async def test_what_this_build_cannot_do_is_said(
        self, pool: Pool, tiny_model: Path, params: dict[str, object], reason: str, advice: str
    ) -> None:
        error = await failure(pool, tiny_model, **params)
        import re

        assert re.search(reason, error.message), error.message
        assert advice in error.hint

    async def test_an_override_of_another_type_would_be_passed_over(self, pool: Pool, tiny_model: Path) -> None:
        with pytest.raises(LoadFailed, match=r"llama\.block_count is of type int") as caught:
            await pool.acquire("tiny", tiny_model, load_params(kv_overrides=("llama.block_count=str:2",)))
        assert "llama.block_count=int:" in caught.value.hint
