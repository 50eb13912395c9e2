"""`python -m llama_tui` is `llama-tui`."""

from llama_tui.cli import main

if __name__ == "__main__":
    main()
