"""The settings that hold now: defaults, the two files, the environment and the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import cast

from llama_tui.errors import SettingsError
from llama_tui.paths import Paths
from llama_tui.settings.document import BrokenFile, Document, Table, UnwritableFile, locked, move_aside, read, write
from llama_tui.settings.layers import MODELS, Layer, Setting, env_layer, file_layer, flag_layer, model_key, model_keys
from llama_tui.settings.params import BY_NAME, PARAMS
from llama_tui.settings.values import Value, Values

_HEADING = "Written by llama-tui: what you changed in its form. Your own settings belong in config.toml."
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


class SettingsStore:
    """The layers, from the weakest: defaults, config.toml, settings.toml, environment, flags.

    In a file, the table of a model outranks what the file says for all models. Nothing is read
    before `load`. `problems` holds what was wrong with the layers, each with its file and line or its
    variable; such a value is left out, so that the layer below holds. `revision` is another number
    whenever something has changed.
    """

    def __init__(self, paths: Paths, environ: Mapping[str, str], flags: Values) -> None:
        self.problems: list[SettingsError] = []
        self.revision = 0
        self._paths = paths
        self._environ = environ
        self._default = Layer({param.name: Setting(param.default, "default") for param in PARAMS})
        self._config = Layer()
        self._saved = Layer()
        self._content: Table = {}
        self._env = Layer()
        self._flags = flag_layer(flags)

    def load(self) -> None:
        """Read both files and the environment again; what is wrong goes to `problems`."""
        self.problems = []
        self.revision += 1
        config = self._read(self._paths.config_file)
        saved = self._read(self._paths.settings_file)
        self._content = saved.content
        self._config = file_layer(config, "config", self.problems, keys=True)
        self._saved = file_layer(saved, "saved", self.problems, keys=False)
        self._env = env_layer(self._environ, self.problems)

    def resolve(self, model: str | None = None) -> dict[str, Setting]:
        """Every setting that holds for a model, or for none in particular, with its origin."""
        resolved: dict[str, Setting] = {}
        for values in self._ascending(model):
            resolved.update(values)
        return resolved

    def values(self, model: str | None = None) -> dict[str, Value]:
        """The values of `resolve`."""
        return {name: setting.value for name, setting in self.resolve(model).items()}

    def below(self, name: str, model: str | None = None) -> Setting:
        """What `reset` falls back to, as far as the environment and the flags let it."""
        table = self._saved_table(name, model)
        found = self._default.values[name]
        for layer, values in self._below_env(model):
            if name in values and not (layer is self._saved and values is table):
                found = values[name]
        return found

    def is_saved(self, name: str, model: str | None = None) -> bool:
        """Whether settings.toml sets it, so that `reset` changes something."""
        return self._saved_table(name, model) is not None

    def save(self, name: str, value: Value, model: str | None = None) -> SettingsError | None:
        """Keep a value in settings.toml, for one model or for all.

        What is for the whole program is kept for all whatever `model` says. Returns a warning if the
        file was broken and has been moved aside. Raises `BadValue`, or `SettingsError` if the file
        cannot be written; the value then holds until the next `load`.
        """
        param = BY_NAME[name]
        plain = param.plain(param.check(value))

        def change(content: Table) -> bool:
            self._table_for(content, None if param.kind == "app" else model)[name] = plain
            return True

        return self._rewrite(change)

    def reset(self, name: str, model: str | None = None) -> SettingsError | None:
        """Take a value out of settings.toml: the model's own, or if it has none the one for all.

        Returns and raises as `save` does.
        """

        def change(content: Table) -> bool:
            for key in reversed(model_keys(model) if model is not None else ()):
                own = [table for table in self._tables_of(content, key) if name in table]
                for table in own:
                    del table[name]
                if own:
                    return True
            return content.pop(name, None) is not None

        return self._rewrite(change)

    def keys(self) -> dict[str, str]:
        """Key bindings of config.toml: the id of a binding and its keys, as "ctrl+s,f8"."""
        return dict(self._config.keys)

    def model_dirs(self) -> list[Path]:
        """The folders of models, in the order in which names are looked up."""
        text = str(self.resolve()["model_dir"].value)
        pieces = [piece.strip() for piece in text.split(os.pathsep)]
        return [self._expanded(piece).absolute() for piece in pieces if piece]

    def _read(self, path: Path) -> Document:
        try:
            return read(path)
        except SettingsError as error:
            self.problems.append(error)
            return Document(path)

    def _below_env(self, model: str | None) -> Iterator[tuple[Layer, Mapping[str, Setting]]]:
        for layer in (self._default, self._config, self._saved):
            yield layer, layer.values
            for key in model_keys(model) if model is not None else ():
                if key in layer.models:
                    yield layer, layer.models[key]

    def _ascending(self, model: str | None) -> Iterator[Mapping[str, Setting]]:
        for _, values in self._below_env(model):
            yield values
        yield self._env.values
        yield self._flags.values

    def _saved_table(self, name: str, model: str | None) -> Mapping[str, Setting] | None:
        """The strongest table of settings.toml that sets it for this model."""
        tables = [values for layer, values in self._below_env(model) if layer is self._saved and name in values]
        return tables[-1] if tables else None

    def _rewrite(self, change: Callable[[Table], bool]) -> SettingsError | None:
        """Read, change and write settings.toml while no other llama-tui does."""
        path = self._paths.settings_file
        warning: SettingsError | None = None
        try:
            with locked(path):
                try:
                    content = read(path).content
                except BrokenFile as error:
                    aside = move_aside(path)
                    warning = SettingsError(error.message, f"It was kept as {aside}, and a new file was begun.")
                    self.problems.append(warning)
                    content = {}
                if change(content):
                    _drop_empty_tables(content)
                    write(path, content, _HEADING)
        except UnwritableFile:
            content = deepcopy(self._content)
            change(content)
            self._adopt(content)
            raise
        self._adopt(content)
        return warning

    def _adopt(self, content: Table) -> None:
        self.revision += 1
        self._content = content
        self._saved = file_layer(Document(self._paths.settings_file, content), "saved", [], keys=False)

    def _table_for(self, content: Table, model: str | None) -> Table:
        """Where a value for this model is written; a spelling of the name that is there is used."""
        if model is None:
            return content
        own = self._tables_of(content, model_key(model))
        if own:
            return own[-1]
        return cast("Table", cast("Table", content.setdefault(MODELS, {})).setdefault(model, {}))

    def _tables_of(self, content: Table, key: str) -> list[Table]:
        """The tables of a model in settings.toml; raises `SettingsError` where there is no table."""
        models = content.get(MODELS, {})
        tables = cast("Table", models) if isinstance(models, dict) else {"": models}
        if not all(isinstance(table, dict) for table in tables.values()):
            raise SettingsError(
                f"{self._paths.settings_file}: {MODELS} must hold a table for each model",
                "Mend the file or delete it; nothing was written.",
            )
        return [cast("Table", table) for name, table in tables.items() if model_key(name) == key]

    def _expanded(self, text: str) -> Path:
        """With ~ and the variables of the environment; an unknown variable is left as it is written."""

        def value(match: re.Match[str]) -> str:
            return self._environ.get(match[1] or match[2], match[0])

        path = Path(_VARIABLE.sub(value, text))
        try:
            return path.expanduser()
        except RuntimeError:
            return path


def _drop_empty_tables(content: Table) -> None:
    """Take out the tables of models that set nothing any more."""
    models = content.get(MODELS)
    if isinstance(models, dict):
        left = {name: table for name, table in cast("Table", models).items() if table != {}}
        content[MODELS] = left
        if not left:
            del content[MODELS]
