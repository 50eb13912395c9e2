"""The GGUF files under some folders, found without opening any of them."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec import Struct

SUFFIX = ".gguf"

_SHARD = re.compile(r"(?P<base>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)


class Found(Struct, frozen=True):
    """One model on the disk: a file, or the parts of a split one.

    `path` is the first part, which is the one that llama.cpp is given. `name` is relative to the
    folder that was searched, without the suffix and the numbers of parts; where an earlier model
    has that name already, it is the full path.
    """

    name: str
    path: Path
    parts: tuple[Path, ...]
    missing: tuple[str, ...] = ()


class Shard(Struct, frozen=True):
    """What the file name of a part says: `number` is from 1 to `count`."""

    base: str
    number: int
    count: int

    @classmethod
    def of(cls, stem: str) -> Shard | None:
        """By a file name without its suffix; None for one that is no part of a split model."""
        match = _SHARD.fullmatch(stem)
        if match is None:
            return None
        shard = cls(match["base"], int(match["number"]), int(match["count"]))
        return shard if 1 <= shard.number <= shard.count else None

    def file(self, number: int) -> str:
        """The file name of another part."""
        return f"{self.base}-{number:05d}-of-{self.count:05d}{SUFFIX}"


def has_suffix(name: str) -> bool:
    """Whether it ends with .gguf, in any case."""
    return name.lower().endswith(SUFFIX)


def stem(name: str) -> str:
    """A file name without .gguf; other endings, as in "llama-3.1-8b", belong to the name."""
    return name[: -len(SUFFIX)] if has_suffix(name) else name


def absolute(path: Path) -> Path:
    """A full path without "." and "..", whose links are not followed: a part's neighbours are found by its name."""
    return Path(os.path.abspath(path))  # noqa: PTH100 -- Path.resolve follows links


def find(folders: Iterable[Path]) -> list[Found]:
    """Every GGUF file under the folders, sorted by name; of equal names, earlier folders come first.

    Links to files and folders are followed, each folder once. Hidden files and folders are left out
    (trash, caches, half downloads), as is what cannot be read.
    """
    found: list[Found] = []
    taken: set[str] = set()
    seen: set[tuple[int, int]] = set()
    for given in folders:
        root = absolute(given)
        for folder, names in _walk(root, seen):
            for model in _group(root, folder, names):
                name = model.name if model.name not in taken else str(model.path)
                taken.add(name)
                found.append(Found(name, model.path, model.parts, model.missing))
    return sorted(found, key=lambda model: (model.name.casefold(), model.name))


def parts_beside(path: Path) -> Found | None:
    """The split model that a part belongs to, as far as it lies beside it; None for a file in one part."""
    shard = Shard.of(stem(path.name))
    if shard is None:
        return None
    try:
        names = [entry.name for entry in os.scandir(path.parent)]
    except OSError:
        names = [path.name]
    own = [name for name in names if (other := Shard.of(stem(name))) and _set_of(other) == _set_of(shard)]
    return next(iter(_group(path.parent, path.parent, sorted(own))), None)


def _walk(root: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with its GGUF files. Linked folders come last, so that a model is named by the
    place where it really lies when that is searched too."""
    waiting = deque([root])
    linked: deque[Path] = deque()
    while waiting or linked:
        folder = waiting.popleft() if waiting else linked.popleft()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        names: list[str] = []
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                (linked if entry.is_symlink() else waiting).append(Path(entry.path))
            elif has_suffix(entry.name):
                names.append(entry.name)
        yield folder, names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _group(root: Path, folder: Path, names: Sequence[str]) -> Iterator[Found]:
    """The models of one folder's files, the parts of a split one together."""
    sets: dict[tuple[str, int], dict[int, str]] = {}
    for name in names:
        shard = Shard.of(stem(name))
        if shard is None:
            yield Found(_relative(root, folder / stem(name)), folder / name, (folder / name,))
        else:
            sets.setdefault(_set_of(shard), {})[shard.number] = name
    for (base, count), parts in sets.items():
        shard = Shard(base, 1, count)
        paths = tuple(folder / parts[number] for number in sorted(parts))
        missing = tuple(shard.file(number) for number in range(1, count + 1) if number not in parts)
        yield Found(_relative(root, folder / base), paths[0], paths, missing)


def _set_of(shard: Shard) -> tuple[str, int]:
    return shard.base, shard.count


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
