"""The line of a request in pieces, so that one of tens of megabytes holds the program up for moments only."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import msgspec

from llama_tui.engine import protocol
from llama_tui.engine.protocol import Generate, Message, Request

PIECE = 1 << 18
"""Characters of a message that are written out at a time."""


def pieces(request: Request) -> Iterator[bytes]:
    """What `protocol.encode` makes of a request, in its order; all of it at once where no message is long."""
    messages = request.messages if isinstance(request, Generate) else ()
    long = [message.content for message in messages if _is_long(message)]
    if not long:
        yield protocol.encode(request)
        return
    mark = uuid.uuid4().hex
    marked = (msgspec.structs.replace(message, content=mark) if _is_long(message) else message for message in messages)
    before, *rests = protocol.encode(msgspec.structs.replace(request, messages=tuple(marked))).split(mark.encode())
    yield before
    for content, rest in zip(long, rests, strict=True):
        for at in range(0, len(content), PIECE):
            yield msgspec.json.encode(content[at : at + PIECE])[1:-1]  # without its quotes
        yield rest


def is_long(request: Request) -> bool:
    """Whether there is more than one piece."""
    return isinstance(request, Generate) and any(map(_is_long, request.messages))


def _is_long(message: Message) -> bool:
    return len(message.content) > PIECE
