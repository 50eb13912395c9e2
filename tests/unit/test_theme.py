"""Themes: the shipped ones can be read, and broken ones are reported by file and key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from rich._palettes import STANDARD_PALETTE
from rich.color import Color as RichColor
from rich.color import ColorSystem
from textual.color import Color
from textual.theme import Theme

from llama_tui.ui.theme import Themes, shipped_dir

NOWHERE = Path("/nonexistent")
SHIPPED = ("contrast", "dawn", "ember", "moss", "night", "sixteen")
GOOD = (shipped_dir() / "night.toml").read_text("utf-8")


def written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, "utf-8")
    return folder


def used(themes: Themes, name: str) -> Theme:
    theme = themes.theme(name)
    assert theme
    return theme


def luminance(color: Color) -> float:
    """Relative luminance, as WCAG 2.2 defines it."""
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color.normalized]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: Color, other: Color) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def wanted_contrast(theme: str, text: str, below: str) -> float:
    """WCAG's AA; AAA for the theme made for it. Among the standard 16 colours no red reaches AA on any
    ground but black: there the error's sign says it as well, and 3:1 is what AA asks of signs."""
    if theme == "sixteen" and (text, below) == ("error", "block-cursor-background"):
        return 3.0
    return 7.0 if theme == "contrast" else 4.5


def test_contrast_is_that_of_wcag() -> None:
    assert contrast(Color.parse("white"), Color.parse("black")) == pytest.approx(21)
    assert contrast(Color.parse("#777777"), Color.parse("#ffffff")) == pytest.approx(4.478, abs=0.001)


def test_six_themes_are_shipped_and_sound() -> None:
    found = Themes(NOWHERE)
    assert not found.problems
    assert set(found.names) == set(SHIPPED)
    assert set(found.descriptions()) == set(SHIPPED)
    assert not found.problems
    assert [name for name in SHIPPED if not used(found, name).dark] == ["dawn"]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("below", ["background", "surface", "panel", "block-cursor-background"])
@pytest.mark.parametrize(
    "text", ["foreground", "text-muted", "primary", "secondary", "accent", "success", "warning", "error"]
)
def test_text_is_readable_on_every_ground(name: str, below: str, text: str) -> None:
    colors = used(Themes(NOWHERE), name).to_color_system().generate()
    assert contrast(Color.parse(colors[text]), Color.parse(colors[below])) >= wanted_contrast(name, text, below)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize(
    ("text", "below"),
    [
        ("block-cursor-foreground", "block-cursor-background"),
        ("block-cursor-blurred-foreground", "block-cursor-blurred-background"),
        ("foreground", "input-selection-background"),
        ("foreground", "screen-selection-background"),
        ("footer-key-foreground", "footer-background"),
        ("foreground", "boost"),
    ],
)
def test_pairs_are_readable(name: str, text: str, below: str) -> None:
    colors = used(Themes(NOWHERE), name).to_color_system().generate()
    assert contrast(Color.parse(colors[text]), Color.parse(colors[below])) >= wanted_contrast(name, text, below)


def test_the_theme_for_16_colours_is_not_rounded_by_a_terminal_of_16() -> None:
    document = tomllib.loads((shipped_dir() / "sixteen.toml").read_text("utf-8"))
    for key, value in (document["colors"] | document["variables"]).items():
        shown = RichColor.parse(value).downgrade(ColorSystem.STANDARD)
        assert STANDARD_PALETTE[shown.number or 0] == Color.parse(value).rgb, key


def test_every_key_of_the_files_is_used() -> None:
    for file in shipped_dir().glob("*.toml"):
        document = tomllib.loads(file.read_text("utf-8"))
        colors = used(Themes(NOWHERE), file.stem).to_color_system().generate()
        for key, value in (document["colors"] | document["variables"]).items():
            made, wanted = Color.parse(colors[key]).rgb, Color.parse(value).rgb
            assert all(abs(one - other) <= 1 for one, other in zip(made, wanted, strict=True)), key  # Textual rounds


def test_a_theme_of_the_user_replaces_the_shipped_one(tmp_path: Path) -> None:
    folder = written(tmp_path / "themes", "mine.toml", GOOD.replace("#83b9e2", "#ffffff"))
    found = Themes(folder)
    assert used(found, "night").primary == "#ffffff"
    assert not found.problems


def test_the_name_is_the_files_where_none_is_given(tmp_path: Path) -> None:
    folder = written(tmp_path / "themes", "dusk.toml", GOOD.replace('name = "night"\n', ""))
    assert set(Themes(folder).names) == {*SHIPPED, "dusk"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("#83b9e2", "#83b9zz", "colors.primary: '#83b9zz' is not a colour"),
        ('accent = "#bda8ee"', "accent = 5", "colors.accent: 5 is not a colour"),
        ('accent = "#bda8ee"', 'accent = "auto"', "colors.accent: 'auto' is not a colour"),
        ('accent = "#bda8ee"\n', "", "colors.accent: is missing"),
        ("dark = true", 'dark = "yes"', "dark: 'yes' is not true or false"),
        ('name = "night"', 'name = "a b"', "name: 'a b' is not letters, digits"),
        ('text-muted = "#9aa6b7"', 'text-muted = "muddy"', "variables.text-muted: 'muddy' is not a colour"),
        ('text-muted = "#9aa6b7"', 'text-muted = "auto 600%"', "variables.text-muted: 'auto 600%' is not"),
        ("[variables]", '[variables]\nlink-style = "curly"', "variables.link-style: 'curly' is not a text style"),
        ("[variables]", "[[variables]]", "variables: [{"),
        ("[colors]", "[colors", "not valid TOML"),
    ],
)
def test_a_broken_theme_is_named_and_left_out(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = GOOD.replace('name = "night"', 'name = "mine"') if "name =" not in old else GOOD
    assert old in text
    found = Themes(written(tmp_path / "themes", "mine.toml", text.replace(old, new, 1)))
    assert set(found.names) == set(SHIPPED)
    messages = [problem.message for problem in found.problems]
    assert any(str(tmp_path / "themes" / "mine.toml") in message and said in message for message in messages), messages
    assert all(problem.hint for problem in found.problems)


@pytest.mark.parametrize(
    ("old", "new", "said", "hint"),
    [
        ("[variables]", "[variabels]", "variabels: unknown", "variables"),
        ("boost =", "bosst =", "colors.bosst: unknown", "colors.boost"),
        ("border =", "bordr =", "variables.bordr: unknown", "variables.border"),
    ],
)
def test_an_unknown_key_is_reported_with_the_nearest(tmp_path: Path, old: str, new: str, said: str, hint: str) -> None:
    text = GOOD.replace('name = "night"', 'name = "mine"').replace(old, new, 1)
    found = Themes(written(tmp_path / "themes", "mine.toml", text))
    assert "mine" in found.names
    assert [problem for problem in found.problems if said in problem.message and hint in problem.hint]


def test_unreadable_files_are_reported(tmp_path: Path) -> None:
    folder = written(tmp_path / "themes", "latin.toml", "")
    (folder / "latin.toml").write_bytes(b'name = "\xff"')
    (folder / "folder.toml").mkdir()
    found = Themes(folder)
    assert len(found.problems) == 2
    assert set(found.names) == set(SHIPPED)


def test_a_checkout_reads_its_own_themes_and_not_a_copy() -> None:
    assert shipped_dir() == Path(__file__).parents[2] / "themes"
