"""The palette: every action of the main screen, and every theme."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.types import IgnoreReturnCallbackType

from llama_tui.ui.bindings import key_words, named

if TYPE_CHECKING:
    from llama_tui.ui.app import LlamaTui


class Commands(Provider):
    """What can be done, by name."""

    async def discover(self) -> Hits:
        """Everything, before a letter is typed."""
        for title, help_text, run in self._commands():
            yield DiscoveryHit(title, run, help=help_text)

    async def search(self, query: str) -> Hits:
        """What matches."""
        matcher = self.matcher(query)
        for title, help_text, run in self._commands():
            if (score := matcher.match(title)) > 0:
                yield Hit(score, matcher.highlight(title), run, help=help_text)

    def _commands(self) -> Iterator[tuple[str, str, IgnoreReturnCallbackType]]:
        app = cast("LlamaTui", self.app)
        for binding in (*named(app.main.BINDINGS), *named(app.BINDINGS)):
            if binding.id != "app.palette" and binding.action:
                keys = key_words(app.keys.of(binding.id or ""))

                async def run(action: str = binding.action) -> None:
                    await app.main.run_action(action)

                yield binding.description[:1].upper() + binding.description[1:], keys, run
        for name in app.theme_names:

            def use(theme: str = name) -> None:
                app.use_theme(theme)

            yield f"Theme: {name}", "in use" if name == app.wanted_theme else "", use
