"""`llama-tui keep`: pin engines, so that they do not unload themselves."""

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
  llama-tui keep qwen3-8b-q4_k_m
  llama-tui keep qwen3-8b-q4_k_m --off

A kept engine ignores its idle_timeout, and quitting llama-tui does not end it; `llama-tui stop` does. The model must
be loaded: `ps` lists what is. Exit codes: 0 done, 1 it does not answer, 2 wrong arguments, 3 no such engine."""


def parser() -> argparse.ArgumentParser:
    """The arguments of `keep`."""
    made = command("keep", "NAME|PID [--off]", "Keep a model loaded however long it is unused.", _EPILOG)
    made.add_argument("engine", metavar="NAME|PID", help="name or path of the model, or the process id")
    made.add_argument("--off", action="store_true", help="leave it to its idle_timeout again")
    return made


def main(arguments: Sequence[str]) -> int:
    """Pin or let go; returns the exit code."""
    given = parser().parse_args(arguments)
    return asyncio.run(_keep(given.engine, keep=not given.off))


async def _keep(wanted: str, *, keep: bool) -> int:
    async with engines.closing(Access(*compose())) as access:
        for engine in engines.matching(await engines.running(access), wanted):
            await engines.keep(engine, keep=keep)
            say(f"{'keeping' if keep else 'no longer keeping'} {engine.spec.name} ({engine.pid})")
    return Exit.OK
