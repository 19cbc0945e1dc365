"""A job as the learner writes it, as small as one can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autodidact.types.cycle import Job, JobBase, Limits

LIMITS = Limits(0.1, 0.1, 0.15, 0.05, 0.05, 0.02)
_SMALLEST = Job(
    cycle=1,
    kind="learn",
    minutes=1.0,
    spent_s=0.0,
    frozen_at=0.0,
    base=JobBase("tiny", "", "", ""),
    parent=None,
    fresh=False,
    lessons=(),
    replay=(),
    shares={},
    forgets=(),
    probes=(),
    when_learned={},
    limits={},
    gate=LIMITS,
    training={},
    known={},
    rise=0.0,
    anchors="",
    threads=1,
)


def job(**more: Any) -> Job:
    return replace(_SMALLEST, **more)
