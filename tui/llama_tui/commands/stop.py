"""`llama-tui stop`: end engines."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from llama_tui.chat.access import Access
from llama_tui.commands import engines
from llama_tui.commands.output import say
from llama_tui.commands.shell import Exit, command, compose

_EPILOG = """\
examples:
  llama-tui stop qwen3-8b-q4_k_m
  llama-tui stop 41337
  llama-tui stop --all

Whatever an engine is doing ends with it. Exit codes: 0 ended, 2 wrong arguments, 3 no such engine."""


def parser() -> argparse.ArgumentParser:
    """The arguments of `stop`."""
    made = command("stop", "(NAME | PID ... | --all)", "End engines; returns when their memory is given back.", _EPILOG)
    made.add_argument("engine", metavar="NAME|PID", nargs="*", help="name or path of the model, or the process id")
    made.add_argument("--all", action="store_true", help="every engine of this user")
    return made


def main(arguments: Sequence[str]) -> int:
    """End engines; returns the exit code."""
    arguments_parser = parser()
    given = arguments_parser.parse_args(arguments)
    if given.all == bool(given.engine):
        arguments_parser.error("name an engine, or give --all")
    return asyncio.run(_stop(given.engine))


async def _stop(wanted: list[str]) -> int:
    async with engines.closing(Access(*compose())) as access:
        found = await engines.running(access)
        chosen = [engine for name in wanted for engine in engines.matching(found, name)] if wanted else found
        for engine in {engine.pid: engine for engine in chosen}.values():
            await engines.end(engine)
            say(f"stopped {engine.spec.name} ({engine.pid})")
        if not chosen:
            say("No model is loaded.", error=True)
    return Exit.OK
