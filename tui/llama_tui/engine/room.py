"""Whether there is room for a model: what it needs of each device against what is free there now.

The estimate from the file's header answers at once where it is clear. Where it comes near the limit, or
is not exact, a trial in a process of its own answers (`trial`). Both count, beside llama.cpp's buffers, what
an engine holds by itself.

Weights that are mapped count as needed: a model whose pages do not stay in RAM is read from the disk
again for every token. For the same reason the mapped pages of running engines count as taken, though the
system calls them free, and what loading engines will still take counts too. Pages of the same file are
shared, and count once. Where nothing but mapped pages is too much, loading all the same is an offer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from llama_tui.engine.devices import DeviceMemory, Machine
from llama_tui.engine.engine import Engine
from llama_tui.engine.need import Case, Need, estimated, layer_bytes, planned, shortage_message, told_by, with_params
from llama_tui.engine.protocol import DryRun, EngineSpec
from llama_tui.engine.trial import dry_run
from llama_tui.errors import BadModelFile, NoRoom, Offer
from llama_tui.library import fit, vetting
from llama_tui.library.files import parts_beside
from llama_tui.library.fit import RAM, Network
from llama_tui.library.scan import Headers
from llama_tui.library.units import short_size
from llama_tui.settings.values import Value, Values

_LEAST_CTX = 512
_TRIES = 4


class Policy(Struct, frozen=True):
    """What to do where there is no room: nothing (`check` is false), say so, or unload (`evict`).
    `max_loaded` bounds the number of engines; 0 = no bound."""

    check: bool = True
    evict: bool = False
    max_loaded: int = 0

    @classmethod
    def of(cls, values: Values) -> Policy:
        """What the program's settings say."""
        return cls(bool(values["check_room"]), values["evict"] == "lru", int(str(values["max_loaded"])))


class Room:
    """Made once for a pool. `trial` asks llama.cpp what an engine would take."""

    def __init__(
        self, machine: Machine, headers: Headers, trial: Callable[[EngineSpec], Awaitable[DryRun]] = dry_run
    ) -> None:
        self._machine = machine
        self._headers = headers
        self._trial = trial

    async def plan(self, spec: EngineSpec, engines: Sequence[Engine], *, check: bool = True) -> EngineSpec:
        """The spec with the layers that "auto" comes to, and with what is expected of memory.

        Raises `NoRoom` where it does not fit into what is free, unless `check` is false, `LoadFailed` for
        adapters and overrides that cannot be used. A file whose header cannot be read is left to the
        engine, which says why in llama.cpp's words.
        """
        case = await self._case(spec, tuple(engines))
        if case is None:
            return spec
        if spec.params["n_gpu_layers"] is None:
            need = await self._auto(case)
        else:
            need = await self._judge(case, spec.params) if check else estimated(case, spec.params)
        if check and (shortages := need.short(case.free())):
            raise NoRoom(shortage_message(case, need, shortages), shortages, await self._offers(case, need))
        return planned(case, need)

    async def _case(self, spec: EngineSpec, engines: tuple[Engine, ...]) -> Case | None:
        try:
            network, adapters, file = await asyncio.to_thread(self._read, Path(spec.path), spec.params)
        except _Unreadable:
            return None
        devices = tuple(await asyncio.to_thread(self._machine.read))
        backends = await asyncio.to_thread(self._machine.backends)
        if "cuda" not in backends:
            devices = devices[:1]
        rpc = spec.params["rpc_servers"]
        if spec.params["n_gpu_layers"] != 0 and (rpc or (backends and len(devices) == 1)):
            # GPUs that NVML does not know, and other machines': llama.cpp tells what they have.
            told = await self._trial(with_params(spec, spec.params, 0))
            known = {device.name for device in devices}
            devices += tuple(
                DeviceMemory(gpu.name, gpu.name, gpu.total, gpu.total - gpu.free)
                for gpu in told.gpus
                if gpu.name not in known
            )
        return Case(spec, file, network, adapters, devices, engines)

    def _read(self, path: Path, params: dict[str, Value]) -> tuple[Network, int, Path]:
        found = parts_beside(path)
        try:
            headers = [self._headers.read(part) for part in (found.parts if found else (path,))]
        except BadModelFile as error:
            raise _Unreadable from error
        adapters = vetting.adapters(path, params, headers[0])
        size = sum(adapter.tensor_bytes or adapter.file_size for adapter in adapters)
        return Network.of(headers, vetting.overrides(params, headers[0])), size, path.resolve()

    async def _judge(
        self, case: Case, params: dict[str, Value], layers: int | None = None, *, exactly: bool = False
    ) -> Need:
        """What is needed with these parameters, as exactly as it takes to know whether it fits, or `exactly`."""
        need = estimated(case, params, layers)
        if not exactly and need.clear(case.free()):
            return need
        told = await self._trial(with_params(case.spec, params, need.n_gpu_layers))
        return need if told.failure else told_by(case, need, told)

    async def _auto(self, case: Case) -> Need:
        """As many layers as fit on the GPUs, found by the header and corrected by trials."""
        params, gpus = case.spec.params, case.gpus()
        everything = case.network.n_offloadable
        layers = fit.most_layers(case.network, params, gpus, case.free()[RAM])
        best = None if layers else await self._judge(case, params, 0)
        for _ in range(_TRIES):
            if not layers:
                break
            need = await self._judge(case, params, layers, exactly=layers < everything)
            left = min(case.free()[share.device] - share.total for share in need.shares if share.device != RAM)
            step = math.floor(left / layer_bytes(case.network, params))
            if not need.short(case.free()):
                best = need
                if step <= 0 or layers == everything:
                    break
            elif best:
                break
            layers = max(0, min(everything, layers + (step if best else min(step, -1))))
        return best or await self._judge(case, params, 0)

    async def _offers(self, case: Case, need: Need) -> tuple[Offer, ...]:
        """What would fit, each tried."""
        network, params, free = case.network, need.params, case.free()
        gpus, ram = case.gpus(), case.free()[RAM] - case.adapters
        changed = [
            *self._fewer_layers(case, need),
            *await self._smaller(case, params, fit.longest_context(network, _with_layers(params, need), gpus, ram)),
        ]
        small = {"type_k": "q8_0", "type_v": "q8_0"}
        cache = fit.cache_size(network, params | small)
        if params["flash_attn"] != "off" and cache < fit.cache_size(network, params):
            if not (await self._judge(case, params | small)).short(free):
                words = f"type_k = type_v = q8_0, with a KV cache of {short_size(cache)}"
                changed.append(Offer(words, dict(small)))
            elif not changed:
                longest = fit.longest_context(network, _with_layers(params | small, need), gpus, ram)
                changed += await self._smaller(case, params | small, longest, small)
        return (*changed, *_unloading(case, need), *_anyway(case, need))

    def _fewer_layers(self, case: Case, need: Need) -> list[Offer]:
        if not need.n_gpu_layers:
            return []
        layers = fit.most_layers(case.network, need.params, case.gpus(), case.free()[RAM] - case.adapters)
        if layers == 0 and estimated(case, need.params, 0).short(case.free()):
            return []
        if layers >= need.n_gpu_layers:
            return []
        return [
            Offer(
                f"n_gpu_layers = {layers} of {case.network.n_offloadable}, the others in RAM", {"n_gpu_layers": layers}
            )
        ]

    async def _smaller(
        self, case: Case, params: dict[str, Value], n_ctx: int, beside: dict[str, str] | None = None
    ) -> list[Offer]:
        for _ in range(_TRIES):
            if n_ctx < _LEAST_CTX or n_ctx >= fit.context_size(case.network, case.spec.params):
                return []
            if not (await self._judge(case, params | {"n_ctx": n_ctx})).short(case.free()):
                words = "".join(f" and {name} = {value}" for name, value in (beside or {}).items())
                asked = fit.context_size(case.network, case.spec.params)
                return [Offer(f"n_ctx = {n_ctx:,} in place of {asked:,}{words}", {"n_ctx": n_ctx, **(beside or {})})]
            n_ctx = n_ctx * 7 // 8 // 256 * 256
        return []


class _Unreadable(Exception):
    """The header of the model says nothing; the engine will say why."""


def longest_idle(engines: Sequence[Engine]) -> list[Engine]:
    """The engines that may be unloaded to make room, those unused for longest first."""
    idle = [
        (seconds, engine)
        for engine in engines
        if engine.condition == "ready" and not engine.kept and (seconds := engine.idle_seconds) is not None
    ]
    return [engine for _, engine in sorted(idle, key=lambda pair: -pair[0])]


def unload_offer(engines: Sequence[Engine]) -> Offer:
    """To unload some engines."""
    named = ", ".join(f"{engine.spec.name} ({engine.pid})" for engine in engines)
    idle = min((engine.idle_seconds or 0.0 for engine in engines), default=0.0)
    return Offer(
        f"unload {named}, unused for {_duration(idle)}",
        {},
        tuple(engine.pid for engine in engines),
        tuple(engine.spec.name for engine in engines),
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _with_layers(params: dict[str, Value], need: Need) -> dict[str, Value]:
    return params | {"n_gpu_layers": need.n_gpu_layers}


def _unloading(case: Case, need: Need) -> list[Offer]:
    """To unload the fewest engines that are enough, of those unused for longest."""
    idle = longest_idle(case.engines)
    for count in range(1, len(idle) + 1):
        if not need.short(case.free(idle[:count])):
            return [unload_offer(idle[:count])]
    return []


def _anyway(case: Case, need: Need) -> list[Offer]:
    """To load what does not fit because of mapped pages alone."""
    free = case.free()
    bare = tuple(
        replace(share, weights=share.weights - need.mapped) if share.device == RAM else share for share in need.shares
    )
    if replace(need, shares=bare).short(free):
        return []
    return [Offer("load it all the same, and wait for the disk at every token", {"check_room": False})]
