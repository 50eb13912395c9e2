"""The folders of the program, and the ones it must not trust."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from llama_tui.errors import LlamaTuiError
from llama_tui.paths import SOCKET_PATH_LIMIT, Paths, ensure, private


class TestDefault:
    def test_follows_the_xdg_variables(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        variables = ("CONFIG_HOME", "DATA_HOME", "STATE_HOME", "RUNTIME_DIR", "CACHE_HOME")
        for variable, folder in zip(variables, "cdsrk", strict=True):
            (tmp_path / folder).mkdir()
            monkeypatch.setenv(f"XDG_{variable}", str(tmp_path / folder))
        monkeypatch.setattr("sys.platform", "linux")
        paths = Paths.default()
        assert paths == Paths(*(tmp_path / folder / "llama-tui" for folder in "cdsrk"))
        assert paths.config_file == tmp_path / "c" / "llama-tui" / "config.toml"
        assert paths.settings_file.parent == paths.themes.parent == paths.config
        assert paths.database == tmp_path / "d" / "llama-tui" / "chats.db"
        assert paths.logs == tmp_path / "s" / "llama-tui" / "log"
        assert paths.kv_states == tmp_path / "k" / "llama-tui" / "kv"

    def test_creates_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        for variable in ("CONFIG_HOME", "DATA_HOME", "STATE_HOME", "RUNTIME_DIR"):
            monkeypatch.setenv(f"XDG_{variable}", str(empty))
        Paths.default()
        assert list(empty.iterdir()) == []

    @pytest.mark.parametrize("given", [None, "", "/no/such/folder"])
    def test_without_a_runtime_directory_one_of_our_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
    ) -> None:
        if given is None:
            monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        else:
            monkeypatch.setenv("XDG_RUNTIME_DIR", given)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        assert Paths.default().runtime == tmp_path / f"llama-tui-{os.getuid()}"

    def test_a_socket_path_fits_every_platform(self) -> None:
        assert SOCKET_PATH_LIMIT < 104


class TestPrivate:
    def test_makes_a_folder_that_is_the_users_alone(self, tmp_path: Path) -> None:
        folder = private(tmp_path / "a" / "b")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert private(folder) == folder

    @pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o770, 0o777])
    def test_refuses_one_that_others_may_enter(self, tmp_path: Path, mode: int) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        folder.chmod(mode)
        with pytest.raises(LlamaTuiError, match=f"{mode:04o}") as caught:
            private(folder)
        assert "chmod 700" in caught.value.hint

    def test_refuses_a_link_even_to_a_good_folder(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir(mode=0o700)
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "real")
        with pytest.raises(LlamaTuiError, match="not yours alone"):
            private(link)

    def test_refuses_another_users_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = private(tmp_path / "run")
        owner = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: owner + 1)
        with pytest.raises(LlamaTuiError, match=f"owner {owner}"):
            private(folder)

    def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "run").touch()
        with pytest.raises(LlamaTuiError) as caught:
            private(tmp_path / "run")
        assert "XDG_RUNTIME_DIR" in caught.value.hint


class TestEnsure:
    def test_makes_the_parents_too(self, tmp_path: Path) -> None:
        assert ensure(tmp_path / "a" / "b").is_dir()
        assert ensure(tmp_path / "a" / "b").is_dir()

    def test_names_the_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(LlamaTuiError, match="file/sub") as caught:
            ensure(tmp_path / "file" / "sub")
        assert caught.value.hint
