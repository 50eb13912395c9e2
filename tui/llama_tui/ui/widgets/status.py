"""The line at the bottom: the model, the context, the speed, what Esc does, and the main keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace
from textual.app import RenderResult
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget

from llama_tui.control import one_line
from llama_tui.library.units import short_size
from llama_tui.ui.bindings import KeyTable, short_key
from llama_tui.ui.text import cells, column
from llama_tui.ui.widgets.chat import Progress

if TYPE_CHECKING:
    from llama_tui.chat.workbench import Workbench

_GAUGE = " ▁▂▃▄▅▆▇█"
_NEARLY_FULL = 0.9
_FIGURES_SECONDS = 0.25
"""How often figures that run are painted: they can be read, and cost little on the way."""


_NAME_CELLS = 16
_MISSED = ("memory", "speed", "context", "model", "doing")
"""What a narrow line leaves out, the first first."""


class Status(Struct, frozen=True):
    """What the line says; `escape` is what Esc would stop, `doing` what is waited for."""

    model: str = ""
    n_past: int = 0
    n_ctx: int | None = None
    tokens_per_second: float | None = None
    memory: str = ""
    doing: str = ""
    escape: str = ""
    keys: tuple[str, ...] = ()


def status_of(workbench: Workbench, progress: Progress, keys: KeyTable, *, open: bool) -> Status:
    """What the line says now; `open` is whether the workbench has its conversation."""
    engine = workbench.engine
    state = engine.state if engine else None
    doing = progress.doing
    loading = bool(engine and engine.condition == "loading")
    if workbench.looking_for_room:
        doing, loading = "looking for room", True
    elif loading:
        share = state.progress if state else None
        doing = "loading" if share is None else f"loading {share:.0%}"
    answering = open and workbench.session.answering is not None
    held = [item.state.memory.private or 0 for item in workbench.engines if item.alive and item.state]
    stops = f"{short_key(keys.of('chat.stop'))} stops " + ("the answer" if answering else "loading")
    words = (("models.switch", "models"), ("app.palette", "commands"), ("app.help", "help"))
    return Status(
        model=workbench.current.name if workbench.current else "",
        n_past=progress.n_past,
        n_ctx=state.model.n_ctx if state and state.model else None,
        tokens_per_second=progress.tokens_per_second if answering else None,
        memory=f"{short_size(sum(held))} loaded" if held else "",
        doing=doing,
        escape=stops if answering or loading else "",
        keys=tuple(f"{short_key(keys.of(name))} {word}" for name, word in words),
    )


class StatusLine(Widget):
    """Holds the last status; painted only when it differs."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._status = Status()
        self._timer: Timer | None = None

    @property
    def status(self) -> Status:
        """What it shows."""
        return self._status

    def show(self, status: Status) -> None:
        """Show another status; where only its figures differ, a moment later."""
        before, self._status = self._status, status
        if status == before:
            return
        if replace(status, n_past=before.n_past, tokens_per_second=before.tokens_per_second) != before:
            self._paint()
        elif self._timer is None:
            self._timer = self.set_timer(_FIGURES_SECONDS, self._paint)

    def _paint(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self.refresh()

    def render(self) -> RenderResult:
        """The figures on the left, as many keys as fit on the right."""
        left = Content(" ") + self._figures(self.size.width - 2)
        room = self.size.width - left.cell_length - 3
        keys = list(self._status.keys)
        while keys and len("  ".join(keys)) > room:
            del keys[0]
        said = "  ".join(keys)
        gap = self.size.width - left.cell_length - len(said) - 1
        return Content.assemble(left, " " * max(0, gap), (said, "$text-muted"))

    def _figures(self, width: int) -> Content:
        """As much as the width holds: a long name is shortened, then goes what can be missed; what Esc
        does is there at every width."""
        parts = self._parts()
        between = Content.styled(" · ", "$text-muted")
        name = one_line(self._status.model) or "no model"
        joined = Content()
        for part in ("", *_MISSED):
            parts.pop(part, None)
            if "model" in parts:
                others = sum(between.cell_length + other.cell_length for key, other in parts.items() if key != "model")
                room = min(cells(name), max(_NAME_CELLS, width - others))
                parts["model"] = Content.styled(column(name, room, head=room // 3), "bold")
            joined = between.join(parts.values())
            if joined.cell_length <= width:
                break
        return joined

    def _parts(self) -> dict[str, Content]:
        status = self._status
        parts = {"model": Content()}
        if status.n_ctx:
            share = min(1.0, status.n_past / status.n_ctx)
            style = "$error" if share >= _NEARLY_FULL else "$accent"
            gauge = _GAUGE[max(bool(status.n_past), round(share * (len(_GAUGE) - 1)))]
            used = f"{status.n_past:,} / {status.n_ctx:,} "
            parts["context"] = Content.assemble(used, (gauge, f"{style} on $border-blurred"))
        if status.tokens_per_second is not None:
            parts["speed"] = Content(f"{status.tokens_per_second:,.0f} tok/s")
        if status.memory:
            parts["memory"] = Content(status.memory)
        if status.doing:
            parts["doing"] = Content.styled(status.doing, "$warning")
        if status.escape:
            parts["escape"] = Content.styled(status.escape, "$accent")
        return parts
