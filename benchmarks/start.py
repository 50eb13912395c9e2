"""Start-up through a pty, in an empty home: to the first frame, to keys, to the first token.

    python -m benchmarks.start [--rounds 5] [--cold]

Wall time, CPU time of the program until it is ready and of all with its engine, and the memory that
the program has by then. "From the key" counts from the key that sends; "from start" from the start of
the process, the model being loaded meanwhile.
A first round that is not counted fills the bytecode cache, which an installed program has. With
--cold the kernel's page cache is emptied before each start, which root may do.
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

_PAGE_CACHE = Path("/proc/sys/vm/drop_caches")
"""Linux, Documentation/admin-guide/sysctl/vm.rst: 3 lets go of cached files and of directory entries."""


def measure(bytecode: str, *, cold: bool = False) -> dict[str, float]:
    """One start, one suggested question, one clean end."""
    with tempfile.TemporaryDirectory(prefix="lt") as home:
        runtime = Path(home) / "run"
        runtime.mkdir(mode=0o700)
        os.environ.update(HOME=home, XDG_RUNTIME_DIR=str(runtime), PYTHONPYCACHEPREFIX=bytecode)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        if cold:
            os.sync()
            _PAGE_CACHE.write_text("3")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        with Terminal() as terminal:
            terminal.wait_for("type a message")
            frame = time.monotonic()
            terminal.wait_for("Ask the guide")
            ready = time.monotonic()
            used, peak = _used(terminal.pid)
            terminal.send("\r")
            terminal.wait_for("esc stops the answer")
            terminal.wait_for(lambda text: "tok/s" in text)
            answered = time.monotonic()
            terminal.send("\x11")
            terminal.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "first frame, s": frame - began,
        "ready for keys, s": ready - began,
        "CPU until then, s": used,
        "peak memory, MB": peak,
        "answer begun, from the key, s": answered - ready,
        "answer begun, from start, s": answered - began,
        "CPU with the engine's, s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def _used(pid: int) -> tuple[float, float]:
    """CPU seconds of a process so far, and the most megabytes that it had resident."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak) * 1024 / 1e6


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="nothing of the program is in memory before a start")
    given = parser.parse_args()
    if given.cold and not os.access(_PAGE_CACHE, os.W_OK):
        parser.error(f"--cold needs the right to write {_PAGE_CACHE}")
    with tempfile.TemporaryDirectory(prefix="lt") as bytecode:
        measure(bytecode)
        rounds = [measure(bytecode, cold=given.cold) for _ in range(given.rounds)]
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        print(f"{name:<30}{statistics.median(values):8.2f}  ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
