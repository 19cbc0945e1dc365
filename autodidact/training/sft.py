"""Supervised fine-tuning of a LoRA adapter, tied to its base by a KL term.

Contract: given token sequences with labels, anchors (text that the base itself wrote) and a number
of steps, `Trainer.step` does one optimiser step. Loss is on answers and on text, never on prompts
or padding; a batch without a supervised token raises. On anchors the loss is KL(base ‖ model):
forgetting follows the KL to the base (Shenfeld et al. 2025, "RL's Razor"), and the base is the same
module tree with its adapter switched off, so no second model is needed.

Adapters follow "LoRA Without Regret" (Schulman et al. 2025): all linear layers, alpha = rank, no
dropout, no weight decay. Packing is not used: it leaks between documents without FlashAttention.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file

from autodidact.errors import TrainingError
from autodidact.models.loading import LoadedBase, fork, linear_names
from autodidact.training.recipe import Recipe
from autodidact.training.sequences import TrainingSequence

ANCHOR_WINDOW = 128
WARM_UP = 0.05
QUESTIONS_FIRST = 0.10
CLIP = 1.0


class Trainer:
    """A LoRA adapter on a copy of the base, and its optimiser."""

    def __init__(
        self,
        base: LoadedBase,
        recipe: Recipe,
        anchors: Sequence[Sequence[int]],
        adapter: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self.base = base
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.rank,
            lora_dropout=0.0,
            target_modules=linear_names(base.model),
            task_type="CAUSAL_LM",
        )
        self.model: PeftModel = get_peft_model(fork(base.model), config)
        self.parameters = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        for parameter in self.parameters.values():
            parameter.data = parameter.data.float()
        if adapter is not None:
            self._start_from(adapter)
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=recipe.learning_rate,
            weight_decay=0.0,
            betas=(0.9, 0.99),
        )
        self._anchors = sorted((list(ids) for ids in anchors), key=len)
        self._random = random.Random(recipe.seed)
        self.model.train()

    def _start_from(self, adapter: dict[str, torch.Tensor]) -> None:
        own = get_peft_model_state_dict(self.model)
        if {n: t.shape for n, t in adapter.items()} != {n: t.shape for n, t in own.items()}:
            raise TrainingError(
                f"the parent's adapter does not fit this base at rank {self.recipe.rank}"
            )
        set_peft_model_state_dict(self.model, adapter)

    def step(self, batch: Sequence[TrainingSequence], fraction: float) -> float:
        """One optimiser step on a batch; `fraction` of the cycle's steps is done.

        Returns the loss on supervised tokens, in nats a token. Raises TrainingError when it is not
        finite or nothing is supervised.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule(fraction)
        with self._autocast():
            ids, labels, mask = self._pad([(s.ids, s.labels) for s in batch])
            logits = self.model(input_ids=ids, attention_mask=mask).logits
            loss = F.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
            )
        if not math.isfinite(loss.item()):
            raise TrainingError("the loss is not finite or no token is supervised")
        loss.backward()
        if self.recipe.kl_weight and self._anchors:
            self._anchor_loss().backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def save(self, folder: Path, step: int) -> None:
        """Everything needed to go on at `step`, without pickle; replaces `folder` as a whole."""
        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value).cpu().contiguous()
        fresh = folder.with_name(folder.name + ".new")
        fresh.mkdir(parents=True, exist_ok=True)
        save_file(tensors, fresh / "state.safetensors")
        version, internal, gauss = self._random.getstate()
        state = {"step": step, "random": [version, list(internal), gauss]}
        (fresh / "state.json").write_text(json.dumps(state))
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(fresh, folder)

    def restore(self, folder: Path) -> int:
        """Continue from a saved state; returns its step, 0 (and fresh optimiser) without one."""
        self.optimizer.state.clear()
        if not (folder / "state.json").exists():
            self._random.seed(self.recipe.seed)
            return 0
        state = json.loads((folder / "state.json").read_text())
        tensors = load_file(folder / "state.safetensors", device=str(self.base.device))
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[f"weight.{name}"])
            self.optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
            self.optimizer.state[parameter]["step"] = tensors[f"step.{name}"].cpu()
        version, internal, gauss = state["random"]
        self._random.setstate((version, tuple(internal), gauss))
        return int(state["step"])

    def export(self, folder: Path, base_name: str) -> None:
        """Write the adapter as PEFT does: adapter_config.json and adapter_model.safetensors."""
        self.model.peft_config["default"].base_model_name_or_path = base_name
        self.model.save_pretrained(str(folder), save_embedding_layers=False)

    def _anchor_loss(self) -> torch.Tensor:
        """Weighted KL(base ‖ model), mean over the tokens of some anchors of like length."""
        first = self._random.randrange(len(self._anchors))
        rows: list[list[int]] = []
        while sum(map(len, rows)) < self.recipe.anchor_tokens:
            rows.append(self._anchors[(first + len(rows)) % len(self._anchors)][:ANCHOR_WINDOW])
        with self._autocast():
            ids, labels, mask = self._pad([(row, row) for row in rows])
            with torch.no_grad(), self.model.disable_adapter():
                teacher = self.model(input_ids=ids, attention_mask=mask).logits
            student = self.model(input_ids=ids, attention_mask=mask).logits
        divergence = F.kl_div(
            F.log_softmax(student.float(), -1),
            F.log_softmax(teacher.float(), -1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        keep = labels != -100
        return self.recipe.kl_weight * (divergence * keep).sum() / keep.sum()

    def _pad(
        self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        width = max(len(ids) for ids, _ in rows)
        shape = (len(rows), width)
        ids = torch.full(shape, self.base.pad_id)
        labels = torch.full(shape, -100)
        mask = torch.zeros(shape, dtype=torch.long)
        for i, (row, marks) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, : len(marks)] = torch.tensor(marks)
            mask[i, : len(row)] = 1
        device = self.base.device
        return ids.to(device), labels.to(device), mask.to(device)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if not self.recipe.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.base.device.type, dtype=torch.bfloat16)


def schedule(fraction: float) -> float:
    """Linear warm-up over the first 5 % of a cycle, then linear to 0."""
    if fraction < WARM_UP:
        return max(0.02, fraction / WARM_UP)
    return max(0.0, (1 - fraction) / (1 - WARM_UP))


def seconds_per_step(
    trainer: Trainer, stream: Iterator[list[TrainingSequence]], steps: int = 6
) -> float:
    """Mean time of a step, tried at learning rate zero, so that nothing is learned. The first step,
    which warms up caches, is not counted."""
    times = []
    for _ in range(steps + 1):
        begun = time.perf_counter()
        trainer.step(next(stream), 1.0)
        times.append(time.perf_counter() - begun)
    return sum(times[1:]) / steps
