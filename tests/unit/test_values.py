"""Parameters: reading, checking and writing their values, for the whole table."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_tui.settings.params import BY_NAME, PARAMS, defaults, load_identity, sampling
from llama_tui.settings.values import BadValue, Param, Value

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def legal(param: Param) -> st.SearchStrategy[Any]:
    """Every value that a parameter may have."""
    match param.type:
        case "bool":
            values: st.SearchStrategy[Any] = st.booleans()
        case "int":
            low = int(param.minimum) if param.minimum is not None else None
            values = st.integers(low, int(param.maximum) if param.maximum is not None else None)
        case "float":
            values = st.floats(param.minimum, param.maximum, allow_nan=False, allow_infinity=False)
        case "str":
            values = TEXT
        case "choice":
            values = st.sampled_from(param.choices)
        case "strings":
            items = st.sampled_from(param.choices) if param.choices else TEXT
            if param.item:
                items = st.from_regex(param.item, fullmatch=True, alphabet=st.characters(exclude_categories=["Cs"]))
            values = st.lists(items).map(tuple)
        case "floats":
            values = st.lists(st.floats(0, 1e6)).map(tuple)
    return values | st.none() if param.none_word else values


@pytest.mark.parametrize("param", PARAMS, ids=lambda param: param.name)
class TestEveryParameter:
    @settings(max_examples=20)
    @given(data=st.data())
    def test_checks_its_own_values(self, param: Param, data: st.DataObject) -> None:
        value = data.draw(legal(param))
        assert param.check(value) == value

    @settings(max_examples=20)
    @given(data=st.data())
    def test_comes_back_from_toml(self, param: Param, data: st.DataObject) -> None:
        value = data.draw(legal(param))
        assert param.check(param.plain(value)) == value

    @settings(max_examples=20)
    @given(data=st.data())
    def test_comes_back_from_the_form(self, param: Param, data: st.DataObject) -> None:
        value = data.draw(legal(param))
        back = param.parse(param.format(value))
        if param.type == "float" and value is not None:
            assert back == pytest.approx(value, rel=1e-9, abs=0)
        else:
            assert back == value

    @settings(max_examples=20)
    @given(text=TEXT)
    def test_any_text_is_a_legal_value_or_a_bad_one(self, param: Param, text: str) -> None:
        try:
            value = param.parse(text)
        except BadValue as error:
            assert param.name in error.message
            assert param.allowed in error.hint
        else:
            assert param.check(value) == value

    @settings(max_examples=20)
    @given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXT, st.lists))
    def test_anything_of_toml_is_a_legal_value_or_a_bad_one(self, param: Param, value: object) -> None:
        try:
            checked = param.check(value)
        except BadValue as error:
            assert param.name in error.message
        else:
            assert param.check(checked) == checked

    def test_default_is_legal(self, param: Param) -> None:
        assert param.check(param.default) == param.default

    def test_says_what_is_allowed(self, param: Param) -> None:
        assert param.allowed
        assert not param.none_word or f'"{param.none_word}"' in param.allowed

    def test_bounds(self, param: Param) -> None:
        for bound, beyond in ((param.minimum, -1), (param.maximum, 1)):
            if bound is None:
                continue
            param.check(int(bound) if param.type == "int" else float(bound))
            with pytest.raises(BadValue):
                param.check(int(bound) + beyond)


class TestParse:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("n_ctx", "8,192", 8192),
            ("n_ctx", " 8_192 ", 8192),
            ("n_ctx", "model", None),
            ("seed", "", None),
            ("n_ctx", "", None),
            ("seed", "Random", None),
            ("temperature", "1", 1.0),
            ("temperature", ".5", 0.5),
            ("use_mmap", "off", False),
            ("use_mmap", "YES", True),
            ("flash_attn", "ON", "on"),
            ("stop", "a, b", ("a", "b")),
            ("stop", '["a, b"]', ("a, b",)),
            ("stop", "", ()),
            ("tensor_split", "3, 1", (3.0, 1.0)),
            ("system_prompt", " as it is ", " as it is "),
        ],
    )
    def test_what_people_type(self, name: str, text: str, value: Value) -> None:
        assert BY_NAME[name].parse(text) == value

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("n_ctx", "many"),
            ("n_ctx", "1.5"),
            ("temperature", "nan"),
            ("temperature", "inf"),
            ("temperature", "5.1"),
            ("use_mmap", "maybe"),
            ("flash_attn", "perhaps"),
            ("stop", "[1]"),
            ("stop", "[broken"),
            ("tensor_split", "-1"),
            ("tensor_split", "a"),
            ("top_k", ""),
        ],
    )
    def test_what_is_refused(self, name: str, text: str) -> None:
        with pytest.raises(BadValue):
            BY_NAME[name].parse(text)


class TestTable:
    def test_names_flags_and_variables_are_unique(self) -> None:
        assert len(BY_NAME) == len(PARAMS)
        assert len({param.flag for param in PARAMS}) == len(PARAMS)
        variables = [variable for param in PARAMS for variable in param.env]
        assert len(set(variables)) == len(variables)

    def test_the_defaults_that_were_promised(self) -> None:
        promised: dict[str, Value] = {
            "model_dir": "~/llama_models", "n_ctx": 2048, "n_gpu_layers": 0, "n_threads": None, "temperature": 0.7,
            "top_k": 40, "top_p": 0.95, "min_p": 0.05, "timeout": 300.0, "idle_timeout": 300.0, "seed": None,
            "max_tokens": None,
        }  # fmt: skip
        assert {name: BY_NAME[name].default for name in promised} == promised

    def test_the_kinds_divide_it(self) -> None:
        parts = [defaults(kind) for kind in ("load", "sampling", "app")]
        assert sum(len(part) for part in parts) == len(PARAMS)
        assert sampling({"top_k": 3, "n_ctx": 5})["top_k"] == 3
        assert "n_ctx" not in sampling({"n_ctx": 5})

    def test_what_only_the_engine_process_needs_does_not_make_another_engine(self) -> None:
        assert load_identity({"idle_timeout": 1.0}) == load_identity({"idle_timeout": 2.0, "temperature": 1.0})
        assert load_identity({"n_ctx": 512}) != load_identity({})

    def test_values_survive_json(self) -> None:
        for param in PARAMS:
            assert param.check(json.loads(json.dumps(param.plain(param.default)))) == param.default

    @pytest.mark.parametrize("given", ["99", "99.50", 99])
    def test_a_bad_value_is_told_as_it_was_given(self, given: str | int) -> None:
        param = BY_NAME["temperature"]
        with pytest.raises(BadValue, match=f"temperature cannot be '{given}'"):
            param.parse(given) if isinstance(given, str) else param.check(given)

    def test_a_bad_value_without_an_empty_word(self) -> None:
        with pytest.raises(BadValue, match="cannot be empty"):
            BY_NAME["top_k"].check(cast("Value", ""))
