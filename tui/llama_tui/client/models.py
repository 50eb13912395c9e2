"""`client.models`: what there is, what is loaded, loading and unloading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from llama_tui.chat.access import Access
from llama_tui.client import arguments
from llama_tui.client.responses import LoadedModel, Model
from llama_tui.engine.engine import Engine
from llama_tui.library.scan import ModelFile


class Models:
    """Reached as `client.models`."""

    def __init__(self, access: Callable[[], Access], changed: Callable[[], asyncio.Event]) -> None:
        self._access = access
        self._changed = changed

    async def list(self) -> tuple[Model, ...]:
        """Every model of the model folders, and the built-in one."""
        access = self._access()
        files = await access.files()
        await access.running()
        return tuple(_model(file, access.engines_of(file)) for file in files)

    async def load(self, model: str | Path, *, replace: bool = False, **parameters: object) -> LoadedModel:
        """Load a model, or find the engine that has it with these load parameters, and wait until
        it is ready. Engines that have it with other load parameters go on beside it; with `replace`
        they are ended first. Raises as `create` does."""
        given = arguments.parameters(parameters, ("load",), ("model", "replace"))
        access, changed = self._access(), self._changed()
        file = await access.find(arguments.model_name(model))
        engine = await access.engine(file, given, replace=replace)
        while engine.alive and (engine.state is None or engine.state.model is None):
            changed.clear()
            await changed.wait()
        if engine.error:
            raise engine.error
        if engine.state is None or engine.state.model is None:
            return await self.load(model, replace=replace, **parameters)  # unloaded by somebody else meanwhile
        return LoadedModel(file.name, str(file.path), engine.pid, engine.state.model.n_ctx)

    async def keep(self, model: str | Path, keep: bool = True) -> int:
        """Pin every engine of a model, so that it does not unload itself however long it is unused,
        or with `keep=False` leave it to its `idle_timeout` again; how many there were."""
        engines = await self._running(model)
        for engine in engines:
            await engine.keep(keep)
        return len(engines)

    async def unload(self, model: str | Path) -> int:
        """End every engine of a model, whoever started it; how many there were."""
        engines = await self._running(model)
        for engine in engines:
            await engine.unload()
        return len(engines)

    async def _running(self, model: str | Path) -> tuple[Engine, ...]:
        access = self._access()
        file = await access.find(arguments.model_name(model))
        await access.running()
        return tuple(engine for engine in access.engines_of(file) if engine.alive)


def _model(file: ModelFile, engines: tuple[Engine, ...]) -> Model:
    return Model(
        id=file.name,
        path=str(file.path),
        size_bytes=file.size_bytes,
        n_params=file.n_params,
        quantization=file.quantization,
        architecture=file.architecture,
        n_ctx_train=file.n_ctx_train,
        problem=file.problem,
        pids=tuple(engine.pid for engine in engines if engine.alive),
    )
