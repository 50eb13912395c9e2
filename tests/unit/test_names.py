"""Names of models: what a person may write, and what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_tui.errors import ModelNameError
from llama_tui.library import names
from llama_tui.library.files import find
from llama_tui.library.names import canonical, resolve
from tests.ggufs import write_one_tensor, write_shards


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder, seen from an empty working directory and without a built-in model."""
    monkeypatch.setattr(names, "builtin_path", lambda: None)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    folder = tmp_path / "models"
    for name in ("llama-3.1-8b.gguf", "Qwen3-8B-Q4_K_M.gguf", "sub/phi.gguf", "one/twice.gguf", "two/twice.gguf"):
        write_one_tensor(folder / name)
    return folder


def refused(name: str, *folders: Path) -> ModelNameError:
    with pytest.raises(ModelNameError) as caught:
        resolve(name, folders)
    assert caught.value.hint
    return caught.value


class TestFullPaths:
    @pytest.mark.parametrize("prefix", ["llama-cpp/", "llama_cpp/", ""])
    @pytest.mark.parametrize("suffix", [".gguf", ""])
    def test_with_and_without_prefix_and_suffix(self, folder: Path, prefix: str, suffix: str) -> None:
        path = folder / "llama-3.1-8b.gguf"
        assert resolve(f"{prefix}{folder}/llama-3.1-8b{suffix}", []) == path

    def test_home(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(folder))
        assert resolve("~/sub/phi.gguf", []) == folder / "sub" / "phi.gguf"
        assert resolve("llama-cpp/~/sub/phi", []) == folder / "sub" / "phi.gguf"

    def test_a_file_of_another_suffix_by_its_full_path(self, folder: Path) -> None:
        blob = write_one_tensor(folder / "sha256-1234")
        assert resolve(str(blob), []) == blob

    def test_links_are_not_followed(self, folder: Path) -> None:
        link = folder / "link.gguf"
        link.symlink_to(folder / "sub" / "phi.gguf")
        assert resolve(str(link), []) == link

    def test_unknown_names_what_is_near_in_that_folder(self, folder: Path) -> None:
        error = refused(f"llama-cpp/{folder}/llama-3.1-7b.gguf")
        assert f"{folder}/llama-3.1-7b.gguf" in error.message
        assert "llama-3.1-8b" in error.hint

    def test_a_folder_is_refused(self, folder: Path) -> None:
        assert "folder" in refused(str(folder)).message


class TestRelativePaths:
    def test_from_the_working_directory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder / "sub")
        for name in ("./phi.gguf", "./phi", "../sub/phi.gguf", "phi.gguf"):
            assert resolve(name, []) == folder / "sub" / "phi.gguf"

    def test_the_model_folder_outranks_the_working_directory(self, folder: Path) -> None:
        own = write_one_tensor(Path.cwd() / "llama-3.1-8b.gguf")
        assert resolve("llama-3.1-8b.gguf", [folder]) == folder / "llama-3.1-8b.gguf"
        assert resolve("./llama-3.1-8b.gguf", [folder]) == own

    def test_with_the_prefix_only_model_folders_count(self, folder: Path) -> None:
        write_one_tensor(Path.cwd() / "here.gguf")
        assert resolve("here", [folder]) == Path.cwd() / "here.gguf"
        assert "here" in refused("llama-cpp/here", folder).message


class TestNames:
    @pytest.mark.parametrize("prefix", ["llama-cpp/", "llama_cpp/", ""])
    @pytest.mark.parametrize("suffix", [".gguf", ""])
    def test_in_the_model_folder(self, folder: Path, prefix: str, suffix: str) -> None:
        assert resolve(f"{prefix}llama-3.1-8b{suffix}", [folder]) == folder / "llama-3.1-8b.gguf"

    def test_the_suffix_is_appended_not_replaced(self, folder: Path) -> None:
        write_one_tensor(folder / "llama-3.gguf")
        assert resolve("llama-3.1-8b", [folder]) == folder / "llama-3.1-8b.gguf"

    @pytest.mark.parametrize("name", ["sub/phi", "sub/phi.gguf", "phi", "phi.gguf", "llama-cpp/phi"])
    def test_in_a_subfolder(self, folder: Path, name: str) -> None:
        assert resolve(name, [folder]) == folder / "sub" / "phi.gguf"

    def test_a_file_name_that_is_there_twice_is_ambiguous(self, folder: Path) -> None:
        error = refused("twice", folder)
        assert "one/twice" in error.message
        assert "two/twice" in error.message
        assert resolve("two/twice", [folder]) == folder / "two" / "twice.gguf"

    def test_the_top_of_the_folder_outranks_subfolders(self, folder: Path) -> None:
        write_one_tensor(folder / "phi.gguf")
        assert resolve("phi", [folder]) == folder / "phi.gguf"

    def test_any_case_where_that_is_unique(self, folder: Path) -> None:
        assert resolve("qwen3-8b-q4_k_m.gguf", [folder]) == folder / "Qwen3-8B-Q4_K_M.gguf"
        assert resolve("SUB/Phi", [folder]) == folder / "sub" / "phi.gguf"
        assert resolve("PHI", [folder]) == folder / "sub" / "phi.gguf"

    def test_the_exact_case_outranks_others(self, folder: Path) -> None:
        upper, lower = write_one_tensor(folder / "M.gguf"), write_one_tensor(folder / "m.gguf")
        assert resolve("M", [folder]) == upper
        assert resolve("m", [folder]) == lower
        write_one_tensor(folder / "Ab.gguf")
        write_one_tensor(folder / "aB.gguf")
        assert "more than one" in refused("ab", folder).message

    def test_earlier_folders_outrank_later_ones(self, folder: Path, tmp_path: Path) -> None:
        other = write_one_tensor(tmp_path / "other" / "llama-3.1-8b.gguf")
        assert resolve("llama-3.1-8b", [other.parent, folder]) == other

    def test_what_was_found_before_is_used(self, folder: Path) -> None:
        found = find([folder])
        write_one_tensor(folder / "late" / "new.gguf")
        with pytest.raises(ModelNameError):
            resolve("new", [folder], found)
        assert resolve("phi", [folder], found) == folder / "sub" / "phi.gguf"


class TestShards:
    @pytest.mark.parametrize(
        "name",
        [
            "big/moe",
            "moe",
            "moe.gguf",
            "MOE",
            "moe-00001-of-00003",
            "moe-00002-of-00003.gguf",
            "big/moe-00003-of-00003",
        ],
    )
    def test_by_their_base_or_any_part(self, folder: Path, name: str) -> None:
        parts = write_shards(folder / "big", "moe", 3)
        assert resolve(name, [folder]) == parts[0]

    def test_by_full_path(self, folder: Path) -> None:
        parts = write_shards(folder / "big", "moe", 3)
        for name in (folder / "big" / "moe", parts[1]):
            assert resolve(str(name), []) == parts[0]

    def test_a_file_of_the_base_name_outranks_them(self, folder: Path) -> None:
        write_shards(folder / "big", "moe", 3)
        single = write_one_tensor(folder / "big" / "moe.gguf")
        assert resolve("big/moe", [folder]) == single


class TestUnknown:
    def test_names_the_nearest_and_the_folders(self, folder: Path, tmp_path: Path) -> None:
        error = refused("lama-3.1-8b", folder, tmp_path / "gone")
        assert "lama-3.1-8b" in error.message
        assert str(folder) in error.message
        assert f"{tmp_path / 'gone'} (does not exist)" in error.message
        assert "llama-3.1-8b" in error.hint

    def test_a_part_of_a_name_is_near(self, folder: Path) -> None:
        assert "Qwen3-8B-Q4_K_M" in refused("qwen", folder).hint

    @pytest.mark.parametrize("name", ["", "  ", "llama-cpp/", "a\0b"])
    def test_no_name_at_all(self, folder: Path, name: str) -> None:
        refused(name, folder)

    def test_nothing_near(self, folder: Path) -> None:
        assert "model_dir" in refused("zzzzzz", folder).hint

    def test_a_name_too_long_for_any_file(self, folder: Path) -> None:
        refused("x" * 5000, folder)


class TestGuide:
    @pytest.fixture
    def guide(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = write_one_tensor(tmp_path / "package" / "guide.gguf")
        monkeypatch.setattr(names, "builtin_path", lambda: path)
        return path

    @pytest.mark.parametrize("name", ["guide", "guide.gguf", "llama-cpp/guide", "Guide"])
    def test_is_the_built_in_model(self, folder: Path, guide: Path, name: str) -> None:
        assert resolve(name, [folder]) == guide
        assert resolve(name, []) == guide

    def test_a_file_of_that_name_at_the_top_outranks_it(self, folder: Path, guide: Path) -> None:
        own = write_one_tensor(folder / "guide.gguf")
        assert resolve("guide", [folder]) == own
        assert canonical(own, [folder]) == "guide"
        assert resolve(canonical(guide, [folder]), [folder]) == guide

    def test_a_file_of_that_name_below_does_not(self, folder: Path, guide: Path) -> None:
        write_one_tensor(folder / "sub" / "guide.gguf")
        assert resolve("guide", [folder]) == guide

    def test_its_name(self, folder: Path, guide: Path) -> None:
        assert canonical(guide, [folder]) == "guide"

    def test_is_suggested(self, folder: Path, guide: Path) -> None:
        assert "guide" in refused("giude", folder).hint


class TestCanonical:
    def test_relative_to_the_folder_without_suffix(self, folder: Path) -> None:
        assert canonical(folder / "sub" / "phi.gguf", [folder]) == "sub/phi"

    def test_any_part_of_a_split_model(self, folder: Path) -> None:
        parts = write_shards(folder / "big", "moe", 3)
        assert {canonical(part, [folder]) for part in parts} == {"big/moe"}

    def test_elsewhere_the_full_path(self, folder: Path, tmp_path: Path) -> None:
        path = write_one_tensor(tmp_path / "far" / "x.gguf")
        assert canonical(path, [folder]) == str(path)

    def test_through_a_linked_folder(self, folder: Path, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(folder)
        assert canonical(folder / "sub" / "phi.gguf", [link]) == "sub/phi"

    def test_leads_back_to_every_file_there_is(self, folder: Path, tmp_path: Path) -> None:
        write_shards(folder / "big", "moe", 3)
        write_one_tensor(folder / "big" / "moe.gguf")
        write_one_tensor(folder / "llama-cpp" / "phi.gguf")
        write_one_tensor(folder / "phi.gguf")
        write_one_tensor(folder / "x.gguf.gguf")
        write_one_tensor(folder / "x.gguf")
        other = tmp_path / "other"
        write_one_tensor(other / "phi.gguf")
        folders = [folder, other]
        found = find(folders)
        assert len(found) == 12
        for model in found:
            name = canonical(model.path, folders)
            assert resolve(name, folders) == model.path, name

    def test_is_the_name_in_the_list(self, folder: Path, tmp_path: Path) -> None:
        write_shards(folder / "big", "moe", 3)
        write_one_tensor(tmp_path / "other" / "llama-3.1-8b.gguf")
        folders = [folder, tmp_path / "other"]
        for model in find(folders):
            assert canonical(model.path, folders) == model.name
