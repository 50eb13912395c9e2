"""Answers that are being made: one program at a time, for as long as it lives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llama_tui.chat.claims import Claims

TAKE = """
import sys, time
from pathlib import Path
from llama_tui.chat.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(claims.take("turn"), flush=True)
time.sleep(600)
"""


def test_one_program_has_an_answer_until_it_lets_go(tmp_path: Path) -> None:
    one, other = Claims(tmp_path / "run"), Claims(tmp_path / "run")
    assert one.take("turn")
    assert one.take("turn")
    assert not other.take("turn")
    assert other.take("another")
    one.drop("turn")
    assert other.take("turn")
    other.drop("turn")
    other.drop("another")
    assert not list((tmp_path / "run").iterdir())


def test_a_program_that_is_killed_has_none(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", TAKE, str(tmp_path / "run")], stdout=subprocess.PIPE) as program:
        assert program.stdout
        assert program.stdout.readline() == b"True\n"
        assert not claims.take("turn")
        program.kill()
    assert claims.take("turn")
    claims.drop("turn")


def test_what_a_killed_program_has_left_goes_with_the_next_answer_of_another(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", TAKE, str(tmp_path / "run")], stdout=subprocess.PIPE) as program:
        assert program.stdout
        assert program.stdout.readline() == b"True\n"
        living, dead = Claims(tmp_path / "run"), tmp_path / "run" / "turn.answer"
        assert living.take("mine")
        assert dead.exists()
        program.kill()
    assert Claims(tmp_path / "run").take("another")
    assert not dead.exists()
    assert not Claims(tmp_path / "run").take("mine")


def test_without_a_folder_nobody_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    assert Claims(tmp_path / "run").take("turn")
