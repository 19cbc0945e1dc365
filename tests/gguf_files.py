"""Tiny models as GGUF files, as llama.cpp's converter would write them."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(
    model: Path,
    file: Path,
    *,
    architecture: str = "llama",
    tokenizer: bool = True,
    name: str = "tiny",
) -> Path:
    """The Llama-like model in the folder `model` as one file, its weights as they are."""
    config = AutoConfig.from_pretrained(model)
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name(name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        _tokenizer(writer, model)
    for tensor_name, tensor in load_file(model / "model.safetensors").items():
        values = tensor.float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for projection, count in heads.items():
            if f"{projection}.weight" in tensor_name:  # llama.cpp orders rotary pairs differently
                rows, width = values.shape
                pairs = values.reshape(count, 2, rows // count // 2, width)
                values = pairs.swapaxes(1, 2).reshape(rows, width)
        writer.add_tensor(_name(tensor_name), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _name(name: str) -> str:
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight":
             "output_norm.weight", "lm_head.weight": "output.weight"}  # fmt: skip
    if name in whole:
        return whole[name]
    _, _, number, rest = name.split(".", 3)
    return f"blk.{number}.{_LAYER[rest.removesuffix('.weight')]}.weight"


def _tokenizer(writer: gguf.GGUFWriter, model: Path) -> None:
    read = AutoTokenizer.from_pretrained(model)
    tokens = [token for token, _ in sorted(read.get_vocab().items(), key=lambda entry: entry[1])]
    special = {entry.content for entry in read.added_tokens_decoder.values()}
    merges = json.loads((model / "tokenizer.json").read_text())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(read.bos_token_id)
    writer.add_eos_token_id(read.eos_token_id)
    writer.add_pad_token_id(read.pad_token_id)
    writer.add_unk_token_id(read.unk_token_id)
    writer.add_chat_template(read.chat_template)
