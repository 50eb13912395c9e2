"""What the list of models shows for folders in every condition."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_tui.library import gguf, scan
from llama_tui.library.files import find
from llama_tui.library.scan import Headers, ModelFile, builtin, builtin_path
from llama_tui.library.scan import scan as scan_folders
from tests.ggufs import (
    bad_magic,
    truncate,
    uint16,
    write_metadata_only,
    write_one_tensor,
    write_shards,
    write_tiny_llama,
)


def names(models: list[ModelFile]) -> list[str]:
    return [model.name for model in models]


def only(folder: Path) -> ModelFile:
    (model,) = scan_folders([folder])
    return model


class TestFolders:
    def test_recursive_and_sorted_without_case(self, tmp_path: Path) -> None:
        for name in ("b.gguf", "A.gguf", "sub/deep/c.GGUF", "sub/a.gguf", "notes.txt", "x.gguf.part"):
            write_one_tensor(tmp_path / name)
        assert names(scan_folders([tmp_path])) == ["A", "b", "sub/a", "sub/deep/c"]

    def test_dots_in_names_are_kept(self, tmp_path: Path) -> None:
        write_one_tensor(tmp_path / "llama-3.1-8b.gguf")
        assert only(tmp_path).name == "llama-3.1-8b"

    def test_hidden_files_and_folders_are_left_out(self, tmp_path: Path) -> None:
        for name in (".Trash-1000/a.gguf", "._b.gguf", "c.gguf"):
            write_one_tensor(tmp_path / name)
        assert names(scan_folders([tmp_path])) == ["c"]

    def test_links_to_files_and_folders(self, tmp_path: Path) -> None:
        blob = write_one_tensor(tmp_path / "blobs" / "1234")
        models = tmp_path / "models"
        models.mkdir()
        (models / "linked.gguf").symlink_to(blob)
        write_one_tensor(tmp_path / "elsewhere" / "far.gguf")
        (models / "more").symlink_to(tmp_path / "elsewhere")
        assert names(scan_folders([models])) == ["linked", "more/far"]
        assert scan_folders([models])[0].path == models / "linked.gguf"

    def test_loops_of_links_end(self, tmp_path: Path) -> None:
        write_one_tensor(tmp_path / "sub" / "a.gguf")
        (tmp_path / "sub" / "up").symlink_to(tmp_path)
        (tmp_path / "again").symlink_to(tmp_path / "sub")
        (tmp_path / "self.gguf").symlink_to(tmp_path / "self.gguf")
        models = {model.name: model for model in scan_folders([tmp_path])}
        assert models.keys() == {"self", "sub/a"}
        assert models["self"].problem
        assert models["sub/a"].problem is None

    def test_a_directory_named_like_a_model_does_not_stop_the_scan(self, tmp_path: Path) -> None:
        (tmp_path / "x.gguf").mkdir()
        write_one_tensor(tmp_path / "y.gguf")
        assert names(scan_folders([tmp_path])) == ["y"]

    def test_a_missing_folder_is_empty(self, tmp_path: Path) -> None:
        assert scan_folders([tmp_path / "none"]) == []

    def test_an_unreadable_folder_does_not_stop_the_scan(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_one_tensor(tmp_path / "a.gguf")
        write_one_tensor(tmp_path / "closed" / "b.gguf")
        write_one_tensor(tmp_path / "open" / "c.gguf")
        scandir = os.scandir

        def guarded(path: Path) -> object:
            if Path(path).name == "closed":
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", guarded)
        assert names(scan_folders([tmp_path])) == ["a", "open/c"]

    def test_several_folders_where_an_earlier_one_owns_the_name(self, tmp_path: Path) -> None:
        first = write_one_tensor(tmp_path / "one" / "same.gguf")
        second = write_one_tensor(tmp_path / "two" / "same.gguf")
        write_one_tensor(tmp_path / "two" / "other.gguf")
        models = scan_folders([tmp_path / "one", tmp_path / "two"])
        assert {model.name: model.path for model in models if model.path.name == "same.gguf"} == {
            "same": first,
            str(second): second,
        }

    def test_a_folder_inside_another_is_listed_once(self, tmp_path: Path) -> None:
        write_one_tensor(tmp_path / "sub" / "a.gguf")
        assert names(scan_folders([tmp_path, tmp_path / "sub"])) == ["sub/a"]


class TestFigures:
    def test_of_a_whole_model(self, tmp_path: Path) -> None:
        path = write_tiny_llama(tmp_path / "m.gguf", quantization="Q8_0", n_layer=3, n_ctx_train=1024)
        header = gguf.read_header(path)
        assert only(tmp_path) == ModelFile(
            path=path,
            name="m",
            size_bytes=path.stat().st_size,
            n_params=header.n_params,
            quantization="Q8_0",
            architecture="llama",
            n_layer=3,
            n_ctx_train=1024,
        )

    def test_what_is_no_chat_model_is_not_listed(self, tmp_path: Path) -> None:
        write_one_tensor(tmp_path / "mmproj.gguf", architecture="clip")
        write_one_tensor(tmp_path / "lora.gguf", {"general.type": "adapter", "adapter.type": "lora"})
        write_one_tensor(tmp_path / "imatrix.gguf", {"general.type": "imatrix"})
        write_metadata_only(tmp_path / "vocab.gguf")
        assert scan_folders([tmp_path]) == []

    def test_an_embedding_model_says_that_it_cannot_chat(self, tmp_path: Path) -> None:
        write_one_tensor(tmp_path / "bge.gguf", architecture="nomic-bert")
        assert "embedding" in (only(tmp_path).problem or "")

    def test_a_broken_file_is_listed_with_its_problem(self, tmp_path: Path) -> None:
        path = truncate(write_tiny_llama(tmp_path / "cut.gguf"), -1000)
        model = only(tmp_path)
        assert model.problem is not None
        assert "cut off" in model.problem
        assert model.hint
        assert model.size_bytes == path.stat().st_size
        assert model.n_params is None

    def test_a_link_to_nothing_is_listed_with_its_problem(self, tmp_path: Path) -> None:
        (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")
        model = only(tmp_path)
        assert "does not exist" in (model.problem or "")
        assert model.size_bytes is None


class TestShards:
    def test_are_one_model(self, tmp_path: Path) -> None:
        parts = write_shards(tmp_path / "sub", "big-q4", 3)
        model = only(tmp_path)
        assert model.name == "sub/big-q4"
        assert model.path == parts[0]
        assert model.size_bytes == sum(part.stat().st_size for part in parts)
        assert model.n_params == 3 * 64 * 32
        assert (model.n_layer, model.n_ctx_train, model.problem) == (3, 4096, None)

    def test_a_first_part_without_tensors(self, tmp_path: Path) -> None:
        parts = write_shards(tmp_path, "big", 2)
        write_metadata_only(parts[0], {"split.no": uint16(0), "split.count": uint16(2)})
        assert only(tmp_path).problem is None

    @pytest.mark.parametrize("gone", [0, 1])
    def test_missing_parts_are_named(self, tmp_path: Path, gone: int) -> None:
        parts = write_shards(tmp_path, "big", 3)
        parts[gone].unlink()
        model = only(tmp_path)
        assert model.problem is not None
        assert parts[gone].name in model.problem
        assert "1 of the 3" in model.problem
        assert model.n_params is None

    def test_many_missing_parts_are_counted(self, tmp_path: Path) -> None:
        write_one_tensor(tmp_path / "big-00001-of-99999.gguf", {"split.count": uint16(65535)})
        assert "and 99,995 more" in (only(tmp_path).problem or "")

    def test_a_broken_part_is_the_models_problem(self, tmp_path: Path) -> None:
        parts = write_shards(tmp_path, "big", 2)
        bad_magic(parts[1])
        model = only(tmp_path)
        assert parts[1].name in (model.problem or "")

    def test_two_splits_of_one_base_are_two_models(self, tmp_path: Path) -> None:
        two = write_shards(tmp_path, "big", 2)
        three = write_shards(tmp_path, "big", 3)
        assert {model.path for model in scan_folders([tmp_path])} == {two[0], three[0]}
        assert len(set(names(scan_folders([tmp_path])))) == 2

    def test_a_renamed_part_says_so(self, tmp_path: Path) -> None:
        write_shards(tmp_path, "big", 2)[0].rename(tmp_path / "model.gguf")
        (tmp_path / "big-00002-of-00002.gguf").unlink()
        assert "part 1 of a model in 2 parts" in (only(tmp_path).problem or "")

    def test_numbers_that_make_no_sense_are_a_name(self, tmp_path: Path) -> None:
        write_one_tensor(tmp_path / "a-00004-of-00003.gguf")
        assert only(tmp_path).name == "a-00004-of-00003"


class TestHeaders:
    def test_a_rescan_reads_only_what_changed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []

        def counted(path: Path) -> gguf.Header:
            read.append(path.name)
            return gguf.read_header(path)

        monkeypatch.setattr(scan, "read_header", counted)
        write_tiny_llama(tmp_path / "a.gguf")
        truncate(write_tiny_llama(tmp_path / "b.gguf"), 3000)
        headers = Headers()
        first = scan_folders([tmp_path], headers)
        assert scan_folders([tmp_path], headers) == first
        assert sorted(read) == ["a.gguf", "b.gguf"]
        write_tiny_llama(tmp_path / "b.gguf")
        again = scan_folders([tmp_path], headers)
        assert read[2:] == ["b.gguf"]
        assert [model.problem for model in again] == [None, None]

    def test_a_file_that_could_not_be_opened_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_tiny_llama(tmp_path / "a.gguf")
        headers = Headers()

        def deny(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", deny)
            assert "permission denied" in (scan_folders([tmp_path], headers)[0].problem or "")
        assert scan_folders([tmp_path], headers)[0].problem is None


class TestBuiltin:
    def test_is_none_without_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scan, "builtin_path", lambda: None)
        assert builtin() is None

    def test_is_listed_as_guide(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_tiny_llama(tmp_path / "anything.gguf")
        monkeypatch.setattr(scan, "builtin_path", lambda: path)
        model = builtin()
        assert model is not None
        assert (model.name, model.builtin, model.path, model.problem) == ("guide", True, path, None)

    def test_lies_in_the_package(self) -> None:
        path = builtin_path()
        assert path is None or (path.parent.name == "llama_tui" and path.name == "guide.gguf")


def test_find_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_one_tensor(tmp_path / "a.gguf")

    def forbidden(*_: object) -> int:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(os, "open", forbidden)
    assert [found.name for found in find([tmp_path])] == ["a"]
