"""The layers of the settings, their files, and what happens to them when things go wrong."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from llama_tui.errors import SettingsError
from llama_tui.paths import Paths
from llama_tui.settings import document
from llama_tui.settings.layers import Setting
from llama_tui.settings.params import BY_NAME, PARAMS
from llama_tui.settings.store import SettingsStore
from llama_tui.settings.values import BadValue, Value


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(config=tmp_path / "config", data=tmp_path, state=tmp_path, runtime=tmp_path, cache=tmp_path)


def store(
    paths: Paths,
    *,
    config: str | bytes | None = None,
    saved: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Value] | None = None,
) -> SettingsStore:
    """A loaded store over files with these contents."""
    paths.config.mkdir(exist_ok=True)
    if config is not None:
        paths.config_file.write_bytes(config if isinstance(config, bytes) else config.encode())
    if saved is not None:
        paths.settings_file.write_text(saved)
    settings = SettingsStore(paths, environ or {}, flags or {})
    settings.load()
    return settings


def on_disk(paths: Paths) -> dict[str, object]:
    return tomllib.loads(paths.settings_file.read_text())


def got(settings: SettingsStore, name: str, model: str | None = None) -> tuple[Value, str]:
    setting = settings.resolve(model)[name]
    return setting.value, setting.origin


class TestLayers:
    def test_without_files_everything_is_at_its_default(self, tmp_path: Path) -> None:
        folder = tmp_path / "none"
        settings = SettingsStore(Paths(folder, folder, folder, folder, folder), {}, {})
        settings.load()
        assert settings.resolve() == {param.name: Setting(param.default, "default") for param in PARAMS}
        assert settings.problems == []
        assert not folder.exists()

    def test_each_outranks_those_below(self, paths: Paths) -> None:
        config = "n_ctx = 1001\n[models.m]\nn_ctx = 1002\n"
        saved = "n_ctx = 1003\n[models.m]\nn_ctx = 1004\n"
        environ = {"LLAMA_CPP_N_CTX": "1005"}
        flags: dict[str, Value] = {"n_ctx": 1006}
        assert got(store(paths), "n_ctx", "m") == (2048, "default")
        assert got(store(paths, config=config), "n_ctx") == (1001, "config")
        assert got(store(paths), "n_ctx", "m") == (1002, "config")
        assert got(store(paths), "n_ctx", "other") == (1001, "config")
        assert got(store(paths, saved="n_ctx = 1003\n"), "n_ctx", "m") == (1003, "saved")
        assert got(store(paths, saved=saved), "n_ctx", "m") == (1004, "saved")
        assert got(store(paths), "n_ctx") == (1003, "saved")
        assert got(store(paths, environ=environ), "n_ctx", "m") == (1005, "env")
        assert got(store(paths, environ=environ, flags=flags), "n_ctx", "m") == (1006, "flag")

    def test_the_source_is_named(self, paths: Paths) -> None:
        settings = store(
            paths, config="top_k = 1", saved="top_p = 0.5", environ={"LLAMA_TUI_MIN_P": "0"}, flags={"n_ctx": 512}
        )
        resolved = settings.resolve()
        sources = [resolved[name].source for name in ("top_k", "top_p", "min_p", "n_ctx", "seed")]
        assert sources == ["config.toml", "settings.toml", "LLAMA_TUI_MIN_P", "--n-ctx", ""]

    @pytest.mark.parametrize(
        ("variable", "text", "name", "value"),
        [
            ("LLAMA_CPP_N_GPU_LAYERS", "-1", "n_gpu_layers", -1),
            ("LLAMA_CPP_N_CTX", "8192", "n_ctx", 8192),
            ("LLAMA_CPP_N_THREADS", "4", "n_threads", 4),
            ("LLAMA_CPP_MODEL_DIR", "/data", "model_dir", "/data"),
        ],
    )
    def test_the_four_variables(self, paths: Paths, variable: str, text: str, name: str, value: Value) -> None:
        assert got(store(paths, environ={variable: text}), name) == (value, "env")

    @pytest.mark.parametrize("name", BY_NAME)
    def test_every_parameter_has_a_variable(self, paths: Paths, name: str) -> None:
        param = BY_NAME[name]
        texts = {"bool": "true", "strings": "a, b", "floats": "1, 2", "str": "a text"}
        if param.type == "strings" and (param.choices or param.item):
            texts["strings"] = ", ".join(param.choices) or param.example
        text = texts.get(param.type) or (param.choices[-1] if param.choices else f"{param.maximum or 0:.0f}")
        environ = {f"LLAMA_TUI_{name.upper()}": text}
        assert got(store(paths, environ=environ), name) == (param.parse(text), "env")

    def test_our_variable_outranks_llama_cpps_unless_it_is_bad(self, paths: Paths) -> None:
        environ = {"LLAMA_TUI_N_CTX": "4096", "LLAMA_CPP_N_CTX": "1024"}
        assert got(store(paths, environ=environ), "n_ctx") == (4096, "env")
        settings = store(paths, environ=environ | {"LLAMA_TUI_N_CTX": "many"})
        assert got(settings, "n_ctx") == (1024, "env")
        assert len(settings.problems) == 1

    def test_an_empty_variable_is_not_set(self, paths: Paths) -> None:
        settings = store(paths, environ={"LLAMA_CPP_N_CTX": ""})
        assert got(settings, "n_ctx") == (2048, "default")
        assert settings.problems == []

    @pytest.mark.parametrize(
        "model",
        [
            "Qwen3-8B.gguf",
            "qwen3-8b",
            "llama-cpp/Qwen3-8B",
            "llama_cpp/qwen3-8b.gguf",
            "sub/Qwen3-8B",
            "/x/Qwen3-8B.gguf",
        ],
    )
    def test_a_models_table_by_any_of_its_names(self, paths: Paths, model: str) -> None:
        settings = store(paths, config='[models."qwen3-8b.gguf"]\ntemperature = 0.3\n')
        assert got(settings, "temperature", model) == (0.3, "config")
        assert got(settings, "temperature", "qwen3-8b-instruct") == (0.7, "default")

    def test_the_full_name_outranks_the_file_name(self, paths: Paths) -> None:
        settings = store(paths, config='[models.x]\ntop_k = 1\ntop_p = 0.1\n[models."sub/x"]\ntop_k = 2\n')
        assert got(settings, "top_k", "sub/x") == (2, "config")
        assert got(settings, "top_p", "sub/x") == (0.1, "config")
        assert got(settings, "top_k", "x") == (1, "config")

    def test_none_by_its_word(self, paths: Paths) -> None:
        settings = store(
            paths, config='seed = "random"\nn_threads = "auto"', environ={"LLAMA_TUI_MAX_TOKENS": "unlimited"}
        )
        assert got(settings, "seed") == (None, "config")
        assert got(settings, "max_tokens") == (None, "env")

    def test_values_are_those_of_resolve(self, paths: Paths) -> None:
        settings = store(paths, config="top_k = 3")
        assert settings.values("m") == {name: setting.value for name, setting in settings.resolve("m").items()}


class TestProblems:
    @pytest.mark.parametrize(
        ("config", "line", "words"),
        [
            ('theme = "dawn"\nn_ctx = "many"\n', 2, ["n_ctx", "'many'"]),
            ("# n_ctx = 1\n\n  n_ctx = 3\n", 3, ["n_ctx", "3"]),
            ("temperature = 9.5", 1, ["temperature", "9.5"]),
            ("temperature = nan", 1, ["temperature"]),
            ('[models."a=b"]\ntop_k = -1\n', 2, ["top_k"]),
            ('models."a=b".top_k = -1\n', 1, ["top_k"]),
            ("[models]\nx = { top_k = -1 }\n", 2, ["top_k"]),
            ('stop = [\n  "a",\n  5,\n]\n', 1, ["stop"]),
            ('system_prompt = """\ntop_k = -1\n"""\ntop_k = -2\n', 4, ["top_k"]),
            ('"top_k" = -1', 1, ["top_k"]),
            ('[models.x]\ntheme = "dawn"\n', 2, ["theme", "whole program"]),
            ("[models]\nx = 5\n", 2, ["models.x", "table"]),
            ("models = 5\n", 1, ["models"]),
            ('[keys]\n"chat.stop" = 8\n', 2, ["chat.stop"]),
            ('[keys]\n"chat.stop" = ""\n', 2, ["chat.stop"]),
            ("keys = []\n", 1, ["keys"]),
            ("n_ctx = \n", 1, ["TOML"]),
            ("top_k = 1\ntop_k = 2\n", 2, ["TOML"]),
            ('theme = "dawn\n', 1, ["TOML"]),
            ("[models", 1, ["TOML"]),
            (b"top_k = 1\n# \xff\n", 2, ["UTF-8"]),
        ],
    )
    def test_name_file_line_and_value(self, paths: Paths, config: str | bytes, line: int, words: list[str]) -> None:
        (problem,) = store(paths, config=config).problems
        assert problem.message.startswith(f"{paths.config_file}, line {line}: ")
        for word in words:
            assert word in problem.message
        assert problem.hint

    def test_say_what_is_allowed(self, paths: Paths) -> None:
        (problem,) = store(paths, config="temperature = -1").problems
        assert "from 0 to 5" in problem.hint

    def test_the_layer_below_holds(self, paths: Paths) -> None:
        settings = store(
            paths, config="top_k = 7\nn_ctx = 1", saved="top_k = -1\ntop_p = 0.5", environ={"LLAMA_TUI_TOP_P": "x"}
        )
        assert got(settings, "top_k") == (7, "config")
        assert got(settings, "n_ctx") == (2048, "default")
        assert got(settings, "top_p") == (0.5, "saved")
        assert len(settings.problems) == 3

    def test_a_broken_file_leaves_the_other_layers(self, paths: Paths) -> None:
        settings = store(paths, config="this is not TOML", saved="top_k = 7")
        assert got(settings, "top_k") == (7, "saved")
        assert "line 1" in settings.problems[0].message

    def test_name_the_variable(self, paths: Paths) -> None:
        (problem,) = store(paths, environ={"LLAMA_CPP_N_CTX": "lots"}).problems
        assert "LLAMA_CPP_N_CTX" in problem.message
        assert "'lots'" in problem.message
        assert "16" in problem.hint

    def test_an_unknown_setting_with_the_nearest(self, paths: Paths) -> None:
        first, second = store(paths, config="temprature = 1", saved="wholly_unknown = 1").problems
        assert "temprature" in first.message
        assert "temperature" in first.hint
        assert "settings.toml, line 1" in second.message

    def test_a_misspelt_variable(self, paths: Paths) -> None:
        (problem,) = store(paths, environ={"LLAMA_TUI_TEMPRATURE": "1", "LLAMA_TUI_XYZ": "1"}).problems
        assert "LLAMA_TUI_TEMPERATURE" in problem.hint

    def test_a_file_that_cannot_be_read(self, paths: Paths) -> None:
        paths.config.mkdir()
        paths.config_file.mkdir()
        (problem,) = store(paths).problems
        assert str(paths.config_file) in problem.message

    def test_begin_anew_with_each_load(self, paths: Paths) -> None:
        settings = store(paths, config="top_k = -1")
        paths.config_file.write_text("top_k = 5")
        settings.load()
        assert settings.problems == []
        assert got(settings, "top_k") == (5, "config")

    @given(data=st.binary(max_size=200))
    def test_never_more_than_problems_come_of_any_bytes(
        self, data: bytes, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("any")
        settings = store(Paths(folder, folder, folder, folder, folder), config=data)
        assert settings.resolve()["n_ctx"].value == 2048 or settings.resolve()["n_ctx"].origin == "config"


class TestSave:
    def test_is_there_at_the_next_start(self, paths: Paths) -> None:
        settings = store(paths)
        assert settings.save("temperature", 0.2, "qwen") is None
        settings.save("n_ctx", None)
        assert got(settings, "temperature", "qwen") == (0.2, "saved")
        again = store(paths)
        assert got(again, "temperature", "qwen") == (0.2, "saved")
        assert got(again, "temperature") == (0.7, "default")
        assert got(again, "n_ctx", "qwen") == (None, "saved")

    def test_config_toml_is_never_touched(self, paths: Paths) -> None:
        settings = store(paths, config="# mine\ntop_k=1   # so\n")
        before = paths.config_file.stat()
        settings.save("top_k", 5)
        settings.reset("top_k")
        after = paths.config_file.stat()
        assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)

    def test_a_bad_value_is_refused_and_nothing_written(self, paths: Paths) -> None:
        settings = store(paths)
        with pytest.raises(BadValue):
            settings.save("temperature", 99.0)
        assert not paths.settings_file.exists()

    def test_unknown_keys_are_kept(self, paths: Paths) -> None:
        saved = 'future = [1, {a = 2}]\nwhen = 2030-01-02\n[models."m"]\nnew = 1.5\n[other.table]\nx = "y"\n'
        settings = store(paths, saved=saved)
        settings.save("top_k", 5, "m")
        expected = tomllib.loads(saved)
        expected["models"]["m"]["top_k"] = 5
        assert on_disk(paths) == expected

    def test_what_is_for_the_whole_program_is_never_a_models(self, paths: Paths) -> None:
        settings = store(paths)
        settings.save("theme", "dawn", "m")
        assert on_disk(paths) == {"theme": "dawn"}
        settings.reset("theme", "m")
        assert on_disk(paths) == {}

    def test_another_spelling_of_the_model_is_used(self, paths: Paths) -> None:
        settings = store(paths, saved='[models."llama-cpp/Big.gguf"]\ntop_k = 1\n')
        settings.save("top_k", 2, "Big")
        assert on_disk(paths) == {"models": {"llama-cpp/Big.gguf": {"top_k": 2}}}

    def test_an_outranked_value_is_kept_and_its_origin_told(self, paths: Paths) -> None:
        settings = store(paths, environ={"LLAMA_CPP_N_CTX": "512"})
        settings.save("n_ctx", 4096)
        assert got(settings, "n_ctx") == (512, "env")
        assert on_disk(paths) == {"n_ctx": 4096}

    def test_mode_and_link_are_kept(self, paths: Paths, tmp_path: Path) -> None:
        target = tmp_path / "dotfiles" / "settings.toml"
        target.parent.mkdir()
        target.write_text("top_k = 1\n")
        target.chmod(0o640)
        paths.config.mkdir()
        paths.settings_file.symlink_to(target)
        store(paths).save("top_k", 2)
        assert paths.settings_file.is_symlink()
        assert tomllib.loads(target.read_text()) == {"top_k": 2}
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
        assert [file.name for file in target.parent.iterdir()] == ["settings.toml"]

    def test_a_new_file_is_private_and_says_whose_it_is(self, paths: Paths) -> None:
        store(paths).save("top_k", 2)
        assert stat.S_IMODE(paths.settings_file.stat().st_mode) == 0o600
        assert paths.settings_file.read_text().startswith("# ")

    @given(text=st.text(st.characters(exclude_categories=["Cs"])), number=st.floats(0, 5))
    def test_any_text_and_number_come_back(
        self, text: str, number: float, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        folder = tmp_path_factory.mktemp("save")
        paths = Paths(folder, folder, folder, folder, folder)
        settings = store(paths)
        settings.save("system_prompt", text, "a model")
        settings.save("stop", (text, "end"))
        settings.save("temperature", number)
        again = store(paths)
        assert again.problems == []
        for one in (settings, again):
            assert one.values("a model")["system_prompt"] == text
            assert one.values("a model")["stop"] == (text, "end")
            assert one.values("a model")["temperature"] == number


class TestReset:
    def test_falls_to_the_layer_below_step_by_step(self, paths: Paths) -> None:
        settings = store(paths, config="[models.m]\ntop_k = 2\n", saved="top_k = 3\n[models.m]\ntop_k = 4\n")
        for value, origin in ((4, "saved"), (3, "saved"), (2, "config")):
            assert got(settings, "top_k", "m") == (value, origin)
            assert settings.is_saved("top_k", "m") == (origin == "saved")
            below = settings.below("top_k", "m")
            settings.reset("top_k", "m")
            assert settings.resolve("m")["top_k"] == below
        assert on_disk(paths) == {}

    def test_without_a_saved_value_nothing_is_written(self, paths: Paths) -> None:
        settings = store(paths)
        settings.reset("top_k", "m")
        assert not paths.settings_file.exists()

    def test_below_looks_past_the_saved_value_only(self, paths: Paths) -> None:
        settings = store(paths, config="top_k = 2", saved="top_k = 3", environ={"LLAMA_TUI_TOP_K": "4"})
        assert settings.below("top_k") == Setting(2, "config", "config.toml")
        assert settings.below("top_k", "any") == Setting(2, "config", "config.toml")
        assert settings.below("top_p") == Setting(0.95, "default")

    def test_other_models_keep_theirs(self, paths: Paths) -> None:
        settings = store(paths)
        settings.save("top_k", 1, "a")
        settings.save("top_k", 2, "b")
        settings.reset("top_k", "a")
        assert on_disk(paths) == {"models": {"b": {"top_k": 2}}}


class TestTwoPrograms:
    def test_see_each_others_changes(self, paths: Paths) -> None:
        one, other = store(paths), store(paths)
        one.save("top_k", 1)
        other.save("top_p", 0.5, "m")
        one.save("min_p", 0.1)
        assert on_disk(paths) == {"top_k": 1, "min_p": 0.1, "models": {"m": {"top_p": 0.5}}}
        assert got(one, "top_p", "m") == (0.5, "saved")

    def test_lose_nothing_when_they_write_at_once(self, paths: Paths) -> None:
        script = (
            "import sys; from pathlib import Path; from llama_tui.paths import Paths\n"
            "from llama_tui.settings.store import SettingsStore\n"
            "folder = Path(sys.argv[1]); store = SettingsStore(Paths(folder, folder, folder, folder, folder), {}, {})\n"
            "store.load(); sys.stdin.read()\n"
            "for number in range(20): store.save('top_k', number, f'{sys.argv[2]}-{number}')\n"
        )
        paths.config.mkdir()
        writers = [
            subprocess.Popen([sys.executable, "-c", script, str(paths.config), name], stdin=subprocess.PIPE)
            for name in ("a", "b", "c")
        ]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()
        assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
        models = on_disk(paths)["models"]
        assert models == {f"{name}-{number}": {"top_k": number} for name in "abc" for number in range(20)}

    def test_one_that_holds_the_lock_for_ever_is_reported(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(document, "LOCK_SECONDS", 0.0)
        settings = store(paths)
        settings.save("top_k", 1)
        with (paths.config / "settings.toml.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(SettingsError, match="another program"):
                settings.save("top_k", 2)
        assert on_disk(paths) == {"top_k": 1}
        settings.save("top_k", 3)
        assert on_disk(paths) == {"top_k": 3}

    def test_a_file_system_without_locks_is_written_to(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        def none(*_: object) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr(fcntl, "flock", none)
        store(paths).save("top_k", 2)
        assert on_disk(paths) == {"top_k": 2}


class TestWriteErrors:
    def test_a_broken_file_is_moved_aside_never_overwritten(self, paths: Paths) -> None:
        for number in (1, 2):
            settings = store(paths, saved=f"broken {number}")
            assert len(settings.problems) == 1
            warning = settings.save("top_k", number)
            assert warning is not None
            aside = paths.config / f"settings.toml.broken-{number}"
            assert str(aside) in warning.hint
            assert warning in settings.problems
            assert aside.read_text() == f"broken {number}"
            assert on_disk(paths) == {"top_k": number}

    def test_a_table_that_is_none_is_not_overwritten(self, paths: Paths) -> None:
        settings = store(paths, saved="models = 5\n")
        with pytest.raises(SettingsError, match="models"):
            settings.save("top_k", 1, "m")
        assert on_disk(paths) == {"models": 5}
        settings.save("top_k", 1)
        assert on_disk(paths) == {"models": 5, "top_k": 1}

    def test_a_full_disk_leaves_the_old_file_and_the_value_in_memory(
        self, paths: Paths, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = store(paths, saved="top_k = 1\n")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(SettingsError, match="No space left") as caught:
                settings.save("top_k", 2, "m")
        assert "space" in caught.value.hint
        assert on_disk(paths) == {"top_k": 1}
        assert {file.name for file in paths.config.iterdir()} == {"settings.toml", "settings.toml.lock"}
        assert got(settings, "top_k", "m") == (2, "saved")
        settings.load()
        assert got(settings, "top_k", "m") == (1, "saved")

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        folder = tmp_path / "file" / "config"
        settings = SettingsStore(Paths(folder, folder, folder, folder, folder), {}, {})
        with pytest.raises(SettingsError, match="cannot be written") as caught:
            settings.save("top_k", 2)
        assert "XDG_CONFIG_HOME" in caught.value.hint
        assert got(settings, "top_k") == (2, "saved")

    def test_a_read_only_file_is_respected(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = store(paths, saved="top_k = 1\n")
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(SettingsError, match="Permission denied"):
            settings.save("top_k", 2)
        assert on_disk(paths) == {"top_k": 1}

    def test_a_text_that_is_not_unicode(self, paths: Paths) -> None:
        settings = store(paths)
        with pytest.raises(SettingsError, match="Unicode"):
            settings.save("system_prompt", "a\udc80b")
        assert not paths.settings_file.exists()


class TestKeysAndFolders:
    def test_key_bindings(self, paths: Paths) -> None:
        settings = store(paths, config='[keys]\n"chat.stop" = "f8"\n"app.help" = "ctrl+g,f1"\nbad = 1\n')
        assert settings.keys() == {"chat.stop": "f8", "app.help": "ctrl+g,f1"}
        assert len(settings.problems) == 1

    def test_only_config_toml_has_key_bindings(self, paths: Paths) -> None:
        settings = store(paths, saved='[keys]\n"chat.stop" = "f8"\n')
        assert settings.keys() == {}
        assert "keys" in settings.problems[0].message

    def test_model_folders_with_home_and_variables(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        assert store(paths).model_dirs() == [Path("/home/me/llama_models")]
        text = os.pathsep.join(["~/a", "$DATA/b", "${DATA}c", "", " /d ", "$NONE/e"])
        settings = store(paths, environ={"DATA": "/data"}, flags={"model_dir": text})
        folders = ["/home/me/a", "/data/b", "/datac", "/d", str(Path.cwd() / "$NONE/e")]
        assert settings.model_dirs() == [Path(folder) for folder in folders]

    def test_the_home_of_nobody_is_left_as_it_is(self, paths: Paths) -> None:
        settings = store(paths, config=tomli_w.dumps({"model_dir": "~no-such-user/x"}))
        assert settings.model_dirs() == [Path.cwd() / "~no-such-user/x"]
