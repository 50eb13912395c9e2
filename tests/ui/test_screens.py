"""Pictures of the screens, at the sizes that people have, with a scripted engine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from llama_tui.chat.conversation import Conversation, Figures, LeftOut
from llama_tui.chat.store import Store
from llama_tui.engine.protocol import Failed
from llama_tui.errors import Cut
from llama_tui.library.scan import builtin_path
from llama_tui.paths import Paths
from llama_tui.ui.app import LlamaTui
from llama_tui.ui.screens.context import ContextScreen
from llama_tui.ui.widgets.editor import ValueEditor
from llama_tui.ui.widgets.form import FieldList
from llama_tui.ui.widgets.loaded import LoadedPane
from tests.ui.program import leave, program, until
from tests.ui.scripted import ScriptedEngine

Snap = Callable[..., bool]
SIZES = [(120, 40), (80, 24)]
SMALLEST = (60, 18)
ANSWER = """Press **ctrl+o**, type a few letters of the name, and press **enter**.

- A model that is loaded already answers *at once*.
- `ctrl+u` in the same list unloads one.

| key | what it does |
|---|---|
| `ctrl+o` | choose a model |
| `f5` | load it again |

```python
def fits(model: int, free: int) -> bool:
    return model < free  # bytes
```
"""
TOKENS = [ANSWER[at : at + 5] for at in range(0, len(ANSWER), 5)]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the kinds of files that people have; the guide's weights under other names."""
    guide = builtin_path()
    assert guide
    folder = tmp_path / "models"
    (folder / "qwen").mkdir(parents=True)
    for name in ("llama-3.2-1b-instruct-q8_0", "qwen/qwen3-8b-q4_k_m", "a-model-with-a-name-that-is-very-long-q6_k"):
        shutil.copy(guide, folder / f"{name}.gguf")
    whole = guide.read_bytes()
    (folder / "half-downloaded-70b.gguf").write_bytes(whole[: len(whole) // 2])
    return folder


async def settled(pilot: Pilot[Any]) -> LlamaTui:
    """Wait until everything that the start shows is there."""
    app = pilot.app
    assert isinstance(app, LlamaTui)
    await until(lambda: app.workbench.files and app.workbench.engine and app.workbench.engine.state)
    # A pane that is folded reads no memory.
    await until(lambda: not app.main.side.display or "GPU0" in str(app.main.query_one(LoadedPane).render()))
    app.main.chat.prompt.cursor_blink = False
    app.main.show_engines()
    await pilot.pause()
    return app


def keys(*pressed: str) -> Callable[[Pilot[Any]], Awaitable[None]]:
    """Settle, press, settle."""

    async def run(pilot: Pilot[Any]) -> None:
        await settled(pilot)
        await pilot.press(*pressed)
        await pilot.pause()

    return run


def asked(then: Callable[[LlamaTui], object]) -> Callable[[Pilot[Any]], Awaitable[None]]:
    """Take the first suggestion and wait for what a test is about."""

    async def run(pilot: Pilot[Any]) -> None:
        app = await settled(pilot)
        await pilot.press("enter")
        await until(lambda: then(app))
        await pilot.pause(0.2)  # the transcript coalesces what it shows

    return run


def ended(app: LlamaTui) -> object:
    return app.workbench.session.answering is None and app.workbench.conversation.path()


@pytest.mark.parametrize("size", SIZES)
def test_first_start(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    with ScriptedEngine(paths, guide_model):
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=keys())


@pytest.mark.parametrize("size", SIZES)
def test_streaming(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    def here(app: LlamaTui) -> bool:
        return app.main.chat.progress.n_past == 24 + 1

    # One event: a speed, which depends on the machine, is only shown from the second on.
    with ScriptedEngine(paths, guide_model, ["".join(TOKENS[:30])], then="hang"):
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=asked(here))


def test_streaming_on_a_narrow_terminal(snap_compare: Snap, paths: Paths, models: Path) -> None:
    """What Esc does is seen beside a long name."""

    def here(app: LlamaTui) -> bool:
        return app.main.chat.progress.n_past == 24 + 1

    async def run(pilot: Pilot[Any]) -> None:
        app = await settled(pilot)
        await pilot.press(*"hello", "enter")
        await until(lambda: here(app))
        await pilot.pause(0.2)

    name = "a-model-with-a-name-that-is-very-long-q6_k"
    with ScriptedEngine(paths, models / f"{name}.gguf", ["".join(TOKENS[:30])], then="hang"):
        assert snap_compare(program(paths, name, models=models), terminal_size=(60, 18), run_before=run)


@pytest.mark.parametrize("size", SIZES)
def test_found(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    async def run(pilot: Pilot[Any]) -> None:
        await asked(ended)(pilot)
        app = cast("LlamaTui", pilot.app)
        await pilot.press("ctrl+f", *"mod")
        await until(lambda: " of " in app.main.chat.find_bar.count)
        await pilot.press("up")
        await pilot.pause()

    with ScriptedEngine(paths, guide_model, TOKENS):
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=run)


@pytest.mark.parametrize("size", [*SIZES, (200, 60), SMALLEST, (300, 100)])
def test_answered(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    with ScriptedEngine(paths, guide_model, TOKENS):
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=asked(ended))


@pytest.mark.parametrize("theme", ["night", "dawn", "ember", "moss", "contrast", "sixteen"])
def test_each_theme(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, theme: str) -> None:
    with ScriptedEngine(paths, guide_model, TOKENS):
        app = program(paths, models=models, flags={"theme": theme})
        assert snap_compare(app, terminal_size=(120, 40), run_before=asked(ended))


@pytest.mark.parametrize("size", [*SIZES, SMALLEST])
def test_switcher(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    with ScriptedEngine(paths, guide_model):
        run = keys("ctrl+o", "l", "l", "a", "m", "a")
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=run)


@pytest.mark.parametrize("size", [*SIZES, SMALLEST])
def test_palette(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    async def run(pilot: Pilot[Any]) -> None:
        app = await settled(pilot)
        await pilot.press("ctrl+p")
        await until(lambda: app.screen.query("Input") and len(app.screen.query_one(OptionList).options) > 20)
        app.screen.query_one(Input).cursor_blink = False
        await pilot.pause()

    with ScriptedEngine(paths, guide_model):
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=run)


@pytest.mark.parametrize("size", [*SIZES, SMALLEST])
def test_help(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    with ScriptedEngine(paths, guide_model):
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=keys("f1"))


@pytest.mark.parametrize("size", SIZES)
def test_three_loaded(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    """What is left on each device is seen below them, however low the screen is."""
    with contextlib.ExitStack() as engines:
        for path in (guide_model, models / "llama-3.2-1b-instruct-q8_0.gguf", models / "qwen" / "qwen3-8b-q4_k_m.gguf"):
            engines.enter_context(ScriptedEngine(paths, path))
        app = program(paths, models=models)

        async def run(pilot: Pilot[Any]) -> None:
            await settled(pilot)
            await until(lambda: sum(engine.state is not None for engine in app.workbench.engines) == 3)
            app.main.show_engines()
            await pilot.pause()

        assert snap_compare(app, terminal_size=size, run_before=run)


@pytest.mark.parametrize("size", [*SIZES, SMALLEST])
def test_themes(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    with ScriptedEngine(paths, guide_model):
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=keys("f9", "d"))


@pytest.mark.parametrize("rows", [18, 21, 24, 25, 40])
async def test_every_list_shows_its_cursor_and_its_keys_at_every_height(
    paths: Paths, guide_model: Path, models: Path, rows: int
) -> None:
    for number in range(30):
        shutil.copy(guide_model, models / f"model-{number:02}.gguf")
    with contextlib.closing(Store(paths.database)) as store:
        for number in range(30):
            chat = Conversation(f"chat {number}")
            store.save(chat, chat.ask(f"What is {number}?"))
    with ScriptedEngine(paths, guide_model):
        app = program(paths, "guide", models=models)
        async with app.run_test(size=(60, rows)) as pilot:
            await settled(pilot)
            for key in ("ctrl+o", "f4", "f9"):
                await pilot.press(key)
                await until(lambda: app.screen is not app.main and app.screen.query_one(OptionList).option_count > 5)
                options, said = app.screen.query_one(OptionList), app.screen.query_one(".keys")
                await pilot.press("up", "up", "up")
                await pilot.pause()
                assert options.highlighted
                inside = app.screen.query_one(".overlay").content_region
                assert inside.contains_region(said.region), key
                assert inside.contains_region(options.region), key
                assert said.region.y >= options.region.bottom
                await pilot.press("escape")
                await until(lambda: app.screen is app.main)
            await leave(app)


def test_reading(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path) -> None:
    def here(app: LlamaTui) -> bool:
        return app.main.chat.progress.n_past == 1_987

    with ScriptedEngine(paths, guide_model, then="hang", prompt=(2_027, 1_987)):
        assert snap_compare(program(paths, models=models), terminal_size=(120, 40), run_before=asked(here))


@pytest.mark.parametrize("size", [*SIZES, SMALLEST])
def test_full_context(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    cuts = (Cut("drop_oldest", 6, 1_204), Cut("drop_middle", 4, 1_318))
    refusal = Failed(0, "context", "It is full", "Do this.", prompt_tokens=1_934, n_ctx=2048, reply_room=256, cuts=cuts)

    def here(app: LlamaTui) -> object:
        return isinstance(app.screen, ContextScreen) and app.screen.query(OptionList)

    with ScriptedEngine(paths, guide_model, refusal=refusal):
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=asked(here))


@pytest.mark.parametrize("size", SIZES)
def test_left_out(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    """The mark of a cut, as the next start shows it."""
    conversation = Conversation("c")
    ids: list[str] = []
    for question, text in (("How do I switch models?", "Press **ctrl+o**."), ("And unload one?", "Press `ctrl+u`.")):
        ids.append(conversation.ask(question).id)
        answer = conversation.answer("guide", {})
        cut = LeftOut("drop_oldest", tuple(ids[:2]), 1_204) if len(ids) > 2 else None
        ids.append(answer.id)
        figures = Figures(1_318, 1_290 if cut else 0, 12, 2048, 0.04, 212.0)
        conversation.replace(
            msgspec.structs.replace(answer, content=text, seed=7, ending="stop", figures=figures, left_out=cut)
        )
    with contextlib.closing(Store(paths.database)) as store:
        store.save(conversation, *conversation.turns)
    with ScriptedEngine(paths, guide_model):
        assert snap_compare(program(paths, "guide", models=models), terminal_size=size, run_before=keys())


def test_form_with_an_error(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path) -> None:
    async def run(pilot: Pilot[Any]) -> None:
        app = await settled(pilot)
        fields = app.main.query_one(FieldList)
        fields.focus()
        for _ in range(5):
            await pilot.press("down")
        await pilot.press("9", "9")
        app.main.query_one(ValueEditor).cursor_blink = False
        await pilot.pause()

    with ScriptedEngine(paths, guide_model):
        assert snap_compare(program(paths, models=models), terminal_size=(120, 40), run_before=run)


def test_form_as_an_overlay(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path) -> None:
    with ScriptedEngine(paths, guide_model):
        assert snap_compare(program(paths, models=models), terminal_size=(80, 24), run_before=keys("f3"))


def test_changed_load_parameter_waits_for_a_reload(
    snap_compare: Snap, paths: Paths, guide_model: Path, models: Path
) -> None:
    with ScriptedEngine(paths, guide_model):
        app = program(paths, models=models)

        async def run(pilot: Pilot[Any]) -> None:
            await settled(pilot)
            await app.workbench.set("n_ctx", 4096)
            app.main.show_settings()
            await pilot.pause()

        assert snap_compare(app, terminal_size=(120, 40), run_before=run)


def test_load_failed(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path) -> None:
    failure = Failed(
        0,
        "load",
        "llama.cpp could not load guide: tensor 'output_norm.weight' not found",
        "The file is damaged or incomplete: download it again and compare its checksum.",
        log=("llama_model_load: error loading model", "llama_model_load_from_file_impl: failed to load model"),
    )

    async def run(pilot: Pilot[Any]) -> None:
        app = await settled(pilot)
        await until(lambda: app.workbench.engine and app.workbench.engine.condition == "failed")
        app.main.show_engines()
        await until(lambda: any("output_norm.weight" in entry.text for entry in app.main.chat.transcript.entries))
        await pilot.pause(0.2)

    with ScriptedEngine(paths, guide_model, failure=failure):
        assert snap_compare(program(paths, models=models), terminal_size=(120, 40), run_before=run)


@pytest.mark.parametrize("size", SIZES)
def test_engine_died(snap_compare: Snap, paths: Paths, guide_model: Path, models: Path, size: tuple[int, int]) -> None:
    with ScriptedEngine(paths, guide_model, TOKENS[:20], then="die") as engine:
        engine.place.log.parent.mkdir(parents=True)
        engine.place.log.write_text(
            "llama_context: n_ctx = 2048\n"
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 8192.00 MiB on device 0: cudaMalloc failed\n"
            "GGML_ASSERT(buffer) failed\n"
        )

        def told(app: LlamaTui) -> bool:
            return any("ended without a word" in entry.text for entry in app.main.chat.transcript.entries)

        run = asked(lambda app: ended(app) and told(app))
        assert snap_compare(program(paths, models=models), terminal_size=size, run_before=run)
