"""Lines of the panes: models with their states, memory as it is known, form rows, keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from textual.binding import Binding
from textual.content import Content

from llama_tui.engine.devices import DeviceMemory
from llama_tui.library.scan import ModelFile
from llama_tui.settings.layers import Setting
from llama_tui.settings.params import BY_NAME
from llama_tui.ui.bindings import KeyGroup, KeyTable, key_words, short_key
from llama_tui.ui.text import cells, column
from llama_tui.ui.widgets.form import Field, field_content, stepped
from llama_tui.ui.widgets.loaded import Blocks, countdown, device_lines
from llama_tui.ui.widgets.models import ModelRow, row_content

GIB = 2**30
FILE = ModelFile(
    path=Path("/m/qwen3-8b-q4_k_m.gguf"),
    name="qwen3-8b-q4_k_m",
    size_bytes=int(4.9 * GIB),
    n_params=8_200_000_000,
    quantization="Q4_K_M",
)


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (ModelRow(FILE), ["  qwen3-8b-q4_k_m", "8.2B  Q4_K_M", "4.9G"]),
        (ModelRow(FILE, "ready"), ["●"]),
        (ModelRow(FILE, "busy"), ["▶"]),
        (ModelRow(FILE, "loading"), ["◐ …"]),
        (ModelRow(FILE, "loading", 0.45), ["◐  45%"]),
        (ModelRow(FILE, "failed"), ["✗"]),
        (ModelRow(FILE, "died"), ["✗"]),
        (ModelRow(FILE, "loading", 0.45, silent=True), ["?"]),
        (ModelRow(FILE, current=True), ["▸ qwen3-8b-q4_k_m"]),
        (ModelRow(replace(FILE, n_params=None, quantization="", size_bytes=None)), ["?  ?", "?"]),
        (ModelRow(replace(FILE, problem="/m/qwen3-8b-q4_k_m.gguf is cut off")), ["✗ is cut off"]),
        (ModelRow(replace(FILE, name="bad\x1b]0;title\x07name")), ["bad␛"]),
    ],
)
def test_a_model_is_shown_with_its_figures_and_its_state(row: ModelRow, shown: list[str]) -> None:
    text = row_content(row, 30).plain
    assert all(part in text for part in shown), text
    assert all(len(line) <= 30 for line in text.split("\n"))
    assert "\x1b" not in text


def test_a_long_name_keeps_its_end_which_tells_the_quantization() -> None:
    text = row_content(ModelRow(replace(FILE, name="a-very-long-name-of-a-model-indeed-q6_k")), 30).plain
    assert text.split("\n")[0].rstrip().endswith("q6_k")
    assert "…" in text


@pytest.mark.parametrize("name", ["日本語" * 9, "a👩‍👩‍👧b❤️" * 5, "模型-q4_k_m", "x"])
@pytest.mark.parametrize("width", [4, 7, 11, 30])
def test_names_of_wide_characters_fill_their_column(name: str, width: int) -> None:
    for head in (None, 0, width // 3):
        assert cells(column(name, width, head)) == width
    lines = row_content(ModelRow(replace(FILE, name=name), "ready"), 30).plain.split("\n")
    assert cells(lines[0]) == 30 and lines[0].endswith("●")


def test_a_device_tells_whose_memory_it_is() -> None:
    device = DeviceMemory("CUDA0", "GPU0", 80 * GIB, 61 * GIB)
    bar, *legend = [line.plain for line in device_lines(device, 5 * GIB, 16 * GIB, 60)]
    assert "61G/80G" in bar
    text = "\n".join(legend)
    assert "this" in text and "5.0G" in text
    assert "ours" in text and "16G" in text
    assert "others" in text and "40G" in text
    filled, free = bar.count("█"), bar.count("░")
    assert abs(filled / (filled + free) - 61 / 80) < 0.06


def test_nobody_elses_memory_is_never_below_zero() -> None:
    device = DeviceMemory("RAM", "RAM", 24 * GIB, 1 * GIB)
    assert "others" not in "\n".join(line.plain for line in device_lines(device, 2 * GIB, 0, 40))


def block(name: str, size: int) -> list[Content]:
    return [Content(f"{name}{line}") for line in range(size)]


@pytest.mark.parametrize(
    ("height", "shown"),
    [
        (16, "a0 a1 a2 b0 b1 b2 b3 c0 c1 c2 - R0 R1 G0 G1 G2"),
        (14, "a0 a1 a2 b0 b1 b2 b3 c0 - R0 R1 G0 G1 G2"),
        (12, "a0 b0 b1 b2 b3 c0 - R0 R1 G0 G1 G2"),
        (10, "a0 b0 b1 c0 - R0 R1 G0 G1 G2"),
        (7, "a0 b0 c0 - R0 R1 G0"),
        (6, "a0 b0 c0 - R0 G0"),
        (5, "a0 and 2 more - R0 G0"),
        (4, "3 models - R0 G0"),
    ],
)
def test_a_low_pane_tells_less_of_engines_and_keeps_the_devices(height: int, shown: str) -> None:
    engines = (block("a", 3), block("b", 4), block("c", 3))
    blocks = Blocks(engines, (block("R", 2), block("G", 3)), current=1)
    assert blocks.height == 16
    assert " ".join(line.plain or "-" for line in blocks.lines(height)) == shown


@pytest.mark.parametrize(
    ("name", "value", "by", "expected"),
    [
        ("temperature", 0.7, 1, 0.8),
        ("temperature", 0.0, -1, 0.0),
        ("temperature", 5.0, 1, 5.0),
        ("n_ctx", 2048, 1, 3072),
        ("n_ctx", 16, -1, None),
        ("seed", None, -1, None),
        ("n_threads", None, 1, 1),
        ("flash_attn", "off", 1, "auto"),
        ("flash_attn", "auto", -1, "off"),
        ("rope_scaling", None, 1, "none"),
        ("ignore_eos", False, 1, True),
        ("stop", ("a",), 1, ("a",)),
    ],
)
def test_a_step_stays_within_what_is_allowed(name: str, value: object, by: int, expected: object) -> None:
    param = BY_NAME[name]
    after = stepped(param, param.check(value), by)
    assert after == expected
    assert param.check(after) == after


def test_a_field_shows_value_origin_and_pending_reload() -> None:
    text = field_content(Field(BY_NAME["n_ctx"], Setting(4096, "env", "LLAMA_CPP_N_CTX"), needs_reload=True), 32).plain
    assert text.startswith("n_ctx ") and text.endswith("env  4096*")
    assert len(text) == 32
    plain = field_content(Field(BY_NAME["top_k"], Setting(40, "default")), 32).plain
    assert plain.endswith("40 ") and "default" not in plain


def test_every_field_fits_the_narrowest_form() -> None:
    for param in BY_NAME.values():
        assert len(field_content(Field(param, Setting(param.default, "config")), 32).plain) <= 32, param.name


GROUPS = [KeyGroup("Everywhere", (Binding("ctrl+o", "x", "choose", id="models.switch"),))]


def test_keys_can_be_changed_and_what_is_wrong_is_named() -> None:
    keys = KeyTable(GROUPS, {"models.switch": "f8", "models.swich": "f9"}, "config.toml")
    assert keys.of("models.switch") == "f8"
    (problem,) = keys.problems
    assert "models.swich" in problem.message and "models.switch" in problem.hint


def test_one_key_for_two_actions_of_one_place_is_refused() -> None:
    groups = [KeyGroup("Everywhere", (*GROUPS[0].bindings, Binding("ctrl+n", "y", "new", id="chat.new")))]
    keys = KeyTable(groups, {"chat.new": "ctrl+o"}, "config.toml")
    assert keys.of("chat.new") == "ctrl+n"
    (problem,) = keys.problems
    assert "models.switch" in problem.message and "chat.new" in problem.message


@pytest.mark.parametrize("bad", ["", "ctrl+", "banana", "ctrl+banana", "f8,,f9", "strg+o"])
def test_what_is_no_key_is_refused(bad: str) -> None:
    keys = KeyTable(GROUPS, {"models.switch": bad}, "config.toml")
    assert keys.of("models.switch") == "ctrl+o"
    assert len(keys.problems) == 1 and "config.toml" in keys.problems[0].message


@pytest.mark.parametrize("good", ["f8", "ctrl+x", "a", "alt+left", "shift+f2", "ctrl+x,f9", "question_mark", "escape"])
def test_what_is_a_key_is_taken(good: str) -> None:
    assert KeyTable(GROUPS, {"models.switch": good}, "config.toml").of("models.switch") == good


def test_keys_are_written_as_people_read_them() -> None:
    assert key_words("ctrl+j,shift+enter") == "ctrl+j or shift+enter"
    assert short_key("ctrl+o,f9") == "^o" and short_key("escape") == "esc"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(3700.0, "1h01"), (300.0, "5:00"), (299.4, "4:50"), (60.2, "1:00"), (59.6, "1:00"), (9.2, "0:09"), (-1.0, "0:00")],
)
def test_a_countdown_is_coarse_until_its_last_minute(seconds: float, told: str) -> None:
    assert countdown(seconds) == told
