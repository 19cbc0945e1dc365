"""What the learner says of itself: a row in its database, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autodidact.types.events import Phase
from autodidact.types.report import CycleReport

State = Literal["idle", "fetching", "preparing", "training", "measuring", "publishing", "stopped"]
OFFLINE = "offline"
WAITS = "waits for the chat"
OFFLINE_AFTER_S = 15.0
"""A learner that runs says something every few seconds."""


@dataclass(frozen=True)
class LearnerStatus:
    """What it is doing: a `State`, or one that a newer learner has; who hears nothing says
    `OFFLINE`.

    `step` of `of` and `eta_s` (seconds left) are of the present phase, `loss` in nats a token;
    `left_s` is what is left of the cycle's time, `cycle_s` (below 0 where it takes longer);
    `documents` is how many the cycle took, `queued` how many wait; `next_at` and `updated_at` are
    Unix time; `waits` that it waits for a reply of the chat to end; `verdict` is the report of the
    last cycle, without its questions.
    """

    state: str = "idle"
    phase: Phase | None = None
    cycle: int | None = None
    step: int | None = None
    of: int | None = None
    loss: float | None = None
    eta_s: float | None = None
    left_s: float | None = None
    cycle_s: float | None = None
    documents: int | None = None
    queued: int | None = None
    next_at: float | None = None
    waits: bool = False
    verdict: CycleReport | None = None
    updated_at: float = 0.0

    def gone(self, now: float) -> bool:
        """Whether it does not run any more. What it said in what is now the future, it said before
        the clock was put back: a learner that runs has said something since."""
        return self.state == "stopped" or abs(now - self.updated_at) > OFFLINE_AFTER_S
