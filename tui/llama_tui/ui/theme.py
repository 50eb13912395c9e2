"""Themes from TOML files: those that ship with the program, and the user's own."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from textual import constants
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

_COLOURS = {"standard": 16, "windows": 16, "256": 256, "truecolor": 1 << 24}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SHARE = re.compile(r"(?P<color>.+?)(?:\s+(?P<percent>\d{1,3})%)?")


def fitting(background: Background | None, colours: int) -> str:
    """The shipped theme for a terminal of so many colours with such a background."""
    if colours <= 16:
        return "sixteen"
    return "dawn" if background == "light" else "night"


def colours() -> int:
    """How many colours are written to this terminal, 0 where none are wanted (https://no-color.org)."""
    if os.environ.get("NO_COLOR"):
        return 0
    console = Console(color_system=cast("Any", constants.COLOR_SYSTEM), force_terminal=True)
    return _COLOURS.get(console.color_system or "", 0)


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


class Themes:
    """The themes by name: those that come with the program, and the user's own, which win where names are equal.

    The user's files are read at once, so that what is wrong with them is told at the start; one of
    the program's own is read when it is wanted. A file that cannot be used is left out and reported
    in `problems`; nothing here raises.
    """

    def __init__(self, user_dir: Path, shipped: Path | None = None) -> None:
        self.problems: list[SettingsError] = []
        self._shipped = {file.stem: file for file in self._files(shipped or shipped_dir())}
        self._themes: dict[str, tuple[Theme, str]] = {}
        for file in self._files(user_dir):
            if read := _read(file, self.problems):
                self._themes[read[0].name] = read

    def _files(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.glob("*.toml"))
        except OSError as error:
            self.problems.append(SettingsError(f"{folder}: {error.strerror}", "The themes in it are left out."))
            return []

    @property
    def names(self) -> list[str]:
        """Every theme, in the order of the alphabet."""
        return sorted({*self._shipped, *self._themes})

    def theme(self, name: str) -> Theme | None:
        """The theme of a name, if there is one that can be used."""
        file = self._shipped.pop(name, None)
        if file and name not in self._themes and (read := _read(file, self.problems)):
            self._themes[name] = read
        return self._themes[name][0] if name in self._themes else None

    def descriptions(self) -> dict[str, str]:
        """What the files say of their themes, by name; reads them all."""
        return {name: self._themes[name][1] for name in self.names if self.theme(name)}


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
