"""The header of a GGUF file, read without its weights and without its vocabulary.

The arrays of a tokenizer hold hundreds of thousands of strings that no listing needs: they are
stepped over, never decoded, which takes about 50 ms for 128k tokens. The file is read, not mapped:
a mapped file that somebody truncates would end the process. Every count and size in a header is
untrusted, so nothing is allocated or looped over before it is checked against the file's size.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from llama_tui.errors import BadModelFile
from llama_tui.library.tensors import FILE_TYPES, TENSOR_TYPES
from llama_tui.library.window import Window

KEPT_ITEMS = 256
"""Arrays with more items are left out of the metadata, but for their number of items."""

KEPT_BYTES = 16 << 20
"""Text that one header may keep, all keys and strings together; real ones need less than 100 kB."""

_MOST_KEYS = 1 << 16
_MOST_TENSORS = 1 << 18
_MOST_STRINGS = 1 << 24
_LONGEST_NAME = 1 << 16
_MOST_DIMENSIONS = 4
_BIGGEST = (1 << 63) - 1
_STRING = 8
_ARRAY = 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

_TENSOR_ALIGNMENT = 32
"""Bytes of which the place of every tensor in a buffer is a multiple (ggml-impl.h, TENSOR_ALIGNMENT)."""

_AGAIN = "Fetch or copy the file again."
_FOREIGN = (
    (b"version https://git-lfs", "It is a Git LFS pointer, not the model: run `git lfs pull`."),
    (b"PK\x03\x04", "It looks like a PyTorch checkpoint: convert it with llama.cpp's convert_hf_to_gguf.py."),
    (b"lmgg", "It is an older format of llama.cpp: convert the original model again."),
    (b"fmgg", "It is an older format of llama.cpp: convert the original model again."),
    (b"tjgg", "It is an older format of llama.cpp: convert the original model again."),
    (b"<", "It looks like a web page: the download wants a login, or its address is wrong."),
    (b"\0\0\0\0", "It begins with zeros: the download has not finished."),
)


class Skipped(Struct, frozen=True):
    """Stands for an array or a text that was left out: how many items or bytes it has."""

    count: int


Item = bool | int | float | str
Meta = Item | tuple[Item, ...] | Skipped


class Header(Struct, frozen=True):
    """What a GGUF file says of itself. Sizes are bytes.

    `tensor_bytes` is None where a tensor has a type that this program does not know; `needed_bytes`
    is then only the least that the file must have. `types` counts the weights of each tensor type, `groups`
    the bytes that each block ("blk.0") and the tensors beside them ("token_embd", "output") take in memory.
    """

    path: Path
    version: int
    metadata: Mapping[str, Meta]
    n_tensors: int
    n_params: int
    tensor_bytes: int | None
    data_offset: int
    needed_bytes: int
    file_size: int
    types: Mapping[str, int]
    groups: Mapping[str, int]

    @property
    def architecture(self) -> str:
        """The name of the network's kind, "" where there is none, as in later parts of a split model."""
        return self._text("general.architecture")

    @property
    def name(self) -> str:
        """What the maker called it, or ""."""
        return self._text("general.name")

    @property
    def type(self) -> str:
        """ "model", "adapter", "mmproj" or "imatrix"; a file without the key is a model."""
        return self._text("general.type") or "model"

    @property
    def quantization(self) -> str:
        """As llama.cpp names it, such as "Q4_K_M"; from the commonest tensor type where the file does not say."""
        told = self._number("general.file_type")
        label = FILE_TYPES.get(told & ~1024) if told is not None and told >= 0 else None
        if label is not None:
            return label
        return max(self.types, key=self.types.__getitem__) if self.types else ""

    @property
    def n_layer(self) -> int | None:
        """Blocks of the network."""
        return self._number(f"{self.architecture}.block_count")

    @property
    def n_ctx_train(self) -> int | None:
        """Tokens of context that it was trained with."""
        return self._number(f"{self.architecture}.context_length")

    @property
    def has_chat_template(self) -> bool:
        """Whether it brings its own chat template."""
        return "tokenizer.chat_template" in self.metadata

    @property
    def split_count(self) -> int:
        """Parts of the model that this file belongs to; 1 for a model in one file."""
        return self._number("split.count") or 1

    @property
    def split_no(self) -> int:
        """Which part this is, from 0."""
        return self._number("split.no") or 0

    @property
    def is_projector(self) -> bool:
        """Whether it only turns pictures or sound into embeddings for another model."""
        return self.architecture == "clip" or self.type == "mmproj"

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA or a control vector for another model."""
        return self.type == "adapter" or "adapter.type" in self.metadata or self.architecture == "controlvector"

    @property
    def is_model(self) -> bool:
        """Whether it has a network of its own: no projector, adapter, importance matrix or bare vocabulary."""
        return not (self.is_projector or self.is_adapter or self.type == "imatrix" or self.n_tensors == 0)

    def _text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def _number(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_header(path: Path) -> Header:
    """Read a file's header; raises `BadModelFile`, which names the file and says what is wrong with it."""
    try:
        # Without O_NONBLOCK, a FIFO of that name would hold the program for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise BadModelFile(f"{path} is a folder", "Name a GGUF file, or set model_dir to the folder.")
        if not stat.S_ISREG(status.st_mode):
            raise BadModelFile(f"{path} is not a regular file", "Name a GGUF file.")
        return _Parser(path, Window(path, descriptor, status.st_size)).header()
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)


def _group(name: str) -> str:
    """The block that a tensor belongs to, else what it is called up to its first dot."""
    first, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return f"blk.{number}" if first == "blk" and number.isdigit() else first


def _unreadable(path: Path, error: OSError | ValueError) -> BadModelFile:
    if isinstance(error, FileNotFoundError):
        return BadModelFile(f"{path} does not exist", "It may have been moved or deleted: rescan the models.")
    if isinstance(error, PermissionError):
        return BadModelFile(f"{path} cannot be read: permission denied", "Ask its owner, or run `chmod +r` on it.")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return BadModelFile(f"{path} cannot be read: {reason}", "Check the disk or the network share it is on.")


class _Parser:
    """Reads one header from its first byte to its last."""

    def __init__(self, path: Path, file: Window) -> None:
        self._path = path
        self._file = file
        self._text_left = KEPT_BYTES
        self._strings_left = _MOST_STRINGS

    def header(self) -> Header:
        version = self._preamble()
        n_tensors, n_keys = self._file.unpack("<QQ")
        if n_tensors > _MOST_TENSORS or n_keys > _MOST_KEYS:
            self._corrupt(f"it claims {n_tensors:,} tensors and {n_keys:,} keys")
        metadata: dict[str, Meta] = {}
        for _ in range(n_keys):
            key = self._name("a key")
            if key in metadata:
                self._corrupt(f"the key {key!r} comes twice")
            metadata[key] = self._value(key)
        return self._tensors(version, n_tensors, metadata)

    def _preamble(self) -> int:
        if self._file.size == 0:
            raise BadModelFile(f"{self._path} is empty", _AGAIN)
        begin = self._file.peek(32)
        if not begin.startswith(b"GGUF"):
            for magic, hint in _FOREIGN:
                if begin.startswith(magic):
                    raise BadModelFile(f"{self._path} is not a GGUF file", hint)
            raise BadModelFile(
                f"{self._path} is not a GGUF file: it begins with {begin[:4]!r}",
                "llama.cpp reads GGUF only; convert other formats with its convert_hf_to_gguf.py.",
            )
        self._file.skip(4)
        (version,) = self._file.unpack("<I")
        if version & 0xFFFF == 0 and version != 0:
            raise BadModelFile(
                f"{self._path} is a GGUF for big-endian machines",
                "Convert it with gguf-py's gguf_convert_endian.py, or get the little-endian file.",
            )
        if version not in {2, 3}:
            raise BadModelFile(
                f"{self._path} has GGUF version {version}; versions 2 and 3 can be read",
                "Convert the original model again with a current llama.cpp."
                if version < 2
                else "Either the file is damaged, or it needs a newer llama.cpp and llama-tui.",
            )
        return version

    def _value(self, key: str) -> Meta:
        (kind,) = self._file.unpack("<I")
        if kind == _STRING:
            return self._text()
        if kind in _SCALARS:
            return self._file.numbers(_SCALARS[kind])[0]
        if kind != _ARRAY:
            self._corrupt(f"the key {key!r} has the unknown type {kind}")
        kind, count = self._file.unpack("<IQ")
        if kind == _STRING:
            return self._strings(key, count)
        if kind not in _SCALARS:
            self._corrupt(f"the key {key!r} is an array of the unknown type {kind}")
        if count > KEPT_ITEMS:
            self._file.skip_numbers(_SCALARS[kind], count)
            return Skipped(count)
        return self._file.numbers(_SCALARS[kind], count)

    def _strings(self, key: str, count: int) -> Meta:
        if count > self._strings_left:
            self._corrupt(f"the key {key!r} claims {count:,} texts")
        self._strings_left -= count
        if count > KEPT_ITEMS:
            self._file.skip_strings(count)
            return Skipped(count)
        texts = [self._text() for _ in range(count)]
        kept = tuple(text for text in texts if isinstance(text, str))
        return kept if len(kept) == count else Skipped(count)

    def _tensors(self, version: int, n_tensors: int, metadata: dict[str, Meta]) -> Header:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            self._corrupt("general.alignment is not a power of two")
        types: dict[str, int] = {}
        groups: dict[str, int] = {}
        end = expected = n_params = 0
        total: int | None = 0
        for _ in range(n_tensors):
            name, n_weights, row, kind, offset = self._tensor()
            n_params += n_weights
            label, block, block_bytes = TENSOR_TYPES.get(kind, (f"type {kind}", 0, 0))
            types[label] = types.get(label, 0) + n_weights
            if total is not None and offset != expected:
                self._corrupt(f"the tensor {name!r} is said to be at {offset:,}, not at {expected:,}")
            if not block:
                # A type of a newer llama.cpp: where the following tensors must lie cannot be said.
                total, size = None, 0
            elif row % block:
                self._corrupt(f"the tensor {name!r} has rows of {row:,} weights, not a multiple of {block}")
            else:
                size = n_weights // block * block_bytes
            if offset + size > _BIGGEST:
                self._corrupt(f"the tensor {name!r} is said to be at {offset:,}")
            group = _group(name)
            groups[group] = groups.get(group, 0) + size + -size % _TENSOR_ALIGNMENT
            end = max(end, offset + size)
            expected = end + -end % alignment
            total = total + size if total is not None else None
        data_offset = self._file.at + (-self._file.at % alignment if n_tensors else 0)
        needed = data_offset + end
        if needed > self._file.size:
            missing = needed - self._file.size
            verb = "is" if missing == 1 else "are"
            raise BadModelFile(
                f"{self._path} is cut off: {missing:,} of its {needed:,} bytes {verb} missing",
                "The download or copy did not finish: fetch the file again.",
            )
        size = self._file.size
        return Header(
            self._path, version, metadata, n_tensors, n_params, total, data_offset, needed, size, types, groups
        )

    def _tensor(self) -> tuple[str, int, int, int, int]:
        """One tensor's name, number of weights, row length, type and offset."""
        name = self._name("a tensor")
        (n_dimensions,) = self._file.unpack("<I")
        if n_dimensions > _MOST_DIMENSIONS:
            self._corrupt(f"the tensor {name!r} has {n_dimensions:,} dimensions")
        shape = self._file.unpack(f"<{n_dimensions}q")
        n_weights = 1
        for length in shape:
            n_weights *= length
            if length < 0 or n_weights > _BIGGEST:
                self._corrupt(f"the tensor {name!r} has the impossible shape {list(shape)}")
        kind, offset = self._file.unpack("<IQ")
        return name, n_weights, shape[0] if shape else 1, kind, offset

    def _name(self, what: str) -> str:
        (length,) = self._file.unpack("<Q")
        if not 0 < length <= min(_LONGEST_NAME, self._text_left):
            if length > self._file.left:
                self._file.truncated()
            self._corrupt(f"{what} has a name of {length:,} bytes")
        self._text_left -= length
        return self._file.take(length).decode("utf-8", "replace")

    def _text(self) -> str | Skipped:
        (length,) = self._file.unpack("<Q")
        if length > self._text_left:
            self._file.skip(length)
            return Skipped(length)
        self._text_left -= length
        return self._file.take(length).decode("utf-8", "replace")

    def _corrupt(self, what: str) -> NoReturn:
        raise BadModelFile(f"{self._path} has a damaged header: {what}", _AGAIN)
