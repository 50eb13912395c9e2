"""Small GGUF files for the tests, whole ones that llama.cpp runs and broken ones that it must not.

Nothing here is downloaded: the models have random weights and a byte-level tokenizer of 256 bytes,
a few merges and the control tokens of ChatML.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

MERGES = ("t h", "th e", "Ġ the", "i n", "e r", "o n", "a n", "Ġ a", "r e", "l l", "e ll", "h ell", "hell o")

HEAD_DIM = 32


def byte_alphabet() -> list[str]:
    """The letter that stands for each byte in a byte-level BPE vocabulary, by the byte's value."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in plain}
    for place, byte in enumerate(byte for byte in range(256) if byte not in letters):
        letters[byte] = chr(256 + place)
    return [letters[byte] for byte in range(256)]


def write_tiny_llama(
    path: Path,
    *,
    n_ctx_train: int = 512,
    n_embd: int = 64,
    n_layer: int = 2,
    n_head_kv: int | None = None,
    vocab: Sequence[str] = (),
    quantization: str = "F32",
    chat_template: str | None = CHATML,
    name: str = "tiny",
    seed: int = 0,
    readable: bool = True,
    drop_tensor: str | None = None,
    drop_key: str | None = None,
    architecture: str = "llama",
) -> Path:
    """Write a model with random weights that llama.cpp loads and generates with; returns `path`.

    What it says is noise, the same for the same seed and prompt. It does not end by itself unless
    sampled at a high temperature: the logits of its control tokens are always 0, those of other
    tokens spread around it. With `readable` the same holds for every byte that is not a printable
    ASCII character, a space or a newline, so that answers look the same on every screen; without it
    answers are full of bytes that are not UTF-8.

    `n_head_kv` heads of keys and values serve all n_embd / 32 heads; None gives each its own.
    `vocab` adds whole tokens (of their own, without merges). `quantization` is one of F32, F16, BF16,
    Q8_0, Q4_0, Q4_1, Q5_0, Q5_1. `drop_tensor` and `drop_key` leave out one tensor or metadata key by its
    full name, which llama.cpp refuses with a message of its own.
    """
    if n_embd % HEAD_DIM:
        raise ValueError(f"n_embd must be a multiple of {HEAD_DIM}")
    tokens, types = _tokens(vocab)
    writer = gguf.GGUFWriter(None, architecture)
    keys: dict[str, object] = {
        "general.name": name,
        "general.file_type": int(getattr(gguf.LlamaFileType, _FILE_TYPES[quantization])),
        f"{architecture}.context_length": n_ctx_train,
        f"{architecture}.embedding_length": n_embd,
        f"{architecture}.block_count": n_layer,
        f"{architecture}.feed_forward_length": 2 * n_embd,
        f"{architecture}.attention.head_count": n_embd // HEAD_DIM,
        f"{architecture}.attention.head_count_kv": n_head_kv or n_embd // HEAD_DIM,
        f"{architecture}.rope.dimension_count": HEAD_DIM,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
    }
    if chat_template is not None:
        keys["tokenizer.chat_template"] = chat_template
    if drop_key is not None:
        del keys[drop_key]
    for key, value in keys.items():
        _add(writer, key, value)
    for tensor, weights in _weights(
        tokens, types, n_embd, n_layer, n_kv=(n_head_kv or n_embd // HEAD_DIM) * HEAD_DIM, seed=seed, readable=readable
    ).items():
        if tensor == drop_tensor:
            continue
        kind = gguf.GGMLQuantizationType[quantization if weights.ndim > 1 else "F32"]
        writer.add_tensor(tensor, gguf.quantize(weights, kind), raw_dtype=kind)
    _save(writer, path)
    return path


def write_tiny_cohere(path: Path, *, window: int = 64, n_embd: int = 64) -> Path:
    """Write a model of four layers, of which three see no further back than a window of tokens."""
    rows = {"attn_q": n_embd, "attn_k": n_embd, "attn_v": n_embd, "attn_output": n_embd}
    rows |= {"ffn_gate": 2 * n_embd, "ffn_up": 2 * n_embd, "ffn_down": n_embd}
    keys: dict[str, object] = {
        "feed_forward_length": 2 * n_embd,
        "attention.head_count": n_embd // HEAD_DIM,
        "attention.head_count_kv": n_embd // HEAD_DIM,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.sliding_window": window,
        "rope.dimension_count": HEAD_DIM,
        "logit_scale": 1.0,
    }

    def block(random: _Random) -> dict[str, NDArray[np.float32]]:
        weights = {name: random(count, 2 * n_embd if name == "ffn_down" else n_embd) for name, count in rows.items()}
        return {"attn_norm.weight": np.ones(n_embd, np.float32), **{f"{n}.weight": w for n, w in weights.items()}}

    return _write_noise(path, "cohere2", n_embd, 4, keys=keys, block=block)


def write_tiny_mamba(path: Path, *, n_embd: int = 64) -> Path:
    """Write a recurrent model: it keeps one state in place of a cache, and cannot go back."""
    inner, state, rank, kernel = 2 * n_embd, 8, 4, 4
    keys: dict[str, object] = {
        "ssm.conv_kernel": kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }

    def block(random: _Random) -> dict[str, NDArray[np.float32]]:
        return {
            "attn_norm.weight": np.ones(n_embd, np.float32),
            "ssm_in.weight": random(2 * inner, n_embd),
            "ssm_conv1d.weight": random(inner, kernel),
            "ssm_conv1d.bias": np.zeros(inner, np.float32),
            "ssm_x.weight": random(rank + 2 * state, inner),
            "ssm_dt.weight": random(inner, rank),
            "ssm_dt.bias": np.zeros(inner, np.float32),
            "ssm_a": -np.tile(np.arange(1, state + 1, dtype=np.float32), (inner, 1)),
            "ssm_d": np.ones(inner, np.float32),
            "ssm_out.weight": random(n_embd, inner),
        }

    return _write_noise(path, "mamba", n_embd, 2, keys=keys, block=block)


_Random = Callable[[int, int], NDArray[np.float32]]


def _write_noise(
    path: Path,
    architecture: str,
    n_embd: int,
    n_layer: int,
    *,
    keys: Mapping[str, object],
    block: Callable[[_Random], dict[str, NDArray[np.float32]]],
) -> Path:
    tokens, types = _tokens(())
    generator = np.random.default_rng(0)

    def random(rows: int, columns: int) -> NDArray[np.float32]:
        return (generator.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)

    writer = gguf.GGUFWriter(None, architecture)
    shape = {"context_length": 4096, "embedding_length": n_embd, "block_count": n_layer, "vocab_size": len(tokens)}
    for key, value in {
        **{f"{architecture}.{name}": value for name, value in {**shape, **keys}.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }.items():
        _add(writer, key, value)
    writer.add_tensor("token_embd.weight", random(len(tokens), n_embd) * np.float32(n_embd**0.5))
    writer.add_tensor("output_norm.weight", np.ones(n_embd, np.float32))
    for layer in range(n_layer):
        for name, weights in block(random).items():
            writer.add_tensor(f"blk.{layer}.{name}", weights)
    _save(writer, path)
    return path


def write_metadata_only(path: Path, keys: Mapping[str, object] | None = None, *, architecture: str = "llama") -> Path:
    """Write a GGUF without tensors, with `keys` in its metadata."""
    writer = gguf.GGUFWriter(None, architecture)
    for key, value in (keys or {}).items():
        _add(writer, key, value)
    _save(writer, path)
    return path


def write_one_tensor(
    path: Path,
    keys: Mapping[str, object] | None = None,
    *,
    architecture: str = "llama",
    shape: tuple[int, ...] = (64, 32),
) -> Path:
    """Write a GGUF with one F32 tensor of zeros: enough for a listing, not for llama.cpp."""
    writer = gguf.GGUFWriter(None, architecture)
    for key, value in (keys or {}).items():
        _add(writer, key, value)
    writer.add_tensor("blk.0.attn_q.weight", np.zeros(shape, np.float32))
    _save(writer, path)
    return path


def write_shards(folder: Path, base: str, count: int) -> list[Path]:
    """Write `count` files that together pass for a split model; the first holds the metadata."""
    return [
        write_one_tensor(
            folder / f"{base}-{number + 1:05d}-of-{count:05d}.gguf",
            {
                **({"llama.context_length": 4096, "llama.block_count": 3} if number == 0 else {}),
                "split.no": uint16(number),
                "split.count": uint16(count),
            },
        )
        for number in range(count)
    ]


def uint16(value: int) -> tuple[int, gguf.GGUFValueType]:
    """A metadata value that must be 16 bits wide, as llama.cpp wants the split keys."""
    return value, gguf.GGUFValueType.UINT16


def truncate(path: Path, n: int) -> Path:
    """Cut a file down to `n` bytes, or by `-n` bytes where `n` is negative."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(n if n >= 0 else size + n)
    return path


def bad_magic(path: Path) -> Path:
    """Make a file start with another format's name."""
    return patch(path, 0, b"PK\x03\x04")


def wrong_version(path: Path, version: int = 99) -> Path:
    """Give the header a version that nobody has defined."""
    return patch(path, 4, struct.pack("<I", version))


def big_endian(path: Path) -> Path:
    """Write the version's bytes in the order of a big-endian machine, as its files begin."""
    return patch(path, 4, struct.pack(">I", 3))


def unknown_architecture(path: Path) -> Path:
    """Write a whole tiny model of an architecture that llama.cpp does not have."""
    return write_tiny_llama(path, architecture="nonesuch")


def patch(path: Path, offset: int, data: bytes) -> Path:
    """Overwrite bytes in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return path


_FILE_TYPES = {
    "F32": "ALL_F32",
    **{name: f"MOSTLY_{name}" for name in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")},
}


def _tokens(vocab: Sequence[str]) -> tuple[list[str], list[int]]:
    letters = byte_alphabet()
    merged = [merge.replace(" ", "") for merge in MERGES]
    extra = ["".join(letters[byte] for byte in word.encode()) for word in vocab]
    normal = list(dict.fromkeys([*letters, *merged, *extra]))
    types = [int(gguf.TokenType.NORMAL)] * len(normal) + [int(gguf.TokenType.CONTROL)] * len(CONTROL)
    return [*normal, *CONTROL], types


def _weights(
    tokens: list[str], types: list[int], n_embd: int, n_layer: int, *, n_kv: int, seed: int, readable: bool
) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> NDArray[np.float32]:
        return (random.standard_normal((rows, columns)) * scale / columns**0.5).astype(np.float32)

    ones = np.ones(n_embd, np.float32)
    weights = {"token_embd.weight": matrix(len(tokens), n_embd, scale=n_embd**0.5), "output_norm.weight": ones}
    for layer in range(n_layer):
        block = f"blk.{layer}."
        weights |= {
            block + "attn_norm.weight": ones,
            block + "attn_q.weight": matrix(n_embd, n_embd),
            block + "attn_k.weight": matrix(n_kv, n_embd),
            block + "attn_v.weight": matrix(n_kv, n_embd),
            block + "attn_output.weight": matrix(n_embd, n_embd),
            block + "ffn_norm.weight": ones,
            block + "ffn_gate.weight": matrix(2 * n_embd, n_embd),
            block + "ffn_up.weight": matrix(2 * n_embd, n_embd),
            block + "ffn_down.weight": matrix(n_embd, 2 * n_embd),
        }
    output = matrix(len(tokens), n_embd, scale=6.0)
    letters = byte_alphabet()
    shown = {letters[byte] for byte in (*range(0x20, 0x7F), 0x0A)}
    for row, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind == gguf.TokenType.CONTROL or (readable and not set(token) <= shown and row < 256):
            output[row] = 0
    weights["output.weight"] = output
    return weights


def _add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, tuple):
        number, kind = value
        writer.add_key_value(key, number, kind)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        raise TypeError(f"{key}: {type(value).__name__}")


def _save(writer: gguf.GGUFWriter, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
