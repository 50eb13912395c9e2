"""Models without a conversation: what the shell and Python programs need of them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any

from llama_tui.chat.gpu import unused_gpu
from llama_tui.engine.devices import Machine
from llama_tui.engine.engine import Engine
from llama_tui.engine.pool import Parting, Pool
from llama_tui.engine.protocol import FREE_CHOICE, AnswerEvent, Message, ToolChoice
from llama_tui.engine.room import Policy, Room
from llama_tui.engine.silent import SilentEngine
from llama_tui.errors import BadModelFile, ContextOverflow, EngineError
from llama_tui.library import names
from llama_tui.library.scan import Headers, ModelFile, all_models
from llama_tui.paths import Paths
from llama_tui.settings.params import loading, sampling
from llama_tui.settings.store import SettingsStore
from llama_tui.settings.values import Value, Values

_NOBODY_TO_ASK = 'context_full = "ask" can ask in the chat alone; here it must be drop_oldest, drop_middle or stop.'


class Access:
    """Finds models, loads them, and asks them. `on_warning` is told, once of each model, what it was
    asked for and cannot do, and of a GPU that it could use and does not. Belongs to the event loop that
    is running when it is made; `close` must be awaited at the end."""

    def __init__(
        self,
        paths: Paths,
        settings: SettingsStore,
        on_change: Callable[[Engine], None] = lambda _engine: None,
        machine: Machine | None = None,
        on_warning: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._settings = settings
        self._headers = Headers()
        self._on_warning = on_warning
        self._warned: set[str] = set()
        self._looked: set[str] = set()  # names of models for which a GPU was looked for
        self._machine = machine or Machine()
        self._pool = Pool(paths, on_change, Room(self._machine, self._headers))

    # Models

    async def find(self, name: str) -> ModelFile:
        """The model of that name; raises `ModelNameError`, or `BadModelFile` for one that is unusable."""
        file = await asyncio.to_thread(names.named, name, self._settings.model_dirs(), self._headers)
        if file.problem:
            raise BadModelFile(f"{file.name}: {file.problem}", file.hint)
        return file

    async def files(self) -> list[ModelFile]:
        """Every model of the model folders, the built-in one last."""
        return await asyncio.to_thread(all_models, self._settings.model_dirs(), self._headers)

    def values(self, file: ModelFile, given: Values) -> dict[str, Value]:
        """Every parameter for a model: what the settings say, and above it what is given."""
        return {**self._settings.values(file.name), **given}

    # Engines

    async def running(self) -> tuple[Engine, ...]:
        """Every engine of this user, each with its state as far as it tells it."""
        await self._pool.settle()
        return self._pool.engines

    async def silent(self) -> tuple[SilentEngine, ...]:
        """The engines that did not answer when `running` asked."""
        return await self._pool.silent()

    def engines_of(self, file: ModelFile) -> tuple[Engine, ...]:
        """The engines of one file, of those that are known."""
        return self._pool.of_file(file.path.resolve())

    async def engine(self, file: ModelFile, given: Values, *, replace: bool = False) -> Engine:
        """The engine of a model with the settings that hold and what is given: a running one where
        there is one, else a new one, which may still be loading. With `replace`, engines of this
        model that run with other load parameters are ended.

        Raises `NoRoom` where there is no room for it, `LlamaTuiError` where none can be started.
        """
        values = self.values(file, given)
        if replace:
            await self.running()  # with their states: a pin is handed on
        acquire = self._pool.replace if replace else self._pool.acquire
        engine = await acquire(file.name, file.path, loading(values), Policy.of(values))
        idle_timeout = given.get("idle_timeout")
        if isinstance(idle_timeout, int | float) and idle_timeout != engine.spec.params["idle_timeout"]:
            await engine.configure(float(idle_timeout))
        warning = engine.warning or await self._gpu_unused(file, engine, given)
        if warning and warning not in self._warned:
            self._warned.add(warning)
            self._on_warning(warning)
        return engine

    async def _gpu_unused(self, file: ModelFile, engine: Engine, given: Values) -> str:
        """That a GPU is there, where a model is loaded without it because nobody has said how many
        layers it shall have; "" where that is not so."""
        if "n_gpu_layers" in given or not engine.started_here or file.name in self._looked:
            return ""
        self._looked.add(file.name)  # to ask the driver takes time, and the answer is told once
        gpu = await unused_gpu(file, self._settings.resolve(file.name)["n_gpu_layers"], self._machine)
        return gpu and (
            f"{gpu} is there and llama.cpp can use it, but n_gpu_layers is 0, so {file.name} runs on the CPU: "
            '"auto" puts as many layers on it as fit.'
        )

    async def ask(
        self,
        file: ModelFile,
        messages: tuple[Message, ...],
        given: Values,
        tools: tuple[dict[str, Any], ...] = (),
        tool_choice: ToolChoice = FREE_CHOICE,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The events of an answer, up to `Finished`. Whoever stops listening, by `aclose` or by
        being cancelled, stops the generation in the engine. Raises `EngineError`."""
        params = sampling(self.values(file, given))
        system = params["system_prompt"]
        if system and all(message.role != "system" for message in messages):
            messages = (Message("system", str(system)), *messages)
        for last in (False, True):
            engine = await self.engine(file, given)
            begun = False
            try:
                async with contextlib.aclosing(_answer(engine, messages, params, tools, tool_choice)) as events:
                    async for event in events:
                        begun = True
                        yield event
                return
            except ContextOverflow as error:
                if error.cuts:
                    error.hint = f"{_NOBODY_TO_ASK} {error.hint}"
                raise
            except EngineError:
                # Its idle timeout was over in the moment that it was asked: load it again.
                if begun or last or engine.end_reason is None:
                    raise

    async def close(self, *, unload: bool) -> Parting:
        """Let go of every engine; with `unload`, end those that were started here, that nobody else
        uses and nobody has pinned."""
        return await self._pool.close(unload=unload)


async def _answer(
    engine: Engine,
    messages: tuple[Message, ...],
    params: dict[str, Value],
    tools: tuple[dict[str, Any], ...],
    tool_choice: ToolChoice,
) -> AsyncGenerator[AnswerEvent, None]:
    name = uuid.uuid4().hex
    try:
        async with contextlib.aclosing(
            engine.generate(name, messages, params, tools, tool_choice=tool_choice)
        ) as events:
            async for event in events:
                yield event
    except (asyncio.CancelledError, GeneratorExit):
        with contextlib.suppress(EngineError):
            await engine.cancel(name)
        raise
