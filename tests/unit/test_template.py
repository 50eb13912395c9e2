"""Chat templates: real ones and broken ones, conversations that they reject, and the sandbox."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llama_tui.engine.protocol import Message, ToolCall
from llama_tui.worker.losses import shortened
from llama_tui.worker.template import ChatTemplate, TemplateError
from tests.conftest import CORPUS
from tests.ggufs import CHATML

HELLO = (Message("user", "Hello"),)
SYSTEM = (Message("system", "Be brief."), *HELLO)
TWICE = (Message("user", "One"), Message("user", "Two"))
TURNS = (*HELLO, Message("assistant", "Hi."), Message("user", "Bye"))
LONG = (
    Message("system", "\n  Be brief, and\n\nkind. "),
    Message("user", "a"),
    Message("assistant", "<b>é</b>\n"),
    Message("user", 'Is {this} < that, or "that" > <this>?\n\n\tJSON: {"a": [1]} '),
    Message("assistant", "b", reasoning="Hm."),
    Message("user", "5"),
)
SYSTEMS = (Message("system", "Be brief."), Message("system", "Be kind."), *HELLO)
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "How the weather is.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Where to look."}},
                "required": ["city"],
            },
        },
    },
)


def called(arguments: str | dict[str, Any]) -> tuple[Message, ...]:
    """A conversation in which the model has called a tool and has its result."""
    call = ToolCall("call_0123456789", "get_weather", arguments)
    return (
        Message("user", "How is it there?"),
        Message("assistant", tool_calls=(call,)),
        Message("tool", "22 degrees", tool_call_id=call.id, name="get_weather"),
    )


CALLED = called({"city": "Lyon"})
CALLED_WITH_TEXT = called('{"city": "Lyon"}')

STRICT = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}"
    "{% endfor %}"
)


ALL = "{% for m in messages %}{{ m.content }}{% endfor %}"


def model(source: str, *, bos: str = "<s>", eos: str = "</s>") -> ChatTemplate:
    return ChatTemplate(source, bos, eos, knows_chatml=False)


class TestModelsOwn:
    def test_plain_and_with_a_system_prompt(self) -> None:
        template = model(CHATML)
        assert template.origin == "model"
        assert template.stop == ()
        assert template.render(SYSTEM) == (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_whole_conversations(self) -> None:
        assert model("{% for m in messages %}{{ m.content }}|{% endfor %}").render(TURNS) == "Hello|Hi.|Bye|"

    def test_bos_and_eos(self) -> None:
        assert model("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}").render(HELLO) == "<s>Hello</s>"

    def test_a_token_that_the_model_lacks_is_undefined(self) -> None:
        source = "{% if bos_token is defined %}{{ bos_token }}{% else %}none{% endif %}"
        assert model(source + ALL, bos="").render(HELLO) == "noneHello"

    def test_blocks_leave_no_blank_lines(self) -> None:
        assert model("  {% if true %}\nx\n  {% endif %}\n" + ALL).render(HELLO) == "x\nHello"

    def test_tools_and_documents_are_left_out(self) -> None:
        assert model("{{ tools is defined }}{{ documents is defined }}" + ALL).render(HELLO) == "FalseFalseHello"


class TestRejections:
    def test_a_rejected_system_prompt_goes_before_the_first_message(self) -> None:
        assert model(STRICT).render(SYSTEM) == "[user]Be brief.\n\nHello"

    def test_two_user_messages_in_a_row_become_one(self) -> None:
        assert model(STRICT).render(TWICE) == "[user]One\n\nTwo"

    def test_both_at_once(self) -> None:
        messages = (SYSTEM[0], *TWICE, Message("assistant", "a"), Message("assistant", "b"), Message("user", "c"))
        assert model(STRICT).render(messages) == "[user]Be brief.\n\nOne\n\nTwo[assistant]a\n\nb[user]c"

    def test_a_conversation_that_it_accepts_is_not_reshaped(self) -> None:
        source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        assert model(source).render((SYSTEM[0], *TWICE)) == "[system]Be brief.[user]One[user]Two"

    def test_the_templates_own_reason_is_told(self) -> None:
        with pytest.raises(TemplateError, match="I reject everything") as caught:
            model("{{ raise_exception('I reject everything') }}").render(SYSTEM)
        assert "system prompt" in caught.value.hint

    def test_an_error_inside_the_template_is_not_a_crash(self) -> None:
        with pytest.raises(TemplateError, match="division"):
            model("{{ 1 // 0 }}").render(HELLO)

    def test_invalid_jinja_says_so(self) -> None:
        with pytest.raises(TemplateError, match="not valid Jinja") as caught:
            model("{% for m in messages %}")
        assert "chat_template" in caught.value.hint


class TestParts:
    source = (
        "{% for m in messages %}[{{ m.role }}]{% for part in m.content %}"
        "{% if part.type == 'text' %}{{ part.text }}{% else %}<image>{% endif %}{% endfor %}{% endfor %}"
    )

    def test_a_template_that_knows_contents_as_lists_alone(self) -> None:
        assert model(self.source).render(SYSTEMS) == "[system]Be brief.[system]Be kind.[user]Hello"
        assert model(self.source.replace("<image>", "")).render(TURNS) == "[user]Hello[assistant]Hi.[user]Bye"

    def test_one_that_insists_on_them_and_prints_some_whole(self) -> None:
        insisting = "{% if messages[0].content is string %}{{ raise_exception('no') }}{% endif %}" + self.source
        once_more = insisting + "{{ messages[0].content }}"
        assert (
            model(once_more).render((*HELLO, Message("assistant"), *HELLO)) == "[user]Hello[assistant][user]HelloHello"
        )

    def test_one_that_accepts_them_and_shows_nothing_is_still_told_of(self) -> None:
        with pytest.raises(TemplateError, match="no texts"):
            model("{% if messages[0].content is string %}{{ raise_exception('no texts') }}{% endif %}x").render(HELLO)


class TestLosses:
    """A template that drops what somebody said is not used, however short that was; what models are
    trained without may be missing."""

    THOUGHT = (*HELLO, Message("assistant", "Hi.", reasoning="A greeting."), Message("user", "Bye"))

    @pytest.mark.parametrize(
        ("shown", "messages", "whose"),
        [
            ("system", SYSTEM, "what the user says"),
            ("assistant", TURNS, "what the user says"),
            ("user", TURNS, "an earlier answer"),
            ("system assistant", CALLED, "what the user says"),
            ("", (Message("user", "s"),), "what the user says"),  # the letter is in the prompt all the same
        ],
    )
    def test_who_is_not_heard_is_named(self, shown: str, messages: tuple[Message, ...], whose: str) -> None:
        source = (
            f"{{% for m in messages if m.role in '{shown}'.split() or m.tool_calls %}}[{{{{ m.role }}}}]"
            "{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}{% endfor %}[assistant]"
        )
        with pytest.raises(TemplateError) as caught:
            model(source).render(messages)
        assert caught.value.message == f"it leaves out {whose}"
        assert "chat_template" in caught.value.hint

    def test_one_that_shows_the_last_message_alone(self) -> None:
        source = "{{ messages[-1].content }}"
        assert model(source).render(HELLO) == "Hello"
        assert model(source).render(TWICE) == "One\n\nTwo"
        assert model(source).render(SYSTEM) == "Be brief.\n\nHello"
        with pytest.raises(TemplateError, match="what the user says"):
            model(source).render(TURNS)

    @pytest.mark.parametrize(
        "way",
        [
            "m.content | trim",
            "m.content | upper",
            "m.content | tojson",
            "m.content | tojson(ensure_ascii=true)",
            "m.content | replace('\n', '<br>')",
            "m.content | e",
            "m.content.split() | join('_')",
            "m.content.split('</think>') | last",
        ],
    )
    def test_texts_that_are_written_otherwise_are_there(self, way: str) -> None:
        said = " Is 'a < b'\n\nor \"Été\"? "
        messages = (Message("system", "\n5 "), Message("user", said), Message("assistant", "é"), Message("user", "!"))
        prompt = model("{% for m in messages %}[{{ " + way + " }}]{% endfor %}").render(messages)
        assert prompt.count("[") == len(messages)
        assert shortened(prompt, messages) == ""

    def test_a_result_that_is_dropped_is_told_as_what_the_user_says(self) -> None:
        source = "{% for m in messages if m.role != 'tool' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        assert model(source).render(CALLED).endswith("[user]<tool_response>\n22 degrees\n</tool_response>")
        with pytest.raises(TemplateError, match="what the user says"):
            model(source.replace("!= 'tool'", "== 'assistant'")).render(CALLED)

    def test_thoughts_and_words_beside_a_call_need_not_be(self) -> None:
        assert model(ALL).render(self.THOUGHT) == "HelloHi.Bye"
        calls = "{% for m in messages %}{{ m.tool_calls | tojson if m.tool_calls else m.content }}{% endfor %}"
        (asked, call, result) = CALLED
        spoken = Message("assistant", "Let me look.", tool_calls=call.tool_calls)
        assert "Lyon" in model(calls).render((asked, spoken, result))

    def test_what_is_cut_is_noticed(self) -> None:
        messages = (*HELLO, Message("assistant", "Hi."), Message("user", "Tell me of the sea and of the mountains"))
        prompt = model("{% for m in messages %}{{ m.content[:20] }}|{% endfor %}").render(messages)
        assert prompt == "Hello|Hi.|Tell me of the sea a|"
        assert shortened(prompt, messages) == "what the user says"
        result = (Message("tool", '{"place": "sea", "note": "\\u00e9t\\u00e9\\nhot"}'),)
        assert shortened("place: sea, note: été hot", result) == ""
        assert shortened("place: sea, note:", result) == "a tool's result"


class TestCalls:
    SOURCE = (
        "{{ tools | tojson }}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}:{{ m.tool_calls[0].id }}{% endif %}{% endfor %}"
    )

    def test_calls_that_would_be_dropped_are_shown_one_by_one(self) -> None:
        calls = (ToolCall("1", "get_weather", {}), ToolCall("2", "get_weather", {}))
        results = (Message("tool", "hot", tool_call_id="1"), Message("tool", "cold", tool_call_id="2"))
        prompt = model(self.SOURCE).render((*HELLO, Message("assistant", "So:", tool_calls=calls), *results), TOOLS)
        assert prompt.endswith("[assistant]So:get_weather:1[tool]hot[assistant]get_weather:2[tool]cold")


class TestFallback:
    def test_chatml_where_the_tokens_are_known(self) -> None:
        template = ChatTemplate(None, "", "", knows_chatml=True)
        assert template.origin == "fallback"
        assert template.stop == ()
        assert template.render(SYSTEM) == model(CHATML).render(SYSTEM)

    def test_plain_words_where_they_are_not(self) -> None:
        template = ChatTemplate(None, "", "", knows_chatml=False)
        assert template.origin == "fallback"
        assert template.render((*SYSTEM, *TURNS[1:])) == (
            "System: Be brief.\nUser: Hello\nAssistant: Hi.\nUser: Bye\nAssistant:"
        )
        assert "\nUser:" in template.stop

    def test_an_empty_template_is_none(self) -> None:
        assert ChatTemplate("", "", "", knows_chatml=True).origin == "fallback"


class TestExtras:
    def test_tojson_is_not_escaped_for_html(self) -> None:
        assert model("{{ messages[0].content | tojson }}").render((Message("user", "<é>"),)) == '"<é>"'
        assert model("{{ {'b': 1, 'a': 2} | tojson(indent=1, sort_keys=true) }}" + ALL).render(HELLO) == (
            '{\n "a": 2,\n "b": 1\n}Hello'
        )

    def test_from_json(self) -> None:
        assert model("""{{ ('{"a": 3}' | from_json).a }}""" + ALL).render(HELLO) == "3Hello"

    def test_strftime(self) -> None:
        assert re.fullmatch(r"\d{4}-\d\dHello", model("{{ strftime_now('%Y-%m') }}" + ALL).render(HELLO))

    def test_the_generation_tag_shows_its_content(self) -> None:
        assert model("a{% generation %}b{{ messages[0].content }}{% endgeneration %}c").render(HELLO) == "abHelloc"

    def test_loop_controls(self) -> None:
        source = "{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}"
        assert model(source + ALL).render(HELLO) == "01Hello"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ strftime_now.__globals__['__builtins__'] }}",
        "{{ messages.__class__.__base__ }}",
        "{{ ''['__cla' ~ 'ss__']['__mro__'] }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ self._TemplateReference__context.__class__.__mro__ }}",
        "{% for n in range(10000000000) %}{% endfor %}",
        "{% import 'os' as os %}{{ os }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_cannot_leave_the_sandbox(attack: str) -> None:
    with pytest.raises(TemplateError):
        model(attack).render(HELLO)


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not on this machine")
class TestCorpus:
    files = tuple(sorted((CORPUS / "templates").glob("*.jinja")))

    def test_is_there(self) -> None:
        assert len(self.files) > 40

    @pytest.mark.parametrize("thinking", [None, True, False])
    @pytest.mark.parametrize("file", files, ids=lambda file: file.stem)
    def test_renders(self, file: Path, thinking: bool | None) -> None:
        template = model(file.read_text())
        for messages in (HELLO, SYSTEM, TWICE, TURNS, (SYSTEM[0], *TWICE), SYSTEMS, TestLosses.THOUGHT, LONG):
            prompt = template.render(messages, thinking=thinking)
            assert shortened(prompt, messages) == ""
            for message in messages:
                assert message.content.strip() in prompt, message

    @pytest.mark.parametrize("file", files, ids=lambda file: file.stem)
    def test_shows_tools_calls_and_results(self, file: Path) -> None:
        template = model(file.read_text())
        for messages in (HELLO, SYSTEM, CALLED, CALLED_WITH_TEXT, (SYSTEM[0], *CALLED, Message("user", "And Rome?"))):
            prompt = template.render(messages, TOOLS)
            assert shortened(prompt, messages) == ""
            assert "get_weather" in prompt
            assert "Where to look." in prompt
            assert "{'city': 'P" not in prompt, "a Python object is no JSON"
            for message in messages:
                assert message.content in prompt, message
            if len(messages) > 2:
                assert prompt.count("Lyon") == 1, prompt
