"""Saved KV states: the file of one, and the folder that holds those of all models within a bound.

A file is a fixed prologue (magic, length of the header, checksum of header and tokens), a header
as JSON, the tokens as 32-bit integers, and the bytes that llama.cpp made of its KV cache. It is
written under a temporary name and renamed when it is whole. There is no fsync: after a power cut
the checksum tells a torn file from a whole one, and all that is lost is a prefill.

Several engines read, write and remove here at once, so that any file may be gone at any moment.
Nothing here knows llama.cpp.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

FORMAT = 1
"""Part of every file's name: what another version wrote is not looked at."""

MIN_TOKENS = 256
"""States of fewer tokens are not saved, and none is read for a gain of fewer: computing them takes
less than a second on all but the slowest machines. They share files' names, which begin with a
digest of so many tokens."""

_MAGIC = b"llamaKV\0"
_PROLOGUE = struct.Struct("<8sII")
_SUFFIX = ".kv"
_TEMPORARY = ".tmp"
_CHUNK = 4 * 1024 * 1024
_HEADER_LIMIT = 64 * 1024
_ABANDONED_SECONDS = 600.0
"""A temporary file that nobody has written to for so long has lost its writer. Process ids would
not tell: the folder may lie on a disk that several machines share."""


class StateUnusable(Exception):
    """A saved state that cannot be read, or one that cannot be saved; the text says why."""


class _Header(msgspec.Struct, frozen=True):
    """`n_bytes` is the size of llama.cpp's part and `checksum` its CRC-32; `seconds` is what a
    prefill of the tokens would take, as its writer measured it."""

    model: str
    n_tokens: int
    n_bytes: int
    checksum: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SavedState:
    """A file whose header has been read and is right. `reusable` is how many tokens of the prompt
    that it was looked up for it spares."""

    path: Path
    tokens: list[int]
    n_bytes: int
    seconds: float
    reusable: int
    offset: int
    checksum: int


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    same = 0
    for ours, theirs in zip(one, other, strict=False):
        if ours != theirs:
            break
        same += 1
    return same


class StateFolder:
    """The states of one model, `model`, made with parameters that `identity` stands for, in a
    folder where other models have theirs; together they take at most `limit` bytes.

    Raises OSError where the folder cannot be made, or is somebody else's.
    """

    def __init__(self, folder: Path, limit: int, model: str, identity: str) -> None:
        self._folder = folder
        self._limit = limit
        self._name = model
        self._model = f"{FORMAT}-{_digest(model.encode(), 4)}"
        self._prefix = f"{self._model}-{_digest(identity.encode(), 8)}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to somebody else")
        folder.chmod(0o700)

    def find(self, prompt: Sequence[int], reusable: Callable[[int, int], int]) -> SavedState | None:
        """The state that spares most of a prompt; `reusable` tells of a number of saved tokens and
        of how many of them the prompt begins with how many could be used."""
        if len(prompt) <= MIN_TOKENS:
            return None
        best: SavedState | None = None
        for path in self._paths(f"{self._prefix}-{_beginning(prompt)}-"):
            try:
                state = _read_header(path, prompt, reusable)
            except StateUnusable as error:
                say(f"{error}; removed")
                _remove(path)
                continue
            except OSError:
                continue  # another engine has removed it
            if state.reusable and (best is None or state.reusable > best.reusable):
                best = state
        return best

    def read(self, state: SavedState, stop: Callable[[], bool]) -> bytearray | None:
        """llama.cpp's part of a state, its checksum verified; None as soon as `stop` says so.

        Raises `StateUnusable` where it is damaged, which removes it, and OSError where it cannot
        be read.
        """
        data = bytearray(state.n_bytes)
        checksum = 0
        with state.path.open("rb", buffering=0) as file, memoryview(data) as view:
            file.seek(state.offset)
            done = 0
            while done < len(data):
                if stop():
                    return None
                count = file.readinto(view[done : done + _CHUNK])
                if not count:
                    break
                checksum = zlib.crc32(view[done : done + count], checksum)
                done += count
        if done < len(data) or checksum != state.checksum:
            self.remove(state)
            raise StateUnusable(f"{state.path.name} is damaged; removed")
        return data

    def touch(self, state: SavedState) -> None:
        """Count a state as used now."""
        with contextlib.suppress(OSError):
            os.utime(state.path)

    def remove(self, state: SavedState) -> None:
        """Take away a state that is of no use."""
        _remove(state.path)

    def write(
        self,
        tokens: Sequence[int],
        data: bytearray,
        seconds: float,
        stop: Callable[[], bool],
        *,
        supersede: bool = True,
    ) -> None:
        """Save a state; with `supersede` in place of those whose tokens it begins with. The least
        recently used of all models are removed to make room.

        Raises `StateUnusable` where it is larger than the bound or `stop` said so, OSError where
        the disk does not take it.
        """
        header = msgspec.json.encode(_Header(self._name, len(tokens), len(data), _checksum(data), seconds))
        head = header + array.array("i", tokens).tobytes()
        prologue = _PROLOGUE.pack(_MAGIC, len(header), zlib.crc32(head))
        size = len(prologue) + len(head) + len(data)
        if size > self._limit:
            raise StateUnusable(f"it takes {size:,} bytes, kv_state_size allows {self._limit:,}")
        self._make_room(size)
        statistics = os.statvfs(self._folder)
        if statistics.f_bavail * statistics.f_frsize < 2 * size:
            raise StateUnusable("the disk is nearly full")
        name = f"{self._prefix}-{_beginning(tokens)}-{len(tokens)}-{secrets.token_hex(4)}{_SUFFIX}"
        temporary = self._folder / (name + _TEMPORARY)
        try:
            _write(temporary, (prologue, head, data), stop)
            temporary.rename(self._folder / name)
        finally:
            _remove(temporary)
        if supersede:
            self._supersede(tokens, self._folder / name)
        self._make_room(0)  # others may have written meanwhile

    def forget(self) -> None:
        """Remove every state of this model, with whichever parameters."""
        for path in self._paths(self._model):
            _remove(path)

    def _supersede(self, tokens: Sequence[int], written: Path) -> None:
        for path in self._paths(f"{self._prefix}-{_beginning(tokens)}-"):
            if path == written:
                continue
            with contextlib.suppress(OSError, StateUnusable):
                state = _read_header(path, tokens, min)
                if state.reusable == len(state.tokens):
                    _remove(path)

    def _make_room(self, size: int) -> None:
        """Remove the least recently used until `size` bytes fit, and what dead writers left."""
        found: list[tuple[float, int, Path]] = []
        for path in self._paths("", temporary=True):
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.suffix == _TEMPORARY:
                    if status.st_mtime < time.time() - _ABANDONED_SECONDS:
                        _remove(path)
                    continue
                found.append((status.st_mtime, status.st_size, path))
        total = size + sum(taken for _, taken, _ in found)
        for _, taken, path in sorted(found):
            if total <= self._limit:
                return
            _remove(path)
            total -= taken

    def _paths(self, prefix: str, *, temporary: bool = False) -> Iterator[Path]:
        """The files of this folder that are this program's; others are left alone."""
        endings = (_SUFFIX, _SUFFIX + _TEMPORARY) if temporary else (_SUFFIX,)
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.name.startswith(prefix) and path.name.endswith(endings):
                    yield path


def _read_header(path: Path, prompt: Sequence[int], reusable: Callable[[int, int], int]) -> SavedState:
    with path.open("rb") as file:
        try:
            magic, length, checksum = _PROLOGUE.unpack(file.read(_PROLOGUE.size))
            if magic != _MAGIC or length > _HEADER_LIMIT:
                raise StateUnusable(f"{path.name} is no saved KV state")
            text = file.read(length)
            header = msgspec.json.decode(text, type=_Header)
            offset = _PROLOGUE.size + length + 4 * header.n_tokens
            if header.n_tokens < 0 or os.fstat(file.fileno()).st_size != offset + header.n_bytes:
                raise StateUnusable(f"{path.name} is not whole")
            raw = file.read(4 * header.n_tokens)
        except (struct.error, msgspec.DecodeError) as error:
            raise StateUnusable(f"{path.name} is damaged") from error
    if zlib.crc32(text + raw) != checksum:
        raise StateUnusable(f"{path.name} is damaged")
    tokens = array.array("i", raw).tolist()
    spared = reusable(len(tokens), common_prefix(tokens, prompt))
    return SavedState(path, tokens, header.n_bytes, header.seconds, spared, offset, header.checksum)


def _write(path: Path, parts: tuple[bytes | bytearray, ...], stop: Callable[[], bool]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - it must be private from its first moment on
        for part in parts:
            with memoryview(part) as view:
                done = 0
                while done < len(view):
                    if stop():
                        raise StateUnusable("writing it took too long")
                    done += file.write(view[done : done + _CHUNK])


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _beginning(tokens: Sequence[int]) -> str:
    return _digest(array.array("i", tokens[:MIN_TOKENS]).tobytes(), 8)


def _digest(data: bytes, size: int) -> str:
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def _checksum(data: bytearray) -> int:
    checksum = 0
    with memoryview(data) as view:
        for start in range(0, len(view), _CHUNK):
            checksum = zlib.crc32(view[start : start + _CHUNK], checksum)
    return checksum


def say(text: str) -> None:
    """A line for the engine's log, which is where this process's output goes."""
    with contextlib.suppress(OSError):  # the disk that is full may be the log's
        print(f"KV state: {text}", flush=True)
