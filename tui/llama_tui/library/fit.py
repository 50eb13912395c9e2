"""What a model will take, in bytes per device, from the header of its file and the load parameters.

Pure arithmetic, so that it can be asked a hundred times while an offer is searched for. Weights are the
sizes of the tensors; the KV cache is layers x tokens x (K row + V row); the compute buffer is what a chunk
of `n_ubatch` tokens needs: the attention mask, and the widest step of a block. The constants of the last
were found by asking llama.cpp (`no_alloc`) about small models of many shapes, and taken from the upper side.

Weights and cache are exact where `inexact` is empty. It says why where it is not: mixtures of experts,
latent attention (MLA), recurrent and hybrid networks, an architecture without the usual keys, layers on a
GPU. There every layer is counted as one of plain attention with its recurrent state, which is more than
llama.cpp takes. A sliding window saves nothing: llama.cpp keeps the whole cache, for prefixes to be used again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from msgspec import Struct

from llama_tui.library.gguf import Header, Meta, Skipped
from llama_tui.library.tensors import TENSOR_TYPES
from llama_tui.settings.items import Override
from llama_tui.settings.values import Value

RAM = "RAM"
"""The name of the host's memory among devices; a GPU has llama.cpp's name of it ("CUDA0")."""

ENGINE_BYTES = 80 << 20
"""What an engine holds besides llama.cpp's buffers: Python, the libraries, the process of the chat template."""

CONTEXT_BYTES = 512 << 20
"""What the driver holds on a GPU for each process that computes on it."""

_TOKEN_BYTES = 400
_CELL_BYTES = 64
_ROW_SIZES = {label.lower(): size / block for label, block, size in TENSOR_TYPES.values()}


class Share(Struct, frozen=True):
    """What one device will hold, in bytes. `other` is what is not in llama.cpp's buffers."""

    device: str
    weights: int = 0
    kv: int = 0
    compute: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv + self.compute + self.other


class Gpu(Struct, frozen=True):
    """A device that layers can be put on, with what is free on it in bytes."""

    name: str
    free: int


class Estimate(Struct, frozen=True):
    """The RAM's share first. `mapped` bytes of it are pages of the file, which the system can drop
    and read again; `inexact` says why the figures are more than will be taken, "" where they are not."""

    shares: tuple[Share, ...]
    mapped: int
    n_gpu_layers: int
    inexact: str = ""

    @property
    def ram(self) -> Share:
        """What is needed of the host's memory."""
        return self.shares[0]


class Network(Struct, frozen=True):
    """The shape of a model; sizes in bytes. `blocks` are the weights of each block, `rows` the values
    of K and of V that each keeps for a token, `state` what a recurrent block keeps for a conversation.
    `width` is how many numbers the widest step holds for a token, `masks` how many attention masks there
    are. Where the embeddings serve as the output matrix (`tied`), a GPU gets a copy of them."""

    blocks: tuple[int, ...]
    rows: tuple[tuple[int, int], ...]
    tied: bool
    embeddings: int
    output: int
    beside: int
    state: int
    n_embd: int
    n_head: int
    width: int
    masks: int
    n_vocab: int
    n_ctx_train: int
    inexact: str

    @property
    def n_offloadable(self) -> int:
        """The layers that llama.cpp counts: the blocks, and the output as one."""
        return len(self.blocks) + 1

    @classmethod
    def of(cls, headers: Sequence[Header], overrides: Iterable[Override] = ()) -> Network:
        """Of a file, or of the parts of a split model in their order; `overrides` change its metadata."""
        keys = _Keys(headers[0], {override.key: override.value for override in overrides})
        groups: dict[str, int] = {}
        for header in headers:
            for group, size in header.groups.items():
                groups[group] = groups.get(group, 0) + size
        # A header may claim what it likes: there are no more blocks than have tensors.
        found = sum(group.startswith("blk.") for group in groups)
        n_layer = min(keys.number("block_count") or found, found)
        n_embd = keys.number("embedding_length")
        n_head = max(keys.each("attention.head_count", n_layer), default=0)
        head = n_embd // n_head if n_head else n_embd
        heads_kv = keys.each("attention.head_count_kv", n_layer) or keys.each("attention.head_count", n_layer)
        key, value = (keys.number(f"attention.{name}_length") or head for name in ("key", "value"))
        heads_kv += (max(heads_kv, default=1),) * (n_layer - len(heads_kv))
        rows = tuple((count * key, count * value) for count in heads_kv)
        experts = keys.number("expert_used_count")
        n_ff = max(keys.each("feed_forward_length", n_layer), default=0)
        expert = experts * (keys.number("expert_feed_forward_length") or n_ff)
        inner = keys.number("ssm.inner_size")
        state = inner * keys.number("ssm.state_size") + max(0, keys.number("ssm.conv_kernel") - 1) * (
            inner + 2 * keys.number("ssm.group_count") * keys.number("ssm.state_size")
        )
        attention = n_head * key + 2 * max((k + v for k, v in rows), default=0)
        return cls(
            blocks=tuple(groups.pop(f"blk.{number}", 0) for number in range(n_layer)),
            rows=rows,
            tied="output" not in groups,
            embeddings=groups.pop("token_embd", 0),
            output=groups.pop("output", 0) + groups.pop("output_norm", 0),
            beside=sum(groups.values()),
            state=state * 4,
            n_embd=n_embd,
            n_head=n_head,
            width=6 * n_embd + max(3 * n_ff, 3 * expert + experts * n_embd, attention, 3 * inner) + 16,
            masks=2 if keys.number("attention.sliding_window") else 1,
            n_vocab=keys.items("tokenizer.ggml.tokens"),
            n_ctx_train=keys.number("context_length"),
            inexact=keys.inexact(n_layer, n_embd, n_head),
        )


def estimate(
    network: Network, params: Mapping[str, Value], gpus: Sequence[Gpu] = (), n_gpu_layers: int | None = None
) -> Estimate:
    """What a model takes with these load parameters, `n_gpu_layers` of it (else what the parameters
    say) on `gpus`, in llama.cpp's order; none of them where there is no GPU."""
    wanted = int(_number(params["n_gpu_layers"]) if n_gpu_layers is None else n_gpu_layers)
    n_blocks = len(network.blocks)
    layers = min(network.n_offloadable, wanted if wanted >= 0 else network.n_offloadable) if gpus else 0
    chosen = _chosen(gpus, params)
    first = network.n_offloadable - layers
    places = [_place(number, first, layers, chosen, params) for number in range(network.n_offloadable)]
    n_ctx = context_size(network, params)
    n_ubatch = min(int(_number(params["n_ubatch"])), int(_number(params["n_batch"])), n_ctx)
    shares = {RAM: [network.embeddings + network.beside, 0, 0]} | {gpu.name: [0, 0, 0] for gpu in chosen if layers}
    for number in range(n_blocks):
        shares[places[number]][0] += network.blocks[number]
        kept = places[number] if params["offload_kqv"] else RAM
        shares[kept][1] += kv_row(network, params, number) * n_ctx + network.state
    at_end = places[-1]
    shares[at_end][0] += network.output + (network.embeddings if network.tied and at_end != RAM else 0)
    compute = _compute(network, params, n_ctx, n_ubatch)
    for name, share in shares.items():
        share[2] = compute if name != RAM or layers < network.n_offloadable else n_ubatch * 8 * network.n_embd
    if 0 < layers < n_blocks + 1 and network.blocks:
        # Prompts are read on the GPU with the weights of the other layers, which are copied there in turn.
        shares[chosen[0].name][2] += max(network.blocks)
    on_host = ENGINE_BYTES + _TOKEN_BYTES * network.n_vocab + _CELL_BYTES * n_ctx
    ram = shares[RAM]
    return Estimate(
        tuple(
            Share(name, share[0], share[1], share[2], on_host if name == RAM else CONTEXT_BYTES)
            for name, share in shares.items()
        ),
        mapped=ram[0] if params["use_mmap"] and not params["use_mlock"] else 0,
        n_gpu_layers=layers,
        inexact=network.inexact or ("layers on a GPU" if layers else ""),
    )


def context_size(network: Network, params: Mapping[str, Value]) -> int:
    """Tokens of context that llama.cpp will be asked for: a multiple of 256."""
    return -(-int(_number(params["n_ctx"]) or network.n_ctx_train) // 256) * 256


def kv_row(network: Network, params: Mapping[str, Value], block: int) -> int:
    """Bytes that a block keeps for one token."""
    key, value = network.rows[block]
    return round(key * _ROW_SIZES[str(params["type_k"])] + value * _ROW_SIZES[str(params["type_v"])])


def cache_size(network: Network, params: Mapping[str, Value]) -> int:
    """Bytes of the whole KV cache."""
    return sum(kv_row(network, params, block) for block in range(len(network.blocks))) * context_size(network, params)


def most_layers(network: Network, params: Mapping[str, Value], gpus: Sequence[Gpu], ram: int) -> int:
    """As many layers as fit on the GPUs, while the rest fits in `ram` bytes; 0 where none does."""
    for layers in range(network.n_offloadable if gpus else 0, 0, -1):
        if fits(estimate(network, params, gpus, layers), gpus, ram):
            return layers
    return 0


def longest_context(network: Network, params: Mapping[str, Value], gpus: Sequence[Gpu], ram: int) -> int:
    """The largest n_ctx, of at most what `params` asks for, with which everything fits; 0 where none does."""
    low, high = 0, context_size(network, params) // 256
    while low < high:
        middle = (low + high + 1) // 2
        if fits(estimate(network, {**params, "n_ctx": middle * 256}, gpus), gpus, ram):
            low = middle
        else:
            high = middle - 1
    return low * 256


def fits(need: Estimate, gpus: Sequence[Gpu], ram: int) -> bool:
    """Whether every device has room for its share."""
    free = {gpu.name: gpu.free for gpu in gpus} | {RAM: ram}
    return all(share.total <= free[share.device] for share in need.shares)


def _compute(network: Network, params: Mapping[str, Value], n_ctx: int, n_ubatch: int) -> int:
    """Bytes of one device's compute buffer. Without flash attention there is a matrix of scores for
    every head, and the masks have four bytes a cell."""
    masks, scores = (4, network.n_head * 4) if params["flash_attn"] == "off" else (2, 0)
    cells = n_ctx * n_ubatch * (masks * network.masks + scores)
    return cells + n_ubatch * 4 * network.width + 4 * network.n_vocab


def _chosen(gpus: Sequence[Gpu], params: Mapping[str, Value]) -> Sequence[Gpu]:
    """The GPUs that take part, of those that `devices` names."""
    named = params["devices"]
    if isinstance(named, tuple) and named:
        by_name = {gpu.name: gpu for gpu in gpus}
        gpus = [by_name[str(name)] for name in named if name in by_name]
    if params["split_mode"] == "none" and gpus:
        return [gpus[min(int(_number(params["main_gpu"])), len(gpus) - 1)]]
    return gpus


def _place(number: int, first: int, layers: int, gpus: Sequence[Gpu], params: Mapping[str, Value]) -> str:
    """The device of a layer, as llama.cpp deals them out: the last layers go to the GPUs, in shares of
    `tensor_split`, else of their free memory."""
    if number < first or not layers or not gpus:
        return RAM
    given = params["tensor_split"]
    weights = [float(share) for share in given][: len(gpus)] if isinstance(given, tuple) else []
    weights += [0.0] * (len(gpus) - len(weights)) if weights else [float(gpu.free) for gpu in gpus]
    total = sum(weights) or 1.0
    borders = [border / total for border in accumulate(weights)]
    return gpus[min(bisect_right(borders, (number - first) / layers), len(gpus) - 1)].name


def _number(value: Value) -> float:
    return value if isinstance(value, int | float) else 0


class _Keys:
    """The figures of a header, those of its architecture by their bare names."""

    def __init__(self, header: Header, changed: Mapping[str, Meta]) -> None:
        self._header = header
        self._metadata = {**header.metadata, **changed}

    def number(self, key: str) -> int:
        """A figure; 0 where there is none."""
        return next(iter(self.each(key, 1)), 0)

    def each(self, key: str, count: int) -> tuple[int, ...]:
        """A figure for each block: where there is one for all, that; nothing where there is none."""
        value = self._metadata.get(f"{self._header.architecture}.{key}")
        if isinstance(value, tuple):
            return tuple(max(0, item) if isinstance(item, int) else 0 for item in value)[:count]
        return (max(0, value),) * count if isinstance(value, int) else ()

    def items(self, key: str) -> int:
        """The length of an array."""
        value = self._metadata.get(key)
        return value.count if isinstance(value, Skipped) else len(value) if isinstance(value, tuple) else 0

    def inexact(self, n_layer: int, n_embd: int, n_head: int) -> str:
        """Why the sum of plain attention is not what llama.cpp will take, or ""."""
        if not (n_layer and n_embd and n_head) or not self.each("attention.head_count_kv", n_layer):
            return "an architecture that is not known"
        for key, reason in (
            ("ssm.state_size", "recurrent layers"),
            ("wkv.head_size", "recurrent layers"),
            ("shortconv.l_cache", "recurrent layers"),
            ("attention.kv_lora_rank", "latent attention"),
            ("expert_count", "a mixture of experts"),
        ):
            if self.number(key):
                return reason
        return "" if self._header.tensor_bytes is not None else "a tensor type that is not known"
