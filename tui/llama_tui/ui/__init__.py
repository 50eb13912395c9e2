"""The terminal's side: the only part of the program that imports textual."""
