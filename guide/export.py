"""Writes the trained network as a GGUF file that llama.cpp loads."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer

from guide.model import Guide
from guide.tokenizer import CONTROL, END, END_OF_TEXT, TEMPLATE
from guide.topics import SUGGESTIONS

_LAYER = {
    "attn_norm": "attn_norm",
    "attn.q": "attn_q",
    "attn.k": "attn_k",
    "attn.v": "attn_v",
    "attn.out": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def export(model: Guide, tokenizer: Tokenizer, path: Path) -> None:
    """Write weights as Q8_0 (norms as F32), tokenizer, template and card."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    writer = gguf.GGUFWriter(str(draft), "llama")
    _describe(writer, model)
    _tokenizer(writer, tokenizer)
    for name, weight in model.named_parameters():
        array = weight.detach().float().numpy()
        if weight.dim() == 1:
            writer.add_tensor(tensor_name(name), array)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(tensor_name(name), gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # Renamed when whole: a program that starts meanwhile never sees half a model.
    draft.replace(path)


def tensor_name(name: str) -> str:
    """llama.cpp's name of a parameter."""
    outer = {"embed.weight": "token_embd", "norm.weight": "output_norm", "head.weight": "output"}
    if name in outer:
        return outer[name] + ".weight"
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{_LAYER[rest.removesuffix('.weight')]}.weight"


def _describe(writer: gguf.GGUFWriter, model: Guide) -> None:
    shape = model.shape
    writer.add_name("guide")
    writer.add_author("the llama-tui authors")
    writer.add_license("MIT")
    writer.add_description("Answers questions about llama-tui, and says so when it cannot.")
    writer.add_size_label(f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f}M")
    writer.add_array("llama_tui.suggestions", list(SUGGESTIONS))
    writer.add_vocab_size(shape.n_vocab)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    described = json.loads(tokenizer.to_str())
    added = {entry["content"] for entry in described["added_tokens"]} - set(CONTROL)
    vocab = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    assert [at for _, at in vocab] == list(range(len(vocab)))
    kinds = [
        gguf.TokenType.CONTROL
        if text in CONTROL
        else gguf.TokenType.USER_DEFINED
        if text in added
        else gguf.TokenType.NORMAL
        for text, _ in vocab
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([text for text, _ in vocab])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_eos_token_id(tokenizer.token_to_id(END))
    writer.add_pad_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(TEMPLATE)


def dequantized(array: np.ndarray) -> np.ndarray:
    """What is left of weights after Q8_0, for comparisons."""
    kind = gguf.GGMLQuantizationType.Q8_0
    return gguf.quants.dequantize(gguf.quants.quantize(array, kind), kind)
