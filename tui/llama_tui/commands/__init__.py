"""The commands of the shell: `llama-tui run`, `ps`, and the like, one module each."""
