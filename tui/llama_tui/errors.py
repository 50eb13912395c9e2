"""The errors of llama-tui: one small tree, each with a message and a hint.

The message says what went wrong and where; the hint says what to do about it. The terminal UI
shows both beside what they concern, the command line prints both to stderr and exits non-zero.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class LlamaTuiError(Exception):
    """Anything that a person is told about. `str(error)` is the message alone."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SettingsError(LlamaTuiError):
    """A value in a file, a variable, a flag or the form that cannot be used."""


class ModelNameError(LlamaTuiError):
    """A model name that is unknown or means more than one file."""


class BadModelFile(LlamaTuiError):
    """A file that is not a GGUF that llama.cpp could read."""


class EngineError(LlamaTuiError):
    """An engine refused a request; the engine itself is well."""


class Cut(Struct, frozen=True):
    """A way to make a conversation fit: `how` is a value of `context_full`, `messages` how many it
    would leave out, `prompt_tokens` what would stay."""

    how: str
    messages: int
    prompt_tokens: int


class ContextOverflow(EngineError):
    """A prompt that the context cannot hold together with `reply_room` tokens for the reply. `cuts`
    are the ways out that a person is to choose from, where `context_full` is "ask"."""

    def __init__(
        self,
        message: str,
        hint: str,
        prompt_tokens: int,
        n_ctx: int,
        *,
        reply_room: int = 1,
        cuts: tuple[Cut, ...] = (),
    ) -> None:
        super().__init__(message, hint)
        self.prompt_tokens = prompt_tokens
        self.n_ctx = n_ctx
        self.reply_room = reply_room
        self.cuts = cuts


class LoadFailed(EngineError):
    """llama.cpp could not load the model with these parameters."""

    def __init__(self, message: str, hint: str = "", log: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.log = log


class MissingLlamaCpp(LoadFailed):
    """llama-cpp-python is not installed, or cannot load its libraries."""


class EngineDied(EngineError):
    """The engine process ended without being asked to."""

    def __init__(self, message: str, hint: str, log: tuple[str, ...]) -> None:
        super().__init__(message, hint)
        self.log = log


class ProtocolError(EngineError):
    """The other end of a socket speaks another version, or not this protocol at all."""


class StoreError(LlamaTuiError):
    """The database of conversations cannot be read or written."""


class Shortage(Struct, frozen=True):
    """A device that has less free than is needed of it; sizes in bytes."""

    device: str
    need: int
    free: int


class Offer(Struct, frozen=True):
    """A way to load a model that does not fit as it was asked for, checked to fit: other values of
    parameters, or engines to unload before, by process id and by name. `words` say it to a person."""

    words: str
    params: Mapping[str, int | str]
    unload: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


class NoRoom(LoadFailed):
    """A model that does not fit into the memory that is free, or is one too many."""

    def __init__(self, message: str, shortages: tuple[Shortage, ...], offers: tuple[Offer, ...]) -> None:
        told = "; ".join(offer.words for offer in offers)
        super().__init__(message, f"What would work: {told}." if offers else "Nothing that can be set makes it fit.")
        self.shortages = shortages
        self.offers = offers
