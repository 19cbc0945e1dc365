"""Fine-tuning of a LoRA adapter, tied to its base by a KL term.

Contract: given a loss on batches, anchors (`anchors`) and how much of the
training is done, `Trainer.step` does one optimiser step. A batch without a supervised token raises.
What is minimised stands in `objectives`, the loop over steps in `loop`.

Adapters follow "LoRA Without Regret" (Schulman et al. 2025): all linear layers, alpha = rank, no
dropout, no weight decay; from the recipe's first block up.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from autodidact.errors import Misfit, TrainingError
from autodidact.models.loading import LoadedBase, blocks_of, fork, linear_names
from autodidact.training.anchors import Anchor
from autodidact.training.objectives import AnchorDivergence, AnchorState, Loss
from autodidact.training.pace import Clock
from autodidact.training.passes import passes_for
from autodidact.training.recipe import Recipe
from autodidact.types import wire

WARM_UP = 0.05
CLIP = 1.0
STATE, TENSORS = "state.json", "state.safetensors"
_OF_ADAM = ("step", "exp_avg", "exp_avg_sq")
Row = TypeVar("Row")


class Trainer(Generic[Row]):
    """A LoRA adapter on a copy of the base, and its optimiser."""

    def __init__(
        self,
        base: LoadedBase,
        loss: Loss[Row],
        recipe: Recipe,
        anchors: Sequence[Anchor],
        adapter: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self.base = base
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        blocks = range(recipe.first_block, blocks_of(base.model)) if recipe.first_block else None
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.rank,
            lora_dropout=0.0,
            target_modules=linear_names(base.model),
            layers_to_transform=None if blocks is None else list(blocks),
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
            fused=base.device.type in ("cpu", "cuda"),
        )
        self._loss = loss
        self._divergence = AnchorDivergence(
            anchors,
            recipe.kl_weight,
            recipe.anchor_tokens,
            recipe.seed,
            packed=recipe.packed,
        )
        self.right: Sequence[bool] = ()
        self.model.train()
        self.passes = passes_for(base, self.model, recipe.first_block, recipe.packed, recipe.parts)

    def _start_from(self, adapter: dict[str, torch.Tensor]) -> None:
        own = get_peft_model_state_dict(self.model)
        if {n: t.shape for n, t in adapter.items()} != {n: t.shape for n, t in own.items()}:
            raise TrainingError(
                f"the parent's adapter does not fit this base at rank {self.recipe.rank}"
            )
        set_peft_model_state_dict(self.model, adapter)

    def step(self, batch: Sequence[Row], fraction: float) -> float:
        """One optimiser step on a batch; `fraction` of the training is done. `right`, after it,
        tells which rows the model would have said by itself before it.

        Returns the loss on supervised tokens, in nats a token. Raises TrainingError when it is not
        finite or nothing is supervised.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule(fraction)
        loss_now, right = 0.0, list[bool]()
        together = (
            bool(self._divergence)
            and self.recipe.parts == 1
            and self._divergence.announce(self.passes)
        )
        for rows, share in self._shared_out(batch):
            with self._autocast():
                loss = self._loss(self.passes, rows) * share
            if not math.isfinite(loss.item()):
                raise TrainingError("the loss is not finite or no token is supervised")
            loss_now += loss.item()
            right += self._loss.right
            if together:  # one way back for what went one way
                loss = loss + self.pull()
            loss.backward()
        self.right = right
        if self._divergence and not together:
            self.pull().backward()
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss_now

    def _shared_out(self, batch: Sequence[Row]) -> Iterator[tuple[Sequence[Row], float]]:
        """The batch in the recipe's parts, each with its part in the loss. A part is never without
        one: rows that have none go with those before or after."""
        if self.recipe.parts == 1:
            yield batch, 1.0
            return
        shares = self._loss.shares(batch)
        least = 1 / self.recipe.parts
        begin, share = 0, 0.0
        for end, more in enumerate(shares, start=1):
            share += more
            last = end == len(shares)
            if last or (share >= least and any(shares[end:])):
                yield batch[begin:end], 1.0 if last and begin == 0 else share
                begin, share = end, 0.0

    def pull(self) -> torch.Tensor:
        """The weighted KL term on the next anchors."""
        with self._autocast():
            return self._divergence(self.passes)

    def save(self, folder: Path, clock: Clock, feed: str = "") -> None:
        """Everything needed to go on, without pickle; replaces `folder` as a whole. `feed` is what
        the batches need."""
        tensors = {}
        for name, parameter in self.parameters.items():
            tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value).cpu().contiguous()
        fresh = _fresh(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        save_file(tensors, fresh / TENSORS)
        state = _SavedState(clock, self._divergence.state(), feed)
        (fresh / "part").write_text(wire.to_json(state), "utf-8")
        os.rename(fresh / "part", fresh / STATE)  # it stands: the folder is whole
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(fresh, folder)

    def restore(self, folder: Path) -> tuple[Clock, str]:
        """Go on from a saved state, and tell where it and its feed stood. Without one, or with one
        that is damaged or of another version of this program, begin anew: optimiser and anchors
        too."""
        self.optimizer.state.clear()
        if not folder.exists() and (_fresh(folder) / STATE).exists():
            os.rename(_fresh(folder), folder)  # cut off between the two moves of `save`
        saved = self._saved(folder)
        if saved is None:
            self._divergence.restore(None)
            return Clock(), ""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(saved.tensors[f"weight.{name}"])
            self.optimizer.state[parameter] = {
                key: saved.tensors[f"{key}.{name}"] for key in _OF_ADAM
            }
            self.optimizer.state[parameter]["step"] = saved.tensors[f"step.{name}"].cpu()
        self._divergence.restore(saved.state.anchors)
        return saved.state.clock, saved.state.feed

    def _saved(self, folder: Path) -> _Saved | None:
        """What `save` left; None where not all of it can be read."""
        try:
            state = wire.from_json(_SavedState, (folder / STATE).read_bytes(), STATE)
            tensors = load_file(folder / TENSORS, device=str(self.base.device))
        except (OSError, Misfit, SafetensorError):
            return None
        keys = {f"{key}.{name}" for name in self.parameters for key in ("weight", *_OF_ADAM)}
        return _Saved(state, tensors) if keys <= tensors.keys() else None

    def export(self, folder: Path, base_name: str) -> None:
        """Write the adapter as PEFT does: adapter_config.json and adapter_model.safetensors."""
        self.model.peft_config["default"].base_model_name_or_path = base_name
        self.model.save_pretrained(str(folder), save_embedding_layers=False)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if not self.recipe.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.base.device.type, dtype=torch.bfloat16)


def schedule(fraction: float) -> float:
    """Linear warm-up over the first 5 % of a cycle, then linear to 0."""
    if fraction < WARM_UP:
        return max(0.02, fraction / WARM_UP)
    return max(0.0, (1 - fraction) / (1 - WARM_UP))


LEAST_STEP_S = 1e-4
"""A clock that stands still for the chat must not make steps free."""


def seconds_per_step(
    trainer: Trainer[Row],
    stream: Iterator[Sequence[Row]],
    steps: int = 6,
    before_step: Callable[[], None] = lambda: None,
    clock_s: Callable[[], float] = time.perf_counter,
    first: int = 1,
) -> float:
    """Mean seconds of a step by `clock_s`, tried at learning rate zero, so that nothing is learned.
    The `first` ones, which warm up caches, are not counted."""
    times = []
    for _ in range(first + steps):
        before_step()
        begun = clock_s()
        trainer.step(next(stream), 1.0)
        times.append(clock_s() - begun)
    return max(sum(times[first:]) / steps, LEAST_STEP_S)


def _fresh(folder: Path) -> Path:
    return folder.with_name(folder.name + ".new")


@dataclass(frozen=True)
class _SavedState:
    """What is saved beside the tensors."""

    clock: Clock
    anchors: AnchorState
    feed: str = ""


@dataclass(frozen=True)
class _Saved:
    state: _SavedState
    tensors: dict[str, torch.Tensor]
