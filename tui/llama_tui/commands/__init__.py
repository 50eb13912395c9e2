"""The commands of the shell, one module each: `main(arguments)` returns the exit code, `parser()`
is what its help and the completion are made from."""

COMMANDS = {
    "run": "answer a prompt on standard output",
    "ps": "list the engines that run",
    "stop": "end engines and give their memory back",
    "keep": "keep a model loaded however long it is unused",
    "models": "list the models of the model folders",
    "logs": "show what an engine printed",
    "bench": "measure a model on this machine, with one or several sets of load parameters",
    "doctor": "check the installation, the GPUs, the folders and the terminal",
    "config": "show the settings with their origins, or begin a config.toml",
    "completion": "print the completion script of a shell",
}
"""Each command with what it does, in the order in which help lists them."""
