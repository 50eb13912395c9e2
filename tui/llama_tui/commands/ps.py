"""`llama-tui ps`: the engines that run."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

import msgspec

from llama_tui.chat.access import Access
from llama_tui.commands import engines
from llama_tui.commands.output import say
from llama_tui.commands.shell import Exit, command, compose, table

_EPILOG = """\
examples:
  llama-tui ps
  llama-tui ps --json | jq '.[] | select(.state == "busy").pid'

PRIVATE is the engine's own memory, MAPPED the pages of the model file, which the system can take back; IDLE LEFT
the time until it unloads itself ("kept": it is pinned). An engine that hangs is listed as "not answering"."""


def parser() -> argparse.ArgumentParser:
    """The arguments of `ps`."""
    made = command("ps", "[--json]", "List the engines that run, whoever started them.", _EPILOG)
    made.add_argument("--json", action="store_true", help="write one JSON array; sizes in bytes, times in seconds")
    return made


def main(arguments: Sequence[str]) -> int:
    """List the engines; returns the exit code."""
    given = parser().parse_args(arguments)
    say(asyncio.run(_listed(json=given.json)))
    return Exit.OK


async def _listed(*, json: bool) -> str:
    async with engines.closing(Access(*compose())) as access:
        found = await engines.running(access)
        if json:
            return msgspec.json.format(msgspec.json.encode([engines.record(engine) for engine in found])).decode()
        if not found:
            return "No model is loaded."
        return table(engines.HEADS, [engines.row(engine) for engine in found], engines.RIGHT)
