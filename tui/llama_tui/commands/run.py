"""`llama-tui run MODEL [PROMPT]`: one answer on standard output."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence

import msgspec

from llama_tui.chat.access import Access
from llama_tui.commands.engines import closing
from llama_tui.commands.flags import add_parameters, parameters
from llama_tui.commands.output import Narrator, Outlet
from llama_tui.commands.shell import EXITS, Exit, command, compose, exit_code, on_signals, report
from llama_tui.engine.engine import Engine
from llama_tui.engine.protocol import AnswerEvent, Called, Finished, Message, Prefilled, Queued, Started, Token
from llama_tui.errors import LlamaTuiError
from llama_tui.library.units import short_size
from llama_tui.settings.values import Value

_DESCRIPTION = """\
Answer a prompt on standard output. The prompt is PROMPT, or what comes on standard input; where both are
there, standard input is attached below PROMPT. A model that is loaded already, by whichever program, answers
at once; otherwise it is loaded, and stays until its idle_timeout. ctrl+c stops the answer and keeps what came."""

_EPILOG = f"""\
examples:
  llama-tui run guide "How do I switch models?"
  git diff | llama-tui run qwen3-8b-q4_k_m "Write a commit message for this." --temperature 0.2
  llama-tui run llama-cpp//data/model.gguf --json < prompt.txt | jq -r 'select(.type == "token").text'

With --json each line is an event: `engine` (model, path, pid), then those of the engine's protocol (`queued`,
`started`, `prefilled`, `token`, `finished`), or `error` (message, hint) or `stopped`, with `exit_code`, as the last.

{EXITS}"""

_LAST_WORDS_SECONDS = 0.5


def parser() -> argparse.ArgumentParser:
    """The arguments of `run`."""
    made = command(
        "run", "MODEL [PROMPT] [--json] [--unload] [--replace] [--PARAMETER VALUE ...]", _DESCRIPTION, _EPILOG
    )
    made.add_argument("model", metavar="MODEL", help="name or path of a GGUF file")
    made.add_argument("prompt", metavar="PROMPT", nargs="?", help="what to ask")
    made.add_argument("--json", action="store_true", help="write events, one JSON object per line")
    made.add_argument("--unload", action="store_true", help="end the engine afterwards, if this started it")
    made.add_argument(
        "--replace", action="store_true", help="end engines of this model that run with other load parameters"
    )
    add_parameters(made, leave_out=("theme", "on_quit"))
    return made


def main(arguments: Sequence[str]) -> int:
    """Answer; returns the exit code."""
    arguments_parser = parser()
    given = arguments_parser.parse_intermixed_args(arguments)  # PROMPT may stand behind parameters
    try:
        values = parameters(vars(given))
        prompt = _prompt(given.prompt)
    except LlamaTuiError as error:
        report(error)
        return Exit.USAGE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    folders = {name: value for name, value in values.items() if name == "model_dir"}
    return asyncio.run(
        _Run(given.model, prompt, values, folders, json=given.json, unload=given.unload, replace=given.replace).go()
    )


def _prompt(argument: str | None) -> str:
    """The prompt with what standard input attaches to it."""
    attached = ""
    if sys.stdin is not None and not sys.stdin.isatty():
        attached = sys.stdin.buffer.read().decode("utf-8", "replace")
    prompt = "\n\n".join(part for part in (argument or "", attached) if part.strip())
    if not prompt:
        raise LlamaTuiError("There is no prompt.", 'Give it as in `llama-tui run guide "Hello"`, or on standard input.')
    return prompt


class _Run:
    """One answer, from the model's name to the last word."""

    def __init__(
        self,
        model: str,
        prompt: str,
        given: dict[str, Value],
        flags: dict[str, Value],
        *,
        json: bool,
        unload: bool,
        replace: bool,
    ) -> None:
        self._model = model
        self._prompt = prompt
        self._given = given
        self._flags = flags
        self._json = json
        self._unload = unload
        self._replace = replace
        self._narrator = Narrator()
        self._stopped: int | None = None
        self._started: Started | None = None

    async def go(self) -> int:
        """Make the answer; returns the exit code."""
        task = asyncio.create_task(self._answer())

        def stop(code: int) -> None:
            if self._stopped is None:
                self._stopped = code
                task.cancel()

        self._outlet = Outlet(lambda: stop(Exit.BROKEN_PIPE))
        heard = on_signals(stop)
        try:
            code: int = await task
        except asyncio.CancelledError:
            code = self._stopped or Exit.FAILED
            self._event({"type": "stopped", "exit_code": code})
        except LlamaTuiError as error:
            code = exit_code(error)
            self._outlet.end_line()
            await self._outlet.drain(_LAST_WORDS_SECONDS)
            self._narrator.hush()
            self._event({"type": "error", "message": error.message, "hint": error.hint, "exit_code": int(code)})
            report(error)
        self._narrator.hush()
        self._outlet.end_line()
        # From here on a signal ends the program as any other: the reader may never read.
        for number in heard:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        await self._outlet.drain(None if self._stopped is None else _LAST_WORDS_SECONDS)
        return self._stopped or code

    async def _answer(self) -> int:
        paths, settings = compose(self._flags)
        for problem in settings.problems:
            self._narrator.warn(f"{problem.message}. {problem.hint}")
        access = Access(paths, settings, self._engine_changed, on_warning=self._narrator.warn)
        async with closing(access, unload=self._unload):
            file = await access.find(self._model)
            engine = await access.engine(file, self._given, replace=self._replace)
            if engine.spec.params["n_gpu_layers"] is None:
                self._narrator.line(f"auto: {engine.spec.n_gpu_layers} of {engine.spec.n_layers} layers on the GPU")
            self._event({"type": "engine", "model": file.name, "path": str(file.path), "pid": engine.pid})
            messages = (Message("user", self._prompt),)
            async with contextlib.aclosing(access.ask(file, messages, self._given)) as events:
                async for event in events:
                    self._tell(event)
                    if isinstance(event, Finished):
                        self._outlet.end_line()
                        await self._outlet.drain()
                        self._narrator.line(_figures(event, self._started))
        return Exit.OK

    def _engine_changed(self, engine: Engine) -> None:
        state = engine.state
        if engine.condition != "loading":
            return
        how = ""
        if state and state.progress is not None:
            how = f" {state.progress:.0%}"
        elif state and state.read_bytes:
            how = f" {short_size(state.read_bytes)} read"
        self._narrator.status(f"loading {engine.spec.name}{how}")

    def _tell(self, event: AnswerEvent) -> None:
        if self._json:
            self._outlet.text(msgspec.json.encode(event).decode() + "\n")
        match event:
            case Queued(place=place):
                self._narrator.status(f"waiting, {place} before it")
            case Started(prompt_tokens=total, reused_tokens=reused):
                self._started = event
                if event.notice:
                    self._narrator.warn(event.notice)
                self._narrator.status(f"reading {total:,} tokens · reused {reused:,} of {total:,}")
            case Prefilled(done=done, total=total):
                self._narrator.status(f"reading {done:,} of {total:,} tokens")
            case Token(text=text):
                self._narrator.hush()
                if not self._json:
                    self._outlet.text(text)
            case Called():
                pass  # no tools are offered
            case Finished():
                self._narrator.hush()

    def _event(self, event: dict[str, object]) -> None:
        if self._json:
            self._outlet.text(msgspec.json.encode(event).decode() + "\n")


def _figures(event: Finished, started: Started | None) -> str:
    parts = [f"{event.completion_tokens:,} tokens"]
    if event.tokens_per_second is not None:
        parts.append(f"{event.tokens_per_second:.0f} tok/s")
    if event.first_token_seconds is not None:
        parts.append(f"first {event.first_token_seconds:.2f} s")
    if event.restored:
        parts.append(f"reused {event.reused_tokens:,} of {event.prompt_tokens:,} from disk")
    reason: str = event.reason
    if reason == "length" and started:
        full = event.prompt_tokens + event.completion_tokens >= started.n_ctx
        reason = f"length: n_ctx of {started.n_ctx:,} is full" if full else "length: max_tokens is reached"
    return " · ".join([*parts, reason])
