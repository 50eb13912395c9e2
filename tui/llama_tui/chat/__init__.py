"""Conversations: a tree of turns, where it is kept, and how an answer is made."""
