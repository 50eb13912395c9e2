"""What a person works with: the chosen model and its settings, its engine, the conversation.

It knows no widget. The terminal's screens show what it holds and call what it offers; whatever
changes by itself is told through `on_change`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from llama_tui.chat.chats import Chats
from llama_tui.chat.claims import Claims
from llama_tui.chat.conversation import Conversation, Turn
from llama_tui.chat.events import ChatEvent
from llama_tui.chat.gpu import unused_gpu
from llama_tui.chat.session import ChatSession
from llama_tui.engine.devices import Machine
from llama_tui.engine.engine import Engine
from llama_tui.engine.history import EngineLog, engine_logs
from llama_tui.engine.pool import Parting, Pool
from llama_tui.engine.room import Policy, Room
from llama_tui.errors import ContextOverflow, EngineError, LlamaTuiError, ModelNameError, NoRoom, Offer
from llama_tui.library import names
from llama_tui.library.gguf import read_header
from llama_tui.library.scan import Headers, ModelFile, all_models, builtin, describe
from llama_tui.paths import Paths
from llama_tui.settings.layers import Setting
from llama_tui.settings.params import BY_NAME, load_identity, loading, sampling
from llama_tui.settings.store import SettingsStore
from llama_tui.settings.values import Value

_SUGGESTIONS_KEY = "llama_tui.suggestions"


class Workbench:
    """Composed once by the program; `open` before anything else, `close` at the end.

    `choose` is asked which offer to take where a model does not fit; None for none of them.
    """

    def __init__(
        self,
        paths: Paths,
        settings: SettingsStore,
        on_change: Callable[[], None],
        choose: Callable[[NoRoom], Awaitable[Offer | None]],
        machine: Machine,
    ) -> None:
        self.settings = settings
        self.chats = Chats(paths.database, Claims(paths.runtime))
        self.files: list[ModelFile] = []
        self.current: ModelFile | None = None
        self.suggestions: tuple[str, ...] = ()
        self.problems: list[LlamaTuiError] = []
        self._paths = paths
        self._headers = Headers()
        self.machine = machine
        self._pool = Pool(paths, lambda _engine: on_change(), Room(machine, self._headers))
        self._on_change = on_change
        self._choose = choose
        self.looking_for_room = False
        self._resolved: dict[Path, Path] = {}
        self._engine: Engine | None = None

    # Beginning and end

    async def open(self, model: str | None) -> list[LlamaTuiError]:
        """Open the conversations and choose a model: the one named, else the last one used, else
        the built-in one. Returns what went wrong, which stays in `problems`; the workbench can be used
        all the same."""
        problems = self.problems = list[LlamaTuiError](self.settings.problems)
        problems += await self.chats.begin()
        used = next((turn.model for turn in reversed(self.conversation.path()) if turn.model), None)
        for name in (model, used):
            if name and not self.current:
                try:
                    folders = self.settings.model_dirs()
                    await self.choose(await asyncio.to_thread(names.named, name, folders, self._headers))
                except LlamaTuiError as error:
                    problems.append(error)
        if not self.current and (guide := await asyncio.to_thread(builtin, self._headers)):
            await self.choose(guide)
        return problems

    async def close(self, *, unload: bool) -> Parting:
        """End the engines that only this program uses, or leave them all to their idle timeout."""
        await self.chats.keep()
        parting = await self._pool.close(unload=unload)
        await self.chats.close()
        return parting

    # Models

    async def rescan(self) -> None:
        """Read the model folders again; the built-in model comes last."""
        self.files = await asyncio.to_thread(all_models, self.settings.model_dirs(), self._headers)
        self._resolved.clear()
        if self.current:
            again = next((file for file in self.files if file.path == self.current.path), None)
            if again is None:
                self.files.insert(0, self.current)
            self.current = again or self.current

    async def choose(self, file: ModelFile) -> None:
        """Talk to this model from now on. Nothing is loaded yet."""
        self.current = file
        self.suggestions = await asyncio.to_thread(_suggestions, file)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Every engine of this user."""
        return self._pool.engines

    def engines_of(self, file: ModelFile) -> tuple[Engine, ...]:
        """The engines of one file."""
        # Asked for every file whenever an engine says something: the disk is asked once.
        path = self._resolved.get(file.path) or self._resolved.setdefault(file.path, file.path.resolve())
        return self._pool.of_file(path)

    @property
    def engine(self) -> Engine | None:
        """The engine that answers for the chosen model; one that died stays until it is replaced."""
        mine = self.engines_of(self.current) if self.current else ()
        if self._engine in mine:
            return self._engine
        return next((engine for engine in mine if engine.alive), mine[0] if mine else None)

    async def load(self) -> Engine:
        """Attach to an engine of the chosen model, or start one with the settings that hold; where it
        does not fit, with what is chosen of what would.

        An engine that runs already is used even if a load parameter has changed since: that waits
        for `reload`. Raises `NoRoom` where nothing is chosen, `LlamaTuiError` where none can be started.
        """
        engine = self.engine
        if engine is None or not engine.alive:
            engine = await self._acquire()
        self._engine = engine
        return engine

    async def reload(self) -> Engine:
        """Load the chosen model with the settings that hold now, from the file that is there now, in
        place of the engine it has; the new one is pinned where that was."""
        if self.current and self.current.problem:
            self.current = await asyncio.to_thread(describe, self.current.path, self.current.name, self._headers)
        engine = self.engine
        kept = False
        if engine and engine.alive and (self.reload_pending or await asyncio.to_thread(self._pool.replaced, engine)):
            kept = engine.kept
            await engine.unload()
        engine = self._engine = await self._acquire()
        if kept:
            await engine.keep(True)
        return engine

    async def load_beside(self) -> Engine:
        """Load the chosen model with the settings that hold now, and leave the engine that it has to
        whoever uses it."""
        engine = self._engine = await self._acquire()
        return engine

    async def _acquire(self) -> Engine:
        if self.current is None:
            raise ModelNameError("No model is chosen", "Choose one from the list.")
        for engine in self.engines_of(self.current):
            self._pool.dismiss(engine)
        if self.current.problem:
            raise EngineError(f"{self.current.name}: {self.current.problem}", self.current.hint)
        self.looking_for_room = True
        self._on_change()
        try:
            return await self._fitting(self.current)
        finally:
            self.looking_for_room = False
            self._on_change()

    async def _fitting(self, file: ModelFile) -> Engine:
        """An engine with the settings that hold, or with what is chosen where there is no room."""
        changed: dict[str, Value] = {}
        while True:
            values = self._values() | changed
            try:
                return await self._pool.acquire(file.name, file.path, loading(values), Policy.of(values))
            except NoRoom as error:
                offer = await self._choose(error)
                if offer is None:
                    raise
                await self._pool.unload(offer.unload)
                for name, value in offer.params.items():
                    # It holds for this load even where the environment or a flag says otherwise.
                    changed[name] = value
                    if BY_NAME[name].kind == "load":
                        await self.set(name, value)

    async def keep(self, file: ModelFile) -> bool | None:
        """Pin the engines of a file, so that they do not unload themselves, or let them go again;
        whether they are pinned now, None where there are none. Raises `EngineError`."""
        engines = [engine for engine in self.engines_of(file) if engine.alive]
        keep = not all(engine.kept for engine in engines)
        for engine in engines:
            await engine.keep(keep)
        return keep if engines else None

    async def unload(self, file: ModelFile) -> None:
        """Give back the memory of every engine of a file."""
        for engine in self.engines_of(file):
            await engine.unload()
            self._pool.dismiss(engine)

    async def logs(self) -> list[EngineLog]:
        """What the engines print and printed, the living first, then the latest."""
        return await asyncio.to_thread(engine_logs, self._pool.engines, self._paths.logs)

    async def discover(self) -> None:
        """Notice the engines that other programs have started or ended."""
        with contextlib.suppress(LlamaTuiError):  # of a folder that is not to be used, loading tells
            await self._pool.scan()

    # Settings

    def resolved(self) -> dict[str, Setting]:
        """Every setting with its origin, for the chosen model."""
        return self.settings.resolve(self.current.name if self.current else None)

    def below(self) -> dict[str, Setting]:
        """What each value that was saved falls back to when it is reset."""
        model = self.current.name if self.current else None
        return {name: self.settings.below(name, model) for name in BY_NAME if self.settings.is_saved(name, model)}

    def _values(self) -> dict[str, Value]:
        return {name: setting.value for name, setting in self.resolved().items()}

    @property
    def reload_pending(self) -> bool:
        """Whether the engine runs with other load parameters than those that hold now."""
        engine = self.engine
        return bool(engine and engine.alive and load_identity(engine.spec.params) != load_identity(self._values()))

    async def set(self, name: str, value: Value | None, *, reset: bool = False) -> LlamaTuiError | None:
        """Keep a value for the chosen model, or `reset` it to the layer below; the warning, if any."""
        model = self.current.name if self.current else None
        try:
            if reset:
                problem = await asyncio.to_thread(self.settings.reset, name, model)
            else:
                problem = await asyncio.to_thread(self.settings.save, name, value, model)
        except LlamaTuiError as error:
            problem = error
        setting = self.resolved()[name]
        if name == "idle_timeout" and self.engine and isinstance(setting.value, int | float):
            await self.engine.configure(float(setting.value))
        if not reset and not problem and setting.value != value:
            return LlamaTuiError(
                f"{name} is kept, but {setting.source or setting.origin} decides now",
                f"It stays {BY_NAME[name].format(setting.value)} until that is taken away.",
            )
        return problem

    async def gpu_unused(self) -> str:
        """The GPU that this build could use and the chosen model does not, because nobody has said how
        many layers it shall have; "" where there is none."""
        if not self.engine or not self.current:
            return ""
        return await unused_gpu(self.current, self.resolved()["n_gpu_layers"], self.machine)

    # The conversation

    @property
    def session(self) -> ChatSession:
        """The session; there is one as soon as the workbench is open."""
        return self.chats.session

    @property
    def conversation(self) -> Conversation:
        """The conversation that is shown."""
        return self.session.conversation

    def send(self, text: str, context_full: str | None = None) -> AsyncGenerator[ChatEvent, None]:
        """Ask the chosen model; `context_full` stands in for its setting this once."""
        return self.session.send(text, self._model_name, self.load, self._sampling(context_full))

    def retry(self, context_full: str | None = None) -> AsyncGenerator[ChatEvent, None]:
        """Another answer of the chosen model to the last question."""
        return self.session.retry(self._model_name, self.load, self._sampling(context_full))

    def larger_context(self, refused: ContextOverflow) -> int | None:
        """The n_ctx, doubled as often as need be, that would hold what was refused with as great a
        share for the reply; None where the model is not trained for so much."""
        state = self.engine.state if self.engine else None
        trained = state.model.n_ctx_train if state and state.model else 0
        n_ctx = refused.n_ctx
        while n_ctx < trained:
            n_ctx = min(2 * n_ctx, trained)
            if refused.prompt_tokens + refused.reply_room * n_ctx / refused.n_ctx <= n_ctx:
                return n_ctx
        return None

    @property
    def _model_name(self) -> str:
        return names.canonical(self.current.path, self.settings.model_dirs()) if self.current else ""

    def _sampling(self, context_full: str | None) -> dict[str, Value]:
        values = self._values()
        return sampling({**values, "context_full": context_full or values["context_full"]})

    def resume(self) -> AsyncGenerator[ChatEvent, None]:
        """Fetch what engines went on writing after this conversation's program ended, and close
        the answers whose engine is gone."""
        return self.chats.resume(self._engine_of)

    async def _engine_of(self, turn: Turn) -> Engine | None:
        for engine in self.engines:
            if engine.alive and await engine.knows(turn.id):
                return engine
        return None


def _suggestions(file: ModelFile) -> tuple[str, ...]:
    """Questions that a model's file proposes to begin with."""
    with contextlib.suppress(LlamaTuiError):
        found = read_header(file.path).metadata.get(_SUGGESTIONS_KEY)
        if isinstance(found, list | tuple):
            return tuple(str(text) for text in found)
    return ()
