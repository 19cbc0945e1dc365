"""What a training step minimises: the loss on what is taught, and the pull back to the base.

A loss is passed to the `Trainer`; another one (on preferences, say) needs no other loop. Every
objective asks `passes` for the logits it needs and gives a scalar with its graph.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F

from autodidact.training.anchors import Anchor
from autodidact.training.passes import Passes
from autodidact.training.sequences import TrainingSequence

ANCHOR_WINDOW = 128
RandomState = tuple[int, tuple[int, ...], float | None]
"""As `random.Random.getstate` gives it."""
Row_contra = TypeVar("Row_contra", contravariant=True)


class Loss(Protocol[Row_contra]):
    """The loss on the batch of one step, in nats a token; not finite where nothing is supervised.
    Called within autocast, where the recipe says so. `right`, once called, tells which rows of the
    batch the model would have said by itself; empty where that cannot be told."""

    right: Sequence[bool]

    def __call__(self, passes: Passes, batch: Sequence[Row_contra]) -> torch.Tensor: ...


class AnswerLoss:
    """Cross-entropy on answers and on text, never on prompts or padding. A row is right where each
    of its supervised tokens is the likeliest one: said greedily, it would be said so."""

    def __init__(self) -> None:
        self.right: Sequence[bool] = ()

    def __call__(self, passes: Passes, batch: Sequence[TrainingSequence]) -> torch.Tensor:
        due = [[i for i, label in enumerate(row.labels) if i and label != -100] for row in batch]
        logits = passes.logits([row.ids for row in batch], [[i - 1 for i in d] for d in due])
        labels = torch.tensor(
            [row.labels[i] for row, d in zip(batch, due, strict=True) for i in d],
            device=logits.device,
            dtype=torch.long,
        )
        hits = (logits.detach().argmax(-1) == labels).split([len(d) for d in due])
        self.right = [len(hit) > 0 and bool(hit.all()) for hit in hits]
        return F.cross_entropy(logits.float(), labels)


class AnchorDivergence:
    """`weight` · KL(base ‖ model), mean over the tokens of some anchors of like length. Forgetting
    follows the KL to the base (Shenfeld et al. 2025, "RL's Razor")."""

    def __init__(self, anchors: Sequence[Anchor], weight: float, tokens: int, seed: int) -> None:
        self._weight = weight
        self._anchors = sorted((_cut(anchor) for anchor in anchors), key=lambda a: len(a.ids))
        self._tokens = tokens
        self._seed = seed
        self._random = random.Random(seed)

    def __bool__(self) -> bool:
        return bool(self._weight and self._anchors)

    def __call__(self, passes: Passes) -> torch.Tensor:
        drawn = self._drawn()
        rows = [anchor.ids for anchor in drawn]
        wanted = [range(anchor.begin - 1, len(anchor.ids)) for anchor in drawn]
        teacher = passes.teacher(rows, wanted)
        student = passes.logits(rows, wanted)
        divergence = F.kl_div(
            F.log_softmax(student.float(), -1),
            F.log_softmax(teacher.float(), -1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        return self._weight * divergence.mean()

    def _drawn(self) -> list[Anchor]:
        first = self._random.randrange(len(self._anchors))
        rows: list[Anchor] = []
        while sum(len(anchor.ids) for anchor in rows) < self._tokens:
            rows.append(self._anchors[(first + len(rows)) % len(self._anchors)])
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


def _cut(anchor: Anchor) -> Anchor:
    """The window of an anchor that is used: all, or as much as holds its first predictions."""
    most = max(ANCHOR_WINDOW, anchor.begin + 1)
    return Anchor(tuple(anchor.ids[:most]), max(1, anchor.begin))
