"""The engines of this user: those that run, those that this program starts, their end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from llama_tui.engine.client import ConnectionLost, EngineClient
from llama_tui.engine.engine import Engine
from llama_tui.engine.process import (
    EnginePlace,
    EngineProcess,
    engine_place,
    find_process,
    place_of_socket,
    post_mortem,
    remove_stale,
    spawn,
)
from llama_tui.engine.protocol import EngineSpec
from llama_tui.errors import BadModelFile, EngineError, LlamaTuiError, ProtocolError
from llama_tui.paths import Paths, trusted
from llama_tui.settings.values import Value

_CONNECT_TRIES = 3
_START_SECONDS = 15.0
_ATTACH_SECONDS = 5.0
_DISCOVER_SECONDS = 2.0
_SILENT_SECONDS = 60.0
_REAP_SECONDS = 2.0


class Pool:
    """Knows every engine in the runtime directory: the directory is the list.

    `on_change` is called with an engine whenever something about it changes. `close` must be
    awaited at the end.
    """

    def __init__(self, paths: Paths, on_change: Callable[[Engine], None]) -> None:
        self._paths = paths
        self._on_change = on_change
        self._engines: dict[Path, Engine] = {}
        self._connecting = asyncio.Lock()
        self._silent: dict[Path, float] = {}

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The living engines, and those that failed or died since they were last asked for."""
        return tuple(self._engines.values())

    def of_file(self, path: Path) -> tuple[Engine, ...]:
        """The engines of one model file, given by its resolved path."""
        return tuple(engine for engine in self.engines if engine.file == path)

    def replaced(self, engine: Engine) -> bool:
        """Whether another file stands where the one was that an engine has loaded."""
        try:
            place = engine_place(self._paths, Path(engine.spec.path), engine.spec.params)
        except OSError:
            return False
        return place.socket.name != engine.place.socket.name

    async def acquire(self, name: str, path: Path, params: dict[str, Value]) -> Engine:
        """Attach to the engine of this file with these load parameters, or start it.

        Returns as soon as the engine answers; the model may still be loading. Raises
        `BadModelFile` where the file is gone, `LlamaTuiError` where no engine can be started.
        """
        try:
            place = engine_place(self._paths, path, params)
        except OSError as error:
            raise BadModelFile(f"{path} cannot be read: {error.strerror}", "Choose another model.") from error
        async with self._connecting:
            known = self._engines.get(place.socket)
            if known and known.alive:
                return known
            return await self._attach_or_spawn(place, EngineSpec(name, str(place.model), str(place.socket), params))

    async def _attach_or_spawn(self, place: EnginePlace, spec: EngineSpec) -> Engine:
        for _ in range(_CONNECT_TRIES):
            try:
                process = await spawn(self._paths, place, spec)
            except OSError as error:
                raise EngineError(
                    f"No engine can be started: {error}", "Check the disk's room and the rights of the state folder."
                ) from error
            try:
                seconds = _START_SECONDS if process else _ATTACH_SECONDS
                return self._add(place, await EngineClient.connect(place.socket, seconds), process)
            except asyncio.CancelledError:
                # Nobody would ever know of it.
                if process:
                    process.kill()
                raise
            except (OSError, ConnectionLost, ProtocolError) as error:
                if process:
                    raise await self._failed_start(spec, place, process) from error
                if isinstance(error, ProtocolError):
                    raise await self._silent_engine(spec, place) or error from error
                # Somebody else's engine ended just now: start our own.
        raise EngineError(f"The engine of {spec.name} does not answer.", f"Remove {place.socket} if it stays so.")

    async def _failed_start(self, spec: EngineSpec, place: EnginePlace, process: EngineProcess) -> EngineError:
        exit_code = await process.wait(_REAP_SECONDS)
        if exit_code is not None:
            return post_mortem(spec.name, "starting", exit_code, place.log)
        process.kill()
        await process.wait(_REAP_SECONDS)
        return EngineError(
            f"The engine of {spec.name} did not answer within {_START_SECONDS:g} s and was ended.",
            "The machine may be overloaded: try again.",
        )

    async def _silent_engine(self, spec: EngineSpec, place: EnginePlace) -> EngineError | None:
        process = await asyncio.to_thread(find_process, place.socket)
        if process is None:
            return None
        return EngineError(
            f"The engine of {spec.name} (process {process.pid}) does not answer.",
            f"It may be stopped or hang. Run `kill -9 {process.pid}`, then load the model again.",
        )

    def _add(self, place: EnginePlace, client: EngineClient, process: EngineProcess | None) -> Engine:
        engine = self._engines[place.socket] = Engine(place, client, process, self._changed)
        self._on_change(engine)
        return engine

    def _changed(self, engine: Engine) -> None:
        if engine.condition == "unloaded" and self._engines.get(engine.place.socket) is engine:
            del self._engines[engine.place.socket]
        self._on_change(engine)

    async def scan(self) -> None:
        """Find engines that other programs have started, and remove what dead ones left. Raises
        `LlamaTuiError` where the runtime directory is not this user's alone."""
        try:
            sockets = await asyncio.to_thread(self._sockets)
        except OSError:
            return
        now = time.monotonic()
        unknown = [
            path
            for path in sockets
            if not ((known := self._engines.get(path)) and known.alive) and self._silent.get(path, 0) < now
        ]
        await asyncio.gather(*(self._discover(path) for path in unknown))

    def _sockets(self) -> list[Path]:
        """What listens, or did. In another one's folder they could serve whatever they like."""
        return list(self._paths.runtime.glob("*.sock")) if trusted(self._paths.runtime) else []

    async def _discover(self, path: Path) -> None:
        try:
            client = await EngineClient.connect(path, _DISCOVER_SECONDS)
        except OSError:
            with contextlib.suppress(OSError, LlamaTuiError):
                await remove_stale(path)
            return
        except LlamaTuiError:
            # It hangs, or speaks another version: not asked again for a while.
            self._silent[path] = time.monotonic() + _SILENT_SECONDS
            return
        known = self._engines.get(path)
        if known and known.alive:  # it was attached to meanwhile
            await client.close()
            return
        self._add(place_of_socket(self._paths, path, Path(client.welcome.spec.path)), client, None)

    def dismiss(self, engine: Engine) -> None:
        """Forget an engine that failed or died."""
        if not engine.alive and self._engines.get(engine.place.socket) is engine:
            del self._engines[engine.place.socket]
            self._on_change(engine)

    async def close(self, *, unload: bool) -> tuple[str, ...]:
        """Let go of every engine. With `unload`, end those that this program started and nobody
        else uses; the names of those that live on."""
        stay: list[str] = []
        for engine in self.engines:
            ended = unload and engine.started_here and await engine.unload(unless_shared=True)
            if engine.alive and not ended:
                stay.append(engine.spec.name)
            await engine.leave()
        self._engines.clear()
        return tuple(stay)
