"""Inference: versions side by side over one base, streaming, batched completion, scoring.

A version is a module tree of its own over the shared tensors of the base, with its LoRA layers put
in: PEFT cannot switch adapters per request across threads (measured: replies mix). Versions are
immutable, so a reply that holds one is untouched by later swaps. Sampling is ours, a dozen lines on
transformers' logits warpers, because every request needs its own seed, cancellation within one
token and statistics; `generate` offers none of the three per request.

Not covered here: continuous batching (each stream runs its own forward passes; the caller bounds
how many), quantisation, prefix caches.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from transformers import (
    DynamicCache,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from autodidact.errors import CheckpointError
from autodidact.model import LoadedBase, fork, linear_names
from autodidact.types import SamplingParams

BATCH_TOKENS = 4096
"""Tokens of one batched forward pass (prompts and padding together)."""
SHARED_TOKENS = 8
"""A prompt of at least this many tokens is computed once for all its continuations."""
MAX_RANK, MAX_ALPHA = 512, 4096
_WITHOUT_EFFECT = {"base_model_name_or_path", "inference_mode", "init_lora_weights",
                   "lora_dropout", "peft_version", "revision", "target_modules"}  # fmt: skip
"""Fields of adapter_config.json that do not change what a loaded adapter computes."""
_CANARY = ("The", "What is the name of the town?")


@dataclass(frozen=True)
class Version:
    """One immutable model: number 0 is the untouched base."""

    number: int
    model: PreTrainedModel


class Engine:
    def __init__(self, base: LoadedBase) -> None:
        self.base = base
        self.untouched = Version(0, base.model)
        self._build_lock = threading.Lock()

    def load(self, number: int, config_json: bytes, weights: bytes) -> Version:
        """Build a version from the bytes of adapter_config.json and adapter_model.safetensors.

        Only LoRA on our base's linear layers is accepted, with exactly the expected keys and
        shapes and finite values; it must then answer canary prompts with finite logits. Raises
        CheckpointError with one line.
        """
        config = _lora_config(number, config_json, linear_names(self.base.model))
        try:
            tensors = parse_safetensors(weights)
        except SafetensorError as error:
            raise CheckpointError(f"{number:06d}: adapter_model.safetensors: {error}") from None
        with self._build_lock:
            wrapped = get_peft_model(fork(self.base.model), config)
        expected = get_peft_model_state_dict(wrapped)
        if set(tensors) != set(expected):
            odd = sorted(set(tensors) ^ set(expected))[0]
            raise CheckpointError(f"{number:06d}: adapter keys do not match the base ({odd})")
        for name, tensor in tensors.items():
            if tensor.shape != expected[name].shape:
                raise CheckpointError(f"{number:06d}: {name} has shape {tuple(tensor.shape)}")
            if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
                raise CheckpointError(f"{number:06d}: {name} has type {tensor.dtype}")
            if not torch.isfinite(tensor).all():
                raise CheckpointError(f"{number:06d}: {name} is not finite")
        set_peft_model_state_dict(wrapped, tensors)
        model = cast(PreTrainedModel, wrapped.base_model.model)
        model.eval().requires_grad_(False)
        self._to_serving_dtype(model)
        version = Version(number, model)
        self._canary(version)
        return version

    def _to_serving_dtype(self, model: PreTrainedModel) -> None:
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(self.base.device, self.base.model.dtype)

    def _canary(self, version: Version) -> None:
        for text in _CANARY:
            ids = self.base.tokenizer(text, add_special_tokens=False).input_ids
            with torch.inference_mode():
                logits = version.model(torch.tensor([ids], device=self.base.device)).logits
            if not torch.isfinite(logits).all():
                raise CheckpointError(
                    f"{version.number:06d}: the canary prompt gave no finite answer"
                )

    def stream(
        self, version: Version, prompt: Sequence[int], params: SamplingParams
    ) -> Iterator[int]:
        """Token ids of one reply, the stop token left out. Closing the iterator ends it."""
        device = self.base.device
        generator = torch.Generator(device=device)
        generator.manual_seed(params.seed if params.seed is not None else generator.seed())
        cache = DynamicCache(config=version.model.config)
        ids = torch.tensor([list(prompt)], device=device)
        for _ in range(params.max_new_tokens):
            with torch.inference_mode():
                logits = version.model(
                    input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1
                ).logits[:, -1]
                token = int(_sample(logits.float(), params, generator))
            if token in self.base.stop_ids:
                return
            yield token
            ids = torch.tensor([[token]], device=device)

    def complete(
        self,
        version: Version,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[list[int]]:
        """Replies to many prompts in batches, without streaming; prompt order is kept.

        Greedy unless a temperature is given (then pure sampling, no top-p or top-k).
        """
        generator = torch.Generator(device=self.base.device).manual_seed(seed)
        params = SamplingParams(temperature, 1.0, 0, max_new_tokens)
        replies: list[list[int]] = [[] for _ in prompts]
        for rows in self._by_length([len(p) + max_new_tokens for p in prompts]):
            for row, reply in zip(
                rows,
                self._complete(version, [prompts[i] for i in rows], params, generator),
                strict=True,
            ):
                replies[row] = reply
        return replies

    @torch.inference_mode()
    def _complete(
        self,
        version: Version,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        generator: torch.Generator,
    ) -> list[list[int]]:
        device = self.base.device
        ids, mask = (t.to(device) for t in self._padded(prompts, left=True))
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=version.model.config)
        replies: list[list[int]] = [[] for _ in prompts]
        running = [True] * len(prompts)
        for _ in range(params.max_new_tokens):
            logits = version.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            tokens = _sample(logits.float(), params, generator)
            for i, token in enumerate(tokens.tolist()):
                if token in self.base.stop_ids:
                    running[i] = False
                elif running[i]:
                    replies[i].append(token)
            if not any(running):
                break
            ids = tokens[:, None]
            mask = torch.cat([mask, mask.new_ones((len(prompts), 1))], -1)
            position = position[:, -1:] + 1
        return replies

    def score(
        self, version: Version, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[float]:
        """Mean log-probability a token, in nats, of each continuation after its prompt.

        A prompt that several continuations share (the answers that a question is offered) goes
        through the model once.
        """
        scores = [0.0] * len(pairs)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (prompt, _) in enumerate(pairs):
            groups.setdefault(tuple(prompt), []).append(i)
        shared = {p: g for p, g in groups.items() if len(g) > 1 and len(p) >= SHARED_TOKENS}
        prompts = list(shared)
        whole = [
            len(p) + len(shared[p]) * (max(len(pairs[i][1]) for i in shared[p])) for p in prompts
        ]
        for some in self._by_length(whole):
            members = [i for row in some for i in shared[prompts[row]]]
            owners = [k for k, row in enumerate(some) for _ in shared[prompts[row]]]
            values = self._score_shared(
                version, [prompts[row] for row in some], owners, [pairs[i][1] for i in members]
            )
            for i, value in zip(members, values, strict=True):
                scores[i] = value
        alone = [i for p, g in groups.items() if p not in shared for i in g]
        for rows in self._by_length([len(pairs[i][0]) + len(pairs[i][1]) for i in alone]):
            batch = [pairs[alone[row]] for row in rows]
            for row, value in zip(rows, self._score(version, batch), strict=True):
                scores[alone[row]] = value
        return scores

    @torch.inference_mode()
    def _score_shared(
        self,
        version: Version,
        prompts: Sequence[Sequence[int]],
        owners: Sequence[int],
        continuations: Sequence[Sequence[int]],
    ) -> list[float]:
        """As `score`; `owners[i]` is the number of the prompt that continuation i follows."""
        device = self.base.device
        ids, mask = (t.to(device) for t in self._padded(prompts, left=True))
        cache = DynamicCache(config=version.model.config)
        last = version.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        rows = torch.tensor(list(owners), device=device)
        firsts = torch.tensor([c[0] for c in continuations], device=device)
        total = last.float().log_softmax(-1)[rows, firsts]
        if max(len(c) for c in continuations) > 1:
            ids, more = (
                t.to(device) for t in self._padded([c[:-1] for c in continuations], left=False)
            )
            targets, _ = self._padded([c[1:] for c in continuations], left=False)
            cache.batch_select_indices(rows)
            lengths = mask.sum(-1)[rows]
            logits = version.model(
                input_ids=ids,
                attention_mask=torch.cat([mask[rows], more], -1),
                position_ids=lengths[:, None] + torch.arange(ids.shape[1], device=device),
                past_key_values=cache,
                use_cache=True,
            ).logits
            found = logits.float().log_softmax(-1).gather(-1, targets.to(device)[..., None])[..., 0]
            total = total + (found * more).sum(-1)
        return [
            float(value) / len(c) for value, c in zip(total.tolist(), continuations, strict=True)
        ]

    def _padded(
        self, rows: Sequence[Sequence[int]], *, left: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, each (rows, longest)."""
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self.base.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(width - len(row), None) if left else slice(0, len(row))
            ids[i, place] = torch.tensor(list(row), dtype=torch.long)
            mask[i, place] = 1
        return ids, mask

    @torch.inference_mode()
    def _score(
        self, version: Version, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[float]:
        ids, mask = (
            t.to(self.base.device) for t in self._padded([[*p, *c] for p, c in pairs], left=False)
        )
        logits = version.model(input_ids=ids, attention_mask=mask).logits
        values = []
        for i, (prompt, continuation) in enumerate(pairs):
            begin, end = len(prompt), len(prompt) + len(continuation)
            token_logp = -F.cross_entropy(
                logits[i, begin - 1 : end - 1].float(), ids[i, begin:end], reduction="mean"
            )
            values.append(float(token_logp))
        return values

    @staticmethod
    def _by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
        """Row numbers in batches of like length, BATCH_TOKENS at most with padding."""
        rows: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            if rows and (len(rows) + 1) * lengths[row] > BATCH_TOKENS:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows


def _sample(
    logits: torch.Tensor, params: SamplingParams, generator: torch.Generator
) -> torch.Tensor:
    """One token id per row of (rows, vocabulary) logits."""
    if params.temperature <= 0:
        return logits.argmax(-1)
    none = torch.empty(0, dtype=torch.long)
    logits = TemperatureLogitsWarper(params.temperature)(none, logits)
    if params.top_k:
        logits = TopKLogitsWarper(min(params.top_k, logits.shape[-1]))(none, logits)
    if params.top_p < 1:
        logits = TopPLogitsWarper(params.top_p)(none, logits)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def _lora_config(number: int, config_json: bytes, linear: Sequence[str]) -> LoraConfig:
    """The configuration, if it is plain LoRA on all linear layers and says nothing that would
    change what the adapter computes."""
    try:
        given = json.loads(config_json)
        rank, alpha = int(given["r"]), int(given["lora_alpha"])
        modules = sorted(given["target_modules"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{number:06d}: adapter_config.json is not readable: {error}"
        ) from None
    in_bounds = 1 <= rank <= MAX_RANK and 1 <= alpha <= MAX_ALPHA
    if given.get("peft_type") != "LORA" or not in_bounds or modules != sorted(linear):
        raise CheckpointError(
            f"{number:06d}: adapter_config.json is not LoRA on this base's layers"
        )
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=modules, task_type="CAUSAL_LM"
    )
    plain = config.to_dict()  # type: ignore[no-untyped-call]
    for key, value in given.items():
        if key not in _WITHOUT_EFFECT and (value or None) != (plain.get(key) or None):
            raise CheckpointError(f"{number:06d}: adapter_config.json: {key} is not supported")
    return config
