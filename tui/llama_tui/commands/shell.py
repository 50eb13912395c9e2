"""What the commands share: exit codes, how errors and tables are printed, the settings."""

from __future__ import annotations

import argparse
import asyncio
import enum
import os
import signal
from collections.abc import Callable, Sequence

from llama_tui.commands.output import cells, column, say
from llama_tui.errors import (
    BadModelFile,
    ContextOverflow,
    EngineDied,
    LlamaTuiError,
    LoadFailed,
    ModelNameError,
    NoRoom,
    Offer,
)
from llama_tui.paths import Paths
from llama_tui.settings.params import BY_NAME
from llama_tui.settings.store import SettingsStore
from llama_tui.settings.values import Values


class Exit(enum.IntEnum):
    """Exit codes. Above 128: ended by the signal of that number, less 128."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_MODEL = 3
    NOT_LOADED = 4
    TOO_LONG = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


EXITS = """\
exit codes:
  0    all is well
  1    it failed: the message says why
  2    wrong arguments
  3    there is no such model, or its file is unusable
  4    the model could not be loaded
  5    the prompt is longer than the context
  130  interrupted (ctrl+c); 129 hung up, 143 terminated, 141 the reader closed the pipe"""


def command(name: str, usage: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser whose help keeps the line breaks of its texts."""
    return argparse.ArgumentParser(
        prog=f"llama-tui {name}",
        usage=f"llama-tui {name} {usage}".rstrip(),
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def compose(flags: Values | None = None) -> tuple[Paths, SettingsStore]:
    """The user's folders and settings, read."""
    paths = Paths.default()
    settings = SettingsStore(paths, os.environ, flags or {})
    settings.load()
    return paths, settings


def report(error: LlamaTuiError) -> None:
    """An error for a person, on standard error: what is wrong, what explains it, what to do."""
    lines = [f"llama-tui: {error.message}"]
    if isinstance(error, EngineDied | LoadFailed):
        lines += [f"  {line}" for line in error.log]
    if isinstance(error, NoRoom) and error.offers:
        lines += ["What would work:", *(f"  {_as_typed(offer)}" for offer in error.offers)]
    elif error.hint:
        lines.append(error.hint)
    say("\n".join(lines), error=True)


def _as_typed(offer: Offer) -> str:
    """An offer as one takes it in a shell, with what it means."""
    flags = [f"{BY_NAME[name].flag} {BY_NAME[name].format(value)}" for name, value in offer.params.items()]
    stop = ["llama-tui stop " + " ".join(map(str, offer.unload))] if offer.unload else []
    return f"{' '.join([*flags, *stop])}  ({offer.words})"


def exit_code(error: LlamaTuiError) -> Exit:
    """The exit code that stands for an error."""
    match error:
        case ModelNameError() | BadModelFile():
            return Exit.NO_MODEL
        case LoadFailed():
            return Exit.NOT_LOADED
        case ContextOverflow():
            return Exit.TOO_LONG
        case _:
            return Exit.FAILED


def on_signals(stop: Callable[[int], None]) -> list[signal.Signals]:
    """Have the running event loop call `stop` with the exit code of each signal that asks a command to
    end; those that it was started deaf to, as nohup does it, stay unheard. Returns those that are heard."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        asyncio.get_running_loop().add_signal_handler(number, stop, 128 + number)
    return heard


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str] = frozenset()) -> str:
    """Columns under their heads; those of `right` aligned to the right, as figures are."""
    widths = [max(cells(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines: list[str] = []
    for row in [heads, *rows]:
        columns = zip(heads, row, widths, strict=True)
        lines.append("  ".join(column(text, width, right=head in right) for head, text, width in columns).rstrip())
    return "\n".join(lines)
