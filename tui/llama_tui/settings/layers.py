"""The layers that a setting can come from, each read and checked on its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, cast

from msgspec import Struct, field

from llama_tui.errors import SettingsError
from llama_tui.settings.document import Document, Table
from llama_tui.settings.params import BY_NAME, PARAMS
from llama_tui.settings.values import BadValue, Value

Origin = Literal["default", "config", "saved", "env", "flag"]

MODELS = "models"
KEYS = "keys"

PREFIXES = ("llama-cpp/", "llama_cpp/")
"""What the name of a model may begin with."""

_ENV_PREFIX = "LLAMA_TUI_"
_SURE = 0.75


class Setting(Struct, frozen=True):
    """A value with the layer it comes from; `source` names the file, variable or flag."""

    value: Value
    origin: Origin
    source: str = ""


class Layer(Struct, frozen=True):
    """What one file, or the environment, sets: for every model, and by `model_key` for single ones."""

    values: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    models: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict[str, Mapping[str, Setting]])
    keys: Mapping[str, str] = field(default_factory=dict[str, str])


def model_key(name: str) -> str:
    """One spelling for the names of a model: lower case, without the llama-cpp/ prefix and the .gguf suffix."""
    name = name.casefold()
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name.removesuffix(".gguf")


def model_keys(name: str) -> tuple[str, ...]:
    """The keys of tables that hold for a model, the weakest first: its file name alone, then its full name."""
    key = model_key(name)
    return tuple(dict.fromkeys((key.rpartition("/")[2], key)))


def file_layer(document: Document, origin: Origin, problems: list[SettingsError], *, keys: bool) -> Layer:
    """The settings of a TOML file; what cannot be used is left out and reported to `problems`.

    `keys` says whether the file may have a table of key bindings.
    """
    reader = _FileReader(document, origin, problems)
    tables = {MODELS, KEYS} if keys else {MODELS}
    values = reader.values(document.content, (), leave_out=tables)
    models: dict[str, Mapping[str, Setting]] = {}
    for name, table in reader.tables(MODELS).items():
        key = model_key(name)
        models[key] = {**models.get(key, {}), **reader.values(table, (MODELS, name))}
    return Layer(values, models, reader.keys() if keys else {})


def env_layer(environ: Mapping[str, str], problems: list[SettingsError]) -> Layer:
    """The settings of the environment. A variable that is set to nothing counts as not set."""
    values: dict[str, Setting] = {}
    for param in PARAMS:
        for variable in reversed(param.env):
            text = environ.get(variable, "")
            if not text:
                continue
            try:
                values[param.name] = Setting(param.parse(text), "env", variable)
            except BadValue as error:
                problems.append(SettingsError(f"The variable {variable}: {error.message}", error.hint))
    ours = (variable.removeprefix(_ENV_PREFIX) for variable in sorted(environ) if variable.startswith(_ENV_PREFIX))
    problems.extend(
        SettingsError(
            f"The variable {_ENV_PREFIX}{name} sets nothing that llama-tui knows",
            f"Do you mean {_ENV_PREFIX}{near.upper()}?",
        )
        for name in ours
        if name.lower() not in BY_NAME and (near := nearest(name.lower(), BY_NAME))
    )
    return Layer(values)


def flag_layer(flags: Mapping[str, Value]) -> Layer:
    """The settings of the command line, which were checked when it was read."""
    return Layer({name: Setting(value, "flag", BY_NAME[name].flag) for name, value in flags.items()})


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that this one is most likely a misspelling of, or ""."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, sorted(known), n=1, cutoff=_SURE)), "")


class _FileReader:
    """Checks the tables of one file and reports what is wrong with file and line."""

    def __init__(self, document: Document, origin: Origin, problems: list[SettingsError]) -> None:
        self._document = document
        self._origin: Origin = origin
        self._problems = problems

    def values(self, table: Table, place: tuple[str, ...], leave_out: Iterable[str] = ()) -> dict[str, Setting]:
        """The usable settings of one table."""
        found: dict[str, Setting] = {}
        for name, value in table.items():
            if name in leave_out:
                continue
            param = BY_NAME.get(name)
            if param is None:
                self._unknown((*place, name), BY_NAME.keys() if place else {*BY_NAME, *leave_out})
            elif place and param.kind == "app":
                self._report(
                    (*place, name), f"{name} is for the whole program, not for one model", "Move it to the file's top."
                )
            else:
                try:
                    found[name] = Setting(param.check(value), self._origin, self._document.path.name)
                except BadValue as error:
                    self._report((*place, name), error.message, error.hint)
        return found

    def tables(self, name: str) -> dict[str, Table]:
        """The tables within a table."""
        found: dict[str, Table] = {}
        for key, value in self._table(name, "a table for each model").items():
            if isinstance(value, dict):
                found[key] = cast("Table", value)
            else:
                self._report(
                    (name, key),
                    f"{name}.{key} must be a table",
                    f'Write [{name}."NAME OF THE MODEL"] and its settings below.',
                )
        return found

    def keys(self) -> dict[str, str]:
        """The key bindings: the binding's id and its keys."""
        found: dict[str, str] = {}
        for binding, keys in self._table(KEYS, "bindings").items():
            if isinstance(keys, str) and keys.strip():
                found[binding] = keys
            else:
                self._report(
                    (KEYS, binding),
                    f"The keys of {binding} must be a text",
                    'Write keys as in "f8" or "ctrl+s,f8", and the id of the binding in quotes.',
                )
        return found

    def _table(self, name: str, what: str) -> Table:
        table = self._document.content.get(name, {})
        if isinstance(table, dict):
            return cast("Table", table)
        self._report((name,), f"{name} must hold {what}", f"Write [{name}] on a line of its own and entries below.")
        return {}

    def _unknown(self, place: tuple[str, ...], known: Iterable[str]) -> None:
        near = nearest(place[-1], known)
        self._report(
            place,
            f"There is no setting {place[-1]}",
            f"Do you mean {near}?" if near else "It is ignored; `llama-tui --help` lists the settings.",
        )

    def _report(self, place: tuple[str, ...], message: str, hint: str) -> None:
        self._problems.append(SettingsError(f"{self._document.where(place)}: {message}", hint))
