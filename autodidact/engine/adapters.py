"""LoRA adapters as plain tensors, and linear layers that take another one for each row of a batch.

One module tree serves every version: the base's product is computed once for the whole batch, and
each version adds its low-rank part to its own rows (as Punica, Chen et al. 2023, and S-LoRA, Sheng
et al. 2023, do on GPUs). A version is therefore nothing but its tensors: it is loaded in
milliseconds, costs its own size and leaves nothing behind. (PEFT switches adapters on the modules,
which two threads do to each other: measured, replies mix.)

The arithmetic is PEFT's: y = W x + (alpha / r) B (A x), both parts in the model's dtype.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import nn
from transformers import PreTrainedModel

from autodidact.errors import CheckpointError
from autodidact.models.loading import block_of

MAX_RANK, MAX_ALPHA = 512, 4096
_WITHOUT_EFFECT = {"base_model_name_or_path", "inference_mode", "init_lora_weights",
                   "lora_dropout", "peft_version", "revision", "target_modules"}  # fmt: skip
"""Fields of adapter_config.json that do not change what a loaded adapter computes."""
_PREFIX = "base_model.model."


Pair = tuple[torch.Tensor, torch.Tensor]
FEW_ROWS = 2
"""Up to so many rows the low-rank parts are computed in float32 on a CPU."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """By layer name: A (rank, inputs) and B (outputs, rank), B scaled by alpha / rank. Layers that
    are not named stay as in the base."""

    layers: Mapping[str, Pair]

    @cached_property
    def wide(self) -> Mapping[str, Pair]:
        """The same in float32, made when first needed. A product of few rows with a small matrix in
        bfloat16 spends most of its time before it begins: 15 µs against 3 (docs/lab-log.md)."""
        return {name: (a.float(), b.float()) for name, (a, b) in self.layers.items()}

    @property
    def bytes(self) -> int:
        held = [self.layers, self.__dict__.get("wide", {})]
        return sum(a.nbytes + b.nbytes for layers in held for a, b in layers.values())


Rows = torch.Tensor | None
"""Row numbers of a batch; None is all of them."""


class Router:
    """Which adapter the rows of the next forward pass take; rows that are not named take none."""

    def __init__(self) -> None:
        self.groups: list[tuple[Rows, Adapter]] = []


class AdaptedLinear(nn.Module):
    """A linear layer of the base with the adapters that the router names. (rows, tokens, inputs)
    → (rows, tokens, outputs), or without the middle dimension where each row is a token."""

    def __init__(self, linear: nn.Module, name: str, router: Router) -> None:
        super().__init__()
        self.linear = linear
        self.name = name
        self.router = router

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x)
        few = x.numel() <= FEW_ROWS * x.shape[-1]
        if few and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            return self._few(x, y)
        for rows, adapter in self.router.groups:
            if self.name not in adapter.layers:
                continue
            a, b = adapter.layers[self.name]
            if rows is None:
                y.view(-1, y.shape[-1]).addmm_(F.linear(x.reshape(-1, x.shape[-1]), a), b.t())
            else:
                y.index_add_(0, rows, F.linear(F.linear(x[rows], a), b))
        return y

    def _few(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        for rows, adapter in self.router.groups:
            if self.name not in adapter.wide:
                continue
            a, b = adapter.wide[self.name]
            if rows is None:
                y += F.linear(F.linear(wide, a), b)
            else:
                y[rows] += F.linear(F.linear(wide[rows], a), b)
        return y


def adaptable(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The layers that an adapter goes on, by name: every linear one but the output head."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def adapt(model: PreTrainedModel, router: Router) -> None:
    """Put an `AdaptedLinear` in place of each adaptable layer of a module tree."""
    for name, linear in adaptable(model).items():
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, AdaptedLinear(linear, name, router))


def parse(
    call: str,
    config_json: bytes,
    weights: bytes,
    shapes: Mapping[str, tuple[int, int]],
    device: torch.device,
    dtype: torch.dtype,
) -> Adapter:
    """The adapter in the bytes of adapter_config.json and adapter_model.safetensors.

    `shapes`: (inputs, outputs) of each adaptable layer. Only plain LoRA on exactly these layers is
    accepted, or on all of them in some of the model's blocks (PEFT's `layers_to_transform`), with
    exactly the expected keys and shapes and finite values. `call` is the version's name for
    messages. Raises CheckpointError with one line.
    """
    config = _lora_config(call, config_json, shapes)
    blocks = config.layers_to_transform
    if isinstance(blocks, list):
        shapes = {name: shape for name, shape in shapes.items() if block_of(name) in blocks}
    try:
        tensors = parse_safetensors(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{call}: adapter_model.safetensors: {error}") from None
    rank = int(config.r)
    expected = {}
    for name, (inputs, outputs) in shapes.items():
        expected[f"{_PREFIX}{name}.lora_A.weight"] = (rank, inputs)
        expected[f"{_PREFIX}{name}.lora_B.weight"] = (outputs, rank)
    if set(tensors) != set(expected):
        odd = sorted(set(tensors) ^ set(expected))[0]
        raise CheckpointError(f"{call}: adapter keys do not match the base ({odd})")
    for key, tensor in tensors.items():
        if tuple(tensor.shape) != expected[key]:
            raise CheckpointError(f"{call}: {key} has shape {tuple(tensor.shape)}")
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise CheckpointError(f"{call}: {key} has type {tensor.dtype}")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{call}: {key} is not finite")
    scale = config.lora_alpha / rank
    layers = {}
    for name in shapes:
        a = tensors[f"{_PREFIX}{name}.lora_A.weight"]
        b = tensors[f"{_PREFIX}{name}.lora_B.weight"]
        scaled = b if scale == 1 else b.float() * scale
        layers[name] = (a.to(device, dtype), scaled.to(device, dtype))
    return Adapter(layers)


def _lora_config(call: str, config_json: bytes, shapes: Mapping[str, Any]) -> LoraConfig:
    """The configuration, if it is plain LoRA on all linear layers and says nothing that would
    change what the adapter computes."""
    linear = sorted({name.rsplit(".", 1)[-1] for name in shapes})
    try:
        given = json.loads(config_json)
        rank, alpha = int(given["r"]), int(given["lora_alpha"])
        modules: Sequence[str] = sorted(given["target_modules"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{call}: adapter_config.json is not readable: {error}") from None
    in_bounds = 1 <= rank <= MAX_RANK and 1 <= alpha <= MAX_ALPHA
    if given.get("peft_type") != "LORA" or not in_bounds or modules != linear:
        raise CheckpointError(f"{call}: adapter_config.json is not LoRA on this base's layers")
    blocks = given.get("layers_to_transform")
    there = {block_of(name) for name in shapes}
    if blocks is not None and not (
        isinstance(blocks, list) and blocks and all(type(b) is int and b in there for b in blocks)
    ):
        raise CheckpointError(
            f"{call}: adapter_config.json: layers_to_transform must be a list of this base's blocks"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=modules,
        layers_to_transform=blocks,
        task_type="CAUSAL_LM",
    )
    plain = config.to_dict()  # type: ignore[no-untyped-call]
    for key, value in given.items():
        if key not in _WITHOUT_EFFECT and (value or None) != (plain.get(key) or None):
            raise CheckpointError(f"{call}: adapter_config.json: {key} is not supported")
    return config
