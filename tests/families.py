"""Random models of the families that are served, in every attention pattern: smaller than those of
`tiny_models`, without files or tokenizers of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from autodidact.models.loading import LoadedBase
from tests.tiny_models import CONTEXT, SPREAD, VOCABULARY

WINDOW = 32
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
    "initializer_range": SPREAD,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral, a window": ("mistral", {"sliding_window": WINDOW}),
    "qwen2": ("qwen2", {}),
    "qwen2, windows above": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3, windows above": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "gemma2": ("gemma2", {"sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "gemma3": (
        "gemma3_text",
        {"sliding_window": WINDOW, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    ),
    "phi": ("phi", {"num_key_value_heads": 4}),
    "phi3, a window": ("phi3", {"sliding_window": WINDOW}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT}),
    "opt": ("opt", {"ffn_dim": 128, "word_embed_proj_dim": 64, "init_std": SPREAD}),
}


def made(kind: str, given: dict[str, Any], base: LoadedBase) -> LoadedBase:
    """A random model of the family, with another's tokenizer."""
    config = CONFIG_MAPPING[kind](**{**SHAPE, **given})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.eval().requires_grad_(False)
    return replace(
        base, model=model, context=CONTEXT, stop_ids=frozenset(), pad_id=0,
        parameters=model.num_parameters(),
    )  # fmt: skip
