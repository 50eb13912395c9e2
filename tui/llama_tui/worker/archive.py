"""When the KV state of a conversation is saved, and when a saved one takes a prefill's place."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil

from llama_tui.engine.protocol import EngineSpec
from llama_tui.settings.params import load_identity
from llama_tui.worker.binding import build
from llama_tui.worker.decode import Decoder
from llama_tui.worker.model import Model
from llama_tui.worker.state import MIN_TOKENS, SavedState, StateFolder, StateUnusable, say

_SHAPELESS = {
    *("n_ctx", "n_batch", "n_ubatch", "n_threads", "n_threads_batch", "n_gpu_layers", "split_mode", "main_gpu"),
    *("tensor_split", "offload_kqv", "use_mmap", "use_mlock"),
}
"""Load parameters that change neither what the KV cache holds nor how it is laid out. A parameter
that is not here is taken to change it, so that a new one is safe."""

_BYTES_PER_SECOND = 1024**3
"""What a good disk gives. A state that would take longer to read than to compute is not saved."""

_PATIENCE_SECONDS = 2.0
"""Reading a state may take as long as the prefill that it spares, and this long in any case."""

_SAMPLE_BYTES = 64 * 1024


class Archive:
    """Everything here is called on the decode thread, except `abandon`; states are written by a
    thread of their own while the next answer is computed."""

    def __init__(self, spec: EngineSpec, fingerprint: str, model: Model, decoder: Decoder) -> None:
        self._decoder = decoder
        self._folder: StateFolder | None = None
        self._writer: threading.Thread | None = None
        self._restored_rate = 0.0
        self._abandoned = threading.Event()
        limit = int(float(str(spec.params["kv_state_size"])) * 2**30)
        if not spec.states:
            return
        try:
            identity = _identity(spec, fingerprint, model)
            folder = StateFolder(Path(spec.states), limit, str(Path(spec.path).resolve()), identity)
            if limit:
                self._folder = folder
            else:
                folder.forget()
        except OSError as error:
            say(f"none are saved: {error}")

    def recall(self, prompt: Sequence[int], stop: Callable[[], bool]) -> bool:
        """Before `Decoder.reuse`: save what the prompt is about to overwrite, and put a saved state
        in its place where that holds more of the prompt. True where it did."""
        if not self._folder:
            return False
        own = self._decoder.reusable(prompt)
        lost = self._decoder.n_past - own
        write: Callable[[], None] | None = None
        try:
            # Of the last token the logits are needed: it is computed in any case.
            worth = len(prompt) - 1 - own >= MIN_TOKENS
            saved = self._folder.find(prompt[:-1], self._decoder.usable) if worth else None
            if lost >= max(MIN_TOKENS, self._decoder.n_past // 2) and not self._is_writing:
                write = self._copied(self._abandoned.is_set)
            return saved is not None and saved.reusable - own >= MIN_TOKENS and self._restore(saved, stop)
        except (OSError, MemoryError, StateUnusable) as error:
            say(f"not used: {error}")
            return False
        finally:
            if write:  # not before, for it may remove what was just read
                self._writer = threading.Thread(target=write, name="kv-state", daemon=True)
                self._writer.start()

    @property
    def _is_writing(self) -> bool:
        """Whether the state before is still on its way to a slow disk."""
        return self._writer is not None and self._writer.is_alive()

    def _restore(self, saved: SavedState, stop: Callable[[], bool]) -> bool:
        assert self._folder
        _refuse_without_memory(saved.n_bytes)
        self._folder.touch(saved)  # or else it may be the oldest, and removed to make room
        began = time.monotonic()
        deadline = began + max(saved.seconds, _PATIENCE_SECONDS)
        data = self._folder.read(saved, lambda: stop() or time.monotonic() > deadline)
        if data is None:
            if time.monotonic() > deadline:
                self._folder.remove(saved)  # so that it does not cost as much every time
            raise StateUnusable(f"{saved.path.name} was not read in time")
        if not self._decoder.restore(saved.tokens, data):
            self._folder.remove(saved)
            raise StateUnusable(f"llama.cpp does not take {saved.path.name}; removed")
        self._restored_rate = len(saved.tokens) / saved.seconds if saved.seconds > 0 else 0.0
        say(f"restored {_amount(len(saved.tokens), len(data))} in {time.monotonic() - began:.2f} s")
        return True

    def close(self, deadline: float) -> None:
        """Save what the KV cache holds, until `deadline` of `time.monotonic` at the latest."""
        if not self._folder:
            return

        def stop() -> bool:
            return self._abandoned.is_set() or time.monotonic() > deadline

        if self._writer:
            self._writer.join(max(0.0, deadline - time.monotonic()))
        if stop():
            self.abandon()
            return
        try:
            if write := self._copied(stop):
                write()
        except (OSError, MemoryError, StateUnusable) as error:
            say(f"not saved: {error}")

    def abandon(self) -> None:
        """Stop writing and leave nothing half written behind."""
        self._abandoned.set()

    def _copied(self, stop: Callable[[], bool]) -> Callable[[], None] | None:
        """Copy the KV cache; what is returned writes the copy. None where it is not worth it."""
        decoder, folder = self._decoder, self._folder
        assert folder
        tokens = list(decoder.held)
        if len(tokens) < MIN_TOKENS:
            return None
        known = folder.find(tokens, decoder.usable)
        if known and known.reusable == len(tokens):
            folder.touch(known)
            return None
        size = decoder.state_size()
        rate = decoder.prefill_rate or self._restored_rate
        seconds = len(tokens) / rate if rate else _PATIENCE_SECONDS
        if not size or seconds < size / _BYTES_PER_SECOND:
            return None
        _refuse_without_memory(size)
        began = time.monotonic()
        data = decoder.state()
        if not data:
            raise StateUnusable("llama.cpp does not give it")
        copied = time.monotonic()

        def write() -> None:
            try:
                folder.write(tokens, data, seconds, stop, supersede=decoder.can_rewind)
            except (OSError, StateUnusable) as error:
                say(f"not saved: {error}")
                return
            say(
                f"saved {_amount(len(tokens), len(data))}: "
                f"copied in {copied - began:.3f} s, written in {time.monotonic() - copied:.2f} s"
            )

        return write


def _amount(tokens: int, n_bytes: int) -> str:
    return f"{tokens:,} tokens ({n_bytes / 2**20:,.1f} MiB)"


def _refuse_without_memory(size: int) -> None:
    if size > psutil.virtual_memory().available // 2:
        raise StateUnusable(f"its copy of {size:,} bytes needs memory that is not free")


def fingerprint(path: str) -> str:
    """Which file this is, asked before llama.cpp opens it: size, time of change, and a digest of
    its beginning, middle and end, since fine-tunings of one model have the same size and header."""
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.blake2b(digest_size=16)
            for start in (0, status.st_size // 2, status.st_size - _SAMPLE_BYTES):
                file.seek(max(0, start))
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError:
        return ""  # loading it says why
    return f"{status.st_size} {status.st_mtime_ns} {digest.hexdigest()}"


def _identity(spec: EngineSpec, fingerprint: str, model: Model) -> str:
    """Everything that decides whether the KV caches of two engines are the same for the same tokens."""
    shape = {name: value for name, value in load_identity(spec.params).items() if name not in _SHAPELESS}
    return msgspec.json.encode([fingerprint, build(), shape, model.is_stretched]).decode()
