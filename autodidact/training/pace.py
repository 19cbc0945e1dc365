"""How far a training is, and who says when it ends. Pure; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

QUESTIONS_FIRST = 0.10
"""The share of a training that is on questions alone, at its beginning."""
LOSSES = 50


@dataclass(frozen=True)
class Clock:
    """Where a training stands; saved beside its weights, so that it goes on from there.

    `steps`: how many there are to be, as far as is known by now. `early`: steps done on questions
    alone. `trained_s`: seconds spent in steps. `began_at`: Unix time of the first step. `losses`:
    the last fifty, in nats a token.
    """

    step: int = 0
    steps: int = 0
    early: int = 0
    trained_s: float = 0.0
    began_at: float | None = None
    losses: tuple[float, ...] = ()

    def after(self, loss: float, seconds: float, *, early: bool) -> Clock:
        """One step later."""
        return replace(
            self,
            step=self.step + 1,
            early=self.early + early,
            trained_s=self.trained_s + seconds,
            losses=(*self.losses, loss)[-LOSSES:],
        )


class Pace(Protocol):
    """What a training goes by: steps, or time."""

    @property
    def steps(self) -> int:
        """How many steps there are to be, before the first is done."""
        ...

    def fraction(self, clock: Clock) -> float:
        """How much of the training is done, for the learning rate; it ends at 1."""
        ...

    def early(self, clock: Clock) -> bool:
        """Whether the next step is on questions alone."""
        ...

    def corrected(self, clock: Clock, recent_s: Sequence[float]) -> int:
        """How many steps there are to be, now that the last ones took so many seconds each."""
        ...
