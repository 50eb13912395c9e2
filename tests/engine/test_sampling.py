"""Every sampling parameter of the table reaches llama.cpp, does what it says, and breaks nothing."""

from __future__ import annotations

import json
import re
import uuid

import pytest

from llama_tui.engine.client import EngineClient
from llama_tui.engine.protocol import Finished, Token, TokenLogprob
from llama_tui.errors import EngineError
from llama_tui.settings.params import BY_NAME, PARAMS, SAMPLERS
from llama_tui.settings.values import Param, Value
from tests.engine.conftest import GREEDY, HELLO, collect, end_of, text_of

FILES = ("test_sampling.py", "test_generation.py", "test_reasoning.py", "test_context.py")
VARIED: dict[str, Value] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 3}

SAMPLING = [param for param in PARAMS if param.kind == "sampling"]


async def say(client: EngineClient, params: dict[str, Value]) -> tuple[str, Finished]:
    events = await collect(client.generate(uuid.uuid4().hex, HELLO, {"max_tokens": 60, "ignore_eos": True, **params}))
    return text_of(events), end_of(events)


def extremes(param: Param) -> list[Value]:
    """The ends of what a parameter may be."""
    bounds = [bound for bound in (param.minimum, param.maximum) if bound is not None]
    values: dict[str, list[Value]] = {
        "bool": [False, True, *([None] if param.none_word else [])],
        "int": [int(bound) for bound in bounds],
        "float": [*map(float, bounds), 1e-30],
        "strings": [(), ("",), ("é\n", "x" * 5000, "\0")],
        "str": ["", "é" * 50],
        "choice": list(param.choices),
    }
    if param.name in ("grammar", "json_schema"):
        return [""]  # what is wrong with others is told: see TestConstraints
    if param.name == "samplers":
        return [(), *((name,) for name in SAMPLERS), SAMPLERS[::-1]]
    if param.name == "logit_bias":
        return [(), ("0=-inf", "1=inf", "a=-3.5")]
    return values[param.type]


@pytest.mark.parametrize("name", [param.name for param in SAMPLING])
async def test_its_extremes_break_nothing(client: EngineClient, name: str) -> None:
    param = BY_NAME[name]
    for value in extremes(param):
        if name == "max_tokens" and value != param.minimum:
            continue  # the engine's context is the limit then, which takes a while
        if param.minimum is not None and isinstance(value, float) and not param.minimum <= value:
            continue
        for rest in (VARIED, GREEDY, {**VARIED, **ACTIVE.get(name, {})}):
            _, end = await say(client, {**rest, name: value, **({"max_tokens": 20} if name != "max_tokens" else {})})
            assert end.reason in ("length", "stop")


# What else must be set for a parameter to act.
ACTIVE: dict[str, dict[str, Value]] = {
    "penalty_last_n": {"repeat_penalty": 1.5},
    **{
        name: {"dry_multiplier": 2.0, "temperature": 0.0}
        for name in ("dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers")
    },
    "xtc_probability": {"xtc_threshold": 0.01},
    "xtc_threshold": {"xtc_probability": 1.0},
    "mirostat_tau": {"mirostat": 2},
    "mirostat_eta": {"mirostat": 1},
}


class TestGreedy:
    async def test_temperature_zero_takes_the_likeliest(self, client: EngineClient) -> None:
        greedy, _ = await say(client, GREEDY)
        assert (await say(client, {**VARIED, "temperature": 0.0}))[0] == greedy
        assert (await say(client, VARIED))[0] != greedy

    @pytest.mark.parametrize(
        "alone",
        [
            {"top_k": 1},
            {"top_p": 0.0},
            {"min_p": 1.0},
            {"top_n_sigma": 1e-6},
            {"temperature": 1e-30},
            {"temperature": 1e-6},
        ],
        ids=str,
    )
    async def test_what_leaves_one_token_leaves_the_likeliest(
        self, client: EngineClient, alone: dict[str, Value]
    ) -> None:
        greedy, _ = await say(client, GREEDY)
        assert (await say(client, {**VARIED, **alone}))[0] == greedy


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (VARIED, {"top_k": 3}),
        (VARIED, {"top_p": 0.5}),
        (VARIED, {"min_p": 0.3}),
        (VARIED, {"typical_p": 0.2}),
        (VARIED, {"top_n_sigma": 1.0}),
        (VARIED, {"temperature": 3.0}),
        (VARIED, {"seed": 4}),
        (VARIED, {"mirostat": 1}),
        (VARIED, {"mirostat": 2}),
        ({**VARIED, "mirostat": 2}, {"mirostat_tau": 1.0}),
        ({**VARIED, "mirostat": 2, "mirostat_tau": 2.0}, {"mirostat_eta": 0.9}),
        ({**VARIED, "temperature": 0.8}, {"xtc_probability": 1.0, "xtc_threshold": 0.05}),
        (GREEDY, {"repeat_penalty": 1.8}),
        (GREEDY, {"presence_penalty": 5.0}),
        (GREEDY, {"frequency_penalty": 2.0}),
        ({**GREEDY, "repeat_penalty": 1.8}, {"penalty_last_n": 2}),
        (GREEDY, {"system_prompt": "unused by the engine"}),
    ],
    ids="-".join,
)
async def test_acts(client: EngineClient, base: dict[str, Value], change: dict[str, Value]) -> None:
    before, after = await say(client, base), await say(client, {**base, **change})
    same = "system_prompt" in change  # the session puts it among the messages
    assert (before[0] == after[0]) is same


class TestDry:
    """DRY forbids what has been said; greedy answers of a random model run in circles."""

    async def test_breaks_a_circle(self, client: EngineClient) -> None:
        long: dict[str, Value] = {**GREEDY, "max_tokens": 400}
        plain, _ = await say(client, long)
        dry, _ = await say(client, {**long, "dry_multiplier": 5.0})
        assert plain != dry

    @pytest.mark.parametrize(
        "change",
        [
            {"dry_allowed_length": 20},
            {"dry_base": 4.0},
            {"dry_penalty_last_n": 0},
            {"dry_sequence_breakers": tuple("abcdefghijklmnopqrstuvwxyzNMQW&)")},
        ],
        ids="-".join,
    )
    async def test_its_settings_act(self, client: EngineClient, change: dict[str, Value]) -> None:
        base: dict[str, Value] = {**GREEDY, "max_tokens": 400, "dry_multiplier": 0.6}
        assert (await say(client, base))[0] != (await say(client, {**base, **change}))[0]


class TestConstraints:
    GRAMMAR = 'root ::= ("yes" | "no") " " [0-9]{3} "."'

    @pytest.mark.parametrize(
        "rest", [GREEDY, VARIED, {**VARIED, "mirostat": 2}, {**VARIED, "dry_multiplier": 1.0}], ids=str
    )
    async def test_a_grammar_is_followed_and_ends_the_answer(
        self, client: EngineClient, rest: dict[str, Value]
    ) -> None:
        text, end = await say(client, {**rest, "grammar": self.GRAMMAR, "ignore_eos": False})
        assert re.fullmatch(r"(yes|no) \d{3}\.", text)
        assert end.reason == "stop"
        assert (await say(client, {**rest, "grammar": self.GRAMMAR, "ignore_eos": False}))[0] == text or rest != GREEDY

    async def test_the_same_seed_gives_the_same(self, client: EngineClient) -> None:
        params: dict[str, Value] = {**VARIED, "grammar": "root ::= [a-z]{30}", "ignore_eos": False}
        assert (await say(client, params))[0] == (await say(client, params))[0]
        assert (await say(client, params))[0] != (await say(client, {**params, "seed": 4}))[0]

    async def test_what_a_grammar_allows_anyway_is_not_changed(self, client: EngineClient) -> None:
        plain, _ = await say(client, GREEDY)
        assert (await say(client, {**GREEDY, "grammar": r"root ::= [^\x00]*"}))[0] == plain

    async def test_a_json_schema_is_followed(self, client: EngineClient) -> None:
        schema = {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 8}, "size": {"enum": [1, 2]}},
            "required": ["name", "size"],
            "additionalProperties": False,
        }
        params: dict[str, Value] = {**VARIED, "json_schema": json.dumps(schema), "max_tokens": 400, "ignore_eos": False}
        found = json.loads((await say(client, params))[0])
        assert set(found) == {"name", "size"}
        assert found["size"] in (1, 2)

    @pytest.mark.parametrize(
        ("params", "reason"),
        [
            ({"grammar": 'root ::= "a" item'}, "line 1: the rule item is not defined"),
            ({"grammar": "root ::= root"}, "begins with itself"),
            ({"grammar": "nonsense"}, "line 1"),
            ({"json_schema": "{"}, "no JSON"),
            ({"logit_bias": ("99999999=1",)}, "no token"),
            ({"logit_bias": ("several tokens=1",)}, "tokens"),
            ({"logit_bias": ("a",)}, "logit_bias cannot be"),
            ({"samplers": ("top_q",)}, "samplers cannot be"),
        ],
        ids=str,
    )
    async def test_bad_ones_are_refused_and_the_engine_lives(
        self, client: EngineClient, params: dict[str, Value], reason: str
    ) -> None:
        with pytest.raises(EngineError, match=reason):
            await say(client, params)
        assert (await say(client, GREEDY))[0]


class TestBias:
    async def test_forbids_and_forces(self, client: EngineClient) -> None:
        greedy, _ = await say(client, GREEDY)
        letter = greedy[0]
        without, _ = await say(client, {**GREEDY, "logit_bias": (f"{letter}=-inf",)})
        assert letter not in without or without != greedy
        assert (await say(client, {**GREEDY, "logit_bias": ("z=1000",)}))[0] == "z" * 60

    async def test_by_id(self, client: EngineClient) -> None:
        text, _ = await say(client, {**GREEDY, "logit_bias": ("65=1000",), "max_tokens": 5})
        assert text == text[0] * 5


class TestOrder:
    async def test_only_what_is_listed_acts(self, client: EngineClient) -> None:
        greedy, _ = await say(client, GREEDY)
        assert (await say(client, {**VARIED, "top_k": 1, "samplers": ("top_k",)}))[0] == greedy
        assert (await say(client, {**VARIED, "top_k": 1, "samplers": ("temperature",)}))[0] != greedy

    async def test_the_order_matters(self, client: EngineClient) -> None:
        hot: dict[str, Value] = {**VARIED, "temperature": 4.0, "min_p": 0.3}
        first, _ = await say(client, {**hot, "samplers": ("temperature", "min_p")})
        assert first != (await say(client, {**hot, "samplers": ("min_p", "temperature")}))[0]


class TestLogprobs:
    async def likely(self, client: EngineClient, **params: Value) -> list[TokenLogprob]:
        asked: dict[str, Value] = {"max_tokens": 30, "ignore_eos": True, **params}
        events = await collect(client.generate(uuid.uuid4().hex, HELLO, asked))
        return [found for event in events if isinstance(event, Token) for found in event.logprobs]

    async def test_off_there_are_none(self, client: EngineClient) -> None:
        assert await self.likely(client) == []

    async def test_every_token_with_the_likeliest_in_its_place(self, client: EngineClient) -> None:
        found = await self.likely(client, **GREEDY, top_logprobs=3)
        assert len(found) == 30
        assert "".join(token.text for token in found) == (await say(client, {**GREEDY, "max_tokens": 30}))[0]
        for token in found:
            assert len(token.top) == 3
            assert (token.top[0].token, token.top[0].logprob) == (token.token, token.logprob)
            assert 0 > token.top[0].logprob >= token.top[1].logprob >= token.top[2].logprob

    async def test_they_sum_to_one_and_no_sampler_changes_them(self, client: EngineClient) -> None:
        import math

        (plain,) = await self.likely(client, top_logprobs=100, max_tokens=1, seed=1)
        (biased,) = await self.likely(client, top_logprobs=100, max_tokens=1, logit_bias=("z=1000",))
        assert biased.top == plain.top
        assert 0.2 < sum(math.exp(token.logprob) for token in plain.top) <= 1
        assert biased.text == "z"
        assert (await self.likely(client, top_logprobs=0, max_tokens=1, seed=1))[0].top == ()


async def test_penalties_of_nothing_change_nothing(client: EngineClient) -> None:
    greedy, _ = await say(client, GREEDY)
    neutral: dict[str, Value] = {
        **GREEDY,
        "repeat_penalty": 1.8,
        "presence_penalty": 5.0,
        "frequency_penalty": 5.0,
        "penalty_last_n": 0,
        "dry_multiplier": 5.0,
        "dry_penalty_last_n": 0,
    }
    assert (await say(client, neutral))[0] == greedy


async def test_max_tokens_is_kept_to_the_token(client: EngineClient) -> None:
    for limit in (1, 2, 17):
        assert (await say(client, {"max_tokens": limit}))[1].completion_tokens == limit


def test_every_sampling_parameter_is_in_some_test_of_its_effect() -> None:
    from pathlib import Path

    tests = "".join(Path(__file__).with_name(name).read_text() for name in FILES)
    assert not [param.name for param in SAMPLING if f'"{param.name}"' not in tests and f"{param.name}=" not in tests]
