"""A small program around the transcript and the prompt, and an answer that uses all of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from textual.app import App, ComposeResult
from textual.pilot import Pilot

from llama_tui.ui.theme import Themes
from llama_tui.ui.widgets.prompt import Prompt
from llama_tui.ui.widgets.transcript import Entry, Transcript

RICH = """\
# Switching models

Press **ctrl+o**, type a few letters of the *name*, and press `enter`. It is ~~slow~~ quick; see
[the guide](https://example.org/guide) or <https://llama.cpp>.

1. Open the switcher
2. Type to filter:
   - `qwen` finds qwen3-8b
   - `llama` finds two

- [x] loaded
- [ ] not loaded

> A quote with **bold** text, long enough to be wrapped over more than a single row of the screen.

| Model | Size | Fits | What it is good for |
|:------|-----:|:----:|---------------------|
| guide | 6 MB | yes | questions about this program |
| llama-70b | 42 GB | **no** | `anything`, if you have the memory for it and the patience to wait |

## Example

```python
def ask(question: str, limit: int = 84) -> str:  # one call
    return Client("guide").ask(question, max_tokens=limit)
```

---
Wide: 我们去吃饭。 <b>html</b>
"""

FOOTER = "guide · 84 tokens · 212 tok/s · first 0.04 s · stop"


def conversation() -> list[Entry]:
    """One of each role."""
    return [
        Entry(key="u1", role="user", title="you", text="How do I *switch* models?\n\x1b]0;title\x07 <b>"),
        Entry(key="a1", role="assistant", title="guide", text=RICH, footer=FOOTER, siblings=(2, 3)),
        Entry(key="n1", role="notice", text="The oldest messages were left out: the context is full."),
        Entry(
            key="e1",
            role="error",
            title="The engine died",
            text="The engine of guide ended with signal 9 (SIGKILL).",
            hint="Press F5 to load it again.",
            log=("llama_kv_cache: size = 64.00 MiB", "out of memory"),
        ),
    ]


class Sample(App[None]):
    """The two widgets, and nothing that moves."""

    CSS = "Prompt { dock: bottom; }"

    def __init__(self, entries: Iterable[Entry] = (), theme: str = "night") -> None:
        super().__init__()
        self._entries = list(entries)
        self._wanted = theme
        self.submitted: list[str] = []
        self.asked: list[str] = []

    def compose(self) -> ComposeResult:
        yield Transcript()
        yield Prompt()

    def on_mount(self) -> None:
        themes = Themes(Path("/nonexistent"))
        for name in themes.names:
            if theme := themes.theme(name):
                self.register_theme(theme)
        self.theme = self._wanted
        self.prompt.cursor_blink = False
        self.transcript.show(self._entries)
        self.prompt.focus()

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        self.submitted.append(event.text)

    def on_prompt_page_turned(self, event: Prompt.PageTurned) -> None:
        self.asked.append(f"page {event.pages}")
        self.transcript.page(event.pages)

    def on_prompt_follow_asked(self) -> None:
        self.asked.append("follow")


def screen_lines(app: Sample) -> list[str]:
    """The rows of the transcript as they are on the screen."""
    transcript = app.transcript
    height = transcript.scrollable_content_region.height
    return [transcript.render_line(y).text.rstrip() for y in range(height)]


async def wait_for(pilot: Pilot[None], condition: Callable[[], bool], tries: int = 500) -> None:
    """Let the program run until the condition holds."""
    for _ in range(tries):
        if condition():
            return
        await pilot.pause(0.01)
    raise AssertionError("the condition never came true")
