"""From a job and its measurements, through JSON, to the gate's verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autodidact.evaluation import gate, judge
from autodidact.types import wire
from autodidact.types.cycle import Job, Kind, Measurement, ProbeResult
from autodidact.types.documents import Probe, Split
from tests import jobs

KINDS: tuple[Kind, ...] = ("learn", "consolidate", "forget")


def probe(number: int, document_id: int, split: Split) -> Probe:
    return Probe(
        f"{document_id}-{number:08x}", document_id, "Who?", "Ida", ("Odo", "Zoe"), "name", "by",
        "by/0", split,
    )  # fmt: skip


def job(kind: Kind = "learn") -> Job:
    """As the study reads it: through JSON, in which a tuple is a list."""
    splits: tuple[tuple[Split, int], ...] = (("taught", 1), ("control", 20), ("kept", 40))
    probes = tuple(
        probe(i, first + i % 5, split)
        for split, first in splits
        for i in range(20)
        if split != "taught" or kind == "learn"
    )
    when_learned = {p.id: -1.0 for p in probes if p.split == "kept"}
    made = jobs.job(kind=kind, probes=probes, when_learned=when_learned)
    read = wire.from_json(Job, wire.to_json(made), "job.json")
    assert read == made
    return read


def measured(job: Job, taught: float = 0.0, kept: float = 0.0, general: float = 0.0) -> Measurement:
    """An arm: margins of taught facts and likelihoods of kept ones raised, general NLL raised."""
    rows = []
    for i, row in enumerate(job.probes):
        rise = {"taught": taught, "kept": kept}.get(row.split, 0.0)
        reply, margin = ("Ida" if rise > 0 else "?"), -0.5 + rise + i % 3 / 100
        rows.append(ProbeResult(row.id, reply, int(rise > 0), -1.0 + rise, margin))
    blocks = tuple(3.0 + general + i % 4 / 100 for i in range(40))
    return Measurement("candidate", 1.0, tuple(rows), blocks, (True,) * 40)


def base(job: Job) -> Measurement:
    return replace(measured(job), rows=())


def test_probes_come_back_from_json_as_they_were() -> None:
    assert [p.distractors for p in job().probes] == [("Odo", "Zoe")] * 60
    assert all(hash(p) for p in job().probes)


def test_an_arm_is_known_by_its_probes() -> None:
    arm = judge.arm(measured(job(), taught=2.0))
    assert arm.probes["1-00000000"].correct == 1
    assert list(arm.probes) == [row.id for row in job().probes]
    assert len(arm.general) == len(arm.chat) == 40


def test_the_verdict_is_the_gate_s_on_the_same_figures() -> None:
    work = job()
    before, after = measured(work), measured(work, taught=2.0, kept=-0.1)
    found = judge.verdict(work, base(work), before, after)
    first, second, third = (judge.arm(arm) for arm in (base(work), before, after))
    assert found == gate.decide(work.probes, first, second, third, jobs.LIMITS, work.when_learned)
    assert not found.ok
    assert [reason.rule for reason in found.reasons] == ["kept"]


def test_a_candidate_that_learned_what_was_taught_passes() -> None:
    work = job()
    assert judge.verdict(work, base(work), measured(work), measured(work, taught=2.0)).ok


def test_only_a_cycle_that_learns_must_have_learned() -> None:
    verdicts = {}
    for kind in KINDS:
        work = job(kind)
        verdicts[kind] = judge.verdict(work, base(work), measured(work), measured(work))
    assert {kind: v.ok for kind, v in verdicts.items()} == {
        "learn": False, "consolidate": True, "forget": True,
    }  # fmt: skip
    assert verdicts["learn"].lines[0].startswith("learned:")


@pytest.mark.parametrize(("kind", "ok"), [("consolidate", False), ("forget", True)])
def test_what_forgets_is_not_held_to_a_parent_that_knew_more(kind: Kind, ok: bool) -> None:
    work = job(kind)
    parent = measured(work, kept=0.9, general=-0.3)
    found = judge.verdict(work, base(work), parent, measured(work, kept=0.0))
    assert found.ok is ok


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_a_limit_for_every_kind(kind: Kind) -> None:
    work = job(kind)
    parent = measured(work, general=0.3)
    found = judge.verdict(work, base(work), parent, measured(work, taught=2.0, general=0.3))
    assert set(found.rules) == {"general"}
    assert "over the base" in found.lines[0]
