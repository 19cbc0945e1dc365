"""The base model in memory: device, dtype, chat template; decided once, with the reason.

Contract: `load` gives a frozen base (no gradients, eval mode) and its tokenizer with a chat
template, its own or a plain one. Adapters are never put into this module tree; the engine and the
trainer work on copies that share its tensors (`fork`). The number format is the caller's choice:
by default the one to train in, float32 on a CPU; for serving also bfloat16 and quantised weights
(quantisation.py), which never change what another process has loaded.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from autodidact.errors import BaseUnfit, ModelError, SettingError
from autodidact.models import attention
from autodidact.models.quantisation import quantise, require

Dtype = Literal["auto", "float32", "bfloat16"]
Quantisation = Literal["none", "int8", "int4"]

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'user': 'Question: ', 'assistant': 'Answer: ', 'system': ''}[message['role']]"
    " + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)
MAX_CONTEXT = 8192
"""Longest context used, whatever the model allows: longer ones cost memory for the cache."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""By how much logits of one and the same thing may differ where they are computed in another way,
in parts of the largest one."""
HALF_FROM = 30_000_000
"""Parameters from which "auto" may take bfloat16 on a CPU; smaller products gain nothing."""


@dataclass(frozen=True)
class LoadedBase:
    """`model` is the untouched base; `stop_ids` end a reply; `context` is in tokens."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    context: int
    stop_ids: frozenset[int]
    start_id: int
    pad_id: int
    parameters: int
    description: str
    control_tokens: tuple[str, ...]


def load(
    path: Path,
    threads: int,
    *,
    dtype: Dtype | None = None,
    quantisation: Quantisation = "none",
) -> LoadedBase:
    """Load a base from a local folder.

    `threads` are torch's for the process; 0 leaves them. `dtype`: None is the format to train in
    (float32 on a CPU, half precision on a CUDA GPU); "auto" is the one to serve in: on a CPU
    bfloat16 where its products are clearly faster and the model has at least `HALF_FROM`
    parameters. `quantisation` concerns the linear layers' weights (quantisation.py). Raises
    ModelError about the folder, BaseUnfit about a kind of model that cannot be served, and
    SettingError about a setting.
    """
    transformers_logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    if quantisation != "none":
        require(quantisation)
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        device, number, why = _placement(config, dtype)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=number, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        line = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: cannot be loaded as a causal language model: {line}") from error
    attention.attention_of(model.config, number)
    model.to(device)  # type: ignore[arg-type]
    model.eval().requires_grad_(False)
    if not tokenizer.chat_template:
        # OPT and Llama have only ever read texts that begin with this token.
        begins = tokenizer.bos_token if tokenizer("").input_ids == [tokenizer.bos_token_id] else ""
        tokenizer.chat_template = begins + PLAIN_TEMPLATE
    stop_ids = _stop_ids(tokenizer, model)
    if not stop_ids:
        raise ModelError(f"{path}: the tokenizer has no end-of-text token, so replies cannot end")
    parameters = sum(p.numel() for p in model.parameters())
    weights = "" if quantisation == "none" else ", " + quantise(model, quantisation)
    context = min(attention.longest(model.config, 1024), MAX_CONTEXT)
    pad = tokenizer.pad_token_id
    return LoadedBase(
        model,
        tokenizer,
        device,
        context,
        stop_ids,
        _start_id(tokenizer, stop_ids),
        pad if pad is not None else min(stop_ids),
        parameters,
        f"{parameters / 1e6:.1f}M parameters, {str(number).removeprefix('torch.')} on {device}"
        f" ({why}){weights}{f', {threads} threads' if threads else ''}, context {context}",
        tuple(t.content for t in tokenizer.added_tokens_decoder.values() if t.special),
    )


def threads_for(setting: int, *, spare: bool) -> int:
    """CPU threads: the setting, or all cores up to two, beyond that one less if `spare`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    if setting:
        return min(setting, cores)
    return cores if cores <= 2 else (cores - 1 if spare else min(cores, 8))


def use_threads(count: int) -> None:
    """CPU threads of one forward pass, for the whole process."""
    torch.set_num_threads(count)


def return_memory() -> None:
    """Give back to the system what was freed: glibc keeps hundreds of megabytes of it for reuse
    (malloc_trim(3)) once a base has been looked at in floats. Elsewhere nothing is done."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def on_cpu() -> bool:
    """Whether `load` would put a model there."""
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def half_precision_pays(base: LoadedBase) -> bool:
    """Whether bfloat16 products are clearly faster here than the base's own float32 (on a CPU with
    matrix units they are); measured on products of the base's width."""
    if base.model.dtype != torch.float32 or base.device.type != "cpu":
        return False
    return _half_pays(int(getattr(base.model.config, "hidden_size", 256)))


def _half_pays(width: int) -> bool:
    a, b = torch.randn(1024, width), torch.randn(4 * width, width)
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, y = a.to(dtype), b.to(dtype)
        runs = []
        for _ in range(7):
            begun = time.perf_counter()
            nn.functional.linear(x, y)
            runs.append(time.perf_counter() - begun)
        times[dtype] = min(runs)
    return times[torch.bfloat16] < 0.7 * times[torch.float32]


def fork(model: PreTrainedModel) -> PreTrainedModel:
    """A new module tree over the very same tensors: adapters put into it do not touch `model`."""
    memo: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        memo[id(tensor)] = tensor
    copied: PreTrainedModel = copy.deepcopy(model, memo)
    return copied


def linear_names(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers that an adapter goes on: all but the output head."""
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
    )


def require_teachable(model: PreTrainedModel) -> None:
    """Raises BaseUnfit for a model without linear layers: GPT-2's are `Conv1D`."""
    if not linear_names(model):
        raise BaseUnfit(
            f"{type(model).__name__} has no linear layers that an adapter could be put on, so it "
            "cannot be taught; choose another model, and another home for it"
        )


def blocks_of(model: PreTrainedModel) -> int:
    """How many transformer blocks a model has."""
    return int(model.config.get_text_config().num_hidden_layers)


def block_of(name: str) -> int | None:
    """The number of the transformer block that a layer is in, by the layer's name; None outside of
    all blocks."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def _stop_ids(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> frozenset[int]:
    config = model.generation_config or GenerationConfig()
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, config.eos_token_id):
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    vocabulary = tokenizer.get_vocab()
    for mark in ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>"):
        if mark in vocabulary:
            found.add(vocabulary[mark])
    return frozenset(found)


def _start_id(tokenizer: PreTrainedTokenizerBase, stop_ids: frozenset[int]) -> int:
    """The token that begins a text: what separated documents in pretraining."""
    text_end = tokenizer.get_vocab().get("<|endoftext|>")
    if text_end in stop_ids:
        return int(text_end)
    bos = tokenizer.bos_token_id
    return int(bos) if bos is not None else min(stop_ids)


def _placement(
    config: PretrainedConfig, dtype: Dtype | None
) -> tuple[torch.device, torch.dtype, str]:
    """Where the model goes, in which number format, and why."""
    if torch.cuda.is_available():
        device, half, place = torch.device("cuda"), torch.cuda.is_bf16_supported(), "a CUDA GPU"
        if dtype == "bfloat16" and not half:
            raise SettingError('server.dtype: this GPU has no bfloat16; set "auto" or "float32"')
        if dtype in (None, "auto"):
            return device, torch.bfloat16 if half else torch.float16, place
    else:
        apple = torch.backends.mps.is_available()
        device = torch.device("mps" if apple else "cpu")
        place = "an Apple GPU" if apple else "no GPU"
    if dtype == "auto" and device.type == "cpu":
        number, why = _faster(config)
        return device, number, f"{place}; {why}"
    number = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    return device, number, f"{place}; as set" if dtype in ("float32", "bfloat16") else place


def _faster(config: PretrainedConfig) -> tuple[torch.dtype, str]:
    """The format in which a CPU serves this model faster, and why."""
    with torch.device("meta"):  # shapes without memory
        shape = AutoModelForCausalLM.from_config(config)
    if sum(p.numel() for p in shape.parameters()) < HALF_FROM:
        return torch.float32, f"below {HALF_FROM / 1e6:.0f}M parameters"
    if _half_pays(int(getattr(config, "hidden_size", 256))):
        return torch.bfloat16, "clearly faster than float32 here"
    return torch.float32, "bfloat16 is not clearly faster here"
