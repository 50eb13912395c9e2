"""Chat templates in a process of their own, which is ended when a template runs wild.

A template comes from a stranger's file. Jinja's sandbox keeps it from the program's objects, but
not from taking all time or all memory: `{{ 9 ** (9 ** 99) }}` never returns, and no thread or trace
hook can stop it. The kernel can: this process has a limit of memory and, for every prompt, of CPU
time, at the end of which it is killed without a word. The engine then uses the neutral template.

`python -m llama_tui.worker.renderer` is that process: the first line of its input is a `_Model`,
every further one a `_Request` that it answers with a `_Reply`, all in JSON.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from llama_tui.engine.protocol import Message
from llama_tui.worker.losses import shortened
from llama_tui.worker.template import ChatTemplate, TemplateError

_CPU_SECONDS = 2.0
"""CPU time that one prompt may take; a real one takes a few thousandths."""

_CPU_SECONDS_FOR_A_BYTE = 0.25e-6
"""CPU time that each byte of a conversation adds to that."""

_WALL_SECONDS = 30.0
"""The longest wait for a prompt, on a machine that has no CPU time to give."""

_MEMORY_BYTES = 2 * 1024**3
"""Address space of the process."""

_PIPE_BYTES = 65536


class Prompt(msgspec.Struct, frozen=True):
    """A rendered conversation. `notice` says why the model's own template did not make it, or what it
    leaves out; `stop` holds texts that end the answer besides the model's own tokens."""

    text: str
    template: Literal["model", "fallback"]
    stop: tuple[str, ...] = ()
    notice: str = ""


class _Model(msgspec.Struct, frozen=True):
    source: str
    bos: str
    eos: str


class _Request(msgspec.Struct, frozen=True):
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    thinking: bool | None


class _Reply(msgspec.Struct, frozen=True):
    prompt: str | None = None
    error: str = ""
    shortened: str = ""


class Renderer:
    """Makes prompts with the template `source` of the model `name`, or with a neutral one."""

    def __init__(self, name: str, source: str | None, bos: str, eos: str, *, knows_chatml: bool) -> None:
        self._name = name
        self._neutral = ChatTemplate(None, bos, eos, knows_chatml=knows_chatml)
        self._model = _Model(source, bos, eos) if source else None
        self._wild = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._unsent = b""
        if self._model:
            with contextlib.suppress(OSError):  # the first prompt tries again
                self._start(self._model)  # it gets ready while the rest of the model is

    @property
    def origin(self) -> Literal["model", "fallback"]:
        """Whose template is tried first."""
        return "model" if self._model else "fallback"

    @property
    def source(self) -> str:
        """The model's own template; empty where it has none."""
        return self._model.source if self._model else ""

    def render(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), thinking: bool | None = None
    ) -> Prompt:
        """The prompt up to where the answer begins."""
        if self._model is None:
            return Prompt(self._neutral.render(messages, tools), "fallback", self._neutral.stop)
        request = _Request(tuple(messages), tuple(tools), thinking)
        reply = _Reply(error=self._wild) if self._wild else self._ask(self._model, request)
        if reply.prompt is not None:
            notice = f"The chat template of {self._name} leaves out a part of {reply.shortened}."
            return Prompt(reply.prompt, "model", notice=notice if reply.shortened else "")
        notice = f"The chat template of {self._name} cannot be used here, a neutral one was: {reply.error}."
        return Prompt(self._neutral.render(messages, tools), "fallback", self._neutral.stop, notice)

    def close(self) -> None:
        """End the process."""
        if process := self._process:
            self._process = None
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _start(self, model: _Model) -> subprocess.Popen[bytes]:
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        for pipe in (process.stdin, process.stdout):
            assert pipe
            os.set_blocking(pipe.fileno(), False)
        self._unsent = _line(model)
        return process

    def _ask(self, model: _Model, request: _Request) -> _Reply:
        """Have the process render. A template that had to be stopped is not tried again, nor is one
        with which the process has ended twice."""
        reason = ""
        for _attempt in range(2):
            try:
                process = self._process or self._start(model)
            except OSError as error:  # no memory, no process to be had: perhaps for the next prompt
                return _Reply(error=f"no process can be started for it ({error.strerror})")
            line = self._exchange(process, self._unsent + _line(request))
            self._unsent = b""
            if line.endswith(b"\n"):
                return msgspec.json.decode(line, type=_Reply)
            ended = process.poll()
            self.close()
            if ended in (None, -signal.SIGPROF):
                reason = f"it did not finish within {_CPU_SECONDS:g} s and was stopped"
                break
            reason = f"it ends the process that runs it (code {ended})"
        self._wild = reason
        return _Reply(error=reason)

    @staticmethod
    def _exchange(process: subprocess.Popen[bytes], request: bytes) -> bytes:
        """Send a request and read a line, or what came before the process ended or the time was over."""
        assert process.stdin and process.stdout
        deadline = time.monotonic() + _WALL_SECONDS
        unsent, reply = memoryview(request), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            while not reply.endswith(b"\n") and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    if key.fileobj is process.stdout:
                        if not (part := process.stdout.read(_PIPE_BYTES)):
                            with contextlib.suppress(subprocess.TimeoutExpired):
                                process.wait(left)
                            return bytes(reply)
                        reply += part
                        continue
                    with contextlib.suppress(BrokenPipeError):  # reading then finds the end
                        unsent = unsent[process.stdin.write(unsent[:_PIPE_BYTES]) or 0 :]
                        if unsent:
                            continue
                    selector.unregister(process.stdin)
        return bytes(reply)


def _line(message: _Model | _Request) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def main() -> None:
    """Render what is asked for until the input ends."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The engine is what answers to signals; this process ends with its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    lines, answers = sys.stdin.buffer, sys.stdout.buffer
    model = msgspec.json.decode(lines.readline(), type=_Model)
    template: ChatTemplate | None = None
    for line in lines:
        request = msgspec.json.decode(line, type=_Request)
        # Compiling folds constants: it can run wild as well.
        signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS + _CPU_SECONDS_FOR_A_BYTE * len(line))
        try:
            template = template or ChatTemplate(model.source, model.bos, model.eos, knows_chatml=False)
            prompt = template.render(request.messages, request.tools, request.thinking)
            reply = _Reply(prompt.encode("utf-8", "replace").decode(), shortened=shortened(prompt, request.messages))
        except TemplateError as error:
            reply = _Reply(error=error.message.rstrip("."))
        except (MemoryError, RecursionError):
            reply = _Reply(error="it wants too much memory")
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(msgspec.json.encode(reply) + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
