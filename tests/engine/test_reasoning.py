"""What a model thinks comes apart from what it answers, counted, for the formats that there are."""

from __future__ import annotations

from pathlib import Path

from llama_tui.engine.pool import Pool
from llama_tui.engine.protocol import Message, Token, ToolCall
from llama_tui.settings.values import Value
from tests import ggufs
from tests.engine.conftest import GREEDY, HELLO, collect, end_of, load_params, reasoning_of, text_of

# A model whose template opens a thought unless it is told not to.
THINKER = ggufs.CHATML + (
    "{% if enable_thinking is undefined or enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}"
)
SHORT: dict[str, Value] = {**GREEDY, "max_tokens": 20, "ignore_eos": True}


async def test_a_prompt_that_ends_inside_a_thought(pool: Pool, tmp_path: Path) -> None:
    path = ggufs.write_tiny_llama(tmp_path / "thinker.gguf", chat_template=THINKER)
    engine = await pool.acquire("thinker", path, load_params())
    events = await collect(engine.generate("a", HELLO, SHORT))
    assert (text_of(events), reasoning_of(events) != "") == ("", True)
    assert end_of(events).reasoning_tokens == end_of(events).completion_tokens == 20
    last = [event for event in events if isinstance(event, Token)][-1]
    assert (last.n_tokens, last.n_reasoning) == (20, 20)


async def test_thinking_can_be_switched_off(pool: Pool, tmp_path: Path) -> None:
    path = ggufs.write_tiny_llama(tmp_path / "thinker.gguf", chat_template=THINKER)
    engine = await pool.acquire("thinker", path, load_params())
    events = await collect(engine.generate("a", HELLO, {**SHORT, "thinking": False}))
    assert (text_of(events) != "", reasoning_of(events)) == (True, "")
    assert end_of(events).reasoning_tokens == 0
    on = await collect(engine.generate("b", HELLO, {**SHORT, "thinking": True}))
    assert (text_of(on), reasoning_of(on) != "") == ("", True)


async def test_tools_and_calls_reach_the_template(pool: Pool, tmp_path: Path) -> None:
    source = (
        "{{ tools[0].function.name }}{{ messages[1].tool_calls[0].function.arguments.city }}{{ messages[2].content }}"
        "{{ messages[0].content }}"
    )
    path = ggufs.write_tiny_llama(tmp_path / "caller.gguf", chat_template=source)
    engine = await pool.acquire("caller", path, load_params())
    call = ToolCall("call-1", "get_weather", '{"city": "Lyon"}')
    messages = (*HELLO, Message("assistant", tool_calls=(call,)), Message("tool", "22", tool_call_id="call-1"))
    tools = ({"type": "function", "function": {"name": "get_weather", "parameters": {}}},)
    events = await collect(engine.generate("a", messages, SHORT, tools))
    path = ggufs.write_tiny_llama(tmp_path / "fixed.gguf", chat_template="get_weatherLyon22{{ messages[0].content }}")
    other = await pool.acquire("fixed", path, load_params())
    expected = await collect(other.generate("a", HELLO, SHORT))
    assert text_of(events) == text_of(expected)
    assert end_of(events).prompt_tokens == end_of(expected).prompt_tokens
