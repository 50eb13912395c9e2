"""One engine as this program holds it: its connection, its latest state, its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Literal

from llama_tui.engine.client import ConnectionLost, EngineClient
from llama_tui.engine.logs import log_tail, note_death
from llama_tui.engine.overflow import far_too_long
from llama_tui.engine.post_mortem import post_mortem
from llama_tui.engine.process import EnginePlace, EngineProcess
from llama_tui.engine.protocol import (
    FREE_CHOICE,
    AnswerEvent,
    Called,
    EngineSpec,
    Message,
    Queued,
    State,
    Token,
    ToolChoice,
)
from llama_tui.engine.silent import engine_process, lives
from llama_tui.errors import ContextOverflow, EngineDied, EngineError, ProtocolError
from llama_tui.settings.values import Value

Condition = Literal["loading", "ready", "busy", "failed", "died", "unloaded"]

_DOING: dict[type[AnswerEvent], str] = {Queued: "the request waited", Token: "generating", Called: "generating"}
_STOP_SECONDS = 1.0
"""llama.cpp lets go within milliseconds, or after the chunk of the prompt that it is reading."""

_HEED_SECONDS = 2.0
"""An engine that is well takes a request at once, whatever llama.cpp is doing."""

_SILENT_SECONDS = 6.0
"""An engine tells its state about once a second, on a thread of its own; a machine that swaps takes longer."""

_UNLOAD_SECONDS = 5.0
_REAP_SECONDS = 2.0
_POLL_SECONDS = 0.01

_N_CTX_STEP = 256
"""n_ctx is rounded up to a multiple of this when a model is loaded."""


class Engine:
    """Made by the pool. `on_change` is called whenever `state` or `condition` changes.

    `process` is there when this program started the engine; of an engine that another program
    started only the socket is known.
    """

    def __init__(
        self,
        place: EnginePlace,
        client: EngineClient,
        process: EngineProcess | None,
        on_change: Callable[[Engine], None],
    ) -> None:
        self.place = place
        self.spec: EngineSpec = client.welcome.spec
        self.file = Path(self.spec.path).resolve()
        self.pid: int = client.welcome.pid
        self.state: State | None = None
        self._told_at = time.monotonic()
        self.error: EngineError | None = None
        self.end_reason: Literal["asked", "idle", "failed"] | None = None
        self._client = client
        self._process = process
        self._on_change = on_change
        self._killed: Literal["stop", "unload"] | None = None
        self._watcher = asyncio.create_task(self._watch())

    @property
    def condition(self) -> Condition:
        """What the engine is doing, or how it ended."""
        if self.error:
            return "died" if isinstance(self.error, EngineDied) else "failed"
        if self.end_reason:
            return "unloaded"
        if self.state is None or self.state.phase == "loading":
            return "loading"
        return "busy" if self.state.phase == "busy" else "ready"

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return not self.error and not self.end_reason

    @property
    def responds(self) -> bool:
        """Whether it has told its state lately. One that has not is stopped, or hangs; it may come to."""
        return not self.alive or time.monotonic() - self._told_at < _SILENT_SECONDS

    @property
    def warning(self) -> str:
        """What it was asked for and cannot do, for a person; "" where there is nothing."""
        asked = self.spec.params["n_gpu_layers"]
        if not asked or not self.spec.n_layers or self.spec.n_gpu_layers:
            return ""
        return (
            f"n_gpu_layers = {asked} does nothing for {self.spec.name}: llama.cpp has no GPU to use here, so the model "
            "runs on the CPU. `llama-tui doctor` says why."
        )

    @property
    def started_here(self) -> bool:
        """Whether this program started the process."""
        return self._process is not None

    def generate(
        self,
        name: str,
        messages: tuple[Message, ...],
        params: dict[str, Value],
        tools: tuple[dict[str, Any], ...] = (),
        *,
        left_out: tuple[int, ...] = (),
        tool_choice: ToolChoice = FREE_CHOICE,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The events of an answer, up to `Finished`. Raises `EngineDied` with a post-mortem when
        the process ends meanwhile, another `EngineError` when it refuses."""
        return self._explained(
            self._client.generate(name, messages, params, tools, left_out=left_out, tool_choice=tool_choice),
            far_too_long(messages, self._n_ctx),
        )

    def attach(self, name: str) -> AsyncGenerator[AnswerEvent, None]:
        """All events of an answer that was asked for before, as `generate` gives them."""
        return self._explained(self._client.attach(name))

    async def knows(self, name: str) -> bool:
        """Whether the engine has made, or is making, that answer."""
        try:
            async with contextlib.aclosing(self._client.attach(name)) as events:
                async for _event in events:
                    return True
        except EngineError:
            return False
        return False

    @property
    def _n_ctx(self) -> int | None:
        """The context in tokens, as far as is known before the model is loaded."""
        if self.state and self.state.model:
            return self.state.model.n_ctx
        asked = self.spec.params["n_ctx"]
        return -(-asked // _N_CTX_STEP) * _N_CTX_STEP if isinstance(asked, int) and asked else None

    async def _explained(
        self, events: AsyncGenerator[AnswerEvent, None], refusal: ContextOverflow | None = None
    ) -> AsyncGenerator[AnswerEvent, None]:
        if refusal:
            raise refusal
        doing = "loading" if self.condition == "loading" else "reading the prompt"
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    doing = _DOING.get(type(event), "reading the prompt")
                    yield event
        except ConnectionLost as lost:
            if self.error and not isinstance(self.error, EngineDied):
                raise self.error from lost  # it could not load, and was let go of before it had heard the request
            raise await self._explain(lost, doing) from lost

    async def cancel(self, name: str) -> None:
        """Stop a generation; one that has ended already is no error. Where it has not stopped after a
        second, because llama.cpp or the whole process hangs, the process is ended: a stop always works."""
        try:
            await self._client.cancel(name, _STOP_SECONDS)
        except ConnectionLost:
            pass
        except ProtocolError:
            self._kill("stop")

    def _kill(self, wanted: Literal["stop", "unload"]) -> None:
        import psutil

        if self.alive:
            self._killed = wanted
            if self._process:
                self._process.kill()
            elif process := engine_process(self.pid, self.spec):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    @property
    def idle_seconds(self) -> float | None:
        """How long it has not been used, until now: states are told at different times. None while it is used."""
        if self.state is None or self.state.idle_seconds is None:
            return None
        return self.state.idle_seconds + time.monotonic() - self._told_at

    @property
    def kept(self) -> bool:
        """Whether it is pinned: it does not unload itself."""
        return bool(self.state and self.state.kept)

    async def keep(self, keep: bool) -> None:
        """Pin it, so that it does not unload itself, or let it go. Raises `EngineError`."""
        await self._client.keep(keep)

    async def configure(self, idle_timeout: float) -> None:
        """Set the seconds after which the engine unloads itself when unused; 0 = never."""
        with contextlib.suppress(ConnectionLost, ProtocolError):
            await self._client.configure(idle_timeout)

    async def unload(self, *, unless_shared: bool = False) -> bool:
        """End the engine and wait until its memory is given back; False when others keep it."""
        if not self.alive:
            return True
        # Another program's child, whose end nobody tells us.
        other = None if self._process else engine_process(self.pid, self.spec)
        try:
            if not await self._client.unload(_HEED_SECONDS, unless_shared=unless_shared):
                return False
        except ProtocolError:
            # It hangs; a model that cannot be unloaded would hold its memory for ever.
            if unless_shared and not self.started_here:
                return False
            self._kill("unload")
        await asyncio.wait([self._watcher], timeout=_UNLOAD_SECONDS)
        if self._process:
            if await self._process.wait(_UNLOAD_SECONDS) is None:
                self._process.kill()
                await self._process.wait(_REAP_SECONDS)
        elif other:
            deadline = time.monotonic() + _UNLOAD_SECONDS
            while lives(other) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
        return True

    async def leave(self) -> None:
        """Let go of the engine; it lives on until its idle timeout."""
        self._watcher.cancel()
        await asyncio.wait([self._watcher])
        await self._client.close()

    async def _watch(self) -> None:
        try:
            async for state in self._client.watch():
                self.state = state
                self._told_at = time.monotonic()
                self._on_change(self)
        except ConnectionLost as lost:
            condition = self.condition
            error = await self._explain(lost, {"loading": "loading", "busy": "generating"}.get(condition, "idle"))
            if self._killed == "unload":
                self.end_reason = "asked"
            elif lost.bye:
                self.end_reason = lost.bye.reason
            else:
                self.error = self.error or error
                if isinstance(error, EngineDied) and (self._process or self._killed):
                    # Only who started or ended it knows how it ended.
                    await asyncio.to_thread(note_death, self.place.log, error)
        except EngineError as error:
            self.error = error
        await self._client.close()
        self._on_change(self)

    async def _explain(self, lost: ConnectionLost, doing: str) -> EngineError:
        """Why the connection ended, in words for a person."""
        if lost.bye or self._killed == "unload":
            return EngineError(f"{self.spec.name} was unloaded while {doing}.", "It can be loaded again at any time.")
        if self._killed == "stop":
            return EngineDied(
                f"The engine of {self.spec.name} did not stop within {_STOP_SECONDS:g} s and was ended.",
                "What came before is kept.",
                log_tail(self.place.log),
            )
        exit_code = await self._process.wait(_REAP_SECONDS) if self._process else None
        return post_mortem(self.spec.name, doing, exit_code, self.place.log)
