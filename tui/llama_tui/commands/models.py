"""`llama-tui models`: the models of the model folders."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

import msgspec

from llama_tui.chat.access import Access
from llama_tui.commands.engines import closing
from llama_tui.commands.output import say
from llama_tui.commands.shell import Exit, command, compose, table
from llama_tui.library.scan import ModelFile
from llama_tui.library.units import short_count, short_size

_HEADS = ("NAME", "SIZE", "PARAMS", "QUANTIZATION", "STATE")
_EPILOG = """\
examples:
  llama-tui models
  LLAMA_CPP_MODEL_DIR=/data/models llama-tui models --json | jq -r '.[].path'

STATE is what the model's engine does, if it has one, or why the file cannot be used."""

NO_FOLDER = "Make it, or set model_dir or LLAMA_CPP_MODEL_DIR."
"""What to do about a model folder that is not there."""


def parser() -> argparse.ArgumentParser:
    """The arguments of `models`."""
    made = command("models", "[--json | --names]", "List the models of the model folders.", _EPILOG)
    made.add_argument("--json", action="store_true", help="write one JSON array; sizes in bytes")
    made.add_argument("--names", action="store_true", help="write the names alone, one a line")
    made.add_argument("--model-dir", metavar="FOLDER", help="look there in place of the folders of the settings")
    return made


def main(arguments: Sequence[str]) -> int:
    """List the models; returns the exit code."""
    given = parser().parse_args(arguments)
    flags = {"model_dir": given.model_dir} if given.model_dir else {}
    say(asyncio.run(_listed(flags, json=given.json, names=given.names)))
    return Exit.OK


async def _listed(flags: dict[str, str], *, json: bool, names: bool) -> str:
    paths, settings = compose(flags)
    async with closing(Access(paths, settings)) as access:
        files = await access.files()
        if names:
            return "\n".join(file.name for file in files)
        for folder in settings.model_dirs():
            if not folder.is_dir():
                say(f"llama-tui: {folder} does not exist\n{NO_FOLDER}", error=True)
        await access.running()
        if json:
            return msgspec.json.format(msgspec.json.encode([_record(access, file) for file in files])).decode()
        rows = [
            (
                file.name,
                short_size(file.size_bytes),
                short_count(file.n_params),
                file.quantization,
                ", ".join(_states(access, file)) or file.problem or "",
            )
            for file in files
        ]
        return table(_HEADS, rows, frozenset({"SIZE", "PARAMS"}))


def _states(access: Access, file: ModelFile) -> list[str]:
    return [engine.condition for engine in access.engines_of(file) if engine.alive]


def _record(access: Access, file: ModelFile) -> dict[str, object]:
    return {
        "name": file.name,
        "path": str(file.path),
        "size_bytes": file.size_bytes,
        "n_params": file.n_params,
        "quantization": file.quantization,
        "architecture": file.architecture,
        "n_layer": file.n_layer,
        "n_ctx_train": file.n_ctx_train,
        "problem": file.problem,
        "states": _states(access, file),
        "pids": [engine.pid for engine in access.engines_of(file) if engine.alive],
    }
