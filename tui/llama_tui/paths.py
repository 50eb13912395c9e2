"""Where llama-tui keeps its files: settings, conversations, logs, saved KV states and sockets."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import platformdirs
from msgspec import Struct

from llama_tui.errors import LlamaTuiError

APP = "llama-tui"

SOCKET_PATH_LIMIT = 103
"""Bytes that a Unix socket's path may have: sun_path holds 108 on Linux and 104 on macOS, with a NUL."""


class Paths(Struct, frozen=True):
    """The folders of one user. Nothing is created until `ensure` or `private` asks for it."""

    config: Path
    data: Path
    state: Path
    runtime: Path
    cache: Path

    @classmethod
    def default(cls) -> Paths:
        """The user's own folders, by the XDG variables or the platform's custom."""
        return cls(
            config=Path(platformdirs.user_config_dir(APP)),
            data=Path(platformdirs.user_data_dir(APP)),
            state=Path(platformdirs.user_state_dir(APP)),
            runtime=_runtime_dir(),
            cache=Path(platformdirs.user_cache_dir(APP)),
        )

    @property
    def config_file(self) -> Path:
        """Written by the user only."""
        return self.config / "config.toml"

    @property
    def settings_file(self) -> Path:
        """Written by the program only."""
        return self.config / "settings.toml"

    @property
    def themes(self) -> Path:
        """The user's own themes."""
        return self.config / "themes"

    @property
    def database(self) -> Path:
        """The conversations."""
        return self.data / "chats.db"

    @property
    def logs(self) -> Path:
        """What engines and llama.cpp print."""
        return self.state / "log"

    @property
    def crash_log(self) -> Path:
        """Tracebacks of the program's own errors."""
        return self.state / "crash.log"

    @property
    def kv_states(self) -> Path:
        """What models have read of conversations, so that they need not read it again."""
        return self.cache / "kv"


def _runtime_dir() -> Path:
    """XDG_RUNTIME_DIR if it is there, else a folder of this user's own under the temporary one."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and Path(given).is_dir():
        return Path(given) / APP
    return Path(tempfile.gettempdir()) / f"{APP}-{os.getuid()}"


def ensure(folder: Path) -> Path:
    """Create a folder with its parents; the error names it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LlamaTuiError(
            f"Cannot create the folder {folder}: {error.strerror}",
            "Check who owns its parent, or set HOME or the XDG variables to a place you can write to.",
        ) from error
    return folder


def private(folder: Path) -> Path:
    """Create a folder that only this user may enter, or refuse one that others own or can enter.

    Sockets in it accept commands, so a folder that somebody else prepared is never used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise LlamaTuiError(
            f"Cannot create the runtime folder {folder}: {error.strerror}",
            "Set XDG_RUNTIME_DIR to a folder that is yours alone.",
        ) from error
    _refuse_foreign(folder, found)
    return folder


def trusted(folder: Path) -> bool:
    """Whether a folder is there; raises as `private` does where it is not this user's alone."""
    try:
        _refuse_foreign(folder, folder.lstat())
    except OSError:
        return False
    return True


def _refuse_foreign(folder: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    what = f"The runtime folder {folder} is not yours alone"
    otherwise = "or set XDG_RUNTIME_DIR to a folder of your own."
    if not stat.S_ISDIR(found.st_mode):
        raise LlamaTuiError(f"{what}: it is no folder", f"Run `rm {folder}`, {otherwise}")
    if found.st_uid != os.getuid():
        raise LlamaTuiError(
            f"{what} (owner {found.st_uid}, mode {mode:04o}; needed: {os.getuid()}, 0700)",
            f"Run `sudo rm -r {folder}`, {otherwise}",
        )
    if mode & 0o077:
        raise LlamaTuiError(f"{what} (mode {mode:04o}, needed: 0700)", f"Run `chmod 700 {folder}`, {otherwise}")
