"""What a training step minimises: the loss on what is taught, and the pull back to the base.

A loss is passed to the `Trainer`; another one (on preferences, say) needs no other loop. Every
objective asks `passes` for the logits it needs and gives a scalar with its graph.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F

from autodidact.training.anchors import Anchor
from autodidact.training.passes import Passes
from autodidact.training.sequences import TrainingSequence

TEXT_WINDOW, REPLY_WINDOW = 48, 12
"""Predicted tokens of an anchor that are used where sequences are packed. What a model loses it
shows in the first words of a reply, so many short replies hold it better than few long ones
(docs/lab-log.md)."""
PADDED_WINDOW = 128
RandomState = tuple[int, tuple[int, ...], float | None]
"""As `random.Random.getstate` gives it."""


@dataclass(frozen=True)
class AnchorState:
    """Where `AnchorDivergence` stands: padded anchors go by chance, packed ones by their number."""

    random: RandomState
    drawn: int = 0


Row_contra = TypeVar("Row_contra", contravariant=True)


class Loss(Protocol[Row_contra]):
    """The loss on the batch of one step, in nats a token; not finite where nothing is supervised.
    Called within autocast, where the recipe says so. `right`, once called, tells which rows of the
    batch the model would have said by itself; empty where that cannot be told."""

    right: Sequence[bool]

    def shares(self, batch: Sequence[Row_contra]) -> Sequence[float]:
        """What part each row has in the loss of the batch; together 1, or 0 where nothing is
        supervised."""
        ...

    def __call__(self, passes: Passes, batch: Sequence[Row_contra]) -> torch.Tensor: ...


class AnswerLoss:
    """Cross-entropy on answers and on text, never on prompts or padding. A row is right where each
    of its supervised tokens is the likeliest one: said greedily, it would be said so."""

    def __init__(self) -> None:
        self.right: Sequence[bool] = ()

    def shares(self, batch: Sequence[TrainingSequence]) -> Sequence[float]:
        counts = [sum(label != -100 for label in row.labels[1:]) for row in batch]
        return [count / max(1, sum(counts)) for count in counts]

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
    """`weight` · KL(base ‖ model), mean over the predicted tokens of some anchors, `tokens` of them
    or a few more. Forgetting follows the KL to the base (Shenfeld et al. 2025, "RL's Razor").

    Where sequences are padded, the anchors of a step are of like length.
    """

    def __init__(
        self, anchors: Sequence[Anchor], weight: float, tokens: int, seed: int, *, packed: bool
    ) -> None:
        self._weight = weight
        self._packed = packed
        self._anchors = [_cut(anchor, packed) for anchor in anchors]
        if not packed:
            self._anchors.sort(key=lambda anchor: len(anchor.ids))
        self._tokens = tokens
        self._seed = seed
        self._random = random.Random(seed)
        self._round: list[Anchor] = []
        self._drawn_so_far = 0
        self._next_up: tuple[list[tuple[int, ...]], list[range]] | None = None

    def __bool__(self) -> bool:
        return bool(self._weight and self._anchors)

    def announce(self, passes: Passes) -> bool:
        """Whether what the next call will ask for is computed beside what another objective asks
        for before it."""
        self._next_up = self._wanted()
        return passes.beside(*self._next_up)

    def __call__(self, passes: Passes) -> torch.Tensor:
        rows, wanted = self._next_up or self._wanted()
        self._next_up = None
        teacher = passes.teacher(rows, wanted)
        student = passes.logits(rows, wanted)
        divergence = F.kl_div(
            F.log_softmax(student.float(), -1),
            F.log_softmax(teacher.float(), -1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        return self._weight * divergence.mean()

    def _wanted(self) -> tuple[list[tuple[int, ...]], list[range]]:
        """The ids of the next anchors, and after which of them logits are compared."""
        drawn = self._drawn()
        ends = [len(anchor.ids) - self._packed for anchor in drawn]
        wanted = [range(a.begin - 1, end) for a, end in zip(drawn, ends, strict=True)]
        return [anchor.ids for anchor in drawn], wanted

    def _drawn(self) -> list[Anchor]:
        rows: list[Anchor] = []
        if self._packed:
            while sum(len(anchor.ids) - anchor.begin for anchor in rows) < self._tokens:
                rows.append(self._next())
            return rows
        first = self._random.randrange(len(self._anchors))
        while sum(len(anchor.ids) for anchor in rows) < self._tokens:
            rows.append(self._anchors[(first + len(rows)) % len(self._anchors)])
        return rows

    def _next(self) -> Anchor:
        """Each anchor once a round, in another order every round: drawn with replacement, one in
        six would not come at all in a cycle, and what it held was lost (docs/lab-log.md)."""
        number, place = divmod(self._drawn_so_far, len(self._anchors))
        if place == 0 or not self._round:
            order = random.Random(f"{self._seed} {number}")
            self._round = order.sample(self._anchors, len(self._anchors))
        self._drawn_so_far += 1
        return self._round[place]

    def state(self) -> AnchorState:
        """Which anchors come next."""
        return AnchorState(self._random.getstate(), self._drawn_so_far)

    def restore(self, state: AnchorState | None) -> None:
        """As `state` gave it; None begins anew."""
        self._round, self._next_up = [], None
        if state is None:
            self._random.seed(self._seed)
            self._drawn_so_far = 0
        else:
            self._random.setstate(state.random)
            self._drawn_so_far = state.drawn


def _cut(anchor: Anchor, packed: bool) -> Anchor:
    """The window of an anchor that is used: its beginning."""
    begin = max(1, anchor.begin)
    if packed:
        most = begin + (TEXT_WINDOW if begin == 1 else REPLY_WINDOW)
    else:
        most = max(PADDED_WINDOW, begin + 1)
    return Anchor(tuple(anchor.ids[:most]), begin)
