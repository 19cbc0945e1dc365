"""From a job and what was measured to the gate's verdict: the study process asks it to know
whether to look further, the learner to decide. Pure, so both get the same answer."""

from __future__ import annotations

from autodidact.evaluation import gate
from autodidact.types.cycle import Job, Measurement, Verdict


def arm(measured: Measurement) -> gate.Arm:
    """A measurement as the gate takes it, its probes by their ids."""
    return gate.Arm(
        {row.probe_id: row for row in measured.rows},
        measured.general,
        measured.chat,
        [bool(reason) for reason in measured.worse],
    )


def verdict(job: Job, base: Measurement, parent: Measurement, candidate: Measurement) -> Verdict:
    """The gate's verdict on a candidate.

    What relearns everything without some documents is compared with the base alone: its parent
    knows what is to be forgotten, and being worse than it is the point.
    """
    of_base, of_parent = arm(base), arm(parent)
    if job.kind == "forget":
        of_parent = gate.Arm({}, of_base.general, of_base.chat, of_base.worse)
    return gate.decide(
        job.probes,
        of_base,
        of_parent,
        arm(candidate),
        job.gate,
        job.when_learned,
        learn=job.kind == "learn",
    )
