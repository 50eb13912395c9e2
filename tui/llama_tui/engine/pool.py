"""The engines of this user: those that run, those that this program starts, their end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from llama_tui.engine.client import ConnectionLost, EngineClient
from llama_tui.engine.devices import Machine
from llama_tui.engine.engine import Engine
from llama_tui.engine.post_mortem import post_mortem
from llama_tui.engine.process import (
    EnginePlace,
    EngineProcess,
    engine_place,
    listens,
    place_of_socket,
    remove_stale,
    spawn,
)
from llama_tui.engine.protocol import EngineSpec
from llama_tui.engine.room import Policy, Room, longest_idle, unload_offer
from llama_tui.engine.silent import SilentEngine, silent_engines
from llama_tui.errors import BadModelFile, EngineError, LlamaTuiError, NoRoom, ProtocolError
from llama_tui.library.scan import Headers
from llama_tui.paths import Paths, trusted
from llama_tui.settings.values import Value

_CONNECT_TRIES = 3
_START_SECONDS = 15.0
_ATTACH_SECONDS = 5.0
_DISCOVER_SECONDS = 2.0
_SILENT_SECONDS = 60.0
_REAP_SECONDS = 2.0
_STATE_SECONDS = 2.0
_POLL_SECONDS = 0.005
_DEFAULT_POLICY = Policy()


class Staying(Struct, frozen=True):
    """An engine that goes on after this program has let go of it, and why: it is pinned, others use
    it, or it is left to its idle timeout; with "forever" it has none."""

    name: str
    pid: int
    why: Literal["kept", "shared", "idle", "forever"]


class Parting(Struct, frozen=True):
    """What became of the engines when this program let go of them."""

    ended: tuple[str, ...] = ()
    stay: tuple[Staying, ...] = ()


class Pool:
    """Knows every engine in the runtime directory: the directory is the list.

    `on_change` is called with an engine whenever something about it changes. `close` must be
    awaited at the end.
    """

    def __init__(self, paths: Paths, on_change: Callable[[Engine], None], room: Room | None = None) -> None:
        self._paths = paths
        self._room = room or Room(Machine(), Headers())
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

    async def silent(self) -> tuple[SilentEngine, ...]:
        """The engines that did not answer when the directory was last scanned."""
        return await asyncio.to_thread(silent_engines, self._paths, list(self._silent))

    async def acquire(
        self, name: str, path: Path, params: dict[str, Value], policy: Policy = _DEFAULT_POLICY
    ) -> Engine:
        """Attach to the engine of this file with these load parameters, or start it.

        Returns as soon as the engine answers; the model may still be loading. Raises
        `BadModelFile` where the file is gone, `NoRoom` where the policy allows no other engine or the
        memory that is free is too little, `LlamaTuiError` where no engine can be started.
        """
        place = self._place(path, params)
        async with self._connecting:
            known = self._engines.get(place.socket)
            if known and known.alive:
                return known
            spec = EngineSpec(name, str(place.model), str(place.socket), params, str(self._paths.kv_states))
            if not await asyncio.to_thread(listens, place.socket):
                spec = await self._make_room(spec, policy)
            return await self._attach_or_spawn(place, spec)

    async def _make_room(self, spec: EngineSpec, policy: Policy) -> EngineSpec:
        """The spec with what the room's plan adds to it; engines that stand in the way are unloaded if
        the policy says so."""
        if policy.check or policy.max_loaded:
            await self.settle()
        while True:
            running = [engine for engine in self.engines if engine.alive]
            try:
                if policy.max_loaded and len(running) >= policy.max_loaded:
                    raise _one_too_many(spec.name, running, policy.max_loaded)
                return await self._room.plan(spec, running, check=policy.check)
            except NoRoom as error:
                unload = next((offer.unload for offer in error.offers if offer.unload), ())
                if not policy.evict or not unload:
                    raise
                await self.unload(unload)

    async def unload(self, pids: Collection[int]) -> None:
        """End the engines with these process ids; returns when their memory is given back."""
        for engine in self.engines:
            if engine.pid in pids:
                await engine.unload()

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
                client = await EngineClient.connect(place.socket, seconds)
                known = self._engines.get(place.socket)
                if known and known.alive:  # a scan has found it meanwhile
                    if process is None:
                        await client.close()
                        return known
                    await known.leave()
                return self._add(place, client, process)
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
        for hung in await asyncio.to_thread(silent_engines, self._paths, [place.socket]):
            return EngineError(
                f"The engine of {spec.name} (process {hung.pid}) does not answer.",
                f"It may be stopped or hang. Run `llama-tui stop {hung.pid}`, then load the model again.",
            )
        return None

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
        self._silent = {path: until for path, until in self._silent.items() if path in sockets}
        unknown = [
            path
            for path in sockets
            if not ((known := self._engines.get(path)) and known.alive) and self._silent.get(path, 0) < now
        ]
        await asyncio.gather(*(self._discover(path) for path in unknown))

    def _sockets(self) -> list[Path]:
        """What listens, or did. In another one's folder they could serve whatever they like."""
        return list(self._paths.runtime.glob("*.sock")) if trusted(self._paths.runtime) else []

    async def settle(self) -> None:
        """Find every engine, and wait a moment until each has told its state."""
        await self.scan()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STATE_SECONDS):
                while any(engine.alive and engine.state is None for engine in self.engines):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)

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
        self._silent.pop(path, None)
        known = self._engines.get(path)
        if known and (known.alive or known.pid == client.welcome.pid):  # attached to meanwhile, or failing
            await client.close()
            return
        self._add(place_of_socket(self._paths, path, Path(client.welcome.spec.path)), client, None)

    def dismiss(self, engine: Engine) -> None:
        """Forget an engine that failed or died."""
        if not engine.alive and self._engines.get(engine.place.socket) is engine:
            del self._engines[engine.place.socket]
            self._on_change(engine)

    async def replace(
        self, name: str, path: Path, params: dict[str, Value], policy: Policy = _DEFAULT_POLICY
    ) -> Engine:
        """As `acquire`, but engines of this file that run with other load parameters are ended first,
        whoever uses them. The new one is pinned where one of those was."""
        place = self._place(path, params)
        resolved = await asyncio.to_thread(path.resolve)
        others = [engine for engine in self.of_file(resolved) if engine.alive and engine.place.socket != place.socket]
        kept = any(engine.kept for engine in others)
        for engine in others:
            await engine.unload()
            self.dismiss(engine)
        engine = await self.acquire(name, path, params, policy)
        if kept:
            await engine.keep(True)
        return engine

    def _place(self, path: Path, params: dict[str, Value]) -> EnginePlace:
        try:
            return engine_place(self._paths, path, params)
        except OSError as error:
            raise BadModelFile(f"{path} cannot be read: {error.strerror}", "Choose another model.") from error

    async def close(self, *, unload: bool) -> Parting:
        """Let go of every engine. With `unload`, end those that this program started, nobody else
        uses and nobody has pinned."""
        ended: list[str] = []
        stay: list[Staying] = []
        for engine in self.engines:
            asked = unload and engine.alive and engine.started_here
            if asked and await engine.unload(unless_shared=True):
                ended.append(engine.spec.name)
            elif engine.alive:
                stay.append(_staying(engine, refused=asked))
            await engine.leave()
        self._engines.clear()
        return Parting(tuple(ended), tuple(stay))


def _staying(engine: Engine, *, refused: bool) -> Staying:
    """Why an engine goes on. One that has refused to end knows of a client that its last state may not."""
    state = engine.state
    why: Literal["kept", "shared", "idle", "forever"] = "idle"
    if engine.kept:
        why = "kept"
    elif refused or (state and state.clients > 1):
        why = "shared"
    elif state and state.phase == "ready" and state.idle_seconds_left is None:
        why = "forever"
    return Staying(engine.spec.name, engine.pid, why)


def _one_too_many(name: str, running: Sequence[Engine], most: int) -> NoRoom:
    idle = longest_idle(running)[: len(running) - most + 1]
    enough = len(idle) > len(running) - most
    return NoRoom(
        f"{name} would be one model too many: max_loaded is {most}, and {len(running)} "
        f"{'is' if len(running) == 1 else 'are'} loaded",
        (),
        (unload_offer(idle),) if enough else (),
    )
