"""Templates that run wild are stopped, and one that cannot be used is replaced in plain sight."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from llama_tui.engine.protocol import Message, ToolCall
from llama_tui.worker.renderer import Renderer
from llama_tui.worker.template import ChatTemplate
from tests.ggufs import CHATML

HELLO = (Message("user", "Hello"),)
NEUTRAL = ChatTemplate(None, "", "", knows_chatml=True)


@contextmanager
def rendering(source: str | None, *, knows_chatml: bool = True) -> Iterator[Renderer]:
    renderer = Renderer("some model", source, "<s>", "</s>", knows_chatml=knows_chatml)
    try:
        yield renderer
    finally:
        renderer.close()
        gc.collect()  # a pipe that was left open would warn here


def test_the_models_own() -> None:
    with rendering(CHATML) as renderer:
        assert renderer.origin == "model"
        for _ in range(3):
            prompt = renderer.render(HELLO)
            assert (prompt.text, prompt.template, prompt.stop, prompt.notice) == (
                NEUTRAL.render(HELLO),
                "model",
                (),
                "",
            )


def test_tools_and_thinking_reach_it() -> None:
    source = (
        "{{ enable_thinking }}{{ tools[0].name }}{{ messages[1].tool_calls[0].function.arguments.a }}"
        "{{ messages[0].content }}"
    )
    call = ToolCall("1", "add", {"a": "seven"})
    with rendering(source) as renderer:
        prompt = renderer.render((*HELLO, Message("assistant", tool_calls=(call,))), ({"name": "add"},), False)
        assert prompt.text == "FalseaddsevenHello"


def test_without_one() -> None:
    with rendering(None, knows_chatml=False) as renderer:
        prompt = renderer.render(HELLO)
        assert (renderer.origin, prompt.template, prompt.notice) == ("fallback", "fallback", "")
        assert "\nUser:" in prompt.stop


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for m in messages %}", "not valid Jinja"),
        ("{{ raise_exception('I said no') }}", "I said no"),
        ("{{ ''.__class__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|undefined"),
        ("{{ '{0.__class__.__mro__}'.format('') }}", "unsafe|undefined"),
    ],
)
def test_one_that_cannot_be_used_is_named_and_replaced(source: str, reason: str) -> None:
    with rendering(source) as renderer:
        for _ in range(2):
            prompt = renderer.render(HELLO)
            assert (prompt.text, prompt.template) == (NEUTRAL.render(HELLO), "fallback")
            assert "some model" in prompt.notice
            assert any(word in prompt.notice for word in reason.split("|")), prompt.notice


def test_one_that_rejects_a_conversation_serves_the_next() -> None:
    source = (
        "{% set said = messages[0].content | string %}"
        "{% if said == 'no' %}{{ raise_exception('I said no') }}{% endif %}{{ said }}"
    )
    with rendering(source) as renderer:
        assert "I said no" in renderer.render((Message("user", "no"),)).notice
        assert renderer.render(HELLO).text == "Hello"


def test_one_that_drops_what_was_said_is_named_and_replaced() -> None:
    with rendering("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}") as renderer:
        prompt = renderer.render((*HELLO, Message("assistant", "Hi."), *HELLO))
        assert prompt.template == "fallback"
        assert "Hi." in prompt.text
        assert prompt.notice == (
            "The chat template of some model cannot be used here, a neutral one was: it leaves out an earlier answer."
        )
        assert renderer.render(HELLO).notice == ""


def test_one_that_cuts_what_was_said_is_used_and_told_of() -> None:
    with rendering("{% for m in messages %}{{ m.content[:30] }}{% endfor %}") as renderer:
        assert renderer.render(HELLO).notice == ""
        prompt = renderer.render((Message("user", "Tell me of the sea and of the mountains"),))
        assert (prompt.text, prompt.template) == ("Tell me of the sea and of the ", "model")
        assert prompt.notice == "The chat template of some model leaves out a part of what the user says."


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        "{% for a in range(9000) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% set x = namespace(t='x') %}{% for a in range(99) %}{% set x.t = x.t ~ x.t %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 9 ** (9 ** 99) }}",
        "{{ (9 + messages|length) ** (10 ** 9) }}",
        "{{ 'x' * 10 ** 12 }}",
        "{{ '{:>9999999999}'.format('x') }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ lipsum(n=1000000000) }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "[" * 300 + "]" * 300 + " }}" + "{% if 1 %}" * 300 + "{% endif %}" * 300,
        "{{ ('[' * 100000) | from_json }}",
        "{% for n in range(10 ** 9) %}{% endfor %}",
        "{{ '\ud83d'.encode() }}".encode("utf-8", "replace").decode() + "{{ undefined_function() }}",
    ],
    ids=lambda source: source[:40],
)
def test_a_hostile_one_is_stopped_soon_and_for_good(source: str) -> None:
    before = _cpu_seconds()
    with rendering(source) as renderer:
        prompt = renderer.render(HELLO)
        assert (prompt.text, prompt.template) == (NEUTRAL.render(HELLO), "fallback")
        assert "some model" in prompt.notice
        for _ in range(5):
            assert renderer.render(HELLO).template == "fallback"
    # Two seconds is what a prompt may take; a process that ends is tried twice.
    assert _cpu_seconds() - before < 6


def _cpu_seconds() -> float:
    """What the processes have used that this one started, and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_its_process_can_be_killed() -> None:
    with rendering(CHATML) as renderer:
        renderer.render(HELLO)
        (child,) = (
            process for process in psutil.Process().children() if "llama_tui.worker.renderer" in process.cmdline()
        )
        child.kill()
        child.wait()
        assert renderer.render(HELLO).template == "model"


def test_it_ends_with_its_input() -> None:
    with rendering(CHATML) as renderer:
        (child,) = (
            process for process in psutil.Process().children() if "llama_tui.worker.renderer" in process.cmdline()
        )
        renderer.close()
        assert not child.is_running()
