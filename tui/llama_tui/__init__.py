"""llama-tui: a terminal chat workbench for local GGUF models."""

from importlib.metadata import version

__version__ = version("llama-tui")
