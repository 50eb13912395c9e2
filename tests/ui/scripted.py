"""An engine that says what a test tells it to: the real socket and wire, without llama.cpp.

For the screens, whose pictures must be the same on every machine; everything else is tested with
real engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from llama_tui.engine.process import engine_place
from llama_tui.engine.protocol import (
    VERSION,
    Buffer,
    Cancel,
    Configure,
    Done,
    EngineSpec,
    Failed,
    Finished,
    FinishReason,
    Generate,
    Hello,
    Keep,
    Memory,
    ModelInfo,
    Phase,
    Started,
    State,
    Token,
    Unload,
    Watch,
    Welcome,
    decode_request,
    encode,
)
from llama_tui.paths import Paths, private
from llama_tui.settings.params import defaults
from llama_tui.settings.values import Value

MIB = 2**20
_LONGEST_LINE = 64 * MIB  # a request holds the whole conversation


class ScriptedEngine:
    """Listens where the engine of `model` would. `answer` is sent token by token, at once or `pace`
    tokens a second; then the answer ends, or with `then="hang"` stays open, or with `then="die"` the
    connection breaks. With `refusal` that is what every question gets. `prompt` is its tokens, and how
    many of them are reused."""

    def __init__(
        self,
        paths: Paths,
        model: Path,
        answer: Sequence[str] = (),
        *,
        then: str = "finish",
        pace: float = 0,
        failure: Failed | None = None,
        refusal: Failed | None = None,
        params: dict[str, Value] | None = None,
        prompt: tuple[int, int] = (24, 0),
    ) -> None:
        private(paths.runtime)
        self._params = {**defaults("load"), **(params or {})}
        self.place = engine_place(paths, model, self._params)
        self._model = model
        self._answer, self._then, self._failure, self._refusal = answer, then, failure, refusal
        self._prompt, self._pace = prompt, pace
        self._answering: asyncio.Task[None] | None = None
        self.sent: list[float] = []
        """When each token of the last answer was sent, on the monotonic clock."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._listening = threading.Event()
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def answering(self) -> bool:
        """Whether an answer is being sent."""
        return self._answering is not None and not self._answering.done()

    def __enter__(self) -> ScriptedEngine:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_unix_server(self._serve, str(self.place.socket), limit=_LONGEST_LINE)
        )
        self._listening.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._settle())
        self._loop.close()

    async def _settle(self) -> None:
        """Let go of every connection, and give the transports the turn of the loop they need."""
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def _state(self, id: int, phase: Phase) -> State:
        buffers = (Buffer("CPU", True, weights=4 * MIB, kv=8 * MIB, compute=9 * MIB),)
        info = ModelInfo("llama 4M Q8_0", "llama", 4_300_000, 6, 2048, 2048, "model")
        left = 300.0 if phase == "ready" else None
        return State(id, phase, Memory(31 * MIB, 6 * MIB, buffers), model=info, clients=1, idle_seconds_left=left)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError):  # the program was ended in the middle of something
            await self._listen(reader, writer)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        watch = 0
        while line := await reader.readline():
            match decode_request(line):
                case Hello(id):
                    spec = EngineSpec(self._model.stem, str(self._model), str(self.place.socket), self._params)
                    writer.write(encode(Welcome(id, VERSION, os.getpid(), spec, 0.0)))
                case Watch(id):
                    watch = id
                    writer.write(encode(self._state(id, "ready")))
                    if self._failure:
                        failed = self._failure
                        writer.write(encode(Failed(id, failed.code, failed.message, failed.hint, log=failed.log)))
                case Generate(id, name):
                    writer.write(encode(self._state(watch, "busy")))
                    self._answering = asyncio.create_task(self._generate(writer, id, name, watch))
                    if not self._pace:
                        await self._answering
                        if self._then == "die":
                            return
                case Cancel(id) if self._pace and self._answering:
                    self._answering.cancel()
                    writer.write(encode(Done(id)))
                case Cancel(id) | Configure(id) | Keep(id) | Unload(id):
                    writer.write(encode(Done(id)))
                case _:
                    pass

    async def _generate(self, writer: asyncio.StreamWriter, id: int, name: str, watch: int) -> None:
        if self._refusal:
            writer.write(encode(msgspec.structs.replace(self._refusal, id=id, generation=name)))
            writer.write(encode(self._state(watch, "ready")))
            return
        writer.write(encode(Started(id, name, 0, *self._prompt, 7, 2048)))
        self.sent.clear()
        began = time.monotonic()
        reason: FinishReason = "stop"
        try:
            for count, text in enumerate(self._answer, 1):
                if self._pace:
                    await asyncio.sleep(max(0, began + count / self._pace - time.monotonic()))
                writer.write(encode(Token(id, name, count, text, count)))
                self.sent.append(time.monotonic())
        except asyncio.CancelledError:
            reason = "cancelled"
        if self._then == "finish":
            count = len(self.sent)
            speed = self._pace or 212
            writer.write(
                encode(Finished(id, name, count + 1, reason, 24, 0, count, 0.04, 0.03, max(0, count - 1) / speed))
            )
            writer.write(encode(self._state(watch, "ready")))
        elif self._then == "die":
            await writer.drain()
            writer.transport.abort()
