"""Which earlier positions the layers of a model see, as masks for passes that bring their own.

Most layers see all that came before; those with a sliding window (Mistral, Gemma, some Qwen) only
the last so many positions, themselves included. Which layer is which kind `transformers` reads from
config.json, and so does this. Layers that keep a state instead of keys and values (Mamba, linear
attention), or use those of another layer, cannot be served from one cache of slots: such a model is
refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs

from autodidact.errors import BaseUnfit

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of layers, in `transformers`' words."""
Mask = torch.Tensor | dict[str, torch.Tensor]


@dataclass(frozen=True)
class Attention:
    """`windows`: for each kind of layer that the model has, how many positions it sees, itself
    included; None is all. `additive`: the model's own products want numbers to add instead of
    booleans."""

    windows: Mapping[str, int | None]
    additive: torch.dtype | None = None

    @property
    def narrowest(self) -> int | None:
        """A sequence of at most so many tokens is seen whole by every layer; None is any length."""
        return min((w for w in self.windows.values() if w is not None), default=None)

    def mask(self, positions: torch.Tensor, keys: int) -> Mask:
        """Who sees whom: (rows, 1, tokens, `keys`), where key i is at position i. `positions`:
        (rows, tokens). By kind of layer, as such models take it, where there are several."""
        where = torch.arange(keys, device=positions.device)
        at = positions[:, None, :, None]
        masks = {
            kind: where <= at if window is None else (where <= at) & (where > at - window)
            for kind, window in self.windows.items()
        }
        if self.additive is not None:
            least = torch.finfo(self.additive).min
            masks = {
                kind: torch.zeros(seen.shape, dtype=self.additive, device=seen.device).masked_fill(
                    ~seen, least
                )
                for kind, seen in masks.items()
            }
        return masks if len(masks) > 1 else next(iter(masks.values()))


def attention_of(config: PretrainedConfig, dtype: torch.dtype) -> Attention:
    """Raises BaseUnfit for a model with layers that the server cannot serve."""
    decoder = config.get_text_config(decoder=True)
    kinds, details = get_layer_types_and_kwargs(decoder)
    windows: dict[str, int | None] = {}
    for kind, detail in zip(kinds, details, strict=True):
        if kind not in (FULL, SLIDING):
            raise BaseUnfit(
                f"{config.model_type}: its layers of the kind {kind} cannot be served here; "
                "choose another model, and another home for it"
            )
        windows[kind] = detail.get("sliding_window")
    eager = config._attn_implementation == "eager"
    return Attention(windows, dtype if eager else None)


def longest(config: PretrainedConfig, otherwise: int) -> int:
    """The longest context in which every token is computed the same way, however long the text it
    stands in will be: LongRoPE (Phi-3) turns to other frequencies beyond the length that it was
    trained on, for the tokens that are there already too."""
    decoder = config.get_text_config(decoder=True)
    context = int(getattr(decoder, "max_position_embeddings", None) or otherwise)
    ropes = getattr(decoder, "rope_parameters", None) or {}
    for rope in (ropes, *ropes.values()):
        if isinstance(rope, dict) and rope.get("rope_type") == "longrope":
            trained = rope.get("original_max_position_embeddings")
            context = min(context, int(trained or context))
    return context
