"""Load parameters that name files or keys of a file, checked against them before a process is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llama_tui.errors import BadModelFile, LoadFailed
from llama_tui.library.gguf import Header, Item, Meta, read_header
from llama_tui.settings.items import Adapter, Override
from llama_tui.settings.values import Value


def adapters(path: Path, params: Mapping[str, Value], model: Header) -> tuple[Header, ...]:
    """The headers of the LoRA adapters that `params` wants on the model at `path`.

    llama.cpp ends the process over some that it cannot use: raises `LoadFailed` for what is no GGUF, no LoRA
    adapter, or one of another architecture.
    """
    found: list[Header] = []
    for item in _items(params["lora"]):
        try:
            header = read_header(Adapter.of(item, str(path)).path)
        except BadModelFile as error:
            raise LoadFailed(f"lora: {error.message}", "Name a LoRA adapter in GGUF, or take it out.") from error
        kind = header.metadata.get("adapter.type")
        if not header.is_adapter or kind != "lora":
            what = f"an adapter of type {kind!r}" if kind else f"of type {header.type!r}"
            raise LoadFailed(f"{header.path} is no LoRA adapter: it is {what}", "Take it out of lora.")
        if header.architecture != model.architecture:
            raise LoadFailed(
                f"{header.path} is a LoRA adapter for {header.architecture or 'no architecture that it names'}, "
                f"the model is {model.architecture}",
                "An adapter fits the model that it was made for; take it out of lora.",
            )
        found.append(header)
    return tuple(found)


def overrides(params: Mapping[str, Value], model: Header) -> tuple[Override, ...]:
    """The changes of metadata that `params` wants. llama.cpp passes over one whose type is not that of the
    key: raises `LoadFailed` for it."""
    found = tuple(Override.of(item) for item in _items(params["kv_overrides"]))
    for override in found:
        there = model.metadata.get(override.key)
        kind = _kind(there)
        if kind and kind != override.kind:
            raise LoadFailed(
                f"kv_overrides: {override.key} is of type {kind} in {model.path.name}, not {override.kind}",
                f"Write it as {override.key}={kind}:VALUE." if kind != "list" else "A list cannot be changed.",
            )
    return found


def _kind(value: Meta | None) -> str:
    if value is None:
        return ""
    names: tuple[tuple[type[Item], str], ...] = ((bool, "bool"), (int, "int"), (float, "float"), (str, "str"))
    return next((name for type_, name in names if isinstance(value, type_)), "list")


def _items(value: Value) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, tuple) else ()
