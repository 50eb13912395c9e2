"""llama-tui: a terminal chat workbench for local GGUF models."""
