"""What the loaded models hold, and what is left on each device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from msgspec import Struct
from textual.app import RenderResult
from textual.content import Content
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.visual import Visual
from textual.widget import Widget

from llama_tui.control import one_line
from llama_tui.engine.devices import on_device
from llama_tui.library.units import short_size
from llama_tui.ui.text import cells, column

if TYPE_CHECKING:
    from llama_tui.engine.devices import DeviceMemory
    from llama_tui.engine.engine import Engine

_FULL, _TRACK = "█", "░"
_NOTHING = Content.styled("nothing loaded", "$text-muted")


class Blocks(Struct, frozen=True):
    """The lines of each engine and of each device, of which the first tells most. `current` is the
    place of the chosen model's engine."""

    engines: Sequence[Sequence[Content]] = ()
    devices: Sequence[Sequence[Content]] = ()
    current: int | None = None

    @property
    def height(self) -> int:
        """How many lines they are, with an empty one between engines and devices."""
        return sum(map(len, (*self.engines, *self.devices))) + bool(self.devices)

    def lines(self, height: int) -> list[Content]:
        """At most so many lines, if every device has one. Details go first: those of other engines, of the
        chosen model's, of devices; then the last engines are only counted."""
        sizes = [len(block) for block in (*self.engines, *self.devices)]
        others = [at for at in reversed(range(len(self.engines))) if at != self.current]
        chosen = [self.current] if self.current is not None else []
        for at in (*others, *chosen, *reversed(range(len(self.engines), len(sizes)))):
            missing = sum(sizes) + bool(self.devices) - height
            sizes[at] = max(1, sizes[at] - max(0, missing))
        missing = sum(sizes) + bool(self.devices) - height
        cut = [list(block[:size]) for block, size in zip((*self.engines, *self.devices), sizes, strict=True)]
        engines, devices = cut[: len(self.engines)], cut[len(self.engines) :]
        if missing > 0 and len(engines) > 1:
            told = max(0, len(engines) - missing - 1)
            said = f"and {len(engines) - told} more" if told else f"{len(engines)} models"
            engines = [*engines[:told], [Content.styled(said, "$text-muted")]]
        between = [[Content("")]] if devices else []
        return [line for block in (*engines, *between, *devices) for line in block]


class LoadedPane(Widget):
    """One block of lines for each engine, then one bar for each device. Where the screen is too low for
    all of it, the engines are told in fewer lines: what is left on a device stays."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._engines: tuple[Engine, ...] = ()
        self._devices: tuple[DeviceMemory, ...] = ()
        self._current: Engine | None = None
        self._blocks = Blocks([[_NOTHING]])
        self._lines: list[Content] = [_NOTHING]
        self._height = 0
        """Rows that the lines were made for."""

    def on_mount(self) -> None:
        """Name the pane."""
        self.border_title = "Loaded"

    def show(self, engines: Sequence[Engine], devices: Sequence[DeviceMemory], current: Engine | None) -> None:
        """Show these engines and devices; only lines that have changed are painted: they go through
        an SSH connection once a second."""
        living = [engine for engine in engines if engine.alive]
        self._engines = tuple(sorted(living, key=lambda engine: (engine.spec.name, engine.pid)))
        self._devices, self._current = tuple(devices), current
        self._lay_out()

    def on_resize(self) -> None:
        """Bars and names as wide as the pane is now."""
        self._lay_out()

    def _lay_out(self) -> None:
        height, before = self._blocks.height, self._lines
        self._blocks = self._content()
        self._height = self.size.height
        self._lines = self._blocks.lines(self._height)
        if self._blocks.height != height:
            self.refresh(layout=True)
            return
        changed = [y for y, (old, new) in enumerate(zip_longest(before, self._lines)) if old != new]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as there are to show."""
        return self._blocks.height

    def render(self) -> RenderResult:
        """All of the lines, for whoever asks what stands here."""
        return Content("\n").join(self._fitting())

    def render_line(self, y: int) -> Strip:
        """One line: of those that are painted most often, one has changed."""
        lines, style = self._fitting(), self.visual_style
        strips = Visual.to_strips(self, lines[y], self.size.width, 1, style) if y < len(lines) else []
        return strips[0] if strips else Strip.blank(self.size.width, style.rich_style)

    def _fitting(self) -> list[Content]:
        """The lines as they were last shown, as many as the pane holds now."""
        if self._height != self.size.height:
            self._height = self.size.height
            self._lines = self._blocks.lines(self._height)
        return self._lines

    def _content(self) -> Blocks:
        width = max(24, self.size.width)
        engines = [
            _engine_lines(engine, width, _apart(engine, self._engines), current=engine is self._current)
            for engine in self._engines
        ]
        devices: list[list[Content]] = []
        for device in self._devices:
            mine = sum(_held(engine, device) for engine in self._engines if engine is self._current)
            ours = sum(_held(engine, device) for engine in self._engines if engine is not self._current)
            devices.append(device_lines(device, mine, ours, width))
        current = self._engines.index(self._current) if self._current in self._engines else None
        return Blocks(engines or [[_NOTHING]], devices, current)


def device_lines(device: DeviceMemory, mine: int, ours: int, width: int) -> list[Content]:
    """A bar of this engine's share, other engines', everybody else's and what is free; then the figures."""
    others = max(0, device.used - mine - ours)
    shares = [(mine, "this", "$accent"), (ours, "ours", "$secondary"), (others, "others", "$text-muted")]
    figures = f"{short_size(device.used)}/{short_size(device.total)}"
    bar = _bar(width - 6 - len(figures), device.total, [(size, style) for size, _, style in shares])
    legend = [
        Content.assemble((" ■", style), (f"{name:<7}{short_size(size):>4}", "$text-muted"))
        for size, name, style in shares
        if size
    ]
    head = Content.assemble((f"{device.label:<5}", "bold"), bar, " ", figures)
    return [head, *(Content("").join(legend[at : at + 2]) for at in range(0, len(legend), 2))]


def _apart(engine: Engine, engines: Sequence[Engine]) -> str:
    """What tells an engine from others of the same name; empty where there are none."""
    alike = [other for other in engines if other.spec.name == engine.spec.name]
    if len(alike) < 2:
        return ""
    contexts = [other.spec.params.get("n_ctx") for other in alike]
    return f" {engine.pid}" if len(set(contexts)) < len(alike) else f" n_ctx {engine.spec.params.get('n_ctx')}"


def _engine_lines(engine: Engine, width: int, apart: str, *, current: bool) -> list[Content]:
    state = engine.state
    left = "" if state is None or state.idle_seconds_left is None else countdown(state.idle_seconds_left)
    at_rest = "kept" if engine.kept else left or "stays"
    word = {"loading": "loading", "busy": "busy"}.get(engine.condition, at_rest)
    style = "$text-muted"
    if not engine.responds:
        word, style = "not responding", "$warning"
    said = one_line(engine.spec.name)
    room = width - len(word) - len(apart) - 1
    name = column(said, min(cells(said), room) if apart else room, head=0)
    apart = column(apart, width - len(word) - 1 - cells(name)) if apart else ""
    lines = [Content.assemble((name, "bold" if current else ""), (apart, "$text-muted"), " ", (word, style))]
    if state is None:
        return lines
    memory = state.memory
    lines.append(_figures(("private", memory.private), ("mapped", memory.mapped)))
    if memory.buffers:
        weights, kv, compute = (sum(getattr(b, kind) for b in memory.buffers) for kind in ("weights", "kv", "compute"))
        expected = engine.spec.estimate
        beside = (("planned", expected.total),) if expected else ()
        lines += [_figures(("weights", weights), ("KV", kv)), _figures(("compute", compute), *beside)]
    elif state.read_bytes is not None:
        lines.append(_figures(("read", state.read_bytes)))
    if engine.spec.params.get("n_gpu_layers", 0) is None:
        layers = f" auto: {engine.spec.n_gpu_layers} of {engine.spec.n_layers} on GPU"
        lines.append(Content.styled(layers, "$text-muted"))
    gpus = sorted({buffer.name for buffer in memory.buffers if not buffer.host})
    lines += [_figures((name, on_device(memory.buffers, name))) for name in gpus]
    return lines


def _figures(*figures: tuple[str, int | None]) -> Content:
    """Up to two figures in columns; a word of eight letters would touch its figure."""
    return Content.styled("".join(f" {name:<8}{short_size(size):>4}" for name, size in figures), "$text-muted")


def _held(engine: Engine, device: DeviceMemory) -> int:
    """Bytes of a device that an engine holds for itself alone."""
    if engine.state is None:
        return 0
    if device.name == "RAM":
        return engine.state.memory.private or 0
    return on_device(engine.state.memory.buffers, device.name)


def _bar(cells: int, total: int, parts: Sequence[tuple[int, str]]) -> Content:
    """A bar of `cells` cells; what is not zero gets at least one."""
    pieces: list[Content] = []
    left = max(1, cells)
    for size, style in parts:
        if size > 0 and total > 0 and left > 0:
            count = min(left, max(1, round(size / total * cells)))
            pieces.append(Content.styled(_FULL * count, style))
            left -= count
    return Content("").join([*pieces, Content.styled(_TRACK * left, "$border-blurred")])


def countdown(seconds: float) -> str:
    """Minutes and seconds until an engine unloads itself; above a minute in steps of ten seconds,
    since every change of it is painted."""
    whole = max(0, round(seconds))
    if whole > 60:
        whole -= whole % 10
    return f"{whole // 3600}h{whole % 3600 // 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"
