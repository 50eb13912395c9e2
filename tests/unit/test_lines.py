"""Requests that are written piece by piece: the line is the same."""

from __future__ import annotations

import random

import pytest

from llama_tui.engine.lines import PIECE, is_long, pieces
from llama_tui.engine.protocol import Generate, Hello, Message, decode_request, encode

ALPHABET = 'a"\\\n\t\0é我🦙\u2028\x7f '


def a_request(*lengths: int) -> Generate:
    rng = random.Random(2)
    said = tuple(Message("user", "".join(rng.choices(ALPHABET, k=length)), "hm") for length in lengths)
    return Generate(7, "name", said, {"temperature": 0.5}, ({"type": "function"},))


@pytest.mark.parametrize("lengths", [(), (10,), (PIECE,), (PIECE + 1,), (3, 3 * PIECE + 5, 0, PIECE, 2 * PIECE, 9)])
def test_the_pieces_are_the_line(lengths: tuple[int, ...]) -> None:
    request = a_request(*lengths)
    made = list(pieces(request))
    assert b"".join(made) == encode(request)
    assert decode_request(b"".join(made)) == request
    assert is_long(request) == (len(made) > 1) == any(length > PIECE for length in lengths)
    assert len(made) >= sum(length // PIECE for length in lengths if length > PIECE)


def test_what_has_no_messages_is_one_piece() -> None:
    assert list(pieces(Hello(1, 3))) == [encode(Hello(1, 3))]
    assert not is_long(Hello(1, 3))
