"""A tmux server of the test's own, and what its windows show."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.vt import Cell, VirtualTerminal

TMUX = shutil.which("tmux")


class Tmux:
    """Every session is one window of one pane, as large as the terminal; `name` is what the programs
    in it find in TERM."""

    def __init__(self, folder: Path, name: str) -> None:
        config = folder / "tmux.conf"
        options = (f'default-terminal "{name}"', "status off", "escape-time 0")
        config.write_text("".join(f"set -g {option}\n" for option in options))
        self.server = (TMUX or "tmux", "-u", "-S", str(folder / "tmux"), "-f", str(config))

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([*self.server, "kill-server"], check=False, capture_output=True)

    def _do(self, *words: str) -> str:
        # Not strict: one byte may be left of a character that is being written.
        # The variables as Python has them: readline adds the size of another terminal to those of the process.
        done = subprocess.run([*self.server, *words], check=True, capture_output=True, timeout=20, env=dict(os.environ))
        return done.stdout.decode(errors="replace")

    def start(self, session: str, columns: int, rows: int, environ: dict[str, str], *command: str) -> None:
        """Run a command in a session of its own."""
        env = [word for name, value in environ.items() for word in ("-e", f"{name}={value}")]
        size = ("-x", str(columns), "-y", str(rows))
        self._do("new-session", "-d", "-s", session, *size, *env, "--", *command)

    def press(self, session: str, *keys: str) -> None:
        """Press keys by their names, such as `PageUp`."""
        self._do("send-keys", "-t", session, *keys)

    def type(self, session: str, text: str) -> None:
        """Press the keys of a text."""
        self._do("send-keys", "-t", session, "-l", text)

    def resize(self, session: str, columns: int, rows: int) -> None:
        """Give the window another size."""
        self._do("resize-window", "-t", session, "-x", str(columns), "-y", str(rows))

    def follow(self, session: str) -> None:
        """Let the window be as large as the terminal that shows it."""
        self._do("set-option", "-w", "-t", session, "window-size", "latest")

    def detach(self, session: str) -> None:
        """Let go of the terminals that show the session."""
        self._do("detach-client", "-s", session)

    @property
    def sessions(self) -> list[str]:
        """Those whose program has not ended."""
        told = subprocess.run([*self.server, "list-sessions", "-F", "#S"], check=False, capture_output=True, text=True)
        return told.stdout.split()

    def text(self, session: str) -> str:
        """The window as lines."""
        return self._do("capture-pane", "-p", "-t", session)

    def cursor(self, session: str) -> tuple[int, int]:
        """Its column and row."""
        x, y = self._do("display-message", "-p", "-t", session, "#{cursor_x},#{cursor_y}").split(",")
        return int(x), int(y)

    def cells(self, session: str) -> list[list[Cell]]:
        """The window by what can be seen of it."""
        lines = self._do("capture-pane", "-peN", "-t", session).removesuffix("\n").split("\n")
        width = int(self._do("display-message", "-p", "-t", session, "#{pane_width}"))
        terminal = VirtualTerminal(width, len(lines))
        for y, line in enumerate(lines):
            terminal.feed(f"\x1b[{y + 1};1H{line}")
        return terminal.seen

    def wait_for(self, session: str, wanted: str | Callable[[str], bool], seconds: float = 40) -> None:
        """Until the window shows a text; fails with the window as it is."""
        shows = (lambda text: wanted in text) if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + seconds
        while not shows(text := self.text(session)):
            assert time.monotonic() < deadline, f"{session}: {wanted!r} does not appear within {seconds} s:\n{text}"
            time.sleep(0.05)
