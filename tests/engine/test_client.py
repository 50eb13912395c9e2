"""The door for Python programs, with real engines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

import llama_tui
from llama_tui import Client, SyncClient
from llama_tui.client import BadArgument, ChatCompletionChunk
from llama_tui.engine.client import EngineClient
from llama_tui.errors import ContextOverflow, EngineDied, LlamaTuiError, MissingLlamaCpp, ModelNameError, NoRoom
from llama_tui.paths import Paths
from llama_tui.settings.values import BadValue
from tests.engine.conftest import PATIENCE, fake_llama_cpp, until
from tests.ggufs import write_tiny_llama

HELLO = [{"role": "user", "content": "hello there"}]
ENDLESS: dict[str, Any] = {"ignore_eos": True, "n_ctx": 32768, "n_threads": 1}
SHORT: dict[str, Any] = {**ENDLESS, "max_tokens": 2}


@pytest.fixture
def model(home: Path, tiny_model: Path) -> str:
    """The tiny model in the model folder of this home."""
    folder = home / "llama_models"
    folder.mkdir()
    (folder / "tiny.gguf").symlink_to(tiny_model)
    return "llama-cpp/tiny.gguf"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client whose engines end with it."""
    client = Client()
    yield client
    await client.close(unload=True)


def pids(paths: Paths) -> list[int]:
    """The engines of this home."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(paths.runtime) in " ".join((process.info["cmdline"] or [])[-1:])
    ]


async def generating(paths: Paths) -> int:
    """How many generations run or wait, as an onlooker sees it."""
    count = 0
    for socket in paths.runtime.glob("*.sock"):
        onlooker = await EngineClient.connect(socket)
        async with contextlib.aclosing(onlooker.watch()) as states:
            state = await anext(states)
            count += state.queued + bool(state.generating)
        await onlooker.close()
    return count


async def nothing_generates(paths: Paths) -> None:
    async with asyncio.timeout(PATIENCE):
        while await generating(paths):
            await asyncio.sleep(0.01)


class TestCreate:
    async def test_the_example_of_the_readme(self, home: Path, tiny_model: Path) -> None:
        folder = home / "llama_models"
        folder.mkdir()
        (folder / "llama-3-8b-instruct-q4_K_M.gguf").symlink_to(tiny_model)
        client = Client()
        with pytest.warns(RuntimeWarning, match="n_gpu_layers = 32 does nothing for llama-3-8b") as warned:
            response = await client.chat.completions.create(
                model="llama-cpp/llama-3-8b-instruct-q4_K_M.gguf",
                messages=[{"role": "user", "content": "Hello!"}],
                n_gpu_layers=32,
                temperature=0.3,
                max_tokens=500,
            )
        assert len(warned) == 1
        assert response.object == "chat.completion"
        assert response.choices[0].message.role == "assistant"
        assert response.choices[0].finish_reason in ("stop", "length")
        await client.close(unload=True)

    async def test_a_template_that_cannot_be_used_is_a_warning(self, home: Path, client: Client) -> None:
        broken = write_tiny_llama(home / "broken.gguf", chat_template="{{ nothing( }}")
        with pytest.warns(RuntimeWarning, match="The chat template of .*broken.gguf cannot be used"):
            await client.chat.completions.create(model=broken, messages=HELLO, max_tokens=2)

    async def test_the_guide_answers_for_real(self, client: Client) -> None:
        response = await client.chat.completions.create(
            model="guide", messages=[{"role": "user", "content": "How do I switch models?"}], temperature=0
        )
        assert "ctrl+o" in response.choices[0].message.content
        assert response.choices[0].finish_reason == "stop"
        assert response.model == "guide"
        assert response.usage.prompt_tokens > 3
        assert response.usage.completion_tokens > 10
        assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens
        assert msgspec.to_builtins(response)["choices"][0]["message"]["role"] == "assistant"

    async def test_length_is_a_reason_and_usage_is_counted_by_the_engine(self, client: Client, model: str) -> None:
        response = await client.chat.completions.create(model=model, messages=HELLO, max_tokens=7, ignore_eos=True)
        assert response.choices[0].finish_reason == "length"
        assert response.usage.completion_tokens == 7

    async def test_a_kept_engine_is_left_alone_and_a_replaced_one_hands_its_pin_on(
        self, client: Client, model: str, paths: Paths
    ) -> None:
        assert await client.models.keep(model) == 0
        first = await client.models.load(model)
        assert await client.models.keep(model) == 1
        await client.close(unload=True)
        assert pids(paths) == [first.pid]
        second = await client.models.load(model, n_ctx=512, replace=True)
        assert pids(paths) == [second.pid] != [first.pid]
        await client.close(unload=True)
        assert pids(paths) == [second.pid]
        assert await client.models.keep(model, False) == 1
        assert await client.models.unload(model) == 1

    async def test_the_same_engine_answers_again_and_reuses_the_prompt(
        self, client: Client, model: str, paths: Paths
    ) -> None:
        loaded = await client.models.load(model)
        await client.chat.completions.create(model=model, messages=HELLO, max_tokens=2)
        response = await client.chat.completions.create(model=model, messages=HELLO, max_tokens=2)
        assert pids(paths) == [loaded.pid]
        assert response.usage.cached_tokens > 0
        other = Client()
        assert (await other.models.load(model)).pid == loaded.pid
        assert (await other.models.load(model, n_ctx=512)).pid != loaded.pid
        await other.close(unload=True)
        assert pids(paths) == [loaded.pid]

    async def test_a_seed_makes_the_answer_again_and_n_makes_several(self, client: Client, model: str) -> None:
        async def ask(**more: Any) -> tuple[list[str], list[int]]:
            response = await client.chat.completions.create(
                model=model, messages=HELLO, max_tokens=12, ignore_eos=True, temperature=2.0, **more
            )
            return [choice.message.content for choice in response.choices], [choice.seed for choice in response.choices]

        texts, seeds = await ask(seed=4294967294, n=3)
        assert seeds == [4294967294, 0, 1]
        assert len(set(texts)) == 3
        again, _ = await ask(seed=0)
        assert again == [texts[1]]
        drawn, random = await ask(n=2)
        assert random[0] != random[1] and drawn[0] != drawn[1]

    async def test_many_at_once_share_one_engine_and_wait_for_their_turn(
        self, client: Client, model: str, paths: Paths
    ) -> None:
        async def ask() -> int:
            response = await client.chat.completions.create(model=model, messages=HELLO, max_tokens=3, ignore_eos=True)
            return response.usage.completion_tokens

        assert await asyncio.gather(*(ask() for _ in range(8))) == [3] * 8
        assert len(pids(paths)) == 1

    async def test_usage_of_several_counts_the_prompt_once(self, client: Client, model: str) -> None:
        usage = (
            await client.chat.completions.create(model=model, messages=HELLO, max_tokens=5, ignore_eos=True, n=3)
        ).usage
        assert usage.completion_tokens == 15
        one = await client.chat.completions.create(model=model, messages=HELLO, max_tokens=5)
        assert usage.prompt_tokens == one.usage.prompt_tokens

    async def test_stop_takes_a_text_or_a_list(self, client: Client) -> None:
        question = [{"role": "user", "content": "How do I switch models?"}]
        for stop in ("ctrl", ["never there", "ctrl"]):
            response = await client.chat.completions.create(model="guide", messages=question, temperature=0, stop=stop)
            assert "ctrl" not in response.choices[0].message.content
            assert response.choices[0].finish_reason == "stop"

    async def test_settings_lie_below_the_arguments(
        self, paths: Paths, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths.config.mkdir(parents=True)
        paths.config_file.write_text('max_tokens = 4\nn_ctx = 256\n[models.tiny]\nignore_eos = true\ntheme = "x"\n')
        monkeypatch.setenv("LLAMA_CPP_N_CTX", "512")
        async with Client(idle_timeout=0.5) as client:
            assert "theme is for the whole program" in str(client.problems[0])
            assert (await client.models.load(model)).n_ctx == 512
            response = await client.chat.completions.create(model=model, messages=HELLO, stop=None)
            assert response.usage.completion_tokens == 4
            response = await client.chat.completions.create(model=model, messages=HELLO, max_tokens=6)
            assert response.usage.completion_tokens == 6

    async def test_a_system_prompt_is_part_of_the_prompt(self, client: Client, model: str) -> None:
        async def prompt_tokens(messages: list[dict[str, str]], **more: Any) -> int:
            response = await client.chat.completions.create(model=model, messages=messages, max_tokens=1, **more)
            return response.usage.prompt_tokens

        system = {"role": "system", "content": "be brief"}
        plain = await prompt_tokens(HELLO)
        assert await prompt_tokens(HELLO, system_prompt="be brief") > plain
        assert await prompt_tokens([system, *HELLO], system_prompt="something much longer") == await prompt_tokens(
            [system, *HELLO]
        )


class TestStream:
    async def test_chunks_come_one_by_one_and_the_last_has_the_usage(self, client: Client) -> None:
        stream = await client.chat.completions.create(
            model="guide", messages=[{"role": "user", "content": "How do I switch models?"}], temperature=0, stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[0].choices[0].seed is not None
        assert "ctrl+o" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1].choices[0].finish_reason == "stop"
        usage = chunks[-1].usage
        assert usage and usage.completion_tokens > 10
        assert {chunk.id for chunk in chunks} == {chunks[0].id}

    async def test_it_never_holds_up_the_loop(self, client: Client, model: str) -> None:
        pid = (await client.models.load(model)).pid

        async def count() -> int:
            stream = await client.chat.completions.create(
                model=model, messages=HELLO, stream=True, max_tokens=400, **ENDLESS
            )
            return len([chunk async for chunk in stream])

        os.kill(pid, signal.SIGSTOP)
        counting = asyncio.create_task(count())
        for _ in range(20):  # the loop goes on while the engine says nothing
            await asyncio.sleep(0.01)
        assert not counting.done()
        os.kill(pid, signal.SIGCONT)
        assert await counting > 3

    async def test_leaving_it_stops_the_generation(self, client: Client, model: str, paths: Paths) -> None:
        stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True, **ENDLESS)
        async with stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            assert await generating(paths) == 1
        await nothing_generates(paths)

    async def test_dropping_it_stops_the_generation_too(self, client: Client, model: str, paths: Paths) -> None:
        async def look() -> None:
            stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True, **ENDLESS)
            assert (await anext(stream)).choices[0].delta.role == "assistant"

        await look()
        await nothing_generates(paths)

    async def test_several_answers_are_told_apart(self, client: Client, model: str) -> None:
        stream = await client.chat.completions.create(
            model=model, messages=HELLO, stream=True, n=2, max_tokens=3, ignore_eos=True
        )
        chunks = [chunk async for chunk in stream]
        ends = [chunk.choices[0].index for chunk in chunks if chunk.choices[0].finish_reason]
        assert ends == [0, 1]
        assert [bool(chunk.usage) for chunk in chunks].count(True) == 1
        assert chunks[-1].usage


class TestEnds:
    async def test_cancelling_the_task_cancels_the_generation(self, client: Client, model: str, paths: Paths) -> None:
        loaded = await client.models.load(model, n_ctx=32768, n_threads=1)
        task = asyncio.create_task(client.chat.completions.create(model=model, messages=HELLO, **ENDLESS))
        async with asyncio.timeout(PATIENCE):
            while not await generating(paths):
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await nothing_generates(paths)
        assert pids(paths) == [loaded.pid]
        response = await client.chat.completions.create(model=model, messages=HELLO, stream=False, **SHORT)
        assert response.usage.completion_tokens == 2

    async def test_closing_leaves_the_engine_to_its_idle_timeout(self, model: str, paths: Paths) -> None:
        async with Client() as client:
            loaded = await client.models.load(model, idle_timeout=0.3)
        assert pids(paths) == [loaded.pid]
        await until(lambda: not pids(paths))

    async def test_an_idle_timeout_that_is_given_holds_for_a_running_engine(self, model: str, paths: Paths) -> None:
        async with Client() as client:
            await client.models.load(model)
            await client.models.load(model, idle_timeout=0.2)
        await until(lambda: not pids(paths))

    async def test_an_engine_that_went_idle_unnoticed_is_loaded_again(self, model: str, paths: Paths) -> None:
        client = Client(idle_timeout=0.1)
        first = await client.models.load(model)
        deadline = time.monotonic() + PATIENCE
        while pids(paths) and time.monotonic() < deadline:  # the loop stands still, as in a busy script
            time.sleep(0.01)  # noqa: ASYNC251
        response = await client.chat.completions.create(model=model, messages=HELLO, max_tokens=1)
        assert response.usage.completion_tokens == 1
        assert first.pid not in pids(paths)
        await client.close(unload=True)

    async def test_unload_ends_every_engine_of_the_model(self, client: Client, model: str, paths: Paths) -> None:
        await client.models.load(model)
        await client.models.load(model, n_ctx=512)
        assert await client.models.unload(model) == 2
        assert pids(paths) == []
        assert await client.models.unload(model) == 0

    async def test_list_says_what_is_loaded(self, client: Client, model: str) -> None:
        loaded = await client.models.load(model)
        found = {entry.id: entry for entry in await client.models.list()}
        assert found["tiny"].pids == (loaded.pid,)
        assert found["tiny"].n_params and found["tiny"].size_bytes
        assert found["guide"].pids == ()

    async def test_a_killed_engine_is_told_and_replaced(self, client: Client, model: str) -> None:
        stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True, **ENDLESS)
        loaded = await client.models.load(model, n_ctx=32768, n_threads=1)
        with pytest.raises(EngineDied):
            async for _chunk in stream:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(loaded.pid, 9)
        response = await client.chat.completions.create(model=model, messages=HELLO, stream=False, **SHORT)
        assert response.usage.completion_tokens == 2

    async def test_a_prompt_that_is_too_long(self, client: Client, model: str) -> None:
        with pytest.raises(ContextOverflow, match="can hold"):
            await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "z" * 3000}], n_ctx=256
            )

    async def test_what_does_not_fit_comes_with_offers_that_can_be_taken(self, client: Client, model: str) -> None:
        question: Any = [{"role": "user", "content": "hi"}]
        with pytest.raises(NoRoom) as caught:
            await client.chat.completions.create(model=model, messages=question, n_ctx=16777216, type_k="f32")
        offer = next(offer for offer in caught.value.offers if "n_ctx" in offer.params)
        n_ctx = offer.params["n_ctx"]
        assert isinstance(n_ctx, int)
        assert 512 <= n_ctx < 16777216
        # What the machine has free is more than a test should take: the same offer, made smaller.
        small = {**offer.params, "n_ctx": min(n_ctx, 1024)}
        response = await client.chat.completions.create(model=model, messages=question, max_tokens=3, **small)
        assert response.usage.completion_tokens == 3

    async def test_without_llama_cpp_it_says_what_to_install(
        self, client: Client, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = os.environ.get("PYTHONPATH", "")
        fake_llama_cpp(tmp_path / "none", 'raise ImportError("no module named llama_cpp")', monkeypatch)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], before]))
        with pytest.raises(MissingLlamaCpp) as caught:
            await client.chat.completions.create(model=model, messages=HELLO)
        assert 'CMAKE_ARGS="-DGGML_CUDA=on" pip install' in caught.value.hint
        with pytest.raises(MissingLlamaCpp):
            await client.models.load(model)


class TestArguments:
    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"temprature": 1}, "'temprature'. Did you mean temperature?"),
            ({"max_completion_token": 5}, "Did you mean max_completion_tokens?"),
            ({"strem": True}, "Did you mean stream?"),
            ({"model_dir": "/x"}, "Client(model_dir=...)"),
            ({"theme": "dawn"}, "There is no argument 'theme'"),
            ({"n": 0}, "n is 0"),
            ({"n": True}, "n is True"),
            ({"messages": "hello"}, "messages must be a list"),
            ({"messages": []}, "messages is empty"),
            ({"messages": ["hello"]}, "messages[0] is a str, not a dictionary"),
            ({"messages": [*HELLO, {"role": "robot", "content": ""}]}, "messages[1][\"role\"] is 'robot'"),
            ({"messages": [{"role": "user"}]}, 'messages[0]["content"] is missing'),
            ({"messages": [{"role": "user", "content": ["x"]}]}, 'messages[0]["content"] has a part that is no text'),
            ({"messages": [{"role": "user", "content": "x", "nam": "y"}]}, "messages[0] has a field 'nam'"),
            ({"model": 5}, "model is an int"),
        ],
    )
    async def test_what_is_wrong_is_named_before_anything_is_loaded(
        self, client: Client, paths: Paths, more: dict[str, Any], said: str
    ) -> None:
        arguments: dict[str, Any] = {"model": "guide", "messages": HELLO}
        with pytest.raises(BadArgument) as caught:
            await client.chat.completions.create(**(arguments | more))
        assert said in str(caught.value)
        assert isinstance(caught.value, TypeError)
        assert pids(paths) == []

    async def test_values_are_checked_against_the_table(self, client: Client) -> None:
        with pytest.raises(BadValue, match="temperature cannot be"):
            await client.chat.completions.create(model="guide", messages=HELLO, temperature=9)
        with pytest.raises(ModelNameError):
            await client.chat.completions.create(model="nobody", messages=HELLO)
        with pytest.raises(BadArgument, match="Did you mean n_ctx"):
            Client(n_ctxt=5)

    async def test_a_folder_and_a_path_of_ones_own(self, tiny_model: Path) -> None:
        client = Client(model_dir=tiny_model.parent)
        assert "tiny" in [entry.id for entry in await client.models.list()]
        loaded = await client.models.load(tiny_model)
        assert loaded.id == "tiny"
        await client.close(unload=True)


class TestSync:
    def test_whole_and_streamed(self, model: str, paths: Paths) -> None:
        with SyncClient() as client:
            response = client.chat.completions.create(model=model, messages=HELLO, max_tokens=3, ignore_eos=True)
            assert response.usage.completion_tokens == 3
            with client.chat.completions.create(model=model, messages=HELLO, max_tokens=3, stream=True) as stream:
                chunks: list[ChatCompletionChunk] = list(stream)
            assert chunks[-1].usage
            assert [entry.id for entry in client.models.list()] == ["tiny", "guide"]
            assert len(pids(paths)) == 1
            assert client.models.unload(model) == 1
        client.close()  # again: nothing happens
        with pytest.raises(LlamaTuiError, match="closed"):
            client.models.list()

    async def test_inside_a_running_loop_as_in_a_notebook(self, model: str) -> None:
        with SyncClient() as client:
            assert client.chat.completions.create(model=model, messages=HELLO, max_tokens=1).choices
            client.close(unload=True)

    def test_from_several_threads(self, model: str, paths: Paths) -> None:
        client = SyncClient()
        counts: list[int] = []

        def ask() -> None:
            response = client.chat.completions.create(model=model, messages=HELLO, max_tokens=3, ignore_eos=True)
            counts.append(response.usage.completion_tokens)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [3] * 4
        assert len(pids(paths)) == 1
        client.close(unload=True)

    def test_a_stream_that_is_closed_stops_the_generation(self, model: str, paths: Paths) -> None:
        client = SyncClient()
        with client.chat.completions.create(model=model, messages=HELLO, stream=True, **ENDLESS) as stream:
            next(stream)
        asyncio.run(nothing_generates(paths))
        client.close(unload=True)
        assert pids(paths) == []

    def test_an_interrupt_stops_the_generation_and_the_client_goes_on(self, model: str, paths: Paths) -> None:
        client = SyncClient()
        client.models.load(model, n_ctx=32768, n_threads=1)

        def interrupt() -> None:
            deadline = time.monotonic() + PATIENCE
            while not asyncio.run(generating(paths)) and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        helper = threading.Thread(target=interrupt)
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            client.chat.completions.create(model=model, messages=HELLO, stream=False, **ENDLESS)
        helper.join()
        asyncio.run(nothing_generates(paths))
        response = client.chat.completions.create(model=model, messages=HELLO, stream=False, **SHORT)
        assert response.usage.completion_tokens == 2
        client.close(unload=True)

    def test_one_that_is_dropped_leaves_no_thread(self) -> None:
        before = set(threading.enumerate())
        client = SyncClient()
        (thread,) = set(threading.enumerate()) - before
        del client
        assert not thread.is_alive()


class TestLoops:
    def test_one_client_in_one_loop_after_the_other(self, model: str, paths: Paths) -> None:
        client = Client()
        first = asyncio.run(client.models.load(model)).pid
        assert asyncio.run(client.models.load(model)).pid == first

        async def end() -> None:
            assert await client.models.unload(model) == 1
            await client.close()

        asyncio.run(end())
        assert pids(paths) == []

    def test_importing_the_package_is_quick_and_the_client_needs_no_terminal(self) -> None:
        code = (
            "import sys, llama_tui; assert 'msgspec' not in sys.modules and 'asyncio' not in sys.modules\n"
            "from llama_tui import Client, SyncClient; Client()\n"
            "assert not {'textual', 'rich', 'llama_cpp'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_the_package_has_nothing_else(self) -> None:
        with pytest.raises(AttributeError):
            llama_tui.Klient  # pyright: ignore[reportAttributeAccessIssue, reportUnusedExpression]  # noqa: B018
