"""The gate: stored measurements → Verdict. Pure functions, no model, no files.

A candidate passes when all of these hold:
- *sound*: it was trained on supervised tokens and loads and answers in the engine (checked before
  this module sees any figure; a failure there arrives as `sound`);
- *learned*: margins rose more on taught than on control probes. The effect is the difference in
  differences (candidate − parent, taught − control) in nats a token; documents are the units, so
  its standard error is clustered by document; the lower 95 % bound (one-sided, normal) must lie
  above 0;
- *general*: the NLL of held-out text that the base itself wrote rose by at most the limit over the
  untouched base.

This is the simple form; interval bounds by bootstrap, and the tests of what is kept and of chat,
are not here yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import Any

from autodidact.evaluators.recall import ProbeResult
from autodidact.types import Metric, Probe, Verdict

ONE_SIDED_95 = 1.645


def decide(
    probes: Sequence[Probe],
    parent: Mapping[str, ProbeResult],
    candidate: Mapping[str, ProbeResult],
    general: Mapping[str, float],
    general_limit: float,
    sound: str = "",
) -> Verdict:
    """`general`: mean NLL of `base`, `parent` and `candidate`; `sound`: a fault or ""."""
    if sound:
        return Verdict(False, (f"sound: {sound}",))
    effect = learned_effect(probes, parent, candidate)
    rise = general["candidate"] - general["base"]
    reasons = []
    lower = effect.value - ONE_SIDED_95 * effect.stderr
    if effect.n == 0:
        reasons.append("learned: no probe on a taught document")
    elif not math.isfinite(lower):
        reasons.append("learned: too few probes to tell")
    elif not lower > 0:
        reasons.append(
            f"learned: margin taught − control {effect.value:+.2f} nat, lower bound {lower:+.2f}, "
            "must be above 0"
        )
    if not rise <= general_limit:
        reasons.append(f"general: {rise:+.3f} nat over the base, limit {general_limit:+.3f}")
    metrics: dict[str, Any] = {
        split: counts(probes, parent, candidate, split) for split in ("taught", "control", "kept")
    }
    metrics["margin"] = {
        "value": effect.value,
        "stderr": effect.stderr if math.isfinite(effect.stderr) else None,
        "lower": lower if math.isfinite(lower) else None,
        "n": effect.n,
    }
    metrics["general"] = {
        **general,
        "rise": rise,
        "limit": general_limit,
        "pct": 100 * rise / general["base"],
    }
    return Verdict(not reasons, tuple(reasons), metrics)


def learned_effect(
    probes: Sequence[Probe],
    parent: Mapping[str, ProbeResult],
    candidate: Mapping[str, ProbeResult],
) -> Metric:
    """Rise of the margin, taught minus control, with its standard error clustered by document."""
    rises: dict[str, dict[int, list[float]]] = {"taught": {}, "control": {}}
    for probe in probes:
        if probe.split in rises and probe.id in parent and probe.id in candidate:
            rise = candidate[probe.id].margin - parent[probe.id].margin
            rises[probe.split].setdefault(probe.document_id, []).append(rise)
    if not rises["taught"]:
        return Metric("margin", 0.0, 0.0, 0)
    taught, control = (_cluster_mean(list(rises[s].values())) for s in ("taught", "control"))
    n = sum(len(rows) for rows in rises["taught"].values())
    return Metric("margin", taught[0] - control[0], math.hypot(taught[1], control[1]), n)


def counts(
    probes: Sequence[Probe],
    parent: Mapping[str, ProbeResult],
    candidate: Mapping[str, ProbeResult],
    split: str,
) -> dict[str, int]:
    """Probes of a split answered exactly: k of n by the candidate, `before` by its parent."""
    asked = [p.id for p in probes if p.split == split and p.id in parent and p.id in candidate]
    return {
        "k": sum(candidate[i].correct for i in asked),
        "n": len(asked),
        "before": sum(parent[i].correct for i in asked),
    }


def _cluster_mean(clusters: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean over all values and its standard error with clusters as units (values themselves where
    there are fewer than three clusters). No clusters: (0, 0)."""
    values = [value for cluster in clusters for value in cluster]
    if not values:
        return 0.0, 0.0
    mean = fmean(values)
    if len(clusters) < 3:
        spread = variance(values) if len(values) > 1 else math.inf
        return mean, math.sqrt(spread / len(values))
    sums = [sum(value - mean for value in cluster) for cluster in clusters]
    m = len(clusters)
    return mean, math.sqrt(m / (m - 1) * sum(s * s for s in sums)) / len(values)
