"""Room for a model: what it is said to take, what it takes, and what is offered where that is too much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from llama_tui.chat.access import Access
from llama_tui.engine.devices import DeviceMemory, Machine
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Buffer, DryRun, EngineSpec, Token
from llama_tui.engine.room import Policy, Room
from llama_tui.engine.trial import dry_run
from llama_tui.errors import NoRoom
from llama_tui.library import fit
from llama_tui.library.gguf import read_header
from llama_tui.library.scan import Headers
from llama_tui.paths import Paths
from llama_tui.settings.store import SettingsStore
from llama_tui.settings.values import Value
from tests import ggufs
from tests.engine.conftest import HELLO, first, load_params, ready, until

MIB = 2**20
PADDING = 32
LRU = Policy(evict=True)


class Small(Machine):
    """A machine with so much room for engines, and what engines of a pool hold taken from it."""

    def __init__(self, total: int, engines: Callable[[], tuple[Engine, ...]] = tuple) -> None:
        super().__init__()
        self.total = total
        self._engines = engines

    def read(self) -> list[DeviceMemory]:
        states = [engine.state for engine in self._engines() if engine.alive and engine.state]
        return [DeviceMemory("RAM", "RAM", self.total, sum(state.memory.private or 0 for state in states))]


@pytest.fixture
async def small(paths: Paths) -> AsyncIterator[Callable[[int], Pool]]:
    """A pool on a machine with little room."""
    made: list[Pool] = []

    def make(total: int) -> Pool:
        made.append(Pool(paths, lambda _engine: None, Room(Small(total, lambda: made[0].engines), Headers())))
        return made[0]

    yield make
    for pool in made:
        await pool.unload([engine.pid for engine in pool.engines])
        await pool.close(unload=True)


def spec_of(path: Path, **changes: Value) -> EngineSpec:
    return EngineSpec(path.stem, str(path), "", load_params(**changes))


def network(path: Path) -> fit.Network:
    return fit.Network.of([read_header(path)])


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose KV cache takes 4 KiB a token."""
    return ggufs.write_tiny_llama(tmp_path_factory.mktemp("wide") / "wide.gguf", n_embd=256, n_layer=4)


@pytest.fixture(scope="session")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 70 MiB that is nearly all weights."""
    return ggufs.write_tiny_llama(tmp_path_factory.mktemp("heavy") / "heavy.gguf", n_embd=768, n_layer=3)


class TestEstimates:
    @pytest.mark.parametrize(
        ("shape", "params"),
        [
            (
                {"n_head_kv": 2, "n_ff": 1024, "quantization": "Q8_0"},
                {"n_ctx": 4096, "type_k": "q8_0", "type_v": "q4_0"},
            ),
            ({"architecture": "qwen3", "n_ff": 512}, {"n_ctx": 3000, "flash_attn": "off", "n_ubatch": 128}),
            ({"architecture": "gemma3", "n_ff": 1024, "tied": True, "n_head_kv": 2, "n_layer": 6}, {"n_ctx": 8192}),
            (None, {"n_ctx": 2048}),
        ],
        ids=["grouped heads", "no flash attention", "sliding window", "guide"],
    )
    async def test_the_header_the_trial_and_the_engine_agree(
        self, pool: Pool, tmp_path: Path, guide_model: Path, shape: dict[str, object] | None, params: dict[str, Value]
    ) -> None:
        path = guide_model
        if shape:
            path = ggufs.write_tiny_llama(tmp_path / "model.gguf", n_embd=256, **shape)  # pyright: ignore[reportArgumentType]
        spec = spec_of(path, **params)
        estimate = fit.estimate(network(path), spec.params)
        tried = await dry_run(spec)
        (told,) = tried.buffers
        assert (estimate.ram.weights, estimate.ram.kv) == (told.weights, told.kv)
        # From the upper side, and not by much.
        assert told.compute <= estimate.ram.compute <= told.compute * 1.5 + MIB

        engine = await ready(await pool.acquire("model", path, spec.params))
        assert engine.state
        memory = engine.state.memory
        held = [sum(getattr(buffer, kind) for buffer in memory.buffers) for kind in ("weights", "kv", "compute")]
        # Behind the last tensor of a mapped file there is no padding.
        assert told.weights - PADDING < held[0] <= told.weights
        assert held[1:] == [told.kv, told.compute]
        assert memory.private is not None
        assert memory.private <= estimate.ram.total - estimate.mapped
        assert engine.spec.estimate
        assert engine.spec.estimate.total == estimate.ram.weights + estimate.ram.kv + estimate.ram.compute

    async def test_a_trial_of_a_file_that_cannot_be_loaded_says_so(self, tmp_path: Path) -> None:
        path = ggufs.write_tiny_llama(tmp_path / "broken.gguf", drop_tensor="blk.1.ffn_up.weight")
        assert "blk.1.ffn_up.weight" in (await dry_run(spec_of(path))).failure

    async def test_a_trial_ends_with_the_load_that_wants_it(self, wide: Path) -> None:
        trial = asyncio.create_task(dry_run(spec_of(wide)))
        await until(trials)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert not trials()

    async def test_where_llama_cpp_gives_no_breakdown_its_log_tells_the_compute_buffer(self, wide: Path) -> None:
        spec = spec_of(wide, n_ctx=16384)
        ram = fit.estimate(network(wide), spec.params).ram

        async def trial(_asked: EngineSpec) -> DryRun:
            return DryRun((Buffer("CPU", True, 0, 0, 5 * MIB),))

        planned = await Room(Small(ram.total), Headers(), trial).plan(spec, ())
        assert planned.estimate
        assert planned.estimate.method == "dry run"
        assert planned.estimate.buffers == (Buffer("RAM", True, ram.weights, ram.kv, 5 * MIB),)


def trials() -> list[psutil.Process]:
    """The trial processes of this program."""
    children = psutil.Process().children()
    return [child for child in children if "llama_tui.worker.dryrun" in child.cmdline()]


class TestOffers:
    async def test_each_loads_when_it_is_taken(self, small: Callable[[int], Pool], wide: Path) -> None:
        room = 320 * MIB
        pool = small(room)
        params = load_params(n_ctx=65536, flash_attn="on")
        with pytest.raises(NoRoom) as caught:
            await pool.acquire("wide", wide, params)
        error = caught.value
        (shortage,) = error.shortages
        assert (shortage.device, shortage.free) == ("RAM", room)
        assert shortage.need > 65536 * 4096
        assert [sorted(offer.params) for offer in error.offers] == [["n_ctx"], ["type_k", "type_v"]]
        for offer in error.offers:
            assert all(str(value) in offer.words.replace(",", "") for value in offer.params.values())
            engine = await ready(await pool.acquire("wide", wide, params | dict(offer.params)))
            assert engine.condition == "ready", engine.error
            assert engine.state
            assert engine.state.memory.private
            assert sum(b.kv + b.compute for b in engine.state.memory.buffers) < room
            assert engine.state.memory.private < room
            await engine.unload()

    async def test_nothing_helps_where_the_engine_alone_is_too_much(
        self, small: Callable[[int], Pool], wide: Path
    ) -> None:
        with pytest.raises(NoRoom) as caught:
            await small(20 * MIB).acquire("wide", wide, load_params())
        assert caught.value.offers == ()
        assert caught.value.hint

    async def test_mapped_weights_alone_leave_the_choice(self, small: Callable[[int], Pool], heavy: Path) -> None:
        weights = sum(network(heavy).blocks)
        pool = small(90 * MIB + weights // 2)
        params = load_params(n_ctx=512, n_ubatch=64)
        with pytest.raises(NoRoom) as caught:
            await pool.acquire("heavy", heavy, params)
        assert caught.value.offers[-1].params == {"check_room": False}
        assert (await ready(await pool.acquire("heavy", heavy, params, Policy(check=False)))).condition == "ready"
        with pytest.raises(NoRoom) as caught:
            await pool.acquire("heavy", heavy, params | {"use_mmap": False})
        assert caught.value.offers == ()

    async def test_pages_of_the_same_file_count_once(
        self, small: Callable[[int], Pool], heavy: Path, tmp_path: Path
    ) -> None:
        weights = sum(network(heavy).blocks)
        pool = small(250 * MIB + weights)
        await ready(await pool.acquire("heavy", heavy, load_params(n_ctx=512)))
        assert (await ready(await pool.acquire("heavy", heavy, load_params(n_ctx=256)))).condition == "ready"
        copy = tmp_path / "copy.gguf"
        copy.write_bytes(heavy.read_bytes())
        with pytest.raises(NoRoom):
            await pool.acquire("copy", copy, load_params(n_ctx=256))


class TestUnloading:
    async def test_the_longest_idle_goes_first_and_a_busy_one_never(
        self, small: Callable[[int], Pool], wide: Path, tiny_model: Path
    ) -> None:
        pool = small(400 * MIB)
        params = load_params(n_ctx=24576, n_ubatch=64)
        older = await ready(await pool.acquire("wide", wide, params))
        busy = await pool.acquire("tiny", tiny_model, load_params(n_ctx=65536, n_ubatch=64))
        endless = busy.generate("g", HELLO, {"ignore_eos": True, "max_tokens": 100000})
        await first(endless, Token)
        more = params | {"n_ctx": 32768}
        with pytest.raises(NoRoom) as caught:
            await pool.acquire("wide", wide, more)
        (unload,) = [offer for offer in caught.value.offers if offer.unload]
        assert unload.unload == (older.pid,)
        assert str(older.pid) in unload.words

        newer = await ready(await pool.acquire("wide", wide, more, LRU))
        assert newer.condition == "ready"
        assert older.end_reason == "asked"
        assert not psutil.pid_exists(older.pid)
        assert busy.condition == "busy"
        await endless.aclose()

    async def test_no_more_models_than_allowed(self, pool: Pool, wide: Path, tiny_model: Path) -> None:
        two = Policy(max_loaded=2)
        oldest = await ready(await pool.acquire("a", wide, load_params(), two))
        newest = await ready(await pool.acquire("b", tiny_model, load_params(), two))
        again = await pool.acquire("a", wide, load_params(), two)
        assert again is oldest
        with pytest.raises(NoRoom, match="max_loaded is 2") as caught:
            await pool.acquire("c", tiny_model, load_params(n_ctx=512), two)
        assert [offer.unload for offer in caught.value.offers] == [(oldest.pid,)]
        await oldest.keep(True)
        await until(lambda: oldest.kept)
        with pytest.raises(NoRoom) as caught:
            await pool.acquire("c", tiny_model, load_params(n_ctx=512), two)
        assert [offer.unload for offer in caught.value.offers] == [(newest.pid,)]
        await oldest.keep(False)
        await until(lambda: not oldest.kept)
        third = await pool.acquire("c", tiny_model, load_params(n_ctx=512), Policy(max_loaded=2, evict=True))
        # To keep a model and to let it go is to use it: now the other one is unused for longer.
        assert (newest.alive, oldest.alive, third.alive) == (False, True, True)


class Cuda(Machine):
    """A machine with GPUs, and a build that could use them."""

    def __init__(self, *free: int) -> None:
        super().__init__()
        self._free = free

    def read(self) -> list[DeviceMemory]:
        gpus = (DeviceMemory(f"CUDA{n}", f"GPU{n}", 2 * free, free) for n, free in enumerate(self._free))
        return [DeviceMemory("RAM", "RAM", 2**33, 0), *gpus]

    def backends(self) -> tuple[str, ...]:
        return ("cuda",)


class TestAuto:
    """No GPU is needed to say how many layers fit on one: llama.cpp's answer is put in its place."""

    async def plan(self, wide: Path, *free: int, compute: int = 2 * MIB, **changes: Value) -> EngineSpec:
        spec = spec_of(wide, n_ctx=16384, **changes)

        async def trial(asked: EngineSpec) -> DryRun:
            gpus = [fit.Gpu(f"CUDA{n}", size) for n, size in enumerate(free)]
            found = fit.estimate(network(wide), asked.params, gpus)
            return DryRun(
                tuple(
                    Buffer("CPU" if s.device == fit.RAM else s.device, s.device == fit.RAM, s.weights, s.kv, compute)
                    for s in found.shares
                ),
                exact=True,
            )

        return await Room(Cuda(*free), Headers(), trial).plan(spec, ())

    async def test_everything_where_there_is_room(self, wide: Path) -> None:
        planned = await self.plan(wide, 2**33, n_gpu_layers=None)
        assert (planned.n_gpu_layers, planned.n_layers) == (5, 5)
        assert planned.params["n_gpu_layers"] is None
        assert planned.estimate
        assert [buffer.name for buffer in planned.estimate.buffers] == ["RAM", "CUDA0"]

    async def test_as_many_layers_as_fit_and_not_one_more(self, wide: Path) -> None:
        # Two MiB of compute, a quarter of the 64 MiB of cache and some weights for each block; the output.
        layer = 16384 * 1024 + network(wide).blocks[0]
        free = fit.CONTEXT_BYTES + 2 * MIB + network(wide).output + 3 * layer
        assert (await self.plan(wide, free, n_gpu_layers=None)).n_gpu_layers == 4
        assert (await self.plan(wide, free - 1, n_gpu_layers=None)).n_gpu_layers == 3
        assert (await self.plan(wide, fit.CONTEXT_BYTES, n_gpu_layers=None)).n_gpu_layers == 0

    async def test_over_two_gpus(self, wide: Path) -> None:
        half = fit.CONTEXT_BYTES + 64 * MIB
        assert (await self.plan(wide, half, half, n_gpu_layers=None)).n_gpu_layers == 5
        with pytest.raises(NoRoom) as caught:
            await self.plan(wide, half, half, n_gpu_layers=-1, split_mode="none", compute=20 * MIB)
        assert [shortage.device for shortage in caught.value.shortages] == ["CUDA0"]
        (fewer,) = [offer for offer in caught.value.offers if "n_gpu_layers" in offer.params]
        layers = fewer.params["n_gpu_layers"]
        assert isinstance(layers, int)
        assert 0 < layers < 5
        await self.plan(wide, half, half, n_gpu_layers=layers, split_mode="none", compute=20 * MIB)

    async def test_none_on_a_build_without_a_gpu(self, pool: Pool, tiny_model: Path) -> None:
        engine = await ready(await pool.acquire("tiny", tiny_model, load_params(n_gpu_layers=None)))
        assert engine.condition == "ready"
        assert (engine.spec.n_gpu_layers, engine.spec.n_layers) == (0, 3)
        assert await pool.acquire("tiny", tiny_model, load_params(n_gpu_layers=None)) is engine


class TestUnusedGpu:
    """What shell and Python are told of a GPU that is there; the terminal program has a key for it."""

    async def loads(self, paths: Paths, model: Path, machine: Machine, *loads: dict[str, Value]) -> list[str]:
        heard: list[str] = []
        settings = SettingsStore(paths, {}, {})
        settings.load()
        access = Access(paths, settings, machine=machine, on_warning=heard.append)
        try:
            file = await access.find(str(model))
            for given in loads:
                await access.engine(file, {"n_ctx": 256, **given})
        finally:
            await access.close(unload=True)
        return heard

    async def test_is_told_of_once(self, paths: Paths, tiny_model: Path) -> None:
        said, *more = await self.loads(paths, tiny_model, Cuda(2**33), {}, {}, {"n_ctx": 512})
        assert not more
        assert said.startswith("GPU0 is there")
        assert "n_gpu_layers is 0" in said and str(tiny_model.stem) in said

    @pytest.mark.parametrize(
        ("machine", "given"), [(Cuda(2**33), {"n_gpu_layers": 0}), (Small(2**33), {}), (Cuda(), {})]
    )
    async def test_but_not_where_it_is_meant_or_there_is_none(
        self, paths: Paths, tiny_model: Path, machine: Machine, given: dict[str, Value]
    ) -> None:
        assert await self.loads(paths, tiny_model, machine, given) == []
