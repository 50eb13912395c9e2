"""The door for Python programs: `from llama_tui import Client, SyncClient`."""

from llama_tui.client.arguments import BadArgument
from llama_tui.client.asynchronous import Client
from llama_tui.client.completions import ChunkStream
from llama_tui.client.responses import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessage,
    Choice,
    ChunkChoice,
    Delta,
    Function,
    LoadedModel,
    Logprobs,
    Model,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from llama_tui.client.synchronous import SyncChunkStream, SyncClient

__all__ = [
    "BadArgument",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatMessage",
    "Choice",
    "ChunkChoice",
    "ChunkStream",
    "Client",
    "Delta",
    "Function",
    "LoadedModel",
    "Logprobs",
    "Model",
    "SyncChunkStream",
    "SyncClient",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "TopLogprob",
    "Usage",
]
