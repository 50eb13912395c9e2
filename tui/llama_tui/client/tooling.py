"""The arguments of `create` that are not parameters of the table: tools, formats, streams."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from llama_tui.client.arguments import BadArgument, fields_of, kind_of, refuse_unknown
from llama_tui.engine.protocol import FREE_CHOICE, ToolChoice
from llama_tui.settings.values import Value

_MAX_TOP_LOGPROBS = 100


@dataclass(frozen=True, slots=True)
class Tooling:
    """The tools of a request, and whether the model may or must call them."""

    tools: tuple[dict[str, Any], ...] = ()
    choice: ToolChoice = FREE_CHOICE


def tooling(tools: object, tool_choice: object, parallel_tool_calls: object) -> Tooling:
    """Tools in OpenAI's shape; raises `BadArgument`. With `tool_choice="none"` there are none."""
    if not isinstance(parallel_tool_calls, bool):
        raise BadArgument(f"parallel_tool_calls is {kind_of(parallel_tool_calls)}", "It must be True or False")
    if tools is None or (isinstance(tools, Sequence) and not tools):
        if tool_choice not in (None, "auto", "none"):
            raise BadArgument("tool_choice is given without tools", "Pass tools=[...] as well")
        return Tooling()
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence):
        raise BadArgument("tools must be a list", _TOOL_HINT)
    checked = tuple(_tool(number, tool) for number, tool in enumerate(cast("Sequence[object]", tools)))
    names = [tool["function"]["name"] for tool in checked]
    if tool_choice in (None, "auto"):
        return Tooling(checked, ToolChoice(parallel=parallel_tool_calls))
    if tool_choice == "none":
        return Tooling()
    if tool_choice == "required":
        return Tooling(checked, ToolChoice("required", parallel=parallel_tool_calls))
    name = _chosen(tool_choice)
    if name not in names:
        raise BadArgument(f"tool_choice names {name!r}, which is not among the tools", f"There are: {', '.join(names)}")
    return Tooling(checked, ToolChoice("required", name, parallel=parallel_tool_calls))


_TOOL_HINT = 'Write {"type": "function", "function": {"name": "...", "parameters": {...}}}'


def _tool(number: int, tool: object) -> dict[str, Any]:
    where = f"tools[{number}]"
    if not isinstance(tool, Mapping):
        raise BadArgument(f"{where} is {kind_of(tool)}, not a dictionary", _TOOL_HINT)
    fields = cast("Mapping[str, object]", tool)
    function = fields.get("function")
    if fields.get("type") != "function" or not isinstance(function, Mapping):
        raise BadArgument(f"{where} is no function", _TOOL_HINT)
    described = cast("Mapping[str, object]", function)
    refuse_unknown(described, ("name", "description", "parameters", "strict"), f'{where}["function"]')
    name, parameters = described.get("name"), described.get("parameters")
    if not isinstance(name, str) or not name:
        raise BadArgument(f'{where}["function"]["name"] is {kind_of(name)}', "It must be a text")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise BadArgument(f'{where}["function"]["parameters"] is {kind_of(parameters)}', "It must be a JSON schema")
    return _plain(
        {"type": "function", "function": {key: item for key, item in described.items() if item is not None}}, where
    )


def _chosen(tool_choice: object) -> str:
    name = fields_of(fields_of(tool_choice).get("function")).get("name")
    if not isinstance(name, str):
        raise BadArgument(
            f"tool_choice is {tool_choice!r}",
            'It must be "auto", "none", "required" or {"type": "function", "function": {"name": "..."}}',
        )
    return name


def response_schema(response_format: object) -> str | None:
    """The JSON schema that `response_format` asks for, None for text; raises `BadArgument`."""
    if response_format is None:
        return None
    match fields_of(response_format).get("type"):
        case "text":
            return None
        case "json_object":
            return '{"type": "object"}'
        case "json_schema":
            pass
        case _:
            raise BadArgument(
                f"response_format is {response_format!r}", 'Its "type" must be "text", "json_object" or "json_schema"'
            )
    schema = fields_of(fields_of(response_format).get("json_schema")).get("schema")
    if not isinstance(schema, Mapping):
        raise BadArgument(
            "response_format has no schema",
            'Write {"type": "json_schema", "json_schema": {"name": "...", "schema": {...}}}',
        )
    return json.dumps(_plain(cast("Mapping[str, object]", schema), "response_format"), ensure_ascii=False)


def likelihoods(logprobs: object, top_logprobs: object) -> dict[str, Value]:
    """The parameter that `logprobs` and `top_logprobs` stand for; raises `BadArgument`."""
    if logprobs is not None and not isinstance(logprobs, bool):
        raise BadArgument(f"logprobs is {kind_of(logprobs)}", "It must be True or False; top_logprobs is the number")
    if top_logprobs is not None and (
        isinstance(top_logprobs, bool)
        or not isinstance(top_logprobs, int)
        or not 0 <= top_logprobs <= _MAX_TOP_LOGPROBS
    ):
        raise BadArgument(
            f"top_logprobs is {top_logprobs!r}", f"It must be a whole number from 0 to {_MAX_TOP_LOGPROBS}"
        )
    if logprobs is False and top_logprobs:
        raise BadArgument("top_logprobs is given with logprobs=False", "Pass logprobs=True")
    if top_logprobs is not None and logprobs is not False:
        return {"top_logprobs": top_logprobs}
    return {} if logprobs is None else {"top_logprobs": 0 if logprobs else None}


def wants_usage(stream_options: object, *, stream: bool) -> bool:
    """Whether a chunk with the usage alone is wanted at the end; raises `BadArgument`."""
    if stream_options is None:
        return False
    if not stream:
        raise BadArgument("stream_options is given without stream=True", "Leave one out")
    if not isinstance(stream_options, Mapping):
        raise BadArgument(f"stream_options is {kind_of(stream_options)}", 'Write {"include_usage": True}')
    options = cast("Mapping[str, object]", stream_options)
    refuse_unknown(options, ("include_usage",), "stream_options")
    return options.get("include_usage") is True


def _plain(value: Mapping[str, object], where: str) -> dict[str, Any]:
    """The same as JSON has it; raises `BadArgument` for what JSON cannot hold."""
    try:
        return cast("dict[str, Any]", json.loads(json.dumps(value)))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadArgument(f"{where} is no JSON: {error}", "Use texts, numbers, lists and dictionaries only") from error
