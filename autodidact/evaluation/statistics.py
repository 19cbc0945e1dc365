"""How sure is a mean, a share or a change? Seeded, so that equal figures get equal bounds.

- `clustered_mean`, `clustered_bootstrap`: bounds of a mean, and of a difference of two means, whose
  values come in clusters (probes of one document share its luck). Whole clusters are resampled
  (Davison and Hinkley 1997, § 3.8), and the bounds are quantiles of the resampled means.
- `wilson`: interval of a share (Wilson 1927).
- `mcnemar`: did paired yes/no answers change in one direction? Exact (McNemar 1947).
- `fisher`: is a share higher in one group than in another? Exact (Fisher 1935).
- `dealt`, `at_least`: how many replies fall to the right question if they are dealt out by lot? The
  hits of a random permutation, by rook polynomials (Kaplansky and Riordan 1946); groups and single
  answers are added up by convolution, as for the Poisson-binomial distribution (Hong 2013).

A plain percentile interval is too narrow where clusters are few: resampling m of m understates the
variance by (m − 1)/m and knows no t distribution. With 5 taught and 5 control documents its bound
that promises 1.7 % is passed by about 5 % of the pairs in which nothing differs. The quantiles are
therefore moved outwards (the "expanded" percentile interval of Hesterberg 2015, § 5.3, for two
groups with Welch's degrees of freedom).

With fewer than `ENOUGH_UNITS` units in a group no resampling can know the tails; a bound is then at
least as far out as Student's t interval has it.

Limits: two clusters or one say nothing about how clusters differ: single values are
resampled instead, which is too sure of itself if they hang together; `Interval.clusters` says so.
One value says nothing about spread at all: the bounds are infinite. Figures that are not finite
make everything NaN, so that no comparison with a limit holds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

DRAWS = 10_000
SEED = 20_240_229
FEWEST_CLUSTERS = 3
ENOUGH_UNITS = 6

Clusters = Sequence[Sequence[float]]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean or a difference of means. `lower` and `upper` each hold with probability `level`
    (one-sided; both together with 2·level − 1). `n` counts the values, in the first group where
    there are two. `clusters` tells what was resampled in each group: that many clusters, or 0
    where there were too few and single values were resampled."""

    value: float
    stderr: float
    lower: float
    upper: float
    level: float
    n: int
    clusters: tuple[int, ...]


@dataclass(frozen=True)
class McNemar:
    """p-values of "b and c are equally likely": `two_sided` against any difference, `one_sided`
    against "b is more likely"."""

    one_sided: float
    two_sided: float


def clustered_mean(
    clusters: Clusters, level: float = 0.95, *, draws: int = DRAWS, seed: int = SEED
) -> Interval:
    """Mean over all values (not over clusters) and its bounds; paired figures are given as their
    differences. Neither the order of the clusters nor that within them matters. Without a value
    everything is NaN."""
    return _interval([_Group.of(clusters)], level, draws, seed)


def clustered_bootstrap(
    taught: Clusters,
    control: Clusters,
    level: float = 0.95,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Interval:
    """Mean of `taught` minus mean of `control`, and its bounds; the groups are resampled
    independently. Without control values the mean of `taught` is compared with zero."""
    groups = [_Group.of(taught)]
    if any(len(cluster) for cluster in control):
        groups.append(_Group.of(control))
    return _interval(groups, level, draws, seed)


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the share k/n that holds with probability `level` (two-sided); (0, 1) for n 0."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # loads for half a second: only where it is needed

    found = binomtest(k, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def mcnemar(b: int, c: int) -> McNemar:
    """`b` pairs changed one way and `c` the other; pairs without a change tell nothing. Exact:
    under the null b is binomial with n = b + c and p = ½. Both p-values are 1 without a change."""
    if b + c == 0:
        return McNemar(1.0, 1.0)
    from scipy.stats import binomtest  # see `wilson`

    more = binomtest(b, b + c, 0.5, alternative="greater")
    other = binomtest(b, b + c, 0.5, alternative="two-sided")
    return McNemar(float(more.pvalue), float(other.pvalue))


def fisher(k: int, n: int, other_k: int, other_n: int) -> float:
    """p-value of "k of n is no higher a share than other_k of other_n", one-sided: given how many
    there are in all, they fall on either group by lot. 1 where a group is empty."""
    total, hits = n + other_n, k + other_k
    tail = sum(
        math.comb(hits, i) * math.comb(total - hits, n - i) for i in range(k, min(hits, n) + 1)
    )
    return tail / math.comb(total, n)


def dealt(replies: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Probabilities of 0, 1, 2, … right replies if these replies went to these questions, as many,
    by lot. Equal answers share their replies."""
    m = len(answers)
    assert len(replies) == m
    given = Counter(replies)
    rooks = [1]  # in how many ways k replies can be put where they are right
    for answer, places in Counter(answers).items():
        there = given[answer]
        ways = [math.comb(places, k) * math.perm(there, k) for k in range(min(places, there) + 1)]
        more = [0] * (len(rooks) + len(ways) - 1)
        for i, first in enumerate(rooks):
            for k, second in enumerate(ways):
                more[i + k] += first * second
        rooks = more
    at_all = math.factorial(m)
    return [
        sum(
            (-1) ** (k - right) * math.comb(k, right) * rooks[k] * math.factorial(m - k)
            for k in range(right, len(rooks))
        )
        / at_all
        for right in range(len(rooks))
    ]


def at_least(k: int, groups: Iterable[Sequence[float]]) -> float:
    """Probability of k or more in all, from each group's probabilities of 0, 1, 2, …; groups are
    independent."""
    total = np.ones(1)
    for group in groups:
        total = np.convolve(total, group)
    return min(1.0, float(total[k:].sum()))


@dataclass(frozen=True)
class _Group:
    """The units that are resampled, as their sums and sizes, in an order that depends on the
    figures alone, and is the same when all of them shift."""

    sums: _Floats
    sizes: _Floats
    clusters: int

    @classmethod
    def of(cls, clusters: Clusters) -> _Group:
        filled = [np.sort(np.asarray(c, dtype=np.float64)) for c in clusters if len(c)]
        enough = len(filled) >= FEWEST_CLUSTERS
        if not enough:
            filled = [np.array([value]) for cluster in filled for value in cluster]
        with np.errstate(all="ignore"):  # what overflows becomes NaN bounds
            units = sorted((len(c), float(c.sum())) for c in filled)
        sums = np.array([total for _, total in units], dtype=np.float64)
        sizes = np.array([size for size, _ in units], dtype=np.float64)
        return cls(sums, sizes, len(units) if enough else 0)

    @property
    def n(self) -> int:
        return int(self.sizes.sum())

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())

    def variance(self) -> float:
        """Of the mean, as resampling sees it: by deviations of whole units (linearised)."""
        deviations = self.sums - self.mean * self.sizes
        return float((deviations**2).sum() / self.sizes.sum() ** 2)

    def means(self, random: np.random.Generator, draws: int) -> _Floats:
        """Means of `draws` resamples of as many units, [draws]."""
        m = len(self.sums)
        times = random.multinomial(m, np.full(m, 1 / m), size=draws).astype(np.float64)
        found: _Floats = (times @ self.sums) / (times @ self.sizes)
        return found


def _interval(groups: Sequence[_Group], level: float, draws: int, seed: int) -> Interval:
    n, clusters = groups[0].n, tuple(group.clusters for group in groups)
    if n == 0 or not all(np.isfinite(group.sums).all() for group in groups):
        return Interval(math.nan, math.nan, math.nan, math.nan, level, n, clusters)
    with np.errstate(all="ignore"):
        value = groups[0].mean - (groups[1].mean if len(groups) > 1 else 0.0)
        if any(len(group.sums) == 1 for group in groups):
            return Interval(value, math.inf, -math.inf, math.inf, level, n, clusters)
        stderr, tail, student = _spread(groups, level)
        if not (math.isfinite(value) and math.isfinite(stderr)):
            return Interval(math.nan, math.nan, math.nan, math.nan, level, n, clusters)
        if stderr == 0.0:  # all alike: nothing to resample
            return Interval(value, 0.0, value, value, level, n, clusters)
        random = np.random.default_rng(seed)
        means = groups[0].means(random, draws)
        if len(groups) > 1:
            means = means - groups[1].means(random, draws)
        lower, upper = np.quantile(means, [tail, 1 - tail])
        if any(len(group.sums) < ENOUGH_UNITS for group in groups):
            lower = min(lower, value - student * stderr)
            upper = max(upper, value + student * stderr)
    return Interval(value, stderr, float(lower), float(upper), level, n, clusters)


def _spread(groups: Sequence[_Group], level: float) -> tuple[float, float, float]:
    """Standard error of the value; the tail of the resampled means that lies beyond a bound,
    Φ(−r·t), r the error over the one that resampling shows; and t, Student's at Welch's freedom."""
    shown = np.array([group.variance() for group in groups])
    if not shown.sum() > 0:
        return float(shown.sum()), 0.5, 0.0
    units = np.array([len(group.sums) for group in groups], dtype=np.float64)
    parts = shown / shown.sum() * units / (units - 1)  # of the true variance, in what is shown
    freedom = parts.sum() ** 2 / (parts**2 / (units - 1)).sum()
    ratio = np.sqrt(parts.sum())
    student = special.stdtrit(freedom, level)
    tail = special.ndtr(-ratio * student)
    return float(np.sqrt(shown.sum()) * ratio), float(tail), float(student)


def binomial_tail(k: int, n: int, share: float) -> float:
    """The probability of `k` or more of `n` where each has this share, independently."""
    return math.fsum(
        math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(max(0, k), n + 1)
    )
