"""The program on the terminal: composes the parts, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from rich.console import RenderableType
from textual import on, work
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.filter import LineFilter, Monochrome
from textual.notifications import SeverityLevel
from textual.theme import Theme
from textual.worker import WorkerFailed

from llama_tui.background import Background, guessed
from llama_tui.control import sanitize
from llama_tui.crash import KEPT, Crash, crash
from llama_tui.errors import NoRoom, Offer, SettingsError
from llama_tui.paths import Paths
from llama_tui.settings.store import SettingsStore
from llama_tui.ui.bindings import KeyGroup, KeyTable, key_words, named
from llama_tui.ui.commands import Commands
from llama_tui.ui.driver import PaintedApp, Painting
from llama_tui.ui.input import BackgroundTold, TerminalGone
from llama_tui.ui.plain import Plain
from llama_tui.ui.screens.main import MainScreen
from llama_tui.ui.theme import AUTO, AUTO_SAID, Themes, colours, fitting
from llama_tui.ui.widgets.find import FindField
from llama_tui.ui.widgets.form import FieldList
from llama_tui.ui.widgets.models import ModelList
from llama_tui.ui.widgets.prompt import Prompt
from llama_tui.ui.widgets.transcript import Transcript

if TYPE_CHECKING:
    from llama_tui.chat.workbench import Workbench
    from llama_tui.engine.devices import Machine
    from llama_tui.engine.pool import Parting
    from llama_tui.ui.screens.themes import ThemeList

_REPAINT_SECONDS = 0.1
_HEAR_SECONDS = 0.5
_PASSES = 6
"""How often each part of the palette is heard out: a key is handed on a few times before it has its effect."""


class Farewell(Struct, frozen=True):
    """What is worth saying after the screen is gone."""

    parting: Parting | None = None
    signal: str = ""
    logs: Path | None = None
    """Named where a signal has ended the program, and nobody has seen why."""

    def lines(self) -> list[str]:
        """Which signal it was, which engines were ended, which go on and why, and how to end those."""
        if self.logs:
            return [f"llama-tui: {self.signal} has ended it, the logs are in {self.logs}", KEPT]
        if self.parting is None:
            return []
        said = [f"Unloaded: {', '.join(self.parting.ended)}"] if self.parting.ended else []
        said += [f"Still loaded: {engine.name} ({engine.pid}), {_WHY[engine.why]}" for engine in self.parting.stay]
        if self.parting.stay:
            said.append(f"`llama-tui stop {self.parting.stay[0].name}` ends one, `llama-tui ps` lists them.")
        return said


_WHY = {
    "kept": "which you keep",
    "shared": "which another program uses",
    "idle": "until it is unused for its idle_timeout",
    "forever": "whose idle_timeout is 0",
}


class LlamaTui(PaintedApp[Farewell]):
    """Composes; the screens and the workbench do the work."""

    TITLE = "llama-tui"
    # All here: Textual does not load the CSS_PATH of a default screen.
    CSS_PATH: ClassVar = ["screens/main.tcss", "screens/overlay.tcss"]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (24, "-tall")]  # noqa: RUF012 - Textual's own declaration of it
    COMMANDS: ClassVar = {Commands}
    COMMAND_PALETTE_BINDING = "ctrl+p"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+p", "command_palette", "every action", id="app.palette", priority=True),
        Binding("f9", "app.themes", "themes, seen live", id="app.themes", priority=True),
        Binding("ctrl+l", "app.redraw", "paint the screen anew", id="app.redraw", priority=True),
        Binding("ctrl+q", "quit", "quit", id="app.quit", priority=True),
    ]

    def __init__(
        self, paths: Paths, settings: SettingsStore, model: str | None = None, machine: Machine | None = None
    ) -> None:
        values = settings.values()
        self._paths = paths
        self._settings = settings
        self._themes = Themes(paths.themes)
        self._background: Background | None = guessed(os.environ)
        self._colours = colours()
        # Before anything else: another theme, later, has every style read and applied once more.
        self.set_reactive(LlamaTui.theme, self._named(self.wanted_theme))
        super().__init__(Painting(values["paint"] == "diff", int(str(values["frame_rate"]))))
        if "SSH_CONNECTION" in os.environ or "SSH_TTY" in os.environ:
            self.animation_level = "none"
        self._machine = machine
        self.keys = KeyTable(FIRST_KEYS, settings.keys(), str(paths.config_file), later_keys)
        self.main = MainScreen(lambda: self.workbench, model, self.keys)
        self._theme_list: ThemeList | None = None
        self._repaint_due = False
        self._repainted = 0.0  # when, on the clock of the loop
        self._plain: Plain | None = None
        self.crash: Crash | None = None

    @cached_property
    def workbench(self) -> Workbench:
        """What the screens work with. It is made when it is asked for, after the first frame: the
        store, the engines and the library are imported with it."""
        from llama_tui.chat.workbench import Workbench
        from llama_tui.engine.devices import Machine

        machine = self._machine or Machine()
        return Workbench(self._paths, self._settings, self._engines_changed, self._choose_offer, machine)

    def get_default_screen(self) -> MainScreen:
        """The main screen is the first and stays."""
        return self.main

    def on_load(self) -> None:
        """Hear signals before the terminal is taken."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            leave = partial(self.exit, Farewell(signal=number.name, logs=self._paths.logs), 128 + number)
            asyncio.get_running_loop().add_signal_handler(number, leave)

    def on_mount(self) -> None:
        """Keys first: they shape the first frame."""
        self._settings.problems.extend(self._themes.problems)
        wanted = str(self._settings.values()["theme"])
        if wanted not in self.theme_names:
            hint = f"There are {', '.join(self.theme_names)}; {key_words(self.keys.of('app.themes'))} shows them."
            self._settings.problems.append(SettingsError(f"There is no theme {wanted!r}", hint))
        self._settings.problems.extend(self.keys.problems)
        self.set_keymap(self.keys.keymap)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a message for a while. Markup is never parsed, though widgets ask for it unless told
        otherwise: most messages hold what somebody else wrote."""
        del markup
        super().notify(sanitize(message), title=title, severity=severity, timeout=timeout, markup=False)

    # Themes

    @property
    def theme_names(self) -> list[str]:
        """Every theme that can be set."""
        return [AUTO, *self._themes.names]

    def get_theme(self, theme_name: str) -> Theme | None:
        """A theme by its name, whether Textual knows it by now or not."""
        return self._themes.theme(theme_name) or super().get_theme(theme_name)

    @property
    def wanted_theme(self) -> str:
        """The theme that is set, `AUTO` where there is none of that name."""
        wanted = str(self._settings.values()["theme"])
        return wanted if wanted in self.theme_names else AUTO

    @work(group="theme", exclusive=True)
    async def use_theme(self, name: str) -> None:
        """Switch at once, and keep the choice."""
        self._show_theme(name)
        if problem := await self.workbench.set("theme", name):
            self.notify(f"{problem.message}\n{problem.hint}", severity="warning")

    def action_themes(self) -> None:
        """Choose a theme by looking at each."""
        from llama_tui.ui.screens.themes import ThemeList

        if self.screen is not self._theme_list:
            descriptions = {AUTO: AUTO_SAID, **self._themes.descriptions()}
            self._theme_list = ThemeList(descriptions, self.wanted_theme, self._show_theme, self.keys)
            self.push_screen(self._theme_list, self._chosen)

    def _show_theme(self, name: str) -> None:
        if theme := self.get_theme(self._named(name)):
            self.register_theme(theme)
            self.theme = theme.name
            self._plain = None

    def _named(self, name: str) -> str:
        """The name of a theme that is set; of `AUTO`, which it stands for here. Without colours there is one."""
        return fitting(self._background, self._colours) if name == AUTO or not self._colours else name

    def get_line_filters(self) -> Sequence[LineFilter]:
        """What is done to every line that is painted. With NO_COLOR Textual would write greys."""
        if self._colours:
            return [each for each in super().get_line_filters() if not isinstance(each, Monochrome)]
        if self._plain is None:
            self._plain = Plain(self.get_css_variables())
        return (self._plain,)

    def _chosen(self, name: str | None) -> None:
        if name:
            self.use_theme(name)

    @on(BackgroundTold)
    def _follow_background(self, event: BackgroundTold) -> None:
        """The terminal may answer at any time; a theme that is looked at stays."""
        self._background = event.background
        if self.wanted_theme == AUTO and self.screen is not self._theme_list:
            self._show_theme(AUTO)

    # Engines

    def _engines_changed(self) -> None:
        """The first change is shown at once, those that follow within a moment together."""
        if self._repaint_due or not self.is_running:
            return
        self._repaint_due = True
        loop = asyncio.get_running_loop()
        left = self._repainted + _REPAINT_SECONDS - loop.time()
        if left > 0:
            loop.call_later(left, self.call_later, self._show_engines)
        else:
            self.call_later(self._show_engines)

    def _show_engines(self) -> None:
        self._repaint_due = False
        self._repainted = asyncio.get_running_loop().time()
        if self.main.is_running:
            self.main.show_engines()

    async def _choose_offer(self, error: NoRoom) -> Offer | None:
        """Ask what to do about a model that does not fit; the question goes with whoever asked."""
        answer: asyncio.Future[Offer | None] = asyncio.get_running_loop().create_future()
        from llama_tui.ui.screens.room import RoomScreen

        screen = RoomScreen(error, self.keys)

        def taken(offer: Offer | None) -> None:
            if not answer.done():
                answer.set_result(offer)

        self.push_screen(screen, taken)
        try:
            return await answer
        finally:
            if not answer.done() or answer.cancelled():
                screen.dismiss(None)

    def action_command_palette(self) -> None:
        """Open the palette, with its keys where there is nothing typed yet."""
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(placeholder="type to search · enter runs it · esc closes"))

    # The end

    async def action_quit(self) -> None:
        """Stop the answer that is being made, end the engines that only this program uses, leave. With
        on_quit = keep both go on, and the next start fetches the answer."""
        if isinstance(self.screen, CommandPalette):
            self._quit_after(self.screen)
        else:
            await self._quit()

    @work(group="quit", exclusive=True)
    async def _quit_after(self, palette: CommandPalette) -> None:
        """Quit when the palette has carried out the keys that came before. One that chooses goes from
        its field up to this program, and as a message of a line once more."""
        for _ in range(_PASSES):
            for hearer in (*palette.walk_children(with_self=True), self):
                heard = asyncio.Event()
                if self.screen is palette and hearer.is_running and hearer.call_later(heard.set):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(heard.wait(), _HEAR_SECONDS)
        self.call_later(self._quit)

    async def _quit(self) -> None:
        unload = self._settings.values()["on_quit"] == "unload"
        await self.main.finish(stop=unload)
        self.exit(Farewell(await self.workbench.close(unload=unload)))

    async def on_unmount(self) -> None:
        """Let go of the engines, however the program ends; after `action_quit` nothing is left to do."""
        if "workbench" in self.__dict__:  # it was made
            await self.workbench.close(unload=False)

    @on(TerminalGone)
    def _leave_at_once(self) -> None:
        """The terminal is gone: as after a signal, the engines go on, and what they are writing is
        fetched at the next start."""
        self.exit(Farewell())

    def _handle_exception(self, error: Exception) -> None:
        """An error that nothing has caught, of a handler, a worker, a timer or a frame. Textual would show
        the traceback with everybody's variables in it."""
        if self.crash is None:
            self.crash = crash(self._paths.crash_log, error.error if isinstance(error, WorkerFailed) else error)
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        self._close_messages_no_wait()

    def panic(self, *renderables: RenderableType) -> None:
        """End because of an error that Textual has in words only."""
        if self.crash is None:
            with self.console.capture() as said:
                self.console.print(*renderables)
            self.crash = crash(self._paths.crash_log, RuntimeError("of the user interface"), said.get())
        self._fatal_error()


FIRST_KEYS = (
    KeyGroup("Everywhere", (*named(MainScreen.BINDINGS), *named(LlamaTui.BINDINGS))),
    KeyGroup("Prompt", named(Prompt.BINDINGS)),
    KeyGroup("Chat", named(Transcript.BINDINGS)),
    KeyGroup("Find", named(FindField.BINDINGS)),
    KeyGroup("Models pane", named(ModelList.BINDINGS)),
    KeyGroup("Parameters pane", named(FieldList.BINDINGS)),
)
"""The keys of the main screen."""


def later_keys() -> tuple[KeyGroup, ...]:
    """The keys of the screens that are imported when they are opened."""
    from llama_tui.ui.screens.chats import ChatList
    from llama_tui.ui.screens.context import ContextScreen
    from llama_tui.ui.screens.logs import EngineList, LogScreen
    from llama_tui.ui.screens.room import RoomScreen
    from llama_tui.ui.screens.switcher import ModelSwitcher
    from llama_tui.ui.screens.themes import ThemeList

    return (
        KeyGroup("Model switcher", named(ModelSwitcher.BINDINGS)),
        KeyGroup("Chats", named(ChatList.BINDINGS)),
        KeyGroup("Logs", (*named(LogScreen.BINDINGS), *named(EngineList.BINDINGS))),
        KeyGroup("Full context", named(ContextScreen.BINDINGS)),
        KeyGroup("Themes", named(ThemeList.BINDINGS)),
        KeyGroup("No room", named(RoomScreen.BINDINGS)),
    )
