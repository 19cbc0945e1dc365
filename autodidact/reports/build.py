"""The report of a cycle: every figure the decision was made on, and every answer. Pure, save that
it looks into the exam of the bundled library for questions to suggest.

`cards` (the card for people) reads what is built here; so do the page and the command line.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from autodidact.evaluation import exam, gate
from autodidact.evaluation.exam import ExamQuestion, marked
from autodidact.evaluation.gate import Arm
from autodidact.lessons.probes import probe_id
from autodidact.lessons.wordings import wordings
from autodidact.store.documents import StoredDocument
from autodidact.types.cycle import ARMS, ArmName, Job, Reason, Verdict
from autodidact.types.documents import Fact, Findings, Probe
from autodidact.types.events import StudyResult
from autodidact.types.report import (
    BaseName,
    CycleReport,
    Forgotten,
    Look,
    ProbeAnswers,
    Remains,
    Suggestion,
    TaughtDocument,
)


def build(
    job: Job,
    study: StudyResult,
    looks: Sequence[Look],
    arms: Mapping[ArmName, Arm],
    documents: Sequence[StoredDocument],
    findings: Sequence[Findings],
    seconds: float,
) -> CycleReport:
    """All but the state, which is known only once it is published or not: it says interrupted until
    then. The last look counts."""
    last = looks[-1]
    figures = last.figures
    if figures is not None:  # the gate asks less of what forgets: it counts none of these
        kept = gate.counts(job.probes, arms["parent"], arms["candidate"], "kept")
        figures = replace(figures, kept=kept)
    titles = {stored.id: stored.document.title for stored in documents}
    return CycleReport(
        cycle=job.cycle,
        state="interrupted",
        seconds=round(seconds + job.spent_s),
        kind=job.kind,
        reasons=last.reasons,
        parent=job.parent.version if job.parent else None,
        base=about_base(job),
        documents=tuple(TaughtDocument(d.id, d.document.title, d.document.uri) for d in documents),
        figures=figures,
        rules=last.rules,
        step=last.step,
        looks=tuple(looks),
        forgotten=_forgotten(job.probes, arms),
        suggestions=_suggestions(documents, findings, arms["candidate"], exam.bundled()),
        steps=study.done.steps,
        exposures=study.done.exposures,
        replay=study.done.replay,
        frozen_at=job.frozen_at,
        first_step_at=study.done.first_step_at,
        probes=tuple(
            _asked(p, titles.get(p.document_id, ""), arms)
            for p in job.probes
            if p.id in arms["candidate"].probes and p.split != "forgotten"
        ),
    )


def look(step: float, verdict: Verdict) -> Look:
    """What the gate said of a candidate of that length."""
    return Look(step, verdict.ok, verdict.reasons, verdict.figures, verdict.results)


def about_base(job: Job) -> BaseName:
    """The base as reports and manifests name it."""
    return BaseName(job.base.name, job.base.revision, job.base.sha256)


def manifest(job: Job, report: CycleReport, documents: Sequence[int]) -> dict[str, Any]:
    """What the manifest of a version tells of the cycle that made it, besides its files."""
    return {
        "parent": report.parent,
        "cycle": job.cycle,
        "kind": job.kind,
        "base": asdict(about_base(job)),
        "document_ids": list(documents),
        "forgets": list(job.forgets),
        "created_at": time.time(),
        "settings": {**job.training, "gate": asdict(job.gate), "step": report.step},
        "report": asdict(replace(report, state="published", probes=())),
    }


def no_better(job: Job, verdict: Verdict) -> tuple[Reason, ...]:
    """Why a consolidation that the gate would pass is not adopted: it must be better than the
    adapter that has grown, in general text or in what is kept."""
    if job.kind != "consolidate" or not verdict.ok:
        return ()
    found = {(r.rule, r.against): r.value for r in verdict.results}
    changes = [found.get(key) for key in (("general", "parent"), ("kept", "parent"))]
    if any(change is not None and change < 0 for change in changes):
        return ()
    why = "no better than the running adapter in general text and in what is kept"
    return (Reason("consolidation", why),)


def _asked(probe: Probe, title: str, arms: Mapping[ArmName, Arm]) -> ProbeAnswers:
    return ProbeAnswers(
        probe.id,
        probe.question,
        probe.answer,
        probe.split,
        probe.document_id,
        title,
        probe.kind,
        probe.relation,
        probe.wording,
        before=arms["parent"].probes[probe.id],
        now=arms["candidate"].probes[probe.id],
    )


def _forgotten(probes: Sequence[Probe], arms: Mapping[ArmName, Arm]) -> Forgotten | None:
    """None where nothing was to be forgotten."""
    ids = [p.id for p in probes if p.split == "forgotten" and p.id in arms["candidate"].probes]
    if not ids:
        return None

    def remains(arm: Arm) -> Remains:
        results = [arm.probes[i] for i in ids]
        margin = sum(r.margin for r in results) / len(results)
        return Remains(sum(r.correct for r in results), margin)

    base, parent, candidate = (remains(arms[arm]) for arm in ARMS)
    return Forgotten(len(ids), base, parent, candidate)


def _suggestions(
    documents: Sequence[StoredDocument],
    findings: Sequence[Findings],
    candidate: Arm,
    asked: Sequence[ExamQuestion],
) -> tuple[Suggestion, ...]:
    """Questions for people, on facts whose probe passed; documents in turn, three at most. One of
    those written by hand (`asked`) where one fits, else the rules' own, see `_own_question`."""
    found = []
    for stored, read in zip(documents, findings, strict=True):
        known = [fact for fact in read.facts if _knows(candidate, stored.id, fact)]
        question = _exam_question(stored.document.uri, known, asked) or _own_question(known)
        if question:
            found.append(Suggestion(question, stored.document.uri))
    return tuple(found[:3])


def _knows(candidate: Arm, document: int, fact: Fact) -> bool:
    result = candidate.probes.get(probe_id(document, fact))
    return bool(result and result.correct)


def _exam_question(uri: str, known: Sequence[Fact], asked: Sequence[ExamQuestion]) -> str:
    """The first of the exam that one of these facts answers and that is about this document only:
    a suggestion goes with its document when that is forgotten. "" if there is none."""
    for question in asked:
        if question.uris == (uri,) and any(marked(question, fact.answer).exact for fact in known):
            return question.question
    return ""


def _own_question(known: Sequence[Fact]) -> str:
    """A wording of the rules that is neither trained nor measured, or "". A sentence with a gap is
    no question to ask."""
    for fact in known:
        question = wordings(fact).suggestion
        if fact.kind in ("name", "year", "measure") and "____" not in question:
            return question
    return ""
