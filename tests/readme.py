"""The parts of README.md that are made from the program: `python -m tests.readme` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from llama_tui.settings.params import PARAMS
from llama_tui.ui.app import FIRST_KEYS, later_keys
from llama_tui.ui.bindings import key_words

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def keys() -> str:
    """Every key with its id."""
    lines = ["| key | what it does | id |", "|---|---|---|"]
    for group in (*FIRST_KEYS, *later_keys()):
        shown = [binding for binding in group.bindings if binding.show]
        lines.append(f"| **{group.title}** | | |")
        lines += [f"| `{key_words(b.key)}` | {b.description} | `{b.id}` |" for b in shown]
    return "\n".join(lines)


def parameters() -> str:
    """Every parameter with its default and what it may be."""
    lines = ["| parameter | default | what it does | allowed |", "|---|---|---|---|"]
    for param in PARAMS:
        default = param.format(param.default).replace("\n", "\\n") or "–"
        unit = f" {param.unit}" if param.unit and param.default is not None else ""
        star = " *" if param.reload else ""
        lines.append(f"| `{param.name}`{star} | {default}{unit} | {param.help} | {param.allowed} |")
    return "\n".join([*lines, "", "\\* a loaded model must be loaded again (`f5`)."])


def guide() -> str:
    """The figures of the guide's own report, up to its list of misses."""
    report = (ROOT / "guide" / "REPORT.md").read_text().split("\n## ")[0]
    return "\n".join(report.splitlines()[2:]).strip()


def rendered() -> str:
    """README.md with its made parts as they should be."""
    text = README.read_text()
    for name, make in (("keys", keys), ("parameters", parameters), ("guide", guide)):
        part = f"<!-- {name} -->\n{make()}\n<!-- /{name} -->"
        text = re.sub(rf"<!-- {name} -->.*<!-- /{name} -->", lambda _match, part=part: part, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    README.write_text(rendered())
