"""The client for scripts without an event loop: the same calls, each waiting for its answer."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from llama_tui.client.asynchronous import Client
from llama_tui.client.completions import ChunkStream, Messages, Tools
from llama_tui.client.responses import ChatCompletion, ChatCompletionChunk, LoadedModel, Model
from llama_tui.errors import LlamaTuiError

_Answer = TypeVar("_Answer")

_END_SECONDS = 5.0


class _LoopThread:
    """An event loop in a thread of its own, so that it does not matter what else runs a loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="llama-tui-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Wait for a coroutine; an interrupt (ctrl+c) cancels it, and waits until it has stopped."""
        if threading.current_thread() is self._thread or self._loop.is_closed():
            work.close()
            raise LlamaTuiError("This client is closed", "Make a new SyncClient.")
        future: Future[_Answer] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                # Its clean-up runs in the loop; whatever is asked next comes after it.
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(_END_SECONDS)
            raise

    def end(self) -> None:
        """End the thread and its loop."""
        with suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(_END_SECONDS)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class SyncChunkStream(Iterator[ChatCompletionChunk]):
    """The chunks of a response. Leaving its `with`, or `close`, stops the generation."""

    def __init__(self, thread: _LoopThread, chunks: ChunkStream) -> None:
        self._thread = thread
        self._chunks = chunks

    def __next__(self) -> ChatCompletionChunk:
        """The next chunk, as soon as there is one."""
        chunk = self._thread.run(_next(self._chunks))
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Stop the generation, if it has not ended."""
        self._thread.run(self._chunks.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _next(chunks: ChunkStream) -> ChatCompletionChunk | None:
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        return None


class SyncCompletions:
    """Reached as `client.chat.completions`."""

    def __init__(self, thread: _LoopThread, client: Client) -> None:
        self._thread = thread
        self._client = client

    @overload
    def create(
        self,
        *,
        model: str | Path,
        messages: Messages,
        stream: Literal[False] = False,
        n: int = 1,
        tools: Tools | None = None,
        **parameters: object,
    ) -> ChatCompletion: ...

    @overload
    def create(
        self,
        *,
        model: str | Path,
        messages: Messages,
        stream: Literal[True],
        n: int = 1,
        tools: Tools | None = None,
        **parameters: object,
    ) -> SyncChunkStream: ...

    @overload
    def create(
        self,
        *,
        model: str | Path,
        messages: Messages,
        stream: bool,
        n: int = 1,
        tools: Tools | None = None,
        **parameters: object,
    ) -> ChatCompletion | SyncChunkStream: ...

    def create(
        self,
        *,
        model: str | Path,
        messages: Messages,
        stream: bool = False,
        n: int = 1,
        tools: Tools | None = None,
        **parameters: object,
    ) -> ChatCompletion | SyncChunkStream:
        """As `Completions.create`."""
        create = self._client.chat.completions.create
        if stream:
            chunks = self._thread.run(
                create(model=model, messages=messages, stream=True, n=n, tools=tools, **parameters)
            )
            return SyncChunkStream(self._thread, chunks)
        return self._thread.run(create(model=model, messages=messages, stream=False, n=n, tools=tools, **parameters))


class SyncModels:
    """Reached as `client.models`."""

    def __init__(self, thread: _LoopThread, client: Client) -> None:
        self._thread = thread
        self._models = client.models

    def list(self) -> tuple[Model, ...]:
        """As `Models.list`."""
        return self._thread.run(self._models.list())

    def load(self, model: str | Path, *, replace: bool = False, **parameters: object) -> LoadedModel:
        """As `Models.load`."""
        return self._thread.run(self._models.load(model, replace=replace, **parameters))

    def keep(self, model: str | Path, keep: bool = True) -> int:
        """As `Models.keep`."""
        return self._thread.run(self._models.keep(model, keep))

    def unload(self, model: str | Path) -> int:
        """As `Models.unload`."""
        return self._thread.run(self._models.unload(model))


@dataclass(frozen=True, slots=True)
class SyncChat:
    """Reached as `client.chat`."""

    completions: SyncCompletions


class SyncClient:
    """`Client` for scripts: the same arguments, responses and errors, without `await`.

        with SyncClient() as client:
            print(client.chat.completions.create(model="guide", messages=[...]).choices[0].message.content)

    May be used from any thread, and where an event loop is running, such as in a notebook.
    """

    def __init__(self, **parameters: object) -> None:
        self._client = Client(**parameters)
        self._thread = _LoopThread()
        self._end = weakref.finalize(self, self._thread.end)
        self.problems = self._client.problems
        self.chat = SyncChat(SyncCompletions(self._thread, self._client))
        self.models = SyncModels(self._thread, self._client)

    def close(self, *, unload: bool = False) -> None:
        """As `Client.close`; this one cannot be used again."""
        if self._end.alive:
            try:
                self._thread.run(self._client.close(unload=unload))
            finally:
                self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
