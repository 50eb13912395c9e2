"""`python -m llama_tui.worker.dryrun SPEC`: what an engine would take, as a `DryRun` in JSON on standard
output, without taking it. SPEC is an `EngineSpec` as JSON.

In a process of its own: it may crash as any engine may, and on a GPU it opens a context.
"""

from __future__ import annotations

import os
import sys

import msgspec

from llama_tui.engine.protocol import DryRun, EngineSpec
from llama_tui.errors import LoadFailed


def main() -> None:
    """Print what was found; the parent waits no longer than it wants."""
    spec = msgspec.json.decode(sys.argv[1], type=EngineSpec)
    # Libraries may print on their own: they get the standard error.
    answer = os.dup(1)
    os.dup2(2, 1)
    os.write(answer, msgspec.json.encode(_tried(spec)))
    sys.stderr.flush()
    os._exit(0)


def _tried(spec: EngineSpec) -> DryRun:
    try:
        from llama_tui.worker import backends, binding, memory
        from llama_tui.worker.loading import Loading
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return DryRun(failure=f"llama-cpp-python cannot be used: {error}")
    log = binding.Log()
    binding.initialize()
    loading = Loading(spec, log, dry=True)
    try:
        context = loading.context(loading.model(lambda _fraction: None))
    except LoadFailed as error:
        return DryRun(failure=error.message)
    exact = binding.memory_breakdown(context)
    buffers = exact or memory.buffers_from_log(log.tail(400))
    return DryRun(buffers, exact is not None, backends.gpus())


if __name__ == "__main__":
    main()
