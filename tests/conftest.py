"""What every test gets: a home of its own, small models, and a check that no process is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from llama_tui.paths import Paths
from tests.ggufs import write_tiny_llama

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"

# How long an example takes says more about what else the machine does than about the program.
hypothesis.settings.register_profile("loaded", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("loaded")


@pytest.fixture(autouse=True, scope="session")
def signals_are_heard() -> None:
    """A shell starts what runs in its background deaf to ctrl+c, and children inherit that."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home; no variable of the machine reaches the program."""
    for name in list(os.environ):
        if name.startswith(("LLAMA_", "XDG_", "SSH_", "TMUX")) or name in ("NO_COLOR", "COLORTERM", "COLORFGBG", "STY"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    # Sockets have short paths: pytest's own folders are too deep for them.
    runtime = tmp_path_factory.mktemp("r", numbered=True)
    runtime.chmod(0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("TERM", "xterm-256color")
    return home


@pytest.fixture
def paths(home: Path) -> Paths:
    """The program's folders in that home."""
    return Paths.default()


@pytest.fixture(autouse=True)
def no_process_left(home: Path) -> Iterator[None]:
    """Every engine that a test starts, and the process of its template, must be gone a moment after
    it; stragglers are ended."""
    runtime = os.environ["XDG_RUNTIME_DIR"]
    yield
    if not (Path(runtime) / "llama-tui").exists():
        return  # no engine was ever started there
    deadline = time.monotonic() + 30
    while (left := _engines(runtime)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in left:
        os.kill(process.pid, signal.SIGKILL)
    assert not left, f"engines left behind: {[process.pid for process in left]}"


def _engines(runtime: str) -> list[psutil.Process]:
    """Engines, and the processes of their templates, that have a runtime folder in their environment."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline", "status"]):
        ours = {"llama_tui.worker", "llama_tui.worker.renderer"} & set(process.info["cmdline"] or [])
        with contextlib.suppress(psutil.Error):
            if (
                ours
                and process.info["status"] != psutil.STATUS_ZOMBIE
                and process.environ().get("XDG_RUNTIME_DIR") == runtime
            ):
                found.append(process)
    return found


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama with random weights that really loads and generates."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_tiny_llama(path)
    return path


@pytest.fixture(scope="session")
def guide_model() -> Path:
    """The built-in model."""
    from llama_tui.library.scan import builtin_path

    path = builtin_path()
    assert path, "the built-in model is missing"
    return path
