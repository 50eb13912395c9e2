"""The parts of an item, for parameters whose items have parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from msgspec import Struct

OVERRIDE = (
    r"[^=\s]{1,127}=(int:[-+]?\d{1,18}|float:[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|bool:(true|false)|str:[^\0]{0,127})"
)
"""An item of `kv_overrides`, as llama.cpp's own program takes it."""

_SCALED = re.compile(r"(.+):([-+]?(?:\d+\.?\d*|\.\d+))", re.DOTALL)


class Adapter(Struct, frozen=True):
    """An item of `lora`."""

    path: Path
    scale: float

    @classmethod
    def of(cls, item: str, model: str) -> Adapter:
        """Of `PATH:SCALE` or `PATH`; a relative path is one beside the model."""
        scaled = _SCALED.fullmatch(item)
        path, scale = (scaled[1], float(scaled[2])) if scaled else (item, 1.0)
        try:
            return cls(Path(model).parent / Path(path).expanduser(), scale)
        except RuntimeError:  # nobody has that home
            return cls(Path(model).parent / path, scale)


class Override(Struct, frozen=True):
    """An item of `kv_overrides`."""

    key: str
    kind: Literal["int", "float", "bool", "str"]
    value: int | float | bool | str

    @classmethod
    def of(cls, item: str) -> Override:
        """Of an item that matches `OVERRIDE`."""
        key, _, typed = item.partition("=")
        kind, _, text = typed.partition(":")
        match kind:
            case "int":
                return cls(key, "int", int(text))
            case "float":
                return cls(key, "float", float(text))
            case "bool":
                return cls(key, "bool", text == "true")
            case _:
                return cls(key, "str", text)
