"""A file read forward, with about a mebibyte of it in memory."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NoReturn

from llama_tui.errors import BadModelFile

_STEP = 1 << 20
_LENGTH = struct.Struct("<Q")


class Window:
    """Reads and skips in an open file; what would lie past its end raises `BadModelFile`.

    `size` is the file's size in bytes when it was opened: nothing longer is ever asked of it.
    """

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.size = size
        self._path = path
        self._descriptor = descriptor
        self._buffer = b""
        self._start = 0
        self._offset = 0

    @property
    def at(self) -> int:
        """The place in the file of the next byte."""
        return self._start + self._offset

    @property
    def left(self) -> int:
        """Bytes from here to the end."""
        return self.size - self.at

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        self._fill(length)
        taken = self._buffer[self._offset : self._offset + length]
        self._offset += length
        return taken

    def peek(self, length: int) -> bytes:
        """The next `length` bytes, or as many as there are, without going past them."""
        length = min(length, self.left)
        self._fill(length)
        return self._buffer[self._offset : self._offset + length]

    def unpack(self, layout: str) -> tuple[int, ...]:
        """Whole numbers by a `struct` layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def numbers(self, code: str, count: int = 1) -> tuple[bool | int | float, ...]:
        """`count` little-endian numbers of one `struct` code."""
        return struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize("<" + code)))

    def skip(self, length: int) -> None:
        """Go `length` bytes on."""
        self._offset += length
        if self.left < 0:
            self.truncated()

    def skip_numbers(self, code: str, count: int) -> None:
        """Go past `count` numbers of one `struct` code."""
        self.skip(count * struct.calcsize("<" + code))

    def skip_strings(self, count: int) -> None:
        """Go past `count` strings, reading nothing but their lengths."""
        unpack = _LENGTH.unpack_from
        while count:
            self._fill(_LENGTH.size)
            buffer, offset = self._buffer, self._offset
            last = len(buffer) - _LENGTH.size
            while count and offset <= last:
                offset += _LENGTH.size + unpack(buffer, offset)[0]
                count -= 1
            self._offset = offset
        self.skip(0)

    def truncated(self) -> NoReturn:
        """The file ends here, where it must not."""
        raise BadModelFile(
            f"{self._path} is cut off inside its header, after {self.size:,} bytes",
            "The download or copy did not finish: fetch the file again.",
        )

    def _fill(self, length: int) -> None:
        """Have the next `length` bytes in the buffer."""
        if len(self._buffer) - self._offset >= length:
            return
        start = self.at
        if length > self.left:
            self.truncated()
        buffer = b""
        while len(buffer) < length:
            chunk = os.pread(self._descriptor, max(length, _STEP) - len(buffer), start + len(buffer))
            if not chunk:
                self.truncated()
            buffer += chunk
        self._buffer, self._start, self._offset = buffer, start, 0
