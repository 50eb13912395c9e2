"""The one table of parameters.

The form, the settings files, the environment, the command-line flags, the engine and the README's
table are all made from it. A new sampler is one entry here and its line in `worker/sampler.py`.
Defaults follow llama.cpp's own where this program has no reason to differ.
"""

from __future__ import annotations

from functools import partial

from llama_tui.settings.items import OVERRIDE
from llama_tui.settings.values import Param, Value, Values

KV_TYPES = ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")

SAMPLERS = ("top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature")

_reload = partial(Param, kind="load", reload=True)
_engine = partial(Param, kind="load")
_sampling = partial(Param, kind="sampling")
_app = partial(Param, kind="app", group="program")

# fmt: off
PARAMS: tuple[Param, ...] = (
    # Sampling: these act on the next message.
    _sampling(
        name="system_prompt", type="str", default="", group="chat",
        help="What the model is told before the conversation; empty = nothing.",
    ),
    _sampling(
        name="max_tokens", type="int", default=None, group="chat",
        help="Longest answer.",
        unit="tokens", minimum=1, maximum=16777216, step=64, none_word="unlimited",
    ),
    _sampling(
        name="seed", type="int", default=None, group="chat",
        help="The same seed and prompt give the same answer.",
        minimum=0, maximum=4294967294, none_word="random",
    ),
    _sampling(
        name="stop", type="strings", default=(), group="chat",
        help="The answer ends before any of these texts.",
    ),
    _sampling(
        name="ignore_eos", type="bool", default=False, group="chat",
        help="Go on where the model would end its answer.",
    ),
    _sampling(
        name="thinking", type="bool", default=None, group="chat",
        help="Whether a model that can think before it answers shall; model = its own way.",
        none_word="model",
    ),
    _sampling(
        name="grammar", type="str", default="", group="chat",
        help="A grammar in GBNF that the answer follows; empty = none.",
    ),
    _sampling(
        name="json_schema", type="str", default="", group="chat",
        help="A JSON schema that the answer follows; empty = none.",
    ),
    _sampling(
        name="temperature", type="float", default=0.7, group="sampling",
        help="Higher is more varied, lower more certain; 0 always takes the likeliest token.",
        minimum=0, maximum=5, step=0.1,
    ),
    _sampling(
        name="top_k", type="int", default=40, group="sampling",
        help="Keep the k likeliest tokens; 0 = all.",
        minimum=0, maximum=1000000, step=5,
    ),
    _sampling(
        name="top_p", type="float", default=0.95, group="sampling",
        help="Keep the likeliest tokens up to this total probability; 1 = all.",
        minimum=0, maximum=1, step=0.05,
    ),
    _sampling(
        name="min_p", type="float", default=0.05, group="sampling",
        help="Drop tokens below this share of the likeliest; 0 = none.",
        minimum=0, maximum=1, step=0.01,
    ),
    _sampling(
        name="typical_p", type="float", default=1.0, group="sampling",
        help="Locally typical sampling; 1 = off.",
        minimum=0, maximum=1, step=0.05,
    ),
    _sampling(
        name="top_n_sigma", type="float", default=-1.0, group="sampling",
        help="Keep logits within n standard deviations of the best; -1 = off.",
        minimum=-1, maximum=100, step=0.5,
    ),
    _sampling(
        name="repeat_penalty", type="float", default=1.0, group="penalties",
        help="Divides the logits of recent tokens; 1 = off.",
        minimum=0.01, maximum=10, step=0.05,
    ),
    _sampling(
        name="presence_penalty", type="float", default=0.0, group="penalties",
        help="Taken from tokens seen at all; 0 = off.",
        minimum=-10, maximum=10, step=0.1,
    ),
    _sampling(
        name="frequency_penalty", type="float", default=0.0, group="penalties",
        help="Taken once for each time seen; 0 = off.",
        minimum=-10, maximum=10, step=0.1,
    ),
    _sampling(
        name="penalty_last_n", type="int", default=64, group="penalties",
        help="How far the penalties look back; 0 = off, -1 = the whole context.",
        unit="tokens", minimum=-1, maximum=16777216, step=64,
    ),
    _sampling(
        name="dry_multiplier", type="float", default=0.0, group="penalties",
        help="Strength of DRY, which punishes repeated sequences; 0 = off.",
        minimum=0, maximum=100, step=0.1,
    ),
    _sampling(
        name="dry_base", type="float", default=1.75, group="penalties",
        help="Growth of the DRY penalty for each repeated token.",
        minimum=1, maximum=100, step=0.05,
    ),
    _sampling(
        name="dry_allowed_length", type="int", default=2, group="penalties",
        help="Repeats up to this length are free.",
        unit="tokens", minimum=0, maximum=1000000,
    ),
    _sampling(
        name="dry_penalty_last_n", type="int", default=-1, group="penalties",
        help="How far DRY looks back; 0 = off, -1 = the whole context.",
        unit="tokens", minimum=-1, maximum=16777216, step=64,
    ),
    _sampling(
        name="dry_sequence_breakers", type="strings", default=("\n", ":", "\"", "*"), group="penalties",
        help="Texts that a repeat does not reach across.",
    ),
    _sampling(
        name="xtc_probability", type="float", default=0.0, group="other samplers",
        help="How often XTC removes the likeliest tokens; 0 = off.",
        minimum=0, maximum=1, step=0.05,
    ),
    _sampling(
        name="xtc_threshold", type="float", default=0.1, group="other samplers",
        help="Probability above which XTC may remove; over 0.5 = off.",
        minimum=0, maximum=1, step=0.05,
    ),
    _sampling(
        name="mirostat", type="int", default=0, group="other samplers",
        help="Mirostat 1 or 2 in place of the truncating samplers; 0 = off.",
        minimum=0, maximum=2,
    ),
    _sampling(
        name="mirostat_tau", type="float", default=5.0, group="other samplers",
        help="Surprise that Mirostat aims at.",
        minimum=0, maximum=100, step=0.5,
    ),
    _sampling(
        name="mirostat_eta", type="float", default=0.1, group="other samplers",
        help="How fast Mirostat adapts.",
        minimum=0, maximum=1, step=0.05,
    ),
    _sampling(
        name="samplers", type="strings", default=SAMPLERS, group="other samplers",
        help="Which of these act, and in what order.",
        choices=SAMPLERS,
    ),
    _sampling(
        name="logit_bias", type="strings", default=(), group="other samplers",
        help="Added to the logits of tokens, each named by its id or its text.",
        item=r"(?s).+=[-+]?(\d+(\.\d*)?|inf)", example='["42=-inf", " yes=1.5"]',
    ),
    _sampling(
        name="top_logprobs", type="int", default=None, group="other samplers",
        help="Tell how likely each token was, and so many of the likeliest in its place.",
        minimum=0, maximum=100, none_word="off",
    ),
    # Load: a loaded model must be loaded again for these, except for `_engine` and `_sampling`.
    _reload(
        name="n_ctx", type="int", default=2048, group="context",
        help="Context window; rounded up to a multiple of 256.",
        unit="tokens", minimum=16, maximum=16777216, step=1024, none_word="model", variables=("LLAMA_CPP_N_CTX",),
    ),
    _sampling(
        name="context_full", type="choice", default="ask", group="context",
        help="What to leave out where a chat no longer fits with room for the reply.",
        choices=("ask", "drop_oldest", "drop_middle", "stop"),
    ),
    _reload(
        name="flash_attn", type="choice", default="auto", group="context",
        help="Flash attention.",
        choices=("auto", "on", "off"),
    ),
    _reload(
        name="type_k", type="choice", default="f16", group="context",
        help="Type of the K cache.",
        choices=KV_TYPES,
    ),
    _reload(
        name="type_v", type="choice", default="f16", group="context",
        help="Type of the V cache; a quantized one needs flash attention.",
        choices=KV_TYPES,
    ),
    _reload(
        name="n_batch", type="int", default=2048, group="context",
        help="Most tokens in one call.",
        unit="tokens", minimum=1, maximum=65536, step=256,
    ),
    _reload(
        name="n_ubatch", type="int", default=512, group="context",
        help="Tokens computed at once; a stop waits for at most one such chunk.",
        unit="tokens", minimum=1, maximum=65536, step=128,
    ),
    _reload(
        name="n_gpu_layers", type="int", default=0, group="devices",
        help="Layers on the GPU; 0 = none, -1 = all, auto = as many as fit into what is free.",
        minimum=-1, maximum=100000, none_word="auto", variables=("LLAMA_CPP_N_GPU_LAYERS",),
    ),
    _reload(
        name="devices", type="strings", default=(), group="devices",
        help="GPUs to use, by llama.cpp's names; empty = all.",
        item=r"[\w.:\[\]-]+", example='["CUDA0"]',
    ),
    _reload(
        name="n_threads", type="int", default=None, group="devices",
        help="Threads that generate; auto = the physical cores it may use, but never every CPU of four or more.",
        minimum=1, maximum=512, none_word="auto", variables=("LLAMA_CPP_N_THREADS",),
    ),
    _reload(
        name="n_threads_batch", type="int", default=None, group="devices",
        help="Threads that read the prompt; auto = as n_threads.",
        minimum=1, maximum=512, none_word="auto",
    ),
    _reload(
        name="split_mode", type="choice", default="layer", group="devices",
        help="How a model is split over several GPUs.",
        choices=("none", "layer", "row"),
    ),
    _reload(
        name="main_gpu", type="int", default=0, group="devices",
        help="GPU that holds the model when it is not split.",
        minimum=0, maximum=63,
    ),
    _reload(
        name="tensor_split", type="floats", default=(), group="devices",
        help="Share of each GPU; empty = by free memory.",
    ),
    _reload(
        name="offload_kqv", type="bool", default=True, group="devices",
        help="Keep the KV cache on the GPU with its layers.",
    ),
    _reload(
        name="rpc_servers", type="strings", default=(), group="devices",
        help="Machines that hold a part of the model, by llama.cpp's rpc-server; needs a build with RPC.",
        item=r"[^\s:/]+:\d{1,5}", example='["10.0.0.2:50052"]',
    ),
    _reload(
        name="lora", type="strings", default=(), group="file",
        help="LoRA adapters, each a file and its scale; a relative path is looked for beside the model.",
        item=r"(?s).+", example='["style.gguf:0.8"]',
    ),
    _reload(
        name="kv_overrides", type="strings", default=(), group="file",
        help="Values of the file's metadata to be changed, each as KEY=TYPE:VALUE.",
        item=OVERRIDE, example='["tokenizer.ggml.add_bos_token=bool:false"]',
    ),
    _reload(
        name="use_mmap", type="bool", default=True, group="file",
        help="Map the file in place of reading it.",
    ),
    _reload(
        name="use_mlock", type="bool", default=False, group="file",
        help="Keep the weights from being swapped out.",
    ),
    _reload(
        name="rope_freq_base", type="float", default=None, group="rope",
        help="RoPE base frequency.",
        minimum=0, maximum=1000000000000.0, none_word="model",
    ),
    _reload(
        name="rope_freq_scale", type="float", default=None, group="rope",
        help="RoPE frequency scale.",
        minimum=0, maximum=1000, step=0.1, none_word="model",
    ),
    _reload(
        name="rope_scaling", type="choice", default=None, group="rope",
        help="How RoPE is stretched past the trained context.",
        choices=("none", "linear", "yarn", "longrope"), none_word="model",
    ),
    _reload(
        name="yarn_orig_ctx", type="int", default=None, group="rope",
        help="Context the model was trained with, for YaRN.",
        unit="tokens", minimum=1, maximum=16777216, none_word="model",
    ),
    _reload(
        name="yarn_ext_factor", type="float", default=None, group="rope",
        help="YaRN extrapolation mix.",
        minimum=0, maximum=1000, step=0.1, none_word="model",
    ),
    _reload(
        name="yarn_attn_factor", type="float", default=None, group="rope",
        help="YaRN attention magnitude.",
        minimum=0, maximum=1000, step=0.1, none_word="model",
    ),
    _reload(
        name="yarn_beta_fast", type="float", default=None, group="rope",
        help="YaRN low correction dimension.",
        minimum=0, maximum=1000, none_word="model",
    ),
    _reload(
        name="yarn_beta_slow", type="float", default=None, group="rope",
        help="YaRN high correction dimension.",
        minimum=0, maximum=1000, none_word="model",
    ),
    _engine(
        name="timeout", type="float", default=300.0, group="engine",
        help="Longest time that loading may take.",
        unit="s", minimum=1, maximum=86400, step=60,
    ),
    _engine(
        name="idle_timeout", type="float", default=300.0, group="engine",
        help="Unused for this long, a model unloads itself; 0 = never.",
        unit="s", minimum=0, maximum=31536000, step=60,
    ),
    _engine(
        name="kv_state_size", type="float", default=4.0, group="engine",
        help="Disk for the saved KV states of all models, the oldest removed first; 0 = save none.",
        unit="GiB", minimum=0, maximum=1048576, step=1,
    ),
    # The program itself.
    _app(
        name="model_dir", type="str", default="~/llama_models",
        help="Folder of GGUF files, searched with its subfolders.",
        variables=("LLAMA_CPP_MODEL_DIR",),
    ),
    _app(
        name="max_loaded", type="int", default=0,
        help="Most models that are loaded at a time; 0 = no bound.",
        minimum=0, maximum=1000,
    ),
    _app(
        name="evict", type="choice", default="ask",
        help="Where there is no room for another model: ask, or unload those that are unused for longest.",
        choices=("ask", "lru"),
    ),
    _app(
        name="check_room", type="bool", default=True,
        help="Load only what fits into the memory that is free.",
    ),
    _app(
        name="theme", type="str", default="auto",
        help="Theme: one of the program or a file of your own; auto = as the terminal's background is.",
    ),
    _app(
        name="paint", type="choice", default="diff", choices=("diff", "full"),
        help="What is sent to the terminal: only what differs, or every region that may have changed.",
    ),
    _app(
        name="frame_rate", type="int", default=15,
        help="Most frames sent in a second; what keys do is sent at once.",
        unit="frames/s", minimum=1, maximum=60,
    ),
    _app(
        name="on_quit", type="choice", default="unload",
        help="Quitting ends the engines that only this program uses, or keeps them and the answer they write.",
        choices=("unload", "keep"),
    ),
)
# fmt: on

BY_NAME: dict[str, Param] = {param.name: param for param in PARAMS}


def defaults(kind: str) -> dict[str, Value]:
    """The default of every parameter of a kind."""
    return {param.name: param.default for param in PARAMS if param.kind == kind}


def load_identity(values: Values) -> dict[str, Value]:
    """The values that decide whether two engines of one file are the same engine."""
    return {param.name: values.get(param.name, param.default) for param in PARAMS if param.reload}


def loading(values: Values) -> dict[str, Value]:
    """The load values among `values`, defaults where one is not there."""
    return _of_kind("load", values)


def sampling(values: Values) -> dict[str, Value]:
    """The sampling values among `values`, defaults where one is not there."""
    return _of_kind("sampling", values)


def _of_kind(kind: str, values: Values) -> dict[str, Value]:
    return {param.name: values.get(param.name, param.default) for param in PARAMS if param.kind == kind}
