"""What others wrote is shown, never obeyed: nothing of an attack reaches the terminal as it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_tui.background import QUESTION
from llama_tui.engine.protocol import Failed
from llama_tui.paths import Paths
from tests.e2e.terminal import COMMAND, Terminal
from tests.ui.scripted import ScriptedEngine

ATTACKS = {
    "title": "\x1b]0;T1\x07",
    "title, ended as ST": "\x1b]2;T2\x1b\\",
    "clipboard": "\x1b]52;c;VDM=\x07",
    "hyperlink of an odd scheme": "\x1b]8;;javascript:T4\x07T4\x1b]8;;\x07",
    "mode": "\x1b[?1049lT5",
    "mouse": "\x1b[?1000hT6",
    "device query": "\x1b[cT7",
    "status query": "\x1b[6nT8",
    "window": "\x1b[8;2;2tT9",
    "erase": "\x1b[2JT10",
    "cursor": "\x1b[1;1HT11",
    "keyboard protocol": "\x1b[>31uT12",
    "DCS": "\x1bP$qmT13\x1b\\",
    "APC": "\x1b_T14\x1b\\",
    "reset": "\x1bcT15",
    "one-byte CSI": "\x9b31mT16",
    "one-byte OSC": "\x9d0;T17\x9c",
    "charset": "\x1b(0T18",
    "shift out": "\x0eT19",
    "backspaces": "T20\x08\x08\x08",
    "bell": "\x07T21",
    "direction override": "\u202eT22\u202c",
    "direction isolate": "\u2066T23\u2069",
    "delete": "\x7fT24",
    "Sixel": "\x1bPq#0T25\x1b\\",
    "colours": "\x1b]4;1;rgb:00/00/00\x07T26",
    "answerback": "\x05T27",
    "markup": "[link=javascript:T28]T28[/link][/x][@click=app.quit]T28[/]",
}
"""What an attack does, and its bytes; each has a word of its own."""

EVERY = "".join(ATTACKS.values())
NEVER = (
    # What introduces a command that the program itself has no use for here ...
    *(b"\x1b" + introducer for introducer in (b"]", b"P", b"_", b"^", b"X", b"c", b"(", b")")),
    # ... and characters that act without an introducer.
    *(bytes((code,)) for code in (0x05, 0x07, 0x0E, 0x0F, 0x7F)),
    *(chr(code).encode() for code in (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))),
)


def unsafe(raw: bytes) -> list[str]:
    """What of the attacks stands in what a terminal was sent."""
    raw = re.sub(rb"\x1b\]22;[a-z]+\x07", b"", raw)  # the mouse pointer's shape, which Textual sets
    raw = raw.replace(QUESTION.encode(), b"")  # what the program itself asks
    raw = raw.replace(b"\x1b]8;;\x1b\\", b"")  # the end of a link, which sets a terminal back
    whole = [name for name, attack in ATTACKS.items() if name != "markup" and attack.encode() in raw]
    return whole + [repr(control) for control in NEVER if control in raw]


@pytest.fixture
def models(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder of models with hostile names; a file's name may hold anything but a slash."""
    folder = tmp_path / "m"
    folder.mkdir()
    shutil.copy(tiny_model, folder / "plain.gguf")
    for number, attack in enumerate(ATTACKS.values()):
        name = attack.replace("/", "_")
        (folder / f"{number}{name}.gguf").write_bytes(b"GGUF" + name.encode())
    return folder


def test_an_answer_cannot_speak_to_the_terminal(paths: Paths, guide_model: Path) -> None:
    lines = [f"{attack}\n\n" for attack in ATTACKS.values()]
    code = "```\n" + "\n".join(ATTACKS.values()) + "\n```\n\n"
    split = [character for attack in ATTACKS.values() for character in attack]
    with ScriptedEngine(paths, guide_model, [*lines, code, *split, "\n\nthe end of it"]), Terminal(rows=60) as terminal:
        terminal.wait_for("Ask the guide")
        terminal.send("go\r")
        terminal.wait_for("the end of it")
        assert "T28" in terminal.text
        terminal.send("\x1b[5~\x1b[5~")
        terminal.wait_for("T12")
        terminal.send("\x11")
        assert terminal.wait() == 0
    assert not unsafe(terminal.raw)


def test_names_of_files_cannot(paths: Paths, models: Path) -> None:
    with Terminal("--model-dir", str(models), columns=200, rows=100) as terminal:
        terminal.wait_for("T25")
        terminal.send("\x0f")
        terminal.wait_for("Switch model")
        terminal.send("T22\r")
        terminal.wait_for(lambda text: "Switch model" not in text and text.count("T22") > 1)
        terminal.send("\x11")
        assert terminal.wait() == 0
    assert not unsafe(terminal.raw)


def test_errors_and_logs_of_an_engine_cannot(paths: Paths, guide_model: Path) -> None:
    failure = Failed(0, "load", f"It ended: {EVERY}", f"Try {EVERY}", log=(EVERY,))
    with ScriptedEngine(paths, guide_model, failure=failure), Terminal(columns=200) as terminal:
        terminal.wait_for("T27")
        terminal.send("\x11")
        assert terminal.wait() == 0
    assert not unsafe(terminal.raw)


def test_settings_and_themes_cannot(paths: Paths) -> None:
    escaped = EVERY.encode("unicode_escape").decode().replace("\\x", "\\u00").replace('"', '\\"')
    paths.config.mkdir(parents=True)
    paths.config_file.write_text(
        f'theme = "{escaped}"\nsystem_prompt = "{escaped}"\n"{escaped}" = 1\n[keys]\n"{escaped}" = "{escaped}"\n'
    )
    paths.themes.mkdir()
    (paths.themes / "odd.toml").write_text(f'name = "{escaped}"\n"{escaped}" = 1\n')
    with Terminal(columns=200, rows=60) as terminal:
        terminal.wait_for("T21")
        terminal.send("\x1bOR")
        terminal.wait_for(lambda text: "─ Parameters ─" not in text)
        terminal.send("\x1bOR")  # the form again, with the cursor in it
        terminal.wait_for("─ Parameters ─")
        terminal.send("\r")
        terminal.wait_for(lambda text: "─ system_prompt ─" in text)
        terminal.send("x\r\x11")
        assert terminal.wait() == 0
    assert not unsafe(terminal.raw)


def test_what_is_pasted_and_the_title_made_of_it_cannot(paths: Paths, guide_model: Path) -> None:
    pasted = EVERY.replace("\x1b[201~", "")
    with ScriptedEngine(paths, guide_model, ["Yes."]), Terminal() as terminal:
        terminal.wait_for("Ask the guide")
        terminal.send(f"\x1b[200~{pasted}\x1b[201~")
        terminal.wait_for("T28")
        terminal.send("\r")
        terminal.wait_for("Yes.")
        terminal.send("\x1bOS")
        terminal.wait_for("Chats")
        terminal.send("\x1b")
        terminal.send("\x11")
        assert terminal.wait() == 0
    assert not unsafe(terminal.raw)


@pytest.mark.parametrize(
    "words",
    [["models"], ["models", "--json"], ["config", "show"], ["logs", EVERY], ["logs", "guide"], ["run", EVERY, "x"]],
)
def test_commands_cannot_when_they_write_to_a_terminal(paths: Paths, models: Path, words: list[str]) -> None:
    paths.config.mkdir(parents=True)
    escaped = EVERY.encode("unicode_escape").decode().replace("\\x", "\\u00").replace('"', '\\"')
    paths.config_file.write_text(f'model_dir = "{models}"\nsystem_prompt = "{escaped}"\n')
    paths.logs.mkdir(parents=True)
    (paths.logs / "guide-0.log").write_text(EVERY)
    with Terminal(*words, columns=200, rows=900) as terminal:
        terminal.wait_for("T28")
        terminal.wait()
    assert not unsafe(terminal.raw)


def test_run_cannot_when_it_writes_to_a_terminal_and_a_pipe_gets_the_text_as_it_is(
    paths: Paths, guide_model: Path
) -> None:
    pieces = [*EVERY, "the end of it"]
    with ScriptedEngine(paths, guide_model, pieces), Terminal("run", "guide", "Go", columns=200) as terminal:
        terminal.wait_for("the end of it")
        assert terminal.wait() == 0
    assert not unsafe(terminal.raw)
    assert COMMAND
    with ScriptedEngine(paths, guide_model, pieces):
        piped = subprocess.run([COMMAND, "run", "guide", "Go"], capture_output=True, text=True, timeout=60, check=True)
    assert piped.stdout.rstrip("\n") == "".join(pieces)
