"""The main screen: models on the left, the chat, parameters on the right, a status line."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from textual import events, on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from llama_tui.chat.events import ChatEvent, SendRefused, TurnEnded
from llama_tui.errors import LlamaTuiError, ModelNameError
from llama_tui.ui import clipboard
from llama_tui.ui.bindings import KeyTable, short_key
from llama_tui.ui.widgets.chat import ChatPane
from llama_tui.ui.widgets.filter import matches
from llama_tui.ui.widgets.form import ParameterForm
from llama_tui.ui.widgets.models import ModelList
from llama_tui.ui.widgets.panes import Panes
from llama_tui.ui.widgets.side import SidePane
from llama_tui.ui.widgets.status import StatusLine, status_of

if TYPE_CHECKING:
    from llama_tui.chat.conversation import Conversation
    from llama_tui.chat.session import ChatSession
    from llama_tui.chat.workbench import Workbench
    from llama_tui.engine.engine import Engine
    from llama_tui.library.scan import ModelFile
    from llama_tui.settings.values import Value, Values
    from llama_tui.ui.screens.switcher import ModelSwitcher

_FINISH_SECONDS = 2.0


class MainScreen(Screen[None]):
    """Turns keys into calls of the workbench, and what the workbench tells into widgets."""

    AUTO_FOCUS = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "stop the answer, keep what came", id="chat.stop"),
        Binding("ctrl+o", "switch_model", "choose a model", id="models.switch", priority=True),
        Binding("ctrl+n", "new_chat", "new chat", id="chat.new", priority=True),
        Binding("f4", "chats", "earlier chats", id="chat.list", priority=True),
        Binding("ctrl+r", "retry", "answer again", id="chat.retry", priority=True),
        Binding("alt+left", "step_answer(-1)", "previous answer", id="chat.previous_answer", priority=True),
        Binding("alt+right", "step_answer(1)", "next answer", id="chat.next_answer", priority=True),
        Binding("ctrl+y", "copy", "copy the last answer", id="chat.copy", priority=True),
        Binding("ctrl+f", "find", "find in the chat", id="chat.find", priority=True),
        Binding("ctrl+up", "question(-1)", "previous question", id="chat.previous_question"),
        Binding("ctrl+down", "question(1)", "next question", id="chat.next_question"),
        Binding("f2", "toggle_models", "models pane", id="pane.models", priority=True),
        Binding("f3", "toggle_form", "parameters pane", id="pane.parameters", priority=True),
        Binding("f5", "reload", "load the model, or reload it", id="models.reload"),
        Binding("shift+f5,f17", "load_beside", "load it beside what runs", id="models.load_beside"),
        Binding("f7", "keep", "keep it loaded, or let it go", id="models.keep", priority=True),
        Binding("ctrl+g", "use_gpu", "layers on the GPU: as many as fit", id="models.use_gpu", priority=True),
        Binding("tab", "app.focus_next", "next pane", id="pane.next"),
        Binding("shift+tab", "app.focus_previous", "previous pane", id="pane.previous"),
        Binding("f12", "logs", "logs, and what went wrong", id="app.logs", priority=True),
        Binding("f1", "help", "every key", id="app.help", priority=True),
    ]

    def __init__(self, workbench: Callable[[], Workbench], model: str | None, keys: KeyTable) -> None:
        super().__init__()
        self._workbench = workbench
        self._named = model
        self._misnamed = False
        self._keys = keys
        self._open = asyncio.Event()
        self._told_of: Engine | None = None
        self._answers = 0  # how many are shown or wait for their last event, which may tell of the engine's end
        self._asking = False  # an answer is about to be begun
        self._told_of_gpu = False
        self._warned_of = 0
        self._switcher: ModelSwitcher | None = None
        self._shown: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        """Three panes above a line."""
        yield Panes(self._workbench, self._keys)
        yield StatusLine()

    @property
    def _app(self) -> App[object]:
        return cast("App[object]", self.app)  # pyright: ignore[reportUnknownMemberType]

    @property
    def workbench(self) -> Workbench:
        """What the keys are turned into calls of; the first use makes it."""
        return self._workbench()

    # Beginning

    def on_mount(self) -> None:
        """Everything that takes time comes after the first frame."""
        self.call_after_refresh(self._begin)

    @work(group="begin")
    async def _begin(self) -> None:
        workbench = self.workbench
        problems = await workbench.open(self._named)
        self.show_conversation()
        for problem in problems:
            self.chat.tell(problem)
        self._misnamed = bool(self._named) and any(isinstance(problem, ModelNameError) for problem in problems)
        self.show_settings()
        self._open.set()
        self.call_after_refresh(self._go_on)

    @work(group="begin")
    async def _go_on(self) -> None:
        """What is not on the screen yet, once the conversation is."""
        if not gc.isenabled():
            # The command line has put it off until now; what has been made by now stays.
            gc.freeze()
            gc.enable()
        workbench = self.workbench
        if workbench.current and not self._misnamed and (self._named or workbench.current.builtin):
            self.load()
        self.side.begin()
        self._resume()
        await workbench.rescan()
        self.show_engines()
        if self._misnamed and self._app.screen is self:
            self._switch_model(self._named or "")

    @work(group="resume")
    async def _resume(self) -> None:
        """Fetch what engines went on writing; they must be known first."""
        await self.workbench.discover()
        self.answer(self.workbench.resume())

    async def finish(self, *, stop: bool = True) -> None:
        """Stop and keep the answer that is being made, or leave it to its engine, and let nothing else begin."""
        if self._open.is_set() and stop:
            stop = await self.workbench.session.leave()
        groups = {"theme", "answer"} if stop else {"theme"}  # what was chosen last is kept as well
        saving = [worker for worker in self.workers if worker.group in groups and not worker.is_finished]
        if saving:
            await asyncio.wait([asyncio.ensure_future(worker.wait()) for worker in saving], timeout=_FINISH_SECONDS)
        self.workers.cancel_all()
        await asyncio.gather(*(worker.wait() for worker in self.workers), return_exceptions=True)
        self._open.clear()

    # Showing

    @property
    def _panes(self) -> Panes:
        return self.query_one(Panes)

    @property
    def chat(self) -> ChatPane:
        """The middle pane."""
        return self._panes.chat

    @property
    def side(self) -> SidePane:
        """The left pane."""
        return self._panes.side

    def show_conversation(self) -> None:
        """Show the conversation that the workbench has now."""
        workbench = self.workbench
        current = workbench.current
        self.chat.show(workbench.conversation, workbench.suggestions, current.name if current else "no model")
        self.chat.prompt.focus()
        self._show_status()

    def show_settings(self) -> None:
        """Show the values that hold for the chosen model."""
        self._shown = self._settings_shown()
        self._panes.form.show(self.workbench.resolved(), self._loaded_with, self.workbench.below())
        self._show_status()

    @property
    def _loaded_with(self) -> Values | None:
        """What the chosen model was loaded with, if it is loaded."""
        engine = self.workbench.engine
        return engine.spec.params if engine and engine.alive else None

    def _settings_shown(self) -> tuple[object, ...]:
        """What the form follows from: it is asked for whenever an engine says something, once a second."""
        workbench = self.workbench
        return (workbench.settings.revision, workbench.current and workbench.current.name, self._loaded_with)

    def show_engines(self) -> None:
        """Show what engines do: in the list, in the switcher, in the readout, in the line below."""
        if not self._open.is_set():
            return
        rows = self.side.rows()
        self.side.show(rows)
        if self._switcher is not None and self._switcher is self._app.screen:
            self._switcher.show(rows)
        self._tell_of_engine()
        if self._shown == self._settings_shown():
            self._show_status()
        else:
            self.show_settings()

    def _tell_of_engine(self) -> None:
        """Put the end of the chosen model's engine into the log, unless an answer tells of it."""
        engine = self.workbench.engine
        if engine and engine.error and engine is not self._told_of and not self._answers:
            self._told_of = engine
            self.chat.tell(engine.error)

    def _show_status(self) -> None:
        self.query_one(StatusLine).show(
            status_of(self.workbench, self.chat.progress, self._keys, open=self._open.is_set())
        )

    def _key(self, binding_id: str) -> str:
        return short_key(self._keys.of(binding_id))

    # Time and place

    def on_resize(self, event: events.Resize) -> None:
        """Fold what does not fit. Textual tells a size more than once; what is laid out for it is left as it is."""
        for panes in self.query(Panes):
            panes.fit(event.size.width)
            if self.container_size == event.size:
                event.prevent_default()

    def action_toggle_models(self) -> None:
        """Show or fold the models pane."""
        self._panes.toggle_side()

    def action_toggle_form(self) -> None:
        """Show or fold the parameters pane."""
        self._panes.toggle_form()

    # Chatting

    @on(ChatPane.Asked)
    def _asked(self, event: ChatPane.Asked) -> None:
        if not self._idle():
            prompt = self.chat.prompt
            prompt.load(f"{prompt.message}\n{event.text}" if prompt.text else event.text)
            return
        self._begin_answer(self.workbench.send(event.text))

    def _begin_answer(self, making: AsyncGenerator[ChatEvent, None]) -> None:
        """Show an answer that nobody else is to be begun beside; its worker starts a moment later."""
        self._asking = True
        self.answer(making)

    @work(group="answer")
    async def answer(self, making: AsyncGenerator[ChatEvent, None]) -> None:
        """Show an answer while it is made. One that was left for another conversation goes on to
        its end unseen, so that it is kept whole."""
        conversation = self.workbench.conversation
        refused: SendRefused | None = None
        self._asking = False
        self._answers += 1
        try:
            async with contextlib.aclosing(making) as events:
                async for event in events:
                    if self.workbench.conversation is conversation:
                        self.chat.apply(conversation, event)
                        if isinstance(event, TurnEnded) and event.turn.trouble:
                            self._told_of = self.workbench.engine
                        if isinstance(event, SendRefused) and event.error.cuts:
                            refused = event
                        self._show_status()
                    elif isinstance(event, SendRefused) and not self.chat.prompt.text:
                        self.chat.prompt.load(event.text)
        finally:
            self._answers -= 1
        self._tell_of_engine()
        self._show_status()
        if refused:
            self._make_room(conversation, refused)

    @work(group="context", exclusive=True)
    async def _make_room(self, conversation: Conversation, refused: SendRefused) -> None:
        """Ask what to leave out of a conversation that does not fit, and send again what was refused."""
        from llama_tui.ui.screens.context import ContextScreen

        workbench, prompt = self.workbench, self.chat.prompt
        screen = ContextScreen(refused.error, workbench.larger_context(refused.error), self._keys)
        choice = await self._app.push_screen_wait(screen)
        if choice and choice.always:
            await self._set("context_full", choice.context_full)
        if choice is None or choice.context_full == "stop":
            self.chat.tell(refused.error)
            return
        try:
            if choice.n_ctx:
                await self._set("n_ctx", choice.n_ctx)
                if workbench.resolved()["n_ctx"].value != choice.n_ctx:
                    return  # a flag or a variable decides, as has just been said
                await workbench.reload()
        except LlamaTuiError as error:
            self.chat.tell(error)
            return
        if workbench.conversation is conversation and workbench.session.answering is None:
            prompt.load(prompt.message.removeprefix(refused.text.strip()).strip())
            how = choice.context_full
            self.answer(workbench.send(refused.text, how) if refused.text else workbench.retry(how))

    def action_stop(self) -> None:
        """Stop the answer, else the loading, else close what lies over the chat."""
        workbench = self.workbench
        if not self._open.is_set():
            return
        engine = workbench.engine
        if workbench.session.answering:
            self._stop_answer()
        elif engine and engine.condition == "loading" and workbench.current:
            self.side.unload(workbench.current)
        elif workbench.looking_for_room:
            for worker in [worker for worker in self.workers if worker.group == "load"]:
                worker.cancel()
        elif self.chat.find_bar.display:
            self.chat.find_bar.close()
        else:
            self._panes.uncover()

    @work(group="stop")
    async def _stop_answer(self) -> None:
        """An engine that hangs takes a moment to be ended; the keys do not wait for it."""
        workbench = self.workbench
        engine = workbench.engine
        await workbench.session.stop()
        if engine and engine.condition == "loading" and workbench.current:
            await workbench.unload(workbench.current)

    def action_find(self) -> None:
        """Type a text that is looked for in the whole conversation."""
        self.chat.find_bar.open()

    def action_question(self, by: int) -> None:
        """Go to the question before the top of the view, or to the one behind."""
        self.chat.transcript.to_question(by)

    def action_retry(self) -> None:
        """Another answer to the last question."""
        if self._idle():
            self._begin_answer(self.workbench.retry())

    async def action_step_answer(self, by: int) -> None:
        """The answer before or after, among several."""
        if self._idle() and await self.workbench.chats.step_answer(by):
            self.show_conversation()

    def _idle(self) -> bool:
        """Whether an answer can be begun; says why not."""
        if not self._open.is_set():
            return False
        if self._asking or self.workbench.session.answering:
            self.notify(f"An answer is being written; {self._key('chat.stop')} stops it.", timeout=3)
            return False
        return True

    def action_new_chat(self) -> None:
        """Begin an empty conversation; an answer that is being made here is stopped and kept."""
        if self._open.is_set():
            self._leave_session(self.workbench.session)
            self.workbench.chats.new()
            self.show_conversation()

    @work(group="stop")
    async def _leave_session(self, session: ChatSession) -> None:
        await session.leave()

    @work(group="chats", exclusive=True)
    async def action_chats(self) -> None:
        """Choose an earlier conversation."""
        from llama_tui.ui.screens.chats import ChatList

        await self._open.wait()
        chosen = await self._app.push_screen_wait(ChatList(self.workbench, self._keys))
        if chosen and chosen != self.workbench.conversation.id:
            self._leave_session(self.workbench.session)
            try:
                await self.workbench.chats.show(chosen)
            except LlamaTuiError as error:
                self.chat.tell(error)
                return
            self.show_conversation()
            self._resume()

    async def action_copy(self) -> None:
        """Copy the last answer."""
        if not self._open.is_set():
            return
        answer = self.workbench.session.last_answer()
        said = await clipboard.copy(self._app, answer) if answer else "There is no answer to copy yet"
        self.notify(said, timeout=3)

    # Models

    def action_switch_model(self) -> None:
        """Choose a model and load it. The screen is there at once: letters that follow are its own."""
        self._switch_model()

    def _switch_model(self, name: str = "") -> None:
        """Choose among all models, or among those that a name may have meant, if there are any."""
        from llama_tui.library.files import stem
        from llama_tui.ui.screens.switcher import ModelSwitcher

        rows, letters = self.side.rows(), stem(name.rpartition("/")[2])
        if not any(matches(letters, row.file.name) for row in rows):
            letters = ""
        self._switcher = ModelSwitcher(rows, self.side.unload, self._keys, letters)
        self._app.push_screen(self._switcher, self._switched)

    def _switched(self, chosen: ModelFile | None) -> None:
        if chosen:
            self._choose(chosen)

    @on(ModelList.Chosen)
    def _chosen(self, event: ModelList.Chosen) -> None:
        self._choose(event.file)

    @work(group="choose", exclusive=True)
    async def _choose(self, file: ModelFile) -> None:
        await self._open.wait()
        await self.workbench.choose(file)
        if not self.workbench.conversation.path():
            self.show_conversation()
        self.show_engines()
        self.load()
        self.chat.prompt.focus()

    @work(group="load", exclusive=True)
    async def load(self, how: Literal["once", "again", "beside"] = "once") -> None:
        """Load the chosen model; what goes wrong stands in the log."""
        workbench = self.workbench
        ways = {"once": workbench.load, "again": workbench.reload, "beside": workbench.load_beside}
        try:
            engine = await ways[how]()
        except LlamaTuiError as error:
            self.chat.tell(error)
        else:
            if engine.warning and engine.pid != self._warned_of:
                self._warned_of = engine.pid
                self.chat.notice(engine.warning)
        self.show_engines()
        if not self._told_of_gpu and (gpu := await self.workbench.gpu_unused()):
            self._told_of_gpu = True
            self.chat.notice(
                f"{gpu} is there and this build can use it, but n_gpu_layers is 0, so the model runs on the CPU. "
                f"{self._key('models.use_gpu')} puts as many layers on it as fit, from now on."
            )

    async def action_use_gpu(self) -> None:
        """Set n_gpu_layers to auto, and load again."""
        if not self._idle():
            return
        await self._set("n_gpu_layers", None)
        self.load("again")
        if not await asyncio.to_thread(self.workbench.machine.backends):
            self.chat.notice(
                "The installed llama.cpp is built without GPU support: auto is 0 layers. "
                "`llama-tui doctor` says how to build it for a GPU."
            )

    def action_reload(self) -> None:
        """Load, or load again with the parameters that hold now."""
        if self._idle():
            self.load("again")

    def action_load_beside(self) -> None:
        """Load with the parameters that hold now, and leave what runs to who uses it."""
        if self._idle():
            self.load("beside")

    def action_keep(self) -> None:
        """Pin the chosen model's engine, or let it go."""
        if current := self.workbench.current:
            self.side.keep(current)

    # Parameters

    @on(ParameterForm.Changed)
    async def _changed(self, event: ParameterForm.Changed) -> None:
        await self._set(event.param.name, event.value)

    @on(ParameterForm.Reset)
    async def _reset(self, event: ParameterForm.Reset) -> None:
        await self._set(event.param.name, None, reset=True)

    async def _set(self, name: str, value: Value, *, reset: bool = False) -> None:
        problem = await self.workbench.set(name, value, reset=reset)
        if problem:
            self.notify(f"{problem.message}\n{problem.hint}", severity="warning", timeout=8)
        self.show_settings()

    def action_logs(self) -> None:
        """What engines print, why one died, and what is wrong with the settings."""
        from llama_tui.ui.screens.logs import LogScreen

        self._app.push_screen(LogScreen(self.workbench, self._keys))

    def action_help(self) -> None:
        """Every key."""
        from llama_tui.ui.screens.help import HelpScreen

        self._app.push_screen(HelpScreen(self._keys))
