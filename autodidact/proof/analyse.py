"""From stored scores to effects with intervals. Pure: rows in, plain figures out.

The effect is a difference in differences: (trained − base) on taught articles minus (trained −
base) on control articles. With swapped arms every question is taught in one arm and control in the
other, so its two gains are paired; each arm's own level, the mean of its taught and its control
gain, is taken out first, so that an arm that is stronger everywhere does not count. The mean of the
paired differences is then the mean of the arms' differences in differences. Intervals are 95 %,
from a bootstrap clustered by article (10,000 draws, `evaluation.statistics`), all seeds of an
article in one cluster.

Two more guards, both by drawing the lots again: `randomisation` is the share of all drawings that
give at least the effect that was found (one-sided, exact under the null); `labels_permuted` takes
the effect out, draws the labels anew and counts how often the interval's lower bound is above 0,
which should be 2.5 %.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodidact.evaluation import statistics as evaluated

LEVEL = 0.975
"""One-sided level of each bound: both together hold with 95 %."""
PERMUTATIONS = 2000

Figure = dict[str, Any]


@dataclass(frozen=True)
class Gain:
    """What a question gained in one arm of one seed: one metric, trained minus base."""

    seed: int
    arm: str
    title: str
    question: str
    taught: bool
    value: float


def figure(interval: evaluated.Interval, articles: int) -> Figure:
    """An interval as JSON. Bounds that nothing is known about are None."""

    def plain(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return {
        "value": plain(interval.value),
        "lower": plain(interval.lower),
        "upper": plain(interval.upper),
        "n": interval.n,
        "articles": articles,
    }


def mean(values: Sequence[tuple[str, float]]) -> Figure:
    """Mean of (article, value) with its article-clustered interval."""
    clusters = _clustered(values)
    return figure(evaluated.clustered_mean(list(clusters.values()), LEVEL), len(clusters))


def effect(gains: Sequence[Gain]) -> Figure:
    """The pooled difference in differences. Without a swap (one arm a seed) the two groups are
    resampled independently. Arms of which only one side was asked (a subset may leave none of the
    other) say nothing and are left out."""
    gains = _two_sided(gains)
    articles = len({gain.title for gain in gains})
    paired = _paired(_centred(gains))
    if paired is not None:
        found = evaluated.clustered_mean(list(_clustered(paired).values()), LEVEL)
        return figure(found, articles)
    sides = [
        list(_clustered([(g.title, g.value) for g in _centred(gains) if g.taught is side]).values())
        for side in (True, False)
    ]
    if not all(sides):
        return figure(evaluated.clustered_mean([], LEVEL), articles)
    return figure(evaluated.clustered_bootstrap(sides[0], sides[1], LEVEL), articles)


def each_arm(gains: Sequence[Gain]) -> list[dict[str, Any]]:
    """The difference in differences of every arm by itself, without an interval."""
    return [
        {"seed": seed, "arm": arm, "value": taught - control}
        for (seed, arm), (taught, control) in sorted(_side_means(gains).items())
        if taught is not None and control is not None
    ]


def randomisation(gains: Sequence[Gain], draws: int = PERMUTATIONS, seed: int = 0) -> float | None:
    """Share of random assignments of articles to the arms' halves whose effect is at least the one
    found, itself included; None without swapped arms."""
    tables = _tables(_two_sided(gains))
    if tables is None:
        return None
    found = _effect_of(tables, [table.taught for table in tables])
    order = np.random.default_rng(seed)
    least = sum(
        _effect_of(tables, [order.permutation(table.taught) for table in tables]) >= found - 1e-12
        for _ in range(draws)
    )
    return (1 + int(least)) / (1 + draws)


def labels_permuted(gains: Sequence[Gain], times: int = 200, seed: int = 0) -> dict[str, Any]:
    """A/A: how often an interval finds an effect where there is none: k of n lower bounds above 0.

    The gains have their own side's mean taken out (by arm), then articles are assigned to the
    arms' halves at random, as many to each as before, and the effect is estimated as ever.
    """
    order = random.Random(seed)
    empty = _emptied(gains)
    titles = {s: sorted({g.title for g in gains if g.seed == s}) for s in {g.seed for g in gains}}
    taught = {
        (s, arm): {g.title for g in gains if g.taught and (g.seed, g.arm) == (s, arm)}
        for s, arm in {(g.seed, g.arm) for g in gains}
    }
    k = 0
    for _ in range(times):
        moved = {s: dict(zip(names, order.sample(names, len(names)), strict=True))
                 for s, names in titles.items()}  # fmt: skip
        again = [
            Gain(g.seed, g.arm, g.title, g.question,
                 moved[g.seed][g.title] in taught[g.seed, g.arm], g.value)
            for g in empty
        ]  # fmt: skip
        lower = effect(again)["lower"]
        k += lower is not None and lower > 0
    low, high = evaluated.wilson(k, times)
    return {"k": k, "n": times, "share": k / times, "lower": low, "upper": high, "promised": 0.025}


def share(k: int, n: int) -> Figure:
    """k of n with Wilson's interval."""
    low, high = evaluated.wilson(k, n)
    return {"k": k, "n": n, "value": k / n if n else None, "lower": low, "upper": high}


# --- pieces ---------------------------------------------------------------------------------------


def _clustered(values: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    clusters: dict[str, list[float]] = {}
    for title, value in values:
        clusters.setdefault(title, []).append(value)
    return clusters


def _side_means(gains: Sequence[Gain]) -> dict[tuple[int, str], tuple[float | None, float | None]]:
    """Mean taught and mean control gain of every arm."""
    sums: dict[tuple[int, str, bool], list[float]] = {}
    for gain in gains:
        entry = sums.setdefault((gain.seed, gain.arm, gain.taught), [0.0, 0.0])
        entry[0] += gain.value
        entry[1] += 1

    def side(seed: int, arm: str, taught: bool) -> float | None:
        total, count = sums.get((seed, arm, taught), (0.0, 0.0))
        return total / count if count else None

    keys = {(seed, arm) for seed, arm, _ in sums}
    return {key: (side(*key, True), side(*key, False)) for key in keys}


def _two_sided(gains: Sequence[Gain]) -> list[Gain]:
    """The gains of arms that have taught and control questions: without both, an arm's level
    cannot be told from its effect."""
    means = _side_means(gains)
    return [gain for gain in gains if None not in means[gain.seed, gain.arm]]


def _centred(gains: Sequence[Gain]) -> list[Gain]:
    """Every gain less the level of its arm."""
    levels = {}
    for key, sides in _side_means(gains).items():
        known = [value for value in sides if value is not None]
        levels[key] = sum(known) / len(known)
    return [_with(gain, gain.value - levels[gain.seed, gain.arm]) for gain in gains]


def _emptied(gains: Sequence[Gain]) -> list[Gain]:
    """Every gain less the mean of its side of its arm: nothing is left to find."""
    means = _side_means(gains)
    emptied = []
    for gain in gains:
        taught, control = means[gain.seed, gain.arm]
        emptied.append(_with(gain, gain.value - ((taught if gain.taught else control) or 0.0)))
    return emptied


def _hoped_for(gains: Sequence[Gain], metric: str) -> list[Gain]:
    """Gains so that more is better: an NLL should fall."""
    return [_with(gain, -gain.value) for gain in gains] if metric == "nll" else list(gains)


def _with(gain: Gain, value: float) -> Gain:
    return Gain(gain.seed, gain.arm, gain.title, gain.question, gain.taught, value)


def _paired(gains: Sequence[Gain]) -> list[tuple[str, float]] | None:
    """(article, taught − control) for every question of a seed; None if one has not both."""
    sides: dict[tuple[int, str, str], dict[bool, float]] = {}
    for gain in gains:
        sides.setdefault((gain.seed, gain.title, gain.question), {})[gain.taught] = gain.value
    if not sides or any(len(side) != 2 for side in sides.values()):
        return None
    return [(title, side[True] - side[False]) for (_, title, _), side in sides.items()]


@dataclass(frozen=True)
class _Table:
    """One seed: sums of gains in both arms and questions, by article; who is taught in the first
    arm."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    sizes: NDArray[np.float64]
    taught: NDArray[np.bool_]


def _tables(gains: Sequence[Gain]) -> list[_Table] | None:
    if _paired(gains) is None:
        return None
    tables = []
    for seed in sorted({gain.seed for gain in gains}):
        own = [gain for gain in gains if gain.seed == seed]
        arms, titles = sorted({g.arm for g in own}), sorted({g.title for g in own})
        place = {title: i for i, title in enumerate(titles)}
        sums = np.zeros((2, len(titles)))
        sizes = np.zeros((2, len(titles)))
        taught = np.zeros(len(titles), dtype=np.bool_)
        for gain in own:
            arm, i = arms.index(gain.arm), place[gain.title]
            sums[arm, i] += gain.value
            sizes[arm, i] += 1
            if arm == 0:
                taught[i] = gain.taught
        tables.append(_Table(sums[0], sums[1], sizes[0], taught))
    return tables


def _effect_of(tables: Sequence[_Table], taught: Sequence[NDArray[np.bool_]]) -> float:
    """The pooled effect under an assignment; a seed counts by its questions."""
    total, weight = 0.0, 0.0
    for table, chosen in zip(tables, taught, strict=True):
        n_in, n_out = table.sizes[chosen].sum(), table.sizes[~chosen].sum()
        first = table.first[chosen].sum() / n_in - table.first[~chosen].sum() / n_out
        second = table.second[~chosen].sum() / n_out - table.second[chosen].sum() / n_in
        total += float(first + second) / 2 * float(n_in + n_out)
        weight += float(n_in + n_out)
    return total / weight


# --- what the page tells --------------------------------------------------------------------------


def outcomes(
    gains_by_metric: Mapping[str, Sequence[Gain]],
    before: Mapping[str, Sequence[tuple[bool, str, float]]],
    after: Mapping[str, Sequence[tuple[bool, str, float]]],
) -> dict[str, Any]:
    """For each metric the levels before and after on both sides, the effect and its guards.

    `before` and `after` hold (taught, article, value) of every question and arm.
    """
    found: dict[str, Any] = {}
    for metric, gains in gains_by_metric.items():
        levels = {
            when: {
                side: mean([(title, value) for taught, title, value in rows if taught is flag])
                for side, flag in (("taught", True), ("control", False))
            }
            for when, rows in (("before", before[metric]), ("after", after[metric]))
        }
        found[metric] = {
            **levels,
            "effect": {**effect(gains), "p": randomisation(_hoped_for(gains, metric))},
            "arms": each_arm(gains),
        }
    return found
