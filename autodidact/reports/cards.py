"""The report card of a cycle and the retention matrix: plain data from the ledger's rows.

`card` makes of one row of the ledger (`StoredCycle`) what the command line, the page and
`GET /learning/cycles/{n}` all show: the verdict, the measures with their intervals and limits,
every question with both answers. It decides nothing: what passed is what the gate wrote down. What
a report lacks is left empty. The words of a claim are a ladder: queued, read,
studying, measuring, learned; "learned" is the claim only of a published cycle that still stands.

Counts are exact answers, with 95 % score intervals (Wilson 1927). Margins are in nats a token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from autodidact.store.cycles import StoredCycle
from autodidact.types.cycle import Figures, ProbeResult, Reason, lines
from autodidact.types.cycle import failed as rules_of
from autodidact.types.report import BaseName, CycleReport, Forgotten, ProbeAnswers, TaughtDocument
from autodidact.types.status import LearnerStatus

Row = Mapping[str, Any]

LEVEL = 0.95
MEASURES = (
    (
        "learned",
        "Learned",
        "margin of the true answer over likely wrong ones, or exact answers; taught less control",
    ),
    ("kept", "Kept", "rise in loss on answers taught earlier"),
    ("general", "General", "rise in loss on held-out text"),
    ("chat", "Chat", "fall in replies that are well-formed, end and do not repeat"),
    ("mind", "Mind", "share of everyday prompts answered worse than by the base"),
)
_WHY = {
    "learned": "the gain on the new questions is not proved",
    "kept": "it forgot too much of what it knew",
    "general": "it drifted too far from the base",
    "chat": "its replies lost their form",
    "mind": "it answers greetings and common knowledge worse than the base",
    "sound": "the candidate is not sound",
}
_NOTHING_NEW = {
    "consolidate": "Everything taught so far once more, nothing new",
    "forget": "Taught again without what it was told to forget",
}
_STEPS = {"preparing": "read", "training": "studying", "measuring": "measuring"}
_TEST = (
    "rule", "against", "ok", "value", "lower", "upper", "limit", "before", "now", "n", "unit", "p",
    "excused",
)  # fmt: skip


def card(
    row: StoredCycle,
    *,
    weights: str = "",
    withdrawn: bool = False,
    said: LearnerStatus | None = None,
) -> dict[str, Any]:
    """The report card of a cycle: `brief` and all its questions. `weights` is the sha256 of its
    adapter, "" if it is not known. The result is JSON: numbers that are not finite become None."""
    report = row.report or CycleReport(row.n, row.state, 0)
    asked = [_probe(probe) for probe in report.probes]
    made = {
        **brief(row, withdrawn=withdrawn, said=said),
        "documents": _documents(report, asked),
        "wordings": {
            "seen": _count(p for p in asked if p["split"] == "taught"),
            "unseen": _count(p for p in asked if p["split"] == "unseen"),
        },
        "control": _group([p for p in asked if p["split"] == "control"]),
        "kept": _kept([p for p in asked if p["split"] == "kept"]),
        "forgotten": _forgotten(report.forgotten),
        "lambda": report.step,
        "looks": [
            {"lambda": look.step, "ok": look.ok, "reasons": list(lines(look.reasons))}
            for look in report.looks
        ],
        "how": _how(row, report, weights),
    }
    for count in (*made["wordings"].values(), made["control"], made["kept"]):
        count |= interval(count["k"], count["n"])
    cleaned: dict[str, Any] = _finite(made)
    return cleaned


def brief(
    row: StoredCycle, *, withdrawn: bool = False, said: LearnerStatus | None = None
) -> dict[str, Any]:
    """What a list of cycles shows of one. `withdrawn`: it was published and rolled back since;
    `said`: the learner's status, for a cycle that still runs."""
    report, state, reasons = row.report or CycleReport(row.n, row.state, 0), row.state, row.reasons
    failed = [name for name in rules_of(reasons) if name in _WHY] if state == "rejected" else []
    made: dict[str, Any] = {
        "cycle": row.n,
        "kind": row.kind,
        "state": state,
        "ok": state == "published",
        "claim": _claim(row, state, withdrawn, said),
        "parent": row.parent,
        "withdrawn": withdrawn,
        "reasons": list(lines(reasons)),
        "failed": failed,
        "taught": len(report.documents or row.documents),
        "measures": [_measure(report, name, title, what, failed) for name, title, what in MEASURES],
        "ended_at": row.ended_at,
        "seconds": report.seconds if row.report else None,
    }
    made["verdict"] = _verdict(made, report, reasons)
    cleaned: dict[str, Any] = _finite(made)
    return cleaned


# The verdict -----------------------------------------------------------------------------------


def _claim(row: StoredCycle, state: str, withdrawn: bool, said: LearnerStatus | None) -> str:
    """The one word of the ladder that may be said of this cycle's documents."""
    if state == "published":
        return "queued" if withdrawn else "learned"
    if state != "running":
        return "queued"
    if said is not None and said.cycle == row.n and said.state in _STEPS:
        return _STEPS[said.state]
    return "studying" if row.documents else "read"


def _verdict(made: Row, report: CycleReport, reasons: Sequence[Reason]) -> str:
    """What came of the cycle, in one or two sentences."""
    reason = reasons[0].line if reasons else ""
    if made["state"] == "running":
        return {
            "read": "Its documents are read; questions on them are being made.",
            "studying": "It is studying; nothing is proved yet.",
            "measuring": "It is measuring what the study gave; nothing is proved yet.",
        }[made["claim"]]
    if made["state"] == "published":
        if made["withdrawn"]:
            taken_back = "Published, then rolled back: its documents were queued again."
            return f"{taken_back} {_passed(report)}".strip()
        return f"Published. {_passed(report)}{_rest(made)}".strip()
    if made["state"] == "rejected":
        why = why_refused(made["state"], reasons)
        stays = f"Checkpoint {made['parent']}" if made["parent"] else "The base"
        if made["failed"] == ["sound"]:
            why = f"{why} ({reasons[0].text if reasons else ''})"
        would = _passed(report, "It would pass")
        return f"Not published: {why}. {stays} goes on answering. {would}".strip()
    what = "Failed, nothing published" if made["state"] == "failed" else "Not finished"
    return f"{what}: {(reason or 'no reason was recorded').rstrip('.')}."


def why_refused(state: str, reasons: Sequence[Reason]) -> str:
    """Why a cycle was not published, in plain words."""
    names = [name for name in rules_of(reasons) if name in _WHY] if state == "rejected" else []
    first = reasons[0].line if reasons else "no reason was recorded"
    return "; ".join(_WHY[name] for name in names) or first


def _passed(report: CycleReport, passes: str = "It passes") -> str:
    if report.kind in _NOTHING_NEW:
        what, old = _NOTHING_NEW[report.kind], report.figures.kept if report.figures else None
        if not old or not old.n:
            return f"{what}."
        return f"{what}: {old.k} of {old.n} earlier questions pass, {old.before} before."
    new = report.figures.taught if report.figures else None
    if not new or not new.n:
        return ""
    return f"{passes} {new.k} of {new.n} new questions, {new.before} before."


def _rest(made: Row) -> str:
    """What else the gate proved, as far as it was measured."""
    fine = {m["measure"] for m in made["measures"] if m["tests"] and m["ok"]}
    parts = ["kept what it knew"] if "kept" in fine else []
    parts += ["stayed close to the base"] if "general" in fine else []
    return f" It {' and '.join(parts)}." if parts else ""


# The measures ----------------------------------------------------------------------------------


def _measure(
    report: CycleReport, name: str, title: str, what: str, failed: Sequence[str]
) -> dict[str, Any]:
    tests = [
        {key: getattr(rule, key) for key in _TEST} for rule in report.rules if rule.rule == name
    ]
    # What decided comes first: one that refuses, else one that passed, in the gate's order.
    tests.sort(key=lambda test: 2 if test["excused"] else int(test["ok"]))
    before, now, n = _before_and_now(report.figures, name) if report.figures else ("", "", None)
    return {
        "measure": name,
        "title": title,
        "what": what,
        "ok": name not in failed and all(t["ok"] or t["excused"] for t in tests) if tests else None,
        "decided": _decided(tests),
        "before": before,
        "now": now,
        "n": n,
        "tests": tests,
    }


def _decided(tests: Sequence[Row]) -> str:
    """Where two kinds of evidence could show that it learned: which did. "" elsewhere."""
    exact = [test for test in tests if test["against"] == "exact"]
    if not exact:
        return ""
    margins = [test for test in tests if test["against"] != "exact"]
    if any(test["excused"] for test in margins):
        return "Decided by exact answers; the margin alone does not show it."
    if exact[0]["excused"]:
        return "Decided by the margin; exact answers alone do not show it."
    if not exact[0]["ok"]:
        return "Neither the margin nor exact answers show it."
    if all(test["ok"] for test in margins):
        return "The margin and exact answers both show it."
    return "Exact answers alone would show it, but a margin did not rise."


def _before_and_now(figures: Figures, name: str) -> tuple[str, str, int | None]:
    """The parent's figure and the candidate's, as people read them, and of how many."""
    if name in ("learned", "kept"):
        count = figures.taught if name == "learned" else figures.kept
        return _of(count.before), _of(count.k), count.n
    if name == "chat":
        now = figures.chat.candidate
        return _of(figures.chat.parent.k), _of(now.k), now.n
    if name == "mind":
        return "", "", None  # its tests tell
    general = figures.general
    if not general.base or general.parent is None or general.candidate is None:
        return "", "", None
    rises = (100 * (nll - general.base) / general.base
             for nll in (general.parent, general.candidate))  # fmt: skip
    before, after = (f"{rise:+.1f}\u00a0%".replace("-", "−") for rise in rises)
    return before, after, None


def _of(count: int | None) -> str:
    return "" if count is None else str(count)


# Questions -------------------------------------------------------------------------------------


def _probe(probe: ProbeAnswers) -> dict[str, Any]:
    """One question with both answers, `wording` "unseen" where it was never trained for any fact
    and "seen" where it was, for other facts."""
    return {
        "id": probe.id,
        "question": probe.question,
        "answer": probe.answer,
        "split": probe.split,
        "wording": "unseen" if probe.split == "unseen" else "seen",
        "document_id": probe.document_id,
        "title": probe.title,
        "before": _answer(probe.before),
        "now": _answer(probe.now),
        "change": probe.now.margin - probe.before.margin,
    }


def _answer(result: ProbeResult) -> dict[str, Any]:
    return {
        "reply": result.reply,
        "correct": bool(result.correct),
        "logprob": result.logprob,
        "margin": result.margin,
    }


def _count(probes: Iterable[Row]) -> dict[str, Any]:
    """Exact answers: k of n now, and `before`."""
    rows = list(probes)
    return {
        "k": sum(row["now"]["correct"] for row in rows),
        "n": len(rows),
        "before": sum(row["before"]["correct"] for row in rows),
    }


def _group(probes: Sequence[Row]) -> dict[str, Any]:
    changes = [probe["change"] for probe in probes if probe["change"] is not None]
    return {
        **_count(probes),
        "margin": fmean(changes) if changes else None,
        "probes": list(probes),
    }


def _documents(report: CycleReport, asked: Sequence[Row]) -> list[dict[str, Any]]:
    """The documents taught, each with its questions. Its count and margin are of the wordings that
    decide; those never trained for any fact are counted apart."""
    known = {document.id: document for document in report.documents}
    mine = [p for p in asked if p["split"] in ("taught", "unseen")]
    found = []
    for number in dict.fromkeys([*known, *(p["document_id"] for p in mine)]):
        probes = [p for p in mine if p["document_id"] == number]
        document = known.get(number, TaughtDocument(number, "", ""))
        found.append(
            {
                "id": number,
                "title": document.title or f"Document {number}",
                "uri": document.uri,
                **_group([p for p in probes if p["split"] == "taught"]),
                "unseen": _count(p for p in probes if p["split"] == "unseen"),
                "probes": probes,
            }
        )
    return found


def _kept(probes: Sequence[Row]) -> dict[str, Any]:
    """Questions of earlier cycles: how many pass, and those that turned, with both answers."""
    turned = [p for p in probes if p["before"]["correct"] != p["now"]["correct"]]
    return {
        **_count(probes),
        "lost": [p for p in turned if p["before"]["correct"]],
        "regained": [p for p in turned if p["now"]["correct"]],
    }


def _forgotten(found: Forgotten | None) -> dict[str, Any]:
    """What is left of what was to be forgotten: exact answers now, before and of the base, which
    never knew it. Its questions are not repeated."""
    if found is None:
        return {"k": None, "n": 0, "before": None, "base": None}
    return {
        "k": found.candidate.k,
        "n": found.n,
        "before": found.parent.k,
        "base": found.base.k,
    }


def _how(row: StoredCycle, report: CycleReport, weights: str) -> dict[str, Any]:
    base = report.base or BaseName("", "", "")
    return {
        "started_at": row.started_at,
        "frozen_at": report.frozen_at,
        "first_step_at": report.first_step_at,
        "steps": report.steps,
        "exposures": report.exposures,
        "base": asdict(base),
        "weights_sha256": weights,
        "settings": row.settings,
    }


def interval(k: int, n: int) -> dict[str, float | None]:
    """The 95 % score interval of k/n as `lower` and `upper`; None where nothing was asked."""
    if not n:
        return {"lower": None, "upper": None}
    from autodidact.evaluation.statistics import wilson  # loads scipy: not at a program's start

    lower, upper = wilson(k, n, LEVEL)
    return {"lower": lower, "upper": upper}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
