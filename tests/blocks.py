"""Tiny models whose weights are in blocks of four or eight bits, as a GGUF file gives them."""

from __future__ import annotations

import copy
from dataclasses import replace

import gguf
import torch
from transformers import PreTrainedModel

from autodidact.models.loading import LoadedBase


def in_blocks(base: LoadedBase, form: str = "Q4_1", head: str = "Q8_0") -> LoadedBase:
    """A copy of a base, rounded to this form; embeddings and head to another."""
    return replace(base, model=rounded(base.model, form, head))


def rounded(model: PreTrainedModel, form: str = "Q4_1", head: str = "Q8_0") -> PreTrainedModel:
    made: PreTrainedModel = copy.deepcopy(model)
    for name, weight in made.named_parameters():
        if weight.ndim == 2:
            outside = "embed" in name or "lm_head" in name
            kind = getattr(gguf.GGMLQuantizationType, head if outside else form)
            values = gguf.dequantize(gguf.quantize(weight.detach().numpy(), kind), kind)
            weight.data = torch.tensor(values, dtype=torch.float32)
    return made
