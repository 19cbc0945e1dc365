"""What a study process says, and the learner with it: each event is a line of JSON.

The study writes these on its standard output, the learner reads them, acts on some, and shows all
of them to whoever watches. `event` tells them apart; a line that fits none of them is refused by
the field that does not fit (`types.wire`).

`eta_s` are the seconds left of a phase, `left_s` those of the cycle; None where nobody can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator

from autodidact.types.cycle import Measurement

Phase = Literal[
    "fetching", "loading", "preparing", "planning", "training", "measuring", "publishing"
]


@dataclass(frozen=True)
class PhaseEvent:
    """Another part of the work begins."""

    phase: Phase
    eta_s: float | None = None
    left_s: float | None = None
    event: Literal["phase"] = "phase"


@dataclass(frozen=True)
class LogEvent:
    """A line for the log."""

    line: str
    event: Literal["log"] = "log"


@dataclass(frozen=True)
class ProgressEvent:
    """So much of a phase is done."""

    step: int
    of: int
    eta_s: float | None = None
    left_s: float | None = None
    event: Literal["progress"] = "progress"


@dataclass(frozen=True)
class WaitEvent:
    """It waits, or waits no more, for a reply of the chat to end."""

    waits: bool
    event: Literal["wait"] = "wait"


@dataclass(frozen=True)
class StepEvent:
    """A training step is done. `loss` is in nats a token."""

    step: int
    of: int
    loss: float
    eta_s: float
    left_s: float | None = None
    event: Literal["step"] = "step"


@dataclass(frozen=True)
class AnchorsEvent:
    """The anchors that this study uses lie there."""

    path: str
    event: Literal["anchors"] = "anchors"


@dataclass(frozen=True)
class PlanEvent:
    """What fits into the cycle: documents taken, steps, the share of replay."""

    documents: tuple[int, ...]
    steps: int
    seconds_per_step: float
    replay: float
    event: Literal["planned"] = "planned"


@dataclass(frozen=True)
class MeasurementEvent(Measurement):
    """A version was measured."""

    event: Literal["measured"] = "measured"


@dataclass(frozen=True)
class UnsoundEvent:
    """What was trained cannot be used."""

    reason: str
    event: Literal["unsound"] = "unsound"


@dataclass(frozen=True)
class DoneEvent:
    """The study is over, its last look at λ = `step`. `first_step_at` is Unix time; None where
    nothing was trained."""

    steps: int
    exposures: int
    step: float
    replay: float
    first_step_at: float | None
    event: Literal["done"] = "done"


@dataclass(frozen=True)
class StopEvent:
    """It was asked to stop, and what it did is saved."""

    event: Literal["stopped"] = "stopped"


@dataclass(frozen=True)
class ErrorEvent:
    """It cannot go on; one line says why. `base_unfit`: for the base model, which no cycle can
    mend. `out_of_memory`: for want of that."""

    message: str
    base_unfit: bool = False
    out_of_memory: bool = False
    event: Literal["error"] = "error"


@dataclass(frozen=True)
class ForgottenEvent:
    """Documents were forgotten: what was shown of the last cycle may speak of them."""

    event: Literal["forgotten"] = "forgotten"


StudyEvent = (
    PhaseEvent
    | LogEvent
    | ProgressEvent
    | WaitEvent
    | StepEvent
    | AnchorsEvent
    | PlanEvent
    | MeasurementEvent
    | UnsoundEvent
    | DoneEvent
    | StopEvent
    | ErrorEvent
)
ReadEvent = Annotated[StudyEvent, Discriminator("event")]
"""For reading: the field `event` says which it is."""
Event = StudyEvent | ForgottenEvent


@dataclass(frozen=True)
class StudyResult:
    """What came of a study: its plan, its end, and what was measured: every look at the candidate,
    the last one deciding."""

    plan: PlanEvent
    done: DoneEvent
    base: Measurement
    parent: Measurement
    looks: tuple[Measurement, ...]

    @property
    def candidate(self) -> Measurement:
        return self.looks[-1]
