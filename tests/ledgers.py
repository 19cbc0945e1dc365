"""Ledgers with cycles in them, filled by hand through the store, as a learner would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autodidact.store.ledger import LearnerStore
from autodidact.types.cycle import (
    ChatFigures,
    Count,
    CycleState,
    Figures,
    GeneralNll,
    MarginRise,
    Reason,
)
from autodidact.types.documents import Document, Probe
from autodidact.types.report import report_from_json

FROZEN_AT = 1_800_000_000.0


def result(correct: bool, reply: str = "", margin: float | None = None) -> dict[str, Any]:
    return {
        "reply": reply or ("right" if correct else "wrong"),
        "correct": int(correct),
        "logprob": -0.2 if correct else -2.0,
        "margin": (1.5 if correct else -1.0) if margin is None else margin,
    }


def asked(
    name: str, split: str, document: int, before: bool, now: bool, **more: Any
) -> dict[str, Any]:
    """A probe as a report tells it."""
    return {
        "id": name,
        "question": f"What is {name}?",
        "answer": f"the {name}",
        "split": split,
        "document_id": document,
        "title": "A title",
        "kind": "name",
        "relation": "built",
        "wording": "built/2",
        "before": {"probe_id": name, **result(before)},
        "now": {"probe_id": name, **result(now)},
        **more,
    }


def rule(name: str, against: str, ok: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "rule": name, "against": against, "ok": ok, "value": 0.03, "lower": -0.01, "upper": 0.06,
        "limit": 0.1, "before": None, "now": None, "n": 40, "unit": "nat", "text": "", **more,
    }  # fmt: skip


def full_report(document: int, **more: Any) -> dict[str, Any]:
    """All that a report has, as versions before this one stored it; `document` was taught."""
    return {
        "kind": "learn",
        "seconds": 292, "steps": 480, "exposures": 96, "lambda": 0.5,
        "looks": [
            {"lambda": 1.0, "ok": False, "metrics": {},
             "reasons": [{"rule": "general", "text": "too far"}]},
            {"lambda": 0.5, "ok": True, "reasons": [], "metrics": {}},
        ],
        "started_at": FROZEN_AT - 9, "frozen_at": FROZEN_AT, "first_step_at": FROZEN_AT + 23,
        "learned": {"k": 2, "n": 3, "before": 0}, "unseen": {"k": 1, "n": 2, "before": 0},
        "control": {"k": 0, "n": 1, "before": 0}, "kept": {"k": 2, "n": 3, "before": 2},
        "rules": [
            rule("learned", "control", value=1.92, lower=1.31, upper=2.55, limit=0.0),
            rule("general", "base"),
            rule("general", "parent"),
            rule("kept", "learned", limit=0.15, n=200),
            rule("chat", "base", value=0.003, lower=-0.013, upper=0.019, limit=0.05, unit="share"),
        ],
        "general": {"base": 2.0, "parent": 2.01, "candidate": 2.03, "rise": 0.03, "limit": 0.1,
                    "pct": 1.5, "n": 200},
        "margin": {"value": 1.92, "stderr": 0.3, "lower": 1.31, "n": 2},
        "chat": {
            "base": {"k": 293, "n": 300}, "parent": {"k": 292, "n": 300},
            "candidate": {"k": 291, "n": 300},
        },
        "documents": [{"id": document, "title": "Anneck Light", "uri": "library/anneck.md"}],
        "base": {"name": "tiny", "revision": "main", "sha256": "b" * 64},
        "probes": [
            asked("lamp", "taught", document, False, True),
            asked("tower", "taught", document, False, True),
            asked("keeper", "taught", document, False, False),
            asked("stone", "unseen", document, False, True),
            asked("rock", "unseen", document, False, False),
            asked("bridge", "control", -1, False, False),
            asked("bell", "kept", 7, True, False),
            asked("toll", "kept", 7, False, True),
            asked("roof", "kept", 7, True, True),
        ],
        **more,
    }  # fmt: skip


def figures(k: int, n: int, before: int = 0) -> Figures:
    """What the gate saw of a candidate that knows k of n taught facts."""
    nll = GeneralNll(2.0, 2.01, 2.03, 0.03, 0.1, 1.5, 200)
    chat = ChatFigures(Count(293, 300), Count(292, 300), Count(291, 300))
    none = Count(0, 0, 0)
    return Figures(
        Count(k, n, before), none, Count(0, n, 0), none, MarginRise(1.92, 0.3, 1.31, n), nll, chat
    )


def rejected_report(document: int) -> dict[str, Any]:
    rules = [
        rule("learned", "control", value=1.9, lower=1.3, upper=2.5, limit=0.0),
        rule("general", "base", ok=False, value=0.14, lower=0.12, upper=0.16),
        rule("general", "parent"),
    ]
    return full_report(document, rules=rules, failed=["general"], looks=[], **{"lambda": None})


def add_document(store: LearnerStore, name: str) -> int:
    """Queue a document titled `name`; returns its id."""
    documents = store.documents
    documents.add(Document("files", f"library/{name}.md", name, f"About {name}.", "", name, name))
    [found] = [d.id for d in documents.in_state("queued") if d.document.title == name]
    return found


def run_cycle(
    store: LearnerStore,
    n: int,
    documents: Sequence[int],
    state: CycleState = "published",
    report: Mapping[str, Any] | None = None,
    results: Mapping[str, Mapping[int, tuple[int, int]]] | None = None,
) -> None:
    """A whole cycle. `results`: split → document → (k, n) exact answers of the candidate."""
    store.cycles.begin(n, n - 1 or None, {"rank": 8})
    for split, counts in (results or {}).items():
        for document, (k, count) in counts.items():
            mark = "u" if split == "unseen" else ""
            names = [f"{document}-{place:08x}{mark}" for place in range(count)]
            store.probes.freeze(n, [_probe(name, document, split) for name in names])
            store.cycles.study(n, documents)
            for arm, right in (("parent", 0), ("candidate", k)):
                rows = [
                    {"probe_id": name, "split": split, **result(place < right)}
                    for place, name in enumerate(names)
                ]
                store.probes.record(n, arm, rows)
    store.cycles.study(n, documents)
    told = {"cycle": n, "state": state, "seconds": 0, **(report or {})}
    found = report_from_json(told, "a report of the time before")
    why = Reason("general", "+0.140 nat over the base, limit +0.100")
    reasons = () if state == "published" else (why,)
    store.cycles.finish(n, state, reasons, found)


def _probe(name: str, document: int, split: str) -> Probe:
    kind = "taught" if split == "kept" else split
    return Probe(name, document, "Q?", "A", ("B",), "name", "built", "built/1", kind)  # type: ignore[arg-type]
