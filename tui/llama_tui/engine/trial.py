"""The exact answer to what a model would take: llama.cpp's own, from a process that only pretends to load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import msgspec

from llama_tui.engine.protocol import DryRun, EngineSpec

_SECONDS = 20.0
"""It takes half a second, and some more where a GPU wakes up or the disk is slow."""


async def dry_run(spec: EngineSpec) -> DryRun:
    """What an engine of this spec would take. A process that crashes or takes too long is a `failure`;
    it is ended when the caller is cancelled."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "llama_tui.worker.dryrun",
            msgspec.json.encode(spec).decode(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        )
    except OSError as error:
        return DryRun(failure=str(error))
    try:
        async with asyncio.timeout(_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        return DryRun(failure=f"it took longer than {_SECONDS:g} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        return msgspec.json.decode(said, type=DryRun)
    except msgspec.DecodeError:
        return DryRun(failure=f"it ended with exit code {process.returncode}")
