"""A TOML file on the disk: read with its line numbers, written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
import tomllib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from msgspec import Struct, field

from llama_tui.errors import SettingsError

Table = dict[str, object]

LOCK_SECONDS = 5.0
"""How long a write waits for another program that is writing the same file."""

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_POLL_SECONDS = 0.02
_TOML_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_QUOTES = re.compile(r'"""|\'\'\'')


class BrokenFile(SettingsError):
    """A file that is not TOML, whatever it sets."""


class UnwritableFile(SettingsError):
    """A file that cannot be written now: no permission, no space, or another program holds it."""


class Document(Struct, frozen=True):
    """The content of one file; empty where there is none."""

    path: Path
    content: Table = field(default_factory=dict[str, object])
    text: str = ""

    def where(self, place: tuple[str, ...]) -> str:
        """The file, and the line on which the key at `place` is set if that can be told."""
        line = _line_of(self.text, place)
        return f"{self.path}, line {line}" if line else str(self.path)


def read(path: Path) -> Document:
    """Read a TOML file; raises `BrokenFile` for one that is not TOML, else `SettingsError`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Document(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}", "Check whose it is and its mode.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BrokenFile(f"{path}, line {line}: this is not UTF-8 text", "Save the file as UTF-8.") from error
    try:
        return Document(path, tomllib.loads(text), text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        match = _TOML_LINE.search(reason)
        line = int(match[1]) if match else text.count("\n") + 1
        what = _TOML_LINE.sub("", reason).replace("(at end of document)", "").strip()
        raise BrokenFile(
            f"{path}, line {line}: this is not TOML: {what}",
            'Settings look like `n_ctx = 8192` or `theme = "dawn"`; texts need quotes.',
        ) from error


def write(path: Path, content: Table, heading: str) -> None:
    """Replace a file by `content`, atomically: whoever reads it sees the old or the new one.

    Its mode is kept, and a link to it stays a link. `heading` is a comment for its top. Raises
    `UnwritableFile`.
    """
    import tomli_w

    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        data = f"# {heading}\n\n{tomli_w.dumps(content)}".encode()
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    except UnicodeEncodeError as error:
        raise UnwritableFile(f"{path} cannot hold this text: it is not Unicode", "Type the text again.") from error


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the lock of a file that is read, changed and written; raises `UnwritableFile`.

    The lock is on a file beside it, since the file itself is replaced. Where the file system has no
    locks, the write goes on without one: its last step is still atomic.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise UnwritableFile(
                    f"{path} is being written by another program for more than {LOCK_SECONDS:.0f} s",
                    "Try again, or end the other llama-tui if it hangs.",
                )
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def move_aside(path: Path) -> Path:
    """Rename a broken file to NAME.broken-N, the first N that is free; raises `UnwritableFile`."""
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise _unwritable(path, error) from error
    return aside


def _unwritable(path: Path, error: OSError) -> UnwritableFile:
    hint = (
        "Free some space and change the setting again."
        if error.errno in {errno.ENOSPC, errno.EDQUOT}
        else f"Check the owner and mode of {path.parent}, or set XDG_CONFIG_HOME to a folder you can write to."
    )
    return UnwritableFile(f"{path} cannot be written: {error.strerror}; the change lasts until you quit", hint)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename in it survive a power cut, where the file system can promise that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _line_of(text: str, place: tuple[str, ...]) -> int | None:
    """The line, from 1, that sets a key, or the nearest table around it; None if neither is found."""
    table: tuple[str, ...] = ()
    best, depth = None, 0
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        started_inside = bool(inside)
        for quotes in _QUOTES.findall(line):
            inside = "" if inside == quotes else inside or quotes
        if started_inside:
            continue
        if line.lstrip().startswith("["):
            here = table = _path_of(line)
        elif "=" in line:
            here = table + _path_of(line)
        else:
            continue
        if len(here) > depth and here == place[: len(here)]:
            best, depth = number, len(here)
    return best


def _path_of(line: str) -> tuple[str, ...]:
    """The dotted key of a table's heading, or of an entry whose value may go on in later lines."""
    source = line if line.lstrip().startswith("[") else f"{_before_value(line)} = 0"
    try:
        parsed: object = tomllib.loads(source)
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(parsed, dict) and parsed:
        key, parsed = next(iter(cast("Table", parsed).items()))
        path.append(key)
    return tuple(path)


def _before_value(line: str) -> str:
    """What stands before the first equals sign that is not inside a quoted key."""
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "=":
            return line[:place]
    return line
