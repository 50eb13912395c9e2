"""A screen over the chat with one line to type in."""

from __future__ import annotations

from typing import TypeVar

from textual import events
from textual.screen import ModalScreen
from textual.widgets import Input

Result = TypeVar("Result")


class Overlay(ModalScreen[Result]):
    """Keys that come before the line has the focus are not lost: a slow link delivers the key that
    opens a screen and the letters after it in one burst."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """No action before there is something to act on: its key waits with the others."""
        return bool(self.query(Input))

    def on_key(self, event: events.Key) -> None:
        """Keep what is typed early; the line gets it as soon as it is there."""
        lines = self.query(Input)
        if lines and lines.first().has_focus:
            return
        event.stop()
        event.prevent_default()
        self.call_later(self._type, event.key, event.character if event.is_printable else None)

    async def _type(self, key: str, character: str | None) -> None:
        if not self.query(Input):
            self.call_after_refresh(self._type, key, character)
            return
        line = self.query_one(Input)
        if character:
            line.insert_text_at_cursor(character)
        elif key == "backspace":
            line.action_delete_left()
        elif key == "enter":
            # After the list has heard of the letters.
            self.call_after_refresh(line.action_submit)
        else:
            self.app.simulate_key(key)  # pyright: ignore[reportUnknownMemberType]
