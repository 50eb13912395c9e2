"""Start-up through a pty, in an empty home: to the first frame, to keys, to the first token.

    python -m benchmarks.start [--rounds 5]

Wall time in seconds and the CPU seconds of the program and its engine. "From the key" counts from
the key that sends; "from start" from the start of the process, the model being loaded meanwhile.
A first round that is not counted fills the bytecode cache, which an installed program has.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from tests.e2e.terminal import Terminal


def measure(bytecode: str) -> dict[str, float]:
    """One start, one suggested question, one clean end."""
    with tempfile.TemporaryDirectory(prefix="lt") as home:
        runtime = Path(home) / "run"
        runtime.mkdir(mode=0o700)
        os.environ.update(HOME=home, XDG_RUNTIME_DIR=str(runtime), PYTHONPYCACHEPREFIX=bytecode)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        with Terminal() as terminal:
            terminal.wait_for("type a message")
            frame = time.monotonic()
            terminal.wait_for("Ask the guide")
            ready = time.monotonic()
            terminal.send("\r")
            terminal.wait_for("esc stops the answer")
            terminal.wait_for(lambda text: "tok/s" in text)
            answered = time.monotonic()
            terminal.send("\x11")
            terminal.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "first frame": frame - began,
        "ready for keys": ready - began,
        "answer begun, from the key": answered - ready,
        "answer begun, from start": answered - began,
        "CPU, UI process": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    with tempfile.TemporaryDirectory(prefix="lt") as bytecode:
        rounds = [measure(bytecode) for _ in range(parser.parse_args().rounds + 1)][1:]
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        print(f"{name:<30}{statistics.median(values):6.2f} s  ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
