"""Answers that follow a grammar, of its own or made from a JSON schema."""

from __future__ import annotations

import ctypes
import importlib
import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from llama_tui.errors import EngineError
from llama_tui.settings.values import Value
from llama_tui.worker.binding import llama
from llama_tui.worker.gbnf import check

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama.h, struct llama_token_data."""


def grammar_of(params: Mapping[str, Value]) -> str:
    """The checked grammar that the parameters ask for, empty for none; raises `EngineError`."""
    grammar, schema = str(params["grammar"]).strip(), str(params["json_schema"]).strip()
    if grammar and schema:
        raise EngineError("grammar and json_schema cannot both be set", "Empty one of them.")
    if schema:
        grammar = grammar_of_schema(schema)
    if grammar:
        check(grammar)
    return grammar


def grammar_of_schema(text: str) -> str:
    """The grammar of a JSON schema; raises `EngineError` where it cannot be made one."""
    try:
        schema: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"json_schema is no JSON: {error}", 'Such as {"type": "object", "properties": …}.') from error
    if isinstance(schema, dict) and "$ref" in schema:
        # The converter does not look beside a reference, where the definitions are.
        beside = cast("dict[str, Any]", schema)
        beside["anyOf"] = [{"$ref": beside.pop("$ref")}]
    convert: Any = importlib.import_module("llama_cpp.llama_grammar").json_schema_to_gbnf
    try:
        return str(convert(json.dumps(schema)))
    except Exception as error:  # it raises whatever its own code happens to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EngineError(
            f"json_schema cannot be made a grammar: {reason[:200]}", "Simplify the schema; references stay inside it."
        ) from error


class Constraint:
    """Samples tokens that a grammar allows, from the token `begins_with` on if one is given; with
    `everywhere` it holds for thoughts as well. `close` frees it.

    To ask a grammar about a whole vocabulary takes about a hundred times as long as to ask about
    one token, so a token is sampled first, and only where it is refused again from those allowed.
    """

    def __init__(self, grammar: str, vocab: Any, begins_with: int | None = None, *, everywhere: bool = False) -> None:
        self.everywhere = everywhere
        self._grammar: Any
        if begins_with is None:
            self._grammar = llama.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
        else:
            begin = (llama.llama_token * 1)(begins_with)
            self._grammar = llama.llama_sampler_init_grammar_lazy_patterns(
                vocab, grammar.encode(), b"root", None, 0, begin, 1
            )
        if not self._grammar:
            raise EngineError("llama.cpp cannot use this grammar", "The engine's log says why.")
        self._all = np.zeros(llama.llama_vocab_n_tokens(vocab), _CANDIDATE)
        self._one = np.zeros(1, _CANDIDATE)

    def sample(self, chain: Any, context: Any) -> int:
        """The next token, which the chain and the grammar are told of."""
        token = self._choose(chain, context)
        if not self._allows(token):
            token = self._choose(chain, context, constrained=True)
        llama.llama_sampler_accept(self._grammar, token)
        llama.llama_sampler_accept(chain, token)
        return token

    def _choose(self, chain: Any, context: Any, *, constrained: bool = False) -> int:
        candidates = self._all
        candidates["id"] = np.arange(len(candidates))
        candidates["logit"] = np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (len(candidates),))
        candidates["p"] = 0
        if np.isnan(candidates["logit"]).any():
            raise EngineError("The model computes no numbers any more", "The file may be damaged.")
        array = _array(candidates)
        if constrained:
            llama.llama_sampler_apply(self._grammar, ctypes.byref(array))
            if not np.isfinite(candidates["logit"]).any():
                raise EngineError("The grammar allows none of the model's tokens here", "Change the grammar.")
        llama.llama_sampler_apply(chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _allows(self, token: int) -> bool:
        self._one[0] = (token, 1.0, 0.0)
        llama.llama_sampler_apply(self._grammar, ctypes.byref(_array(self._one)))
        return bool(np.isfinite(self._one["logit"][0]))

    def close(self) -> None:
        """Free the grammar."""
        if self._grammar:
            llama.llama_sampler_free(self._grammar)
            self._grammar = None


def _array(candidates: Any) -> Any:
    data = candidates.ctypes.data_as(llama.llama_token_data_p)
    return llama.llama_token_data_array(data, len(candidates), -1, False)
