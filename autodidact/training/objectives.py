"""What a training step minimises: the loss on what is taught, and the pull back to the base.

A loss is passed to the `Trainer`; another one (on preferences, say) needs no other loop. Every
objective is a function of the adapted model that gives a scalar with its graph. The base is the
same module tree with its adapter switched off, so no second model is held.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from peft import PeftModel

from autodidact.models.loading import LoadedBase
from autodidact.training.sequences import TrainingSequence

ANCHOR_WINDOW = 128
RandomState = tuple[int, tuple[int, ...], float | None]
"""As `random.Random.getstate` gives it."""
Row_contra = TypeVar("Row_contra", contravariant=True)


class Loss(Protocol[Row_contra]):
    """The loss on the batch of one step, in nats a token; not finite where nothing is supervised.
    Called within autocast, where the recipe says so."""

    def __call__(self, model: PeftModel, batch: Sequence[Row_contra]) -> torch.Tensor: ...


class AnswerLoss:
    """Cross-entropy on answers and on text, never on prompts or padding."""

    def __init__(self, base: LoadedBase) -> None:
        self._base = base

    def __call__(self, model: PeftModel, batch: Sequence[TrainingSequence]) -> torch.Tensor:
        ids, labels, mask = padded(self._base, [(s.ids, s.labels) for s in batch])
        logits = model(input_ids=ids, attention_mask=mask).logits
        return F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
        )


class AnchorDivergence:
    """`weight` · KL(base ‖ model), mean over the tokens of some anchors of like length: text that
    the base itself wrote. Forgetting follows the KL to the base (Shenfeld et al. 2025, "RL's
    Razor")."""

    def __init__(
        self,
        base: LoadedBase,
        anchors: Sequence[Sequence[int]],
        weight: float,
        tokens: int,
        seed: int,
    ) -> None:
        self._base = base
        self._weight = weight
        self._anchors = sorted((list(ids) for ids in anchors), key=len)
        self._tokens = tokens
        self._seed = seed
        self._random = random.Random(seed)

    def __bool__(self) -> bool:
        return bool(self._weight and self._anchors)

    def __call__(self, model: PeftModel) -> torch.Tensor:
        ids, labels, mask = padded(self._base, [(row, row) for row in self._drawn()])
        with torch.no_grad(), model.disable_adapter():
            teacher = model(input_ids=ids, attention_mask=mask).logits
        student = model(input_ids=ids, attention_mask=mask).logits
        divergence = F.kl_div(
            F.log_softmax(student.float(), -1),
            F.log_softmax(teacher.float(), -1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        keep = labels != -100
        return self._weight * (divergence * keep).sum() / keep.sum()

    def _drawn(self) -> list[list[int]]:
        first = self._random.randrange(len(self._anchors))
        rows: list[list[int]] = []
        while sum(map(len, rows)) < self._tokens:
            rows.append(self._anchors[(first + len(rows)) % len(self._anchors)][:ANCHOR_WINDOW])
        return rows

    def state(self) -> RandomState:
        """Which anchors come next."""
        return self._random.getstate()

    def restore(self, state: RandomState | None) -> None:
        """As `state` gave it; None begins anew."""
        if state is None:
            self._random.seed(self._seed)
        else:
            self._random.setstate(state)


def padded(
    base: LoadedBase, rows: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, labels) of sequences as three tensors of shape (rows, longest): ids, labels with -100
    where none is due, attention mask."""
    width = max(len(ids) for ids, _ in rows)
    shape = (len(rows), width)
    ids = torch.full(shape, base.pad_id)
    labels = torch.full(shape, -100)
    mask = torch.zeros(shape, dtype=torch.long)
    for i, (row, marks) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, : len(marks)] = torch.tensor(marks)
        mask[i, : len(row)] = 1
    return ids.to(base.device), labels.to(base.device), mask.to(base.device)
