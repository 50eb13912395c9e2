"""The client for programs with an event loop, notebooks among them."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from llama_tui.chat.access import Access
from llama_tui.client import arguments
from llama_tui.client.completions import Completions
from llama_tui.client.models import Models
from llama_tui.errors import LlamaTuiError
from llama_tui.paths import Paths
from llama_tui.settings.store import SettingsStore


@dataclass(frozen=True, slots=True)
class Chat:
    """Reached as `client.chat`."""

    completions: Completions


@dataclass(frozen=True, slots=True)
class _Connected:
    access: Access
    changed: asyncio.Event


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


class Client:
    """Local models behind the shape of OpenAI's client.

        client = Client()
        response = await client.chat.completions.create(model="guide", messages=[...], temperature=0.3)

    A model is loaded at its first use, by whichever program comes first, and shared: the terminal
    program, the shell and every client attach to the engine that runs with the same file and the
    same load parameters. `close` lets go of the engines; each unloads itself after its
    `idle_timeout` without a request, so that the next script need not load it again.

    `parameters` are defaults for every call, `model_dir` among them. They outrank the environment
    and the settings files, which are read once, here; what in those cannot be used is left out and
    kept in `problems`. What a model cannot do with what it is given (layers for a GPU that is not
    there, a chat template that fails, messages that are left out) is a `RuntimeWarning`. One client
    may be used in several event loops, one after the other or in several threads; each has
    connections of its own.
    """

    def __init__(self, **parameters: object) -> None:
        if sys.platform == "win32":
            raise LlamaTuiError("llama-tui does not run on Windows itself.", "Use it inside WSL.")
        if isinstance(folder := parameters.get("model_dir"), Path):
            parameters["model_dir"] = str(folder)
        given = arguments.parameters(parameters, ("load", "sampling", "app"))
        self._paths = Paths.default()
        self._settings = SettingsStore(self._paths, os.environ, given)
        self._settings.load()
        self._connected: dict[asyncio.AbstractEventLoop, _Connected] = {}
        self.problems = tuple(self._settings.problems)
        self.chat = Chat(Completions(lambda: self._connection().access))
        self.models = Models(lambda: self._connection().access, lambda: self._connection().changed)

    def _connection(self) -> _Connected:
        """What belongs to the running loop; loops that have ended took theirs with them."""
        loop = asyncio.get_running_loop()
        for ended in [known for known in list(self._connected) if known.is_closed()]:
            self._connected.pop(ended, None)
        if loop not in self._connected:
            changed = asyncio.Event()
            access = Access(self._paths, self._settings, lambda _engine: changed.set(), on_warning=_warn)
            self._connected[loop] = _Connected(access, changed)
        return self._connected[loop]

    async def close(self, *, unload: bool = False) -> None:
        """Let go of the engines of this event loop. With `unload`, end at once those that this
        client started and that no other program uses. A closed client may be used again."""
        connected = self._connected.pop(asyncio.get_running_loop(), None)
        if connected:
            await connected.access.close(unload=unload)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
