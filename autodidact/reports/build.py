"""The report of a cycle: every figure the decision was made on, and every answer. Pure.

`cards` (the card for people) reads what is built here; so do the page and the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autodidact import checkpoints
from autodidact.evaluation import gate
from autodidact.evaluation.gate import Arm
from autodidact.lessons.probes import probe_id
from autodidact.lessons.wordings import wordings
from autodidact.store.documents import StoredDocument
from autodidact.types.cycle import ArmName, Job, Reason, Verdict, lines, reasons_from_json
from autodidact.types.documents import Findings, Probe
from autodidact.types.events import StudyResult

Report = dict[str, Any]


def build(
    job: Job,
    study: StudyResult,
    looks: Sequence[tuple[float, Verdict]],
    arms: Mapping[ArmName, Arm],
    documents: Sequence[StoredDocument],
    findings: Sequence[Findings],
    seconds: float,
) -> Report:
    """All but the state, which is known only once it is published or not. The last look counts."""
    step, verdict = looks[-1]
    titles = {stored.id: stored.document.title for stored in documents}
    metrics = {k: v for k, v in _metrics(verdict).items() if k != "taught"}
    return {
        "cycle": job.cycle,
        "kind": job.kind,
        "ok": verdict.ok,
        "version": job.cycle,
        "parent": job.parent.version if job.parent else None,
        "base": about_base(job),
        "learned": verdict.metrics.get("taught"),
        **metrics,
        "kept": gate.counts(job.probes, arms["parent"], arms["candidate"], "kept"),
        "forgotten": _forgotten(job.probes, arms),
        "lambda": step,
        "looks": [
            {"lambda": length, "ok": v.ok, "reasons": plain(v.reasons), "metrics": _metrics(v)}
            for length, v in looks
        ],
        "documents": [
            {"id": d.id, "title": d.document.title, "uri": d.document.uri} for d in documents
        ],
        "suggestions": _suggestions(documents, findings, arms["candidate"]),
        "exposures": study.done.exposures,
        "steps": study.done.steps,
        "replay": study.done.replay,
        "frozen_at": job.frozen_at,
        "first_step_at": study.done.first_step_at,
        "reasons": plain(verdict.reasons),
        "seconds": round(seconds + job.spent_s),
        "probes": [
            _asked(p, titles.get(p.document_id, ""), arms)
            for p in job.probes
            if p.id in arms["candidate"].probes and p.split != "forgotten"
        ],
    }


def about_base(job: Job) -> dict[str, str]:
    """The base as reports and manifests name it."""
    return {
        "name": job.base.name,
        "revision": job.base.revision,
        "sha256": job.base.sha256,
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


def plain(reasons: Sequence[Reason]) -> list[dict[str, str]]:
    """Reasons as a report stores them."""
    return [asdict(reason) for reason in reasons]


def spoken(report: Report) -> Report:
    """A report for people to read of, without its questions: every reason is one text."""
    told = {key: value for key, value in report.items() if key != "probes"}
    told["reasons"] = list(lines(reasons_from_json(report.get("reasons"))))
    if "looks" in report:
        told["looks"] = [
            {**look, "reasons": list(lines(reasons_from_json(look["reasons"])))}
            for look in report["looks"]
        ]
    return told


def line(report: Report) -> str:
    """A cycle on one line, for the terminal."""
    kind = report.get("kind", "learn")
    count = len(report["documents"])
    taught = f"{count} document{'' if count == 1 else 's'}"
    parts = [f"cycle {report['cycle']}", taught if kind == "learn" else kind]
    if report.get("general"):
        learned, general = report["learned"], report["general"]
        if learned and learned["n"]:
            parts.append(f"learned {learned['k']}/{learned['n']} (before {learned['before']})")
        if (report.get("kept") or {}).get("n"):
            kept = report["kept"]
            parts.append(f"kept {kept['k']}/{kept['n']} (before {kept['before']})")
        if general.get("pct") is not None:
            parts.append(f"general {general['pct']:+.1f} %")
    if report.get("lambda", 1.0) != 1.0:
        parts.append(f"λ {report['lambda']}")
    if report["state"] == "published":
        parts.append(f"published {checkpoints.name(report['cycle'])}")
    else:
        parts.append(f"{report['state']}: {'; '.join(lines(reasons_from_json(report['reasons'])))}")
    return " · ".join([*parts, f"{report['seconds']} s"])


def _metrics(verdict: Verdict) -> dict[str, Any]:
    """What the gate saw, as JSON; nothing where it saw nothing."""
    if not verdict.metrics:
        return {}
    return {**verdict.metrics, "rules": [asdict(result) for result in verdict.results]}


def _asked(probe: Probe, title: str, arms: Mapping[ArmName, Arm]) -> dict[str, Any]:
    return {
        "id": probe.id, "question": probe.question, "answer": probe.answer, "split": probe.split,
        "document_id": probe.document_id, "title": title, "kind": probe.kind,
        "relation": probe.relation, "wording": probe.wording,
        "before": asdict(arms["parent"].probes[probe.id]),
        "now": asdict(arms["candidate"].probes[probe.id]),
    }  # fmt: skip


def _forgotten(probes: Sequence[Probe], arms: Mapping[ArmName, Arm]) -> dict[str, Any] | None:
    """What is left of what was to be forgotten, beside the base that never knew it: exact answers
    and mean margin a token of each. No question or answer is repeated here."""
    ids = [p.id for p in probes if p.split == "forgotten" and p.id in arms["candidate"].probes]
    if not ids:
        return None
    found: dict[str, Any] = {"n": len(ids)}
    names: tuple[ArmName, ...] = ("base", "parent", "candidate")
    for arm in names:
        results = [arms[arm].probes[i] for i in ids]
        found[arm] = {
            "k": sum(r.correct for r in results),
            "margin": sum(r.margin for r in results) / len(results),
        }
    return found


def _suggestions(
    documents: Sequence[StoredDocument], findings: Sequence[Findings], candidate: Arm
) -> list[dict[str, str]]:
    """Questions for people, on facts whose probe passed, in a wording that is neither trained nor
    measured; documents in turn, three at most. A sentence with a gap is no question to ask."""
    found = []
    for stored, read in zip(documents, findings, strict=True):
        for fact in read.facts:
            result = candidate.probes.get(probe_id(stored.id, fact))
            if result and result.correct and fact.kind in ("name", "year", "measure"):
                question = wordings(fact).suggestion
                if "____" in question:
                    continue
                found.append({"question": question, "source": stored.document.uri})
                break
    return found[:3]
