"""The list of models: what lies in the model folders, with what their headers say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from llama_tui.errors import BadModelFile
from llama_tui.library.files import Found, Shard, find, parts_beside, stem
from llama_tui.library.gguf import Header, read_header

GUIDE = "guide"
"""The name of the built-in model."""

_EMBEDDERS = frozenset({
    "bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert",
    "nomic-bert", "nomic-bert-moe", "t5encoder", "wavtokenizer-dec",
})  # fmt: skip

_NAMED_MISSING = 3


class ModelFile(Struct, frozen=True, kw_only=True):
    """One line of the list. Unknown figures are None, unknown texts "".

    `path` is the file that llama.cpp is given; of a split model its first part, and `size_bytes`
    counts all parts. `problem` says why the file cannot be used, `hint` what to do about it.
    """

    path: Path
    name: str
    size_bytes: int | None
    n_params: int | None = None
    quantization: str = ""
    architecture: str = ""
    n_layer: int | None = None
    n_ctx_train: int | None = None
    problem: str | None = None
    hint: str = ""
    builtin: bool = False


class _Stamp(Struct, frozen=True):
    size: int
    modified_ns: int
    changed_ns: int


class Headers:
    """Headers that were read before, by path; a file that changed since is read again.

    Keep one of these and a rescan opens only what is new. Damage found in a file is remembered too;
    that a file could not be opened is not.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[_Stamp, Header | BadModelFile]] = {}

    def read(self, path: Path) -> Header:
        """The header of a file; raises `BadModelFile`."""
        try:
            status = path.stat()
        except (OSError, ValueError):
            return read_header(path)
        stamp = _Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            try:
                known = (stamp, read_header(path))
            except BadModelFile as error:
                if isinstance(error.__cause__, OSError):
                    raise
                known = (stamp, error)
            self._known[path] = known
        if isinstance(known[1], BadModelFile):
            raise BadModelFile(known[1].message, known[1].hint)
        return known[1]


def scan(folders: Iterable[Path], headers: Headers | None = None) -> list[ModelFile]:
    """The chat models under the folders, sorted by name; may be called in a thread.

    Projectors, adapters, importance matrices and bare vocabularies are no models and are left out.
    What looks like a model and cannot be used is listed with its `problem`.
    """
    headers = headers or Headers()
    models = (_model(found, headers) for found in find(folders))
    return [model for model in models if model is not None]


def all_models(folders: Iterable[Path], headers: Headers) -> list[ModelFile]:
    """Every chat model under the folders, and the built-in one as the last; may be called in a thread."""
    guide = builtin(headers)
    return [*scan(folders, headers), *([guide] if guide else [])]


def builtin_path() -> Path | None:
    """The guide model that is shipped inside the package, or None where it was left out."""
    path = Path(__file__).parents[1] / f"{GUIDE}.gguf"
    return path if path.is_file() else None


def builtin(headers: Headers | None = None) -> ModelFile | None:
    """The guide model as a line of the list."""
    path = builtin_path()
    if path is None:
        return None
    return _model(Found(GUIDE, path, (path,)), headers or Headers(), is_builtin=True)


def describe(path: Path, name: str, headers: Headers) -> ModelFile:
    """One file as a line of the list, whatever folder it is in."""
    found = parts_beside(path) or Found(name, path, (path,))
    described = _model(found, headers, is_builtin=path == builtin_path())
    return described or ModelFile(
        path=path,
        name=name,
        size_bytes=_size((path,)),
        problem=f"{path} is no model: a projector, an adapter or a vocabulary",
        hint="Choose the model that it belongs to.",
    )


def _model(found: Found, headers: Headers, *, is_builtin: bool = False) -> ModelFile | None:
    try:
        parts = [headers.read(part) for part in found.parts]
    except BadModelFile as error:
        return ModelFile(
            path=found.path,
            name=found.name,
            size_bytes=_size(found.parts),
            problem=error.message,
            hint=error.hint,
            builtin=is_builtin,
        )
    first = parts[0]
    if not found.missing and not first.is_model and not (first.split_count > 1 and first.n_tensors == 0):
        return None
    problem, hint = _problem(found, first)
    return ModelFile(
        path=found.path,
        name=found.name,
        size_bytes=sum(part.file_size for part in parts),
        n_params=sum(part.n_params for part in parts) if not found.missing else None,
        quantization=first.quantization,
        architecture=first.architecture,
        n_layer=first.n_layer,
        n_ctx_train=first.n_ctx_train,
        problem=problem,
        hint=hint,
        builtin=is_builtin,
    )


def _problem(found: Found, first: Header) -> tuple[str | None, str]:
    if found.missing:
        named = ", ".join(found.missing[:_NAMED_MISSING])
        more = len(found.missing) - _NAMED_MISSING
        rest = f" and {more:,} more" if more > 0 else ""
        total = len(found.missing) + len(found.parts)
        return (
            f"{len(found.missing):,} of the {total:,} parts of {found.name} are missing: {named}{rest}",
            f"Put all parts into {found.path.parent}.",
        )
    if first.split_count > 1 and Shard.of(stem(found.path.name)) is None:
        return (
            f"{found.path} is part {first.split_no + 1} of a model in {first.split_count} parts",
            "Put all parts into one folder and keep their names, such as "
            f"{Shard('model', 1, first.split_count).file(1)}.",
        )
    if not first.architecture:
        return f"{found.path} does not say what architecture it has", "Fetch or convert the model again."
    if first.architecture in _EMBEDDERS:
        return f"{found.path} is an embedding model ({first.architecture}): it cannot chat", "Choose another model."
    return None, ""


def _size(parts: tuple[Path, ...]) -> int | None:
    """Bytes of all parts together, None where one cannot be seen or is no file."""
    total = 0
    for part in parts:
        try:
            total += part.stat().st_size
        except OSError:
            return None
    return total
