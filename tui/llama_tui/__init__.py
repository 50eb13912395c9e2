"""llama-tui: a terminal chat workbench for local GGUF models.

`from llama_tui import Client, SyncClient` is its door for Python programs.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_tui.client import Client, SyncClient

__all__ = ["Client", "SyncClient"]


def __getattr__(name: str) -> object:
    """The clients, imported when they are asked for: the package itself stays quick to import."""
    if name in __all__:
        from llama_tui import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """With the clients, which an interactive shell completes."""
    return sorted({*globals(), *__all__})
