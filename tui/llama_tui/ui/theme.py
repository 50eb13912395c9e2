"""Themes from TOML files: the two that ship with the program, and the user's own."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from textual.color import Color, ColorParseError
from textual.theme import Theme

from llama_tui.background import Background
from llama_tui.errors import SettingsError

AUTO = "auto"
"""The setting that leaves the choice to the terminal."""

AUTO_SAID = "night or dawn, as the terminal's background is"

COLORS = (
    "primary",
    "secondary",
    "accent",
    "foreground",
    "background",
    "surface",
    "panel",
    "boost",
    "success",
    "warning",
    "error",
)
"""What [colors] may hold. All but boost are needed, so that no theme is half somebody else's."""

OPTIONAL_COLORS = frozenset({"boost"})

KEYS = ("name", "dark", "description", "colors", "variables")

STYLE_WORDS = frozenset({"none", "bold", "b", "dim", "italic", "i", "reverse", "r", "strike", "underline", "u", "not"})

COLOR_HINT = 'Write a colour as "#rrggbb", "rgb(r, g, b)" or a name such as "teal".'

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SHARE = re.compile(r"(?P<color>.+?)(?:\s+(?P<percent>\d{1,3})%)?")


@dataclass(slots=True)
class ThemeSet:
    """The themes that can be used, by name, what their files say of them, and what was wrong with the others."""

    themes: dict[str, Theme] = field(default_factory=dict[str, Theme])
    descriptions: dict[str, str] = field(default_factory=dict[str, str])
    problems: list[SettingsError] = field(default_factory=list[SettingsError])


def fitting(background: Background | None, colours: int) -> str:
    """The shipped theme for a terminal of so many colours with such a background."""
    if colours <= 16:
        return "sixteen"
    return "dawn" if background == "light" else "night"


def shipped_dir() -> Path:
    """The folder of the themes that come with the program.

    In a checkout this is the top-level `themes/`. An editable install also has a copy beside the
    package, made when it was installed; it goes stale, so the checkout is looked at first.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "themes").is_dir():
        return checkout / "themes"
    return package / "themes"


def load_themes(user_dir: Path, shipped: Path | None = None) -> ThemeSet:
    """Read every theme: the shipped ones first, then the user's, which win where names are equal.

    A file that cannot be used is left out and reported; nothing here raises.
    """
    found = ThemeSet()
    for folder in (shipped or shipped_dir(), user_dir):
        try:
            files = sorted(folder.glob("*.toml"))
        except OSError as error:
            found.problems.append(SettingsError(f"{folder}: {error.strerror}", "The themes in it are left out."))
            continue
        for file in files:
            if read := _read(file, found.problems):
                theme, description = read
                found.themes[theme.name] = theme
                found.descriptions[theme.name] = description
    return found


def _read(file: Path, problems: list[SettingsError]) -> tuple[Theme, str] | None:
    """One file as a theme and its description, or None after its problems are noted."""
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        problems.append(SettingsError(f"{file}: {error.strerror}", "The theme is left out."))
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(SettingsError(f"{file}: not valid TOML: {error}", "Correct the file; the theme is left out."))
        return None
    return _ThemeFile(file, document, problems).theme()


class _ThemeFile:
    """The checks of one theme's document. Unknown keys are only reported; wrong values cost the theme."""

    def __init__(self, file: Path, document: dict[str, object], problems: list[SettingsError]) -> None:
        self._file = file
        self._document = document
        self._problems = problems
        self._broken = False

    def theme(self) -> tuple[Theme, str] | None:
        """The theme and its description, or None if a value of it cannot be used."""
        self._unknown("", self._document, KEYS)
        name = self._name()
        dark = self._document.get("dark", True)
        if not isinstance(dark, bool):
            self._wrong("dark", dark, "true or false")
        description = self._document.get("description", "")
        if not isinstance(description, str):
            self._wrong("description", description, "a text")
        colors = self._colors()
        if self._broken:
            return None
        plain = _make(name, dark=dark is True, colors=colors, variables={})
        variables = self._variables(plain)
        if self._broken:
            return None
        theme = _make(name, dark=dark is True, colors=colors, variables=variables)
        try:
            theme.to_color_system().generate()
        except ColorParseError as error:
            self._report("variables", str(error), COLOR_HINT)
            return None
        return theme, str(description)

    def _name(self) -> str:
        name = self._document.get("name", self._file.stem)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self._wrong("name", name, "letters, digits, - and _, such as my-theme")
            return ""
        if name == AUTO:
            self._wrong("name", name, "a name of its own: auto leaves the choice to the terminal")
        return name

    def _colors(self) -> dict[str, str]:
        table = self._table("colors")
        self._unknown("colors.", table, COLORS)
        colors: dict[str, str] = {}
        for key in COLORS:
            if key not in table:
                if key not in OPTIONAL_COLORS:
                    self._report(f"colors.{key}", "is missing", COLOR_HINT)
                continue
            value = table[key]
            if isinstance(value, str) and _is_color(value):
                colors[key] = value
            else:
                self._wrong(f"colors.{key}", value, "a colour", COLOR_HINT)
        return colors

    def _variables(self, plain: Theme) -> dict[str, str]:
        table = self._table("variables")
        known = plain.to_color_system().generate()
        self._unknown("variables.", table, known)
        variables: dict[str, str] = {}
        for key, value in table.items():
            if key not in known:
                continue
            if key.endswith(("-style", "-style-hover")):
                if not isinstance(value, str) or not value or not STYLE_WORDS.issuperset(value.split()):
                    self._wrong(f"variables.{key}", value, "a text style, such as bold, italic or none")
                    continue
            elif not isinstance(value, str) or not _is_color_or_share(value):
                allowed = 'a colour, a colour and its share such as "#83b9e2 40%", or "auto 60%"'
                self._wrong(f"variables.{key}", value, allowed)
                continue
            variables[key] = value
        return variables

    def _table(self, key: str) -> dict[str, object]:
        table = self._document.get(key, {})
        if not isinstance(table, dict):
            self._wrong(key, table, f"a table: a line [{key}], and keys below it")
            return {}
        return cast("dict[str, object]", table)

    def _unknown(self, prefix: str, table: Iterable[str], known: Iterable[str]) -> None:
        """Report keys that nothing reads, with the nearest one that something does."""
        names = list(known)
        for key in table:
            if key in names:
                continue
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"Did you mean {prefix}{near[0]}?" if near else f"Known here: {', '.join(sorted(names)[:12])}."
            self._problems.append(SettingsError(f"{self._file}: {prefix}{key}: unknown, ignored", hint))

    def _wrong(self, key: str, value: object, allowed: str, hint: str = "The theme is left out.") -> None:
        self._report(key, f"{value!r} is not {allowed}", hint)

    def _report(self, key: str, what: str, hint: str) -> None:
        self._broken = True
        self._problems.append(SettingsError(f"{self._file}: {key}: {what}", hint))


def _make(name: str, *, dark: bool, colors: dict[str, str], variables: dict[str, str]) -> Theme:
    return Theme(
        name=name,
        primary=colors["primary"],
        secondary=colors["secondary"],
        accent=colors["accent"],
        foreground=colors["foreground"],
        background=colors["background"],
        surface=colors["surface"],
        panel=colors["panel"],
        success=colors["success"],
        warning=colors["warning"],
        error=colors["error"],
        dark=dark,
        # Textual leaves boost out where panel is given, unless it comes as a variable.
        variables=({"boost": colors["boost"]} if "boost" in colors else {}) | variables,
    )


def _is_color(value: str) -> bool:
    """Whether Textual can read it. "auto" is a colour only where something lies below it."""
    try:
        return Color.parse(value).auto is False
    except ColorParseError:
        return False


def _is_color_or_share(value: str) -> bool:
    """A colour as CSS takes it: alone, or with the percentage that it covers."""
    match = _SHARE.fullmatch(value.strip())
    if match is None or int(match["percent"] or 0) > 100:
        return False
    return match["color"] == "auto" or _is_color(match["color"])
