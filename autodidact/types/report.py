"""The report of a cycle: every figure the decision was made on, and every answer.

`report_from_json` is the only place that knows how earlier versions wrote one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autodidact.errors import Misfit
from autodidact.types import wire
from autodidact.types.cycle import (
    Count,
    CycleState,
    Figures,
    Kind,
    ProbeResult,
    Reason,
    RuleResult,
    failed,
    reasons_from_json,
)
from autodidact.types.documents import Split


@dataclass(frozen=True)
class BaseName:
    """The base that a version belongs to."""

    name: str
    revision: str
    sha256: str


@dataclass(frozen=True)
class Look:
    """What the gate said of the candidate at λ = `step`."""

    step: float
    ok: bool
    reasons: tuple[Reason, ...]
    figures: Figures | None
    rules: tuple[RuleResult, ...]


@dataclass(frozen=True)
class TaughtDocument:
    id: int
    title: str
    uri: str


@dataclass(frozen=True)
class Suggestion:
    """A question for people, and the address of the document that answers it."""

    question: str
    source: str


@dataclass(frozen=True)
class Remains:
    """Exact answers, and the mean margin a token, of what was to be forgotten."""

    k: int
    margin: float


@dataclass(frozen=True)
class Forgotten:
    """What is left of what was to be forgotten, of `n` questions, beside the base that never knew
    it. No question or answer is repeated here."""

    n: int
    base: Remains
    parent: Remains
    candidate: Remains


@dataclass(frozen=True)
class Asked:
    """A probe with both answers, the parent's and the candidate's."""

    id: str
    question: str
    answer: str
    split: Split
    document_id: int
    title: str
    kind: str
    relation: str
    wording: str
    before: ProbeResult
    now: ProbeResult


@dataclass(frozen=True)
class CycleReport:
    """A cycle that is closed. Without `figures` nothing was measured, or it is not known any more.

    `seconds` are of all its starts together; `step` is λ of the last look; `exposures` is how often
    each fact was shown; `frozen_at` and `first_step_at` are Unix time; `log` is the end of what a
    study said that failed.
    """

    cycle: int
    state: CycleState
    seconds: int
    kind: Kind = "learn"
    reasons: tuple[Reason, ...] = ()
    parent: int | None = None
    base: BaseName | None = None
    documents: tuple[TaughtDocument, ...] = ()
    figures: Figures | None = None
    rules: tuple[RuleResult, ...] = ()
    step: float | None = None
    looks: tuple[Look, ...] = ()
    forgotten: Forgotten | None = None
    suggestions: tuple[Suggestion, ...] = ()
    steps: int | None = None
    exposures: int | None = None
    replay: float | None = None
    frozen_at: float | None = None
    first_step_at: float | None = None
    probes: tuple[Asked, ...] = ()
    log: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.state == "published"

    @property
    def failed(self) -> tuple[str, ...]:
        """The rules that refused it."""
        return failed(self.reasons) if self.state == "rejected" else ()


_FIGURES = ("unseen", "control", "kept", "margin", "general", "chat")


def report_from_json(stored: Any, where: str) -> CycleReport:
    """A report as it is stored, by this version or an earlier one. Raises Misfit."""
    if isinstance(stored, dict) and "figures" not in stored:
        stored = _converted(stored)
    return wire.from_json(CycleReport, json.dumps(stored), where)


def report_of(manifest: Mapping[str, Any]) -> CycleReport | None:
    """The report that a manifest holds; None without one that makes sense."""
    try:
        return report_from_json(manifest["report"], "the manifest's report")
    except (KeyError, TypeError, ValueError, RecursionError, Misfit):
        return None


def _converted(old: dict[str, Any]) -> dict[str, Any]:
    """A report of the time when figures stood among the other keys, and λ was called so."""
    new = {
        key: value
        for key, value in old.items()
        if key not in ("ok", "version", "failed", "learned", "lambda", "started_at", *_FIGURES)
    }
    new["reasons"] = _reasons(old)
    new["step"] = old.get("lambda")
    new["figures"] = _figures({**old, "taught": old.get("learned") or asdict(Count(0, 0, 0))})
    new["looks"] = [
        {
            "step": look["lambda"],
            "ok": look["ok"],
            "reasons": _reasons(look),
            "figures": _figures(look.get("metrics") or {}),
            "rules": (look.get("metrics") or {}).get("rules", ()),
        }
        for look in old.get("looks") or ()
    ]
    return new


def _reasons(old: dict[str, Any]) -> list[dict[str, str]]:
    found = reasons_from_json(old.get("reasons"))
    return [{"rule": reason.rule, "text": reason.text} for reason in found]


def _figures(old: dict[str, Any]) -> dict[str, Any] | None:
    """None where nothing was measured."""
    if not old.get("general"):
        return None
    return {key: old[key] for key in ("taught", *_FIGURES)}
