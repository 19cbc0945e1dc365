"""From a job and what was measured to the gate's verdict: the study process asks it to know
whether to look further, the learner to decide. Pure, so both get the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autodidact.evaluation import gate
from autodidact.evaluation.recall import ProbeResult
from autodidact.types.cycle import Job, Verdict


def arm(measured: Mapping[str, Any]) -> gate.Arm:
    """An arm as the study process reports it: `rows` of probe results, `general`, `chat`."""
    rows = {row["probe_id"]: ProbeResult(**row) for row in measured["rows"]}
    return gate.Arm(rows, measured["general"], measured["chat"])


def verdict(
    job: Job, measured: Mapping[str, Mapping[str, Any]], candidate: Mapping[str, Any]
) -> Verdict:
    """The gate's verdict on a candidate. `measured` holds the arms "base" and "parent".

    What relearns everything without some documents is compared with the base alone: its parent
    knows what is to be forgotten, and being worse than it is the point.
    """
    base, parent = arm(measured["base"]), arm(measured["parent"])
    if job.kind == "forget":
        parent = gate.Arm({}, base.general, base.chat)
    return gate.decide(
        job.probes,
        base,
        parent,
        arm(candidate),
        job.gate,
        job.when_learned,
        learn=job.kind == "learn",
    )
