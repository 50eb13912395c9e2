"""What one model needs of each device, and what is free there for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llama_tui.engine.devices import DeviceMemory, on_device
from llama_tui.engine.engine import Engine
from llama_tui.engine.protocol import Buffer, DryRun, EngineSpec, Estimate
from llama_tui.errors import Shortage
from llama_tui.library import fit
from llama_tui.library.fit import RAM, Gpu, Network, Share
from llama_tui.library.units import short_size
from llama_tui.settings.values import Value

_SLACK = 0.05
"""What the header's figures may be wrong by; a compute buffer of an unusual network by half."""

_MOST = 1 << 62


class Case(Struct, frozen=True):
    """One model that is to be loaded, and the machine as it was found."""

    spec: EngineSpec
    file: Path
    network: Network
    adapters: int
    devices: tuple[DeviceMemory, ...]
    engines: tuple[Engine, ...]

    def free(self, without: Sequence[Engine] = ()) -> dict[str, int]:
        """Bytes of each device that this model could have, if `without` were unloaded."""
        free = {device.name: device.total - device.used for device in self.devices}
        mapped: dict[Path, int] = {}
        for engine in self.engines:
            memory = engine.state.memory if engine.state else None
            private, pages = (memory.private or 0, memory.mapped or 0) if memory else (0, 0)
            held = {name: on_device(memory.buffers, name) if memory else 0 for name in free}
            if engine in without:
                for name in free:
                    free[name] += private if name == RAM else held[name]
                continue
            if engine.file != self.file:
                mapped[engine.file] = max(pages, mapped.get(engine.file, 0))
            if engine.condition == "loading" and engine.spec.estimate:
                for name in free:
                    coming = sum(buffer.total for buffer in engine.spec.estimate.buffers if _home(buffer, free) == name)
                    free[name] -= max(0, coming - (private + pages if name == RAM else held[name]))
        free[RAM] -= sum(mapped.values())
        return {name: max(0, size) for name, size in free.items()}

    def gpus(self, without: Sequence[Engine] = ()) -> list[Gpu]:
        """The GPUs, in llama.cpp's order."""
        return [Gpu(name, size) for name, size in self.free(without).items() if name != RAM]

    def label(self, device: str) -> str:
        """What a person calls a device."""
        return next((found.label for found in self.devices if found.name == device), device)


class Need(Struct, frozen=True):
    """What a model takes with some parameters, and how that is known."""

    params: dict[str, Value]
    n_gpu_layers: int
    shares: tuple[Share, ...]
    mapped: int
    method: Literal["header", "dry run"]
    inexact: str

    def short(self, free: dict[str, int]) -> tuple[Shortage, ...]:
        """The devices that have too little."""
        return tuple(
            Shortage(share.device, share.total, free.get(share.device, 0))
            for share in self.shares
            if share.total > free.get(share.device, 0)
        )

    def clear(self, free: dict[str, int]) -> bool:
        """Whether the header's figures decide: with all that they may be wrong by it fits, or does not."""

        def most(share: Share) -> float:
            return share.total + _SLACK * (share.kv + share.weights) + (share.compute / 2 if self.inexact else 0)

        def least(share: Share) -> int:
            return share.weights + (0 if self.inexact else share.kv)

        return all(most(share) <= free.get(share.device, 0) for share in self.shares) or any(
            least(share) > free.get(share.device, 0) for share in self.shares
        )


def with_params(spec: EngineSpec, params: dict[str, Value], layers: int) -> EngineSpec:
    """A spec with other parameters, and layers for an "auto" among them."""
    return msgspec.structs.replace(spec, params=params | {"n_gpu_layers": layers}, n_gpu_layers=layers)


def estimated(case: Case, params: dict[str, Value], layers: int | None = None) -> Need:
    """What the header says, adapters counted on every device that has layers."""
    found = fit.estimate(case.network, params, case.gpus(), layers)
    shares = tuple(
        replace(share, weights=share.weights + case.adapters) if share.device == RAM or found.n_gpu_layers else share
        for share in found.shares
    )
    return Need(params, found.n_gpu_layers, shares, found.mapped, "header", found.inexact)


def told_by(case: Case, need: Need, told: DryRun) -> Need:
    """The header's figures with what llama.cpp said in their place; without its breakdown, only the
    compute buffers are known."""
    free = case.free()
    shares: list[Share] = []
    for share in need.shares:
        own = [buffer for buffer in told.buffers if _home(buffer, free) == share.device]
        weights, kv, compute = (sum(getattr(buffer, kind) for buffer in own) for kind in ("weights", "kv", "compute"))
        shares.append(
            replace(share, weights=weights + case.adapters, kv=kv, compute=compute)
            if told.exact
            else replace(share, compute=compute)
        )
    return replace(need, shares=tuple(shares), mapped=min(need.mapped, shares[0].weights), method="dry run", inexact="")


def _home(buffer: Buffer, devices: dict[str, int]) -> str:
    """The device that a buffer is on; pinned memory is RAM."""
    return next((name for name in devices if name != RAM and on_device((buffer,), name)), RAM)


def layer_bytes(network: Network, params: dict[str, Value]) -> int:
    """The weights and the cache of the largest block."""
    n_ctx = fit.context_size(network, params)
    rows = (fit.kv_row(network, params, block) * n_ctx for block in range(len(network.blocks)))
    return max((weights + kv for weights, kv in zip(network.blocks, rows, strict=True)), default=0) or 1


def shortage_message(case: Case, need: Need, shortages: Sequence[Shortage]) -> str:
    """What is short where, by how much, and what takes it."""
    parts: list[str] = []
    for shortage in shortages:
        share = next(share for share in need.shares if share.device == shortage.device)
        parts.append(
            f"it needs {short_size(shortage.need)} of {case.label(shortage.device)} and {short_size(shortage.free)} "
            f"are free, {short_size(shortage.need - shortage.free)} too little (weights {short_size(share.weights)}, "
            f"KV cache {short_size(share.kv)}, compute {short_size(share.compute)})"
        )
    n_ctx = fit.context_size(case.network, need.params)
    return f"{case.spec.name} does not fit with n_ctx = {n_ctx:,}: {'; '.join(parts)}"


def planned(case: Case, need: Need) -> EngineSpec:
    """The spec of an engine that is started with this need in mind."""
    # A damaged header can claim more than the wire's numbers hold.
    buffers = tuple(
        Buffer(s.device, s.device == RAM, *(min(size, _MOST) for size in (s.weights, s.kv, s.compute)))
        for s in need.shares
    )
    return msgspec.structs.replace(
        case.spec,
        n_gpu_layers=need.n_gpu_layers,
        n_layers=case.network.n_offloadable,
        estimate=Estimate(need.method, buffers),
    )
