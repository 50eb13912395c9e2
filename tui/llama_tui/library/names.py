"""The names of models: from what a person writes to a file, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from llama_tui.errors import ModelNameError
from llama_tui.library.files import SUFFIX, Found, Shard, absolute, find, has_suffix, parts_beside, stem
from llama_tui.library.scan import GUIDE, Headers, ModelFile, builtin_path, describe
from llama_tui.settings.layers import PREFIXES

_NEAREST = 5
_LIKE = 0.5


def resolve(name: str, folders: Sequence[Path], found: Sequence[Found] | None = None) -> Path:
    """The file that a name means, as an absolute path; of a split model its first part.

    `folders` are the model folders, the first outranking the later ones. `found` may give what
    `files.find(folders)` returned, else it is called where a name cannot be told without it.

    In this order: a full path (also "~/...", "./..." and "../..."); the path relative to a model folder; the
    built-in model for "guide", which a file guide.gguf at the top of a model folder so outranks; a
    file name in any subfolder; a path relative to the working directory; then the same names in any
    case. ".gguf" may be left out of all of them. Raises `ModelNameError` for a name that nothing or
    more than one file has.
    """
    wanted = _without_prefix(name)
    if not wanted.strip():
        raise ModelNameError("The name of the model is empty", "Give its name, or its path as llama-cpp//path/to.gguf.")
    if "\0" in wanted:
        raise ModelNameError("The name of the model has a NUL in it", "Give the name as the list shows it.")
    expanded = _expanded(wanted)
    if expanded.is_absolute() or wanted.startswith(("./", "../")):
        return _by_path(absolute(expanded))
    for relative in dict.fromkeys((name, wanted)):
        if (path := _first(relative, folders)) is not None:
            return path
    guide = builtin_path()
    if guide is not None and stem(wanted) == GUIDE:
        return guide
    found = find(folders) if found is None else found
    target = stem(wanted)
    if (path := _only(name, [model for model in found if target in _labels(model)])) is not None:
        return path
    if (path := _file(absolute(Path(name)))) is not None:
        return path
    target = target.casefold()
    if (path := _only(name, [model for model in found if target == stem(model.name).casefold()])) is not None:
        return path
    if guide is not None and target == GUIDE:
        return guide
    loose = [model for model in found if target in {label.casefold() for label in _labels(model)}]
    if (path := _only(name, loose)) is not None:
        return path
    raise _unknown(name, target, folders, found)


def named(name: str, folders: Sequence[Path], headers: Headers) -> ModelFile:
    """The model that a name means, as a line of the list, whether it can be used or not. May be
    called in a thread; raises as `resolve` does."""
    path = resolve(name, folders)
    return describe(path, canonical(path, folders), headers)


def canonical(path: Path, folders: Sequence[Path]) -> str:
    """The name to show and to keep for a file; `resolve` leads back to it.

    The path relative to a model folder, without ".gguf" and the numbers of parts; "guide" for the
    built-in model; the full path where neither is unambiguous.
    """
    path = absolute(path)
    beside = parts_beside(path)
    for folder in folders:
        relative = _relative(path, folder)
        if relative is None:
            continue
        name = relative.with_name(beside.name if beside else stem(relative.name)).as_posix()
        meant = _first(name, folders)
        if meant is not None and _same(meant, beside.path if beside else path):
            return name
    if path == builtin_path() and _first(GUIDE, folders) is None:
        return GUIDE
    return str(path)


def _without_prefix(name: str) -> str:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _expanded(name: str) -> Path:
    """With the home folder for ~; a user who does not exist leaves the name as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _by_path(path: Path) -> Path:
    """A path that was given in full, or without its suffix or its number of parts."""
    if (file := _file(path)) is not None:
        return file
    if path.is_dir():
        raise ModelNameError(f"{path} is a folder", "Name a GGUF file in it, or set model_dir to the folder.")
    near = _near(path.name, [model.name for model in find([path.parent]) if "/" not in model.name])
    there = ", ".join(near)
    raise ModelNameError(
        f"There is no file {path}" if has_suffix(path.name) else f"There is no file {path} or {path}{SUFFIX}",
        f"Nearest in that folder: {there}." if there else "Check the path; `~` and relative paths work too.",
    )


def _file(path: Path) -> Path | None:
    """The file at a path, with .gguf appended, or the first part of the split model of that name."""
    for file in (path, path.with_name(path.name + SUFFIX)) if path.name else ():
        if _is_file(file):
            beside = parts_beside(file)
            return beside.path if beside is not None else file
    base = stem(path.name)
    try:
        parts = [file for file in path.parent.iterdir() if _base(file.name) == base]
    except OSError:
        return None
    return min(parts, default=None)


def _base(name: str) -> str | None:
    """The name of the split model that a file is a part of."""
    shard = Shard.of(stem(name)) if has_suffix(name) else None
    return shard.base if shard is not None else None


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()
    except OSError:
        return False


def _first(name: str, folders: Iterable[Path]) -> Path | None:
    """What a relative name means in the first folder that has it."""
    for folder in folders:
        if (path := _file(absolute(folder / name))) is not None:
            return path
    return None


def _relative(path: Path, folder: Path) -> Path | None:
    """The path within a folder, followed through links if it is not there by its own spelling."""
    folder = absolute(folder)
    if path.is_relative_to(folder):
        return path.relative_to(folder)
    real = folder.resolve()
    return path.relative_to(real) if path.is_relative_to(real) else None


def _labels(model: Found) -> set[str]:
    """What a model may be called without its folder: its name, and the file names of its parts."""
    return {model.name, model.name.rpartition("/")[2], *(stem(part.name) for part in model.parts)}


def _only(name: str, models: Sequence[Found]) -> Path | None:
    """The one match, None without one; raises `ModelNameError` for several."""
    if len(models) > 1:
        listed = ", ".join(model.name for model in models)
        raise ModelNameError(f'"{name}" means more than one model: {listed}', "Give the one you mean in full.")
    return models[0].path if models else None


def _unknown(name: str, target: str, folders: Sequence[Path], found: Sequence[Found]) -> ModelNameError:
    searched = ", ".join(str(folder) if folder.is_dir() else f"{folder} (does not exist)" for folder in folders)
    known = [model.name for model in found] + ([GUIDE] if builtin_path() is not None else [])
    near = ", ".join(_near(target, known))
    hint = f"Nearest: {near}." if near else "Give a full path as llama-cpp//path/to.gguf, or set model_dir."
    return ModelNameError(f'There is no model "{name}" in {searched or "any model folder"}', hint)


def _near(target: str, names: Iterable[str]) -> list[str]:
    """The names that are most like a wrong one: those that contain it, then those spelled alike."""
    from difflib import get_close_matches

    target = stem(target).casefold()
    by_label: dict[str, str] = {}
    for name in names:
        by_label.setdefault(name.casefold(), name)
        by_label.setdefault(name.rpartition("/")[2].casefold(), name)
    containing = sorted(label for label in by_label if target in label)
    alike = get_close_matches(target, by_label, n=_NEAREST, cutoff=_LIKE)
    return list(dict.fromkeys(by_label[label] for label in [*containing, *alike]))[:_NEAREST]
