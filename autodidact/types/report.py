"""The report of a cycle: every figure the decision was made on, and every answer.

`report_from_json` is the only place that knows how earlier versions wrote one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from autodidact.errors import Misfit
from autodidact.types import wire
from autodidact.types.cycle import (
    ChatFigures,
    Count,
    CycleState,
    Figures,
    GeneralNll,
    Kind,
    MarginRise,
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
class ProbeAnswers:
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
    probes: tuple[ProbeAnswers, ...] = ()
    log: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.state == "published"

    @property
    def failed(self) -> tuple[str, ...]:
        """The rules that refused it."""
        return failed(self.reasons) if self.state == "rejected" else ()

    @property
    def starved(self) -> bool:
        """Whether its study had too little memory."""
        return any(reason.rule == "memory" for reason in self.reasons)


_FIGURES = ("unseen", "control", "kept", "margin", "general", "chat")


def report_from_json(stored: Any, where: str) -> CycleReport:
    """A report as it is stored, by this version or an earlier one. Raises Misfit."""
    if isinstance(stored, dict) and "figures" not in stored:
        try:
            stored = _converted(stored)
        except (KeyError, TypeError, AttributeError) as error:
            raise Misfit(f"{where}: no report: {error!r}") from error
    return wire.from_json(CycleReport, json.dumps(stored), where)


def report_of(manifest: Any) -> CycleReport | None:
    """The report that a manifest holds; None without one that makes sense."""
    if not isinstance(manifest, dict):
        return None
    try:
        return report_from_json(manifest.get("report"), "the manifest's report")
    except Misfit:
        return None


# Reports of versions before this one: figures stood among the other keys, and λ was called so -----

_NONE = Count(0, 0, 0)
_NOT_MEASURED = Figures(
    _NONE,
    _NONE,
    _NONE,
    _NONE,
    MarginRise(None, None, None, 0),
    GeneralNll(None, None, None, None, 0.0, None, 0),
    ChatFigures(_NONE, _NONE, _NONE),
)
_GONE = ("ok", "version", "failed", "learned", "lambda", "started_at")
_FIGURES = ("unseen", "control", "kept", "margin", "general", "chat")


def _converted(old: dict[str, Any]) -> dict[str, Any]:
    new = {key: value for key, value in old.items() if key not in (*_GONE, *_FIGURES)}
    new["reasons"] = _reasons(old)
    new["step"] = old.get("lambda")
    new["figures"] = _figures({**old, "taught": old.get("learned")})
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
    return [asdict(reason) for reason in reasons_from_json(old.get("reasons"))]


def _figures(old: dict[str, Any]) -> dict[str, Any] | None:
    """None where nothing was measured. The first versions knew fewer figures."""
    if not old.get("general"):
        return None
    return {
        key: {**nothing, **(old.get(key) or {})} for key, nothing in asdict(_NOT_MEASURED).items()
    }
