"""Engines as the rest of the program sees them: processes on sockets."""
