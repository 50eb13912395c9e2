"""The engine process: the only part of the program that imports llama_cpp."""
