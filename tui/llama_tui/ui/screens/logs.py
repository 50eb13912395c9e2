"""What engines and llama.cpp print: of those that run and of those that died, with their post-mortem."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from typing import ClassVar, cast

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Log, OptionList, Static
from textual.widgets.option_list import Option

from llama_tui.chat.workbench import Workbench
from llama_tui.control import one_line, sanitize
from llama_tui.engine.history import EngineLog
from llama_tui.engine.logs import LogPart, read_log
from llama_tui.errors import LlamaTuiError
from llama_tui.ui import clipboard
from llama_tui.ui.bindings import KeyTable
from llama_tui.ui.text import column, expand_tabs
from llama_tui.ui.widgets.filter import matches
from llama_tui.ui.widgets.models import MARKS

_READ_SECONDS = 0.5
_NAME_WIDTH = 40
_WORDS = {"unloaded": "ended", "busy": "generating"}


class EngineList(OptionList):
    """The engines. Paging turns the log: the list is short."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "screen.page(-1)", "page up in the log", id="logs.page_up"),
        Binding("pagedown", "screen.page(1)", "page down in the log", id="logs.page_down"),
    ]


class LogScreen(ModalScreen[None]):
    """One log at a time, read on while it is shown. A log that is at its end stays at its end."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "close", id="logs.close"),
        Binding("slash", "filter", "filter the lines", id="logs.filter"),
        Binding("f", "follow", "follow", id="logs.follow"),
        Binding("c,ctrl+y", "copy", "copy what is shown", id="logs.copy"),
    ]

    def __init__(self, workbench: Workbench, keys: KeyTable) -> None:
        super().__init__()
        self._workbench = workbench
        self._help = keys.said("logs.filter", "logs.follow", "logs.copy", "logs.close")
        self._logs: list[EngineLog] = []
        self._shown: EngineLog | None = None
        self._lines: list[str] = []
        self._end: int | None = None

    def compose(self) -> ComposeResult:
        """The engines, the post-mortem, the lines, a filter, the keys."""
        with Vertical(classes="overlay") as box:
            box.border_title = "Logs"
            yield EngineList(markup=False)
            yield Static("", id="account", markup=False)
            yield Log(auto_scroll=False)
            yield Input(placeholder="/ filter", compact=True)
            yield Static(self._help, classes="keys", markup=False)

    def on_mount(self) -> None:
        """Fetch the list, and look for more lines from now on."""
        self.query_one(Input).can_focus = False
        self.query_one(EngineList).focus()
        self._fetch()
        self.set_interval(_READ_SECONDS, self._read_on)

    @property
    def _log(self) -> Log:
        return self.query_one(Log)

    @work(group="logs", exclusive=True)
    async def _fetch(self) -> None:
        self._logs = await self._workbench.logs()
        options = self.query_one(EngineList)
        options.clear_options()
        options.add_options([Option(_row(one)) for one in self._logs])
        problems = self._workbench.problems
        mark = (f"✗ {len(problems)}", "$error") if problems else ("no problems", "$text-muted")
        title = f"  {'llama-tui: settings and start':<{_NAME_WIDTH}} "
        options.add_option(Option(Content.assemble(title, mark)))
        options.highlighted = next((at for at, one in enumerate(self._logs) if one.account), 0)

    @on(OptionList.OptionHighlighted)
    def _choose(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        chosen = self._logs[event.option_index] if event.option_index < len(self._logs) else None
        self._shown, self._end, self._lines = chosen, None, []
        self._log.clear()
        self._tell([chosen.account] if chosen and chosen.account else [] if chosen else self._workbench.problems)
        self._read_on()

    def _tell(self, errors: Sequence[LlamaTuiError]) -> None:
        """Show a post-mortem, or what was wrong with the settings, above the lines."""
        parts: list[Content] = []
        for error in errors:
            parts.append(Content.styled(sanitize(error.message), "bold $error"))
            parts += [Content.styled(line, "$text-muted") for line in sanitize(error.hint).splitlines()]
        account = self.query_one("#account", Static)
        account.display = bool(parts)
        account.update(Content("\n").join(parts))

    @work(group="read", exclusive=True)
    async def _read_on(self) -> None:
        shown = self._shown
        if shown is None:
            return
        try:
            part = await asyncio.to_thread(read_log, shown.log, self._end)
        except OSError as error:
            part = LogPart((f"{shown.log}: {error.strerror}",) if self._end is None else (), self._end or 0)
        if shown is self._shown:
            new = [expand_tabs(sanitize(line)) for line in part.lines]
            first, self._end = self._end is None, part.end
            self._lines += new
            self._write(new, to_end=first or self._log.is_vertical_scroll_end)

    def _write(self, lines: Sequence[str], *, to_end: bool) -> None:
        letters = self.query_one(Input).value
        matching = [line for line in lines if matches(letters, line)]
        if matching:
            self._log.write_lines(matching, scroll_end=to_end)

    @on(Input.Changed)
    def _filtered(self, event: Input.Changed) -> None:
        event.stop()
        self._log.clear()
        self._write(self._lines, to_end=True)

    @on(Input.Submitted)
    def _to_list(self, event: Input.Submitted) -> None:
        event.stop()
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one(EngineList).focus()
        self.query_one(Input).can_focus = False

    def action_filter(self) -> None:
        """Type words that every line shown must have."""
        line = self.query_one(Input)
        line.can_focus = True
        line.focus()

    def action_follow(self) -> None:
        """Go to the end, and stay there."""
        self._log.scroll_end(animate=False)

    def action_page(self, by: int) -> None:
        """Turn the log's pages."""
        (self._log.scroll_page_down if by > 0 else self._log.scroll_page_up)(animate=False)

    def action_leave(self) -> None:
        """Take the filter away, else close."""
        line = self.query_one(Input)
        if line.has_focus or line.value:
            line.value = ""
            self._leave_filter()
        else:
            self.dismiss()

    async def action_copy(self) -> None:
        """Copy the post-mortem and the lines that are shown."""
        account = self.query_one("#account", Static)
        said = [str(account.render())] if account.display else []
        text = "\n".join([*said, *self._log.lines])
        told = await clipboard.copy(cast("App[object]", self.app), text)  # pyright: ignore[reportUnknownMemberType]
        self.notify(told, timeout=3)


def _row(one: EngineLog) -> Content:
    mark, style = MARKS[one.condition]
    name = column(one_line(one.name), _NAME_WIDTH, head=0)
    when = datetime.datetime.fromtimestamp(one.written).strftime("%Y-%m-%d %H:%M") if one.written else ""
    word = _WORDS.get(one.condition, one.condition)
    return Content.assemble((f"{mark} ", style), f"{name} ", f"{word:<11}", (when, "$text-muted"))
