"""`python -m llama_tui.worker FD SPEC`: one engine, started by `llama_tui.engine.process`.

FD is a listening Unix socket that the parent made, so that a client can connect before this
process has begun to run; SPEC is an `EngineSpec` as JSON. What this process prints goes where the
parent has sent it: the engine's log file.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import msgspec

from llama_tui.engine.protocol import EngineSpec
from llama_tui.worker.server import EndReason, Server

_OPEN_FILES = 8192
_NICE = 3


def main() -> None:
    """Run the engine until it ends, then leave without unwinding llama.cpp: the kernel takes its
    memory back faster than its destructors."""
    faulthandler.enable()
    listening = socket.socket(fileno=int(sys.argv[1]))
    spec = msgspec.json.decode(sys.argv[2], type=EngineSpec)
    _give_way()
    _volunteer_for_the_oom_killer()
    _allow_many_clients()
    reason = asyncio.run(_serve(spec, listening))
    os._exit(1 if reason == "failed" else 0)


async def _serve(spec: EngineSpec, listening: socket.socket) -> EndReason:
    server = Server(spec)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.signalled)
    return await server.run(listening)


def _give_way() -> None:
    """Whoever types should not wait for a token. Linux may weigh sessions before it weighs processes, and
    an engine is a session of its own: that has a priority too. Nothing is lost where no one else computes."""
    os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))


def _volunteer_for_the_oom_killer() -> None:
    """When memory runs out the kernel should end an engine, which can be started again, and not
    the terminal that a person is looking at."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _allow_many_clients() -> None:
    """Each client takes an open file, and the usual limit of 1,024 is soft."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


if __name__ == "__main__":
    main()
