"""Bounds, against numbers known otherwise: by formula, by hand or by simulation."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autodidact.evaluation import statistics
from autodidact.evaluation.statistics import clustered_bootstrap, clustered_mean, mcnemar, wilson

VALUES = st.floats(-50, 50)
CLUSTERS = st.lists(st.lists(VALUES, max_size=4), max_size=8)


def singles(values: object) -> list[list[float]]:
    return [[float(value)] for value in values]  # type: ignore[attr-defined]


# Means ------------------------------------------------------------------------------------------


def test_many_independent_values_have_the_bounds_of_the_normal() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.5, 400)
    found = clustered_mean(singles(values), 0.95)
    error = float(values.std(ddof=1)) / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.stderr == pytest.approx(error)
    assert found.lower == pytest.approx(values.mean() - 1.645 * error, abs=0.06 * error)
    assert found.upper == pytest.approx(values.mean() + 1.645 * error, abs=0.06 * error)


def test_a_difference_of_means_has_the_bounds_of_the_normal() -> None:
    draw = np.random.default_rng(4)
    one, other = draw.normal(1.0, 1.0, 300), draw.normal(0.0, 2.0, 200)
    found = clustered_bootstrap(singles(one), singles(other), 0.975)
    error = math.sqrt(one.var(ddof=1) / 300 + other.var(ddof=1) / 200)
    value = one.mean() - other.mean()
    assert (found.value, found.n) == (pytest.approx(value), 300)
    assert found.lower == pytest.approx(value - 1.96 * error, abs=0.08 * error)
    assert found.upper == pytest.approx(value + 1.96 * error, abs=0.08 * error)


def test_with_few_clusters_the_bound_is_about_that_of_student() -> None:
    """Eight documents: t at 7 degrees is 2.365, the normal would say 1.96."""
    values = np.linspace(-1.0, 1.0, 8)
    found = clustered_mean(singles(values), 0.975)
    error = float(values.std(ddof=1)) / math.sqrt(8)
    assert found.lower == pytest.approx(-2.365 * error, rel=0.06)


def test_values_of_a_cluster_are_not_independent() -> None:
    """Rises 1, 1 | 2, 2 | 3, 3: mean 2. Sums of deviations -2, 0, 2; m/(m-1) = 3/2; the variance
    of the mean is 3/2 · (4 + 0 + 4) / 6² = 1/3."""
    together = clustered_mean([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    assert (together.value, together.n, together.clusters) == (2.0, 6, (3,))
    assert together.stderr == pytest.approx(math.sqrt(1 / 3))
    apart = clustered_mean([[1.0], [1.0], [2.0], [2.0], [3.0], [3.0]])
    assert apart.stderr < together.stderr
    assert apart.lower > together.lower


def test_the_mean_is_over_values_and_not_over_clusters() -> None:
    assert clustered_mean([[1.0, 1.0, 1.0], [2.0], [3.0]]).value == pytest.approx(8 / 5)


def test_with_fewer_than_three_clusters_single_values_are_resampled_and_it_says_so() -> None:
    """Rises 1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 3 = 14/3, of the mean 14/12."""
    found = clustered_mean([[1.0, 2.0], [3.0, 6.0]])
    assert (found.value, found.clusters) == (3.0, (0,))
    assert found.stderr == pytest.approx(math.sqrt(14 / 12))
    assert found.lower < 1.0, "four values: Student's bound, not the least of them"
    assert found.upper > 3.0
    both = clustered_bootstrap([[1.0], [2.0], [3.0]], [[0.0, 0.5], [0.2]])
    assert both.clusters == (3, 0)


def test_the_errors_of_both_groups_add_up() -> None:
    taught = [[1.0], [2.0], [3.0]]
    alone = clustered_bootstrap(taught, [])
    assert (alone.value, alone.clusters) == (2.0, (3,))
    both = clustered_bootstrap(taught, [[0.0], [1.0], [2.0]])
    assert both.value == 1.0
    assert both.stderr == pytest.approx(math.sqrt(2) * alone.stderr)


def test_the_groups_are_not_resampled_in_step() -> None:
    """In step, equal groups would cancel draw by draw and the interval would be a point."""
    same = [[float(i)] for i in range(10)]
    found = clustered_bootstrap(same, same)
    assert found.lower < 0 < found.upper


def test_one_value_says_nothing_about_spread() -> None:
    for found in (
        clustered_mean([[7.0]]),
        clustered_bootstrap([[7.0]], [[0.0], [0.1], [0.2]]),
        clustered_bootstrap([[7.0], [7.1], [7.2]], [[0.0]]),
    ):
        assert math.isfinite(found.value)
        assert (found.lower, found.upper) == (-math.inf, math.inf)


def test_no_value_is_no_figure() -> None:
    found = clustered_mean([[], []])
    assert (found.n, math.isnan(found.value), math.isnan(found.lower)) == (0, True, True)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 1.7e308])
def test_what_is_not_finite_makes_every_bound_nan(odd: float) -> None:
    values = [[1.0], [odd], [2.0], [odd]]
    for found in (
        clustered_mean(values),
        clustered_bootstrap(values, [[0.0], [1.0], [2.0]]),
        clustered_bootstrap([[0.0], [1.0], [2.0]], values),
    ):
        assert math.isnan(found.lower)
        assert math.isnan(found.upper)


@pytest.mark.parametrize("documents", [5, 20])
def test_the_bound_is_wrong_as_often_as_promised(documents: int) -> None:
    """1,000 pairs of groups in which nothing differs, probes of a document alike. At 5 + 5
    documents a plain percentile interval would be wrong three times as often."""
    draw = np.random.default_rng(documents)
    level, runs, wrong = 1 - 0.05 / 3, 1000, 0
    for _ in range(runs):
        rises = draw.normal(size=(2 * documents, 5)) + 0.6 * draw.normal(size=(2 * documents, 1))
        found = clustered_bootstrap(
            rises[:documents].tolist(), rises[documents:].tolist(), level, draws=2000
        )
        wrong += found.lower > 0
    low, high = stats.binom.ppf([0.001, 0.999], runs, 1 - level)
    assert low <= wrong <= high


@settings(deadline=None, max_examples=50)
@given(CLUSTERS, CLUSTERS, st.integers(0, 99))
def test_the_order_changes_nothing_at_all(
    one: list[list[float]], other: list[list[float]], seed: int
) -> None:
    order = random.Random(seed)
    mixed = [
        [order.sample(cluster, len(cluster)) for cluster in order.sample(group, len(group))]
        for group in (one, other)
    ]
    assert repr(clustered_bootstrap(*mixed)) == repr(clustered_bootstrap(one, other))


@settings(deadline=None, max_examples=50)
@given(CLUSTERS, st.integers(-64, 64))
def test_a_shift_of_all_values_shifts_every_figure(clusters: list[list[float]], by: int) -> None:
    still = clustered_mean(clusters)
    moved = clustered_mean([[value + by for value in cluster] for cluster in clusters])
    for name in ("value", "lower", "upper"):
        expected = getattr(still, name) + by
        assert getattr(moved, name) == pytest.approx(expected, abs=1e-6, nan_ok=True)


@settings(deadline=None, max_examples=50)
@given(CLUSTERS, CLUSTERS)
def test_the_bounds_lie_around_the_value(one: list[list[float]], other: list[list[float]]) -> None:
    found = clustered_bootstrap(one, other)
    if math.isfinite(found.lower):
        assert found.lower <= found.value <= found.upper
        assert found.stderr >= 0


def test_equal_figures_get_equal_bounds_and_the_seed_matters() -> None:
    values = singles(np.random.default_rng(1).normal(size=30))
    assert clustered_mean(values) == clustered_mean(values)
    assert clustered_mean(values).lower != clustered_mean(values, seed=1).lower


def test_the_plain_quantiles_are_recovered_where_clusters_are_many() -> None:
    """What moves the quantiles outwards fades with the number of clusters."""
    groups = [statistics._Group.of(singles(np.random.default_rng(0).normal(size=5000)))]
    assert statistics._spread(groups, 0.95)[1] == pytest.approx(0.05, abs=2e-4)


# Shares -----------------------------------------------------------------------------------------


def test_wilson_by_hand() -> None:
    """k = 8 of 10, z = 1.96: centre (.8 + z²/20) / (1 + z²/10) = .7167, half-width
    z·√(.8·.2/10 + z²/400) / (1 + z²/10) = .2268."""
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0
    assert 0.0 < wilson(5, 5)[0] < 1.0


@pytest.mark.parametrize(
    ("b", "c", "one", "two"),
    [
        (0, 0, 1.0, 1.0),
        (5, 0, 1 / 32, 2 / 32),  # ½⁵
        (4, 0, 1 / 16, 2 / 16),
        (0, 5, 1.0, 2 / 32),
        (1, 6, 127 / 128, 16 / 128),  # 1 − ½⁷; twice (1 + 7)/2⁷
        (6, 2, 37 / 256, 74 / 256),  # (28 + 8 + 1) / 2⁸
        (3, 3, 42 / 64, 1.0),  # (20 + 15 + 6 + 1) / 2⁶
    ],
)
def test_mcnemar_by_hand(b: int, c: int, one: float, two: float) -> None:
    found = mcnemar(b, c)
    assert found.one_sided == pytest.approx(one)
    assert found.two_sided == pytest.approx(two)


# Exact answers ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 12), st.integers(0, 12), st.data())
def test_fisher_is_scipy_s(n: int, m: int, data: st.DataObject) -> None:
    k, other = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    expected = stats.fisher_exact([[k, n - k], [other, m - other]], alternative="greater").pvalue
    assert statistics.fisher(k, n, other, m) == pytest.approx(expected)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcxy")), max_size=6))
def test_replies_dealt_by_lot_are_right_as_often_as_counting_says(
    pairs: list[tuple[str, str]],
) -> None:
    answers, replies = [a for a, _ in pairs], [r for _, r in pairs]
    counted = Counter(
        sum(reply == answer for reply, answer in zip(order, answers, strict=True))
        for order in itertools.permutations(replies)
    )
    found = statistics.dealt(replies, answers)
    assert sum(found) == pytest.approx(1)
    assert all(
        share == pytest.approx(counted[right] / counted.total())
        for right, share in enumerate(found)
    )
    assert max(counted) < len(found)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 1), max_size=8), st.integers(0, 9))
def test_so_many_of_single_answers_are_as_likely_as_all_ways_together(
    chances: list[float], k: int
) -> None:
    """The Poisson-binomial tail, by brute force."""
    every = itertools.product((0, 1), repeat=len(chances))
    expected = math.fsum(
        math.prod(c if hit else 1 - c for c, hit in zip(chances, hits, strict=True))
        for hits in every
        if sum(hits) >= k
    )
    found = statistics.at_least(k, [[1 - c, c] for c in chances])
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_hundred_neighbours_are_counted_exactly() -> None:
    names = [str(i) for i in range(100)]
    found = statistics.dealt(names, names)
    assert found[:3] == pytest.approx([math.exp(-1), math.exp(-1), math.exp(-1) / 2])
    assert found[100] == pytest.approx(1 / math.factorial(100), rel=1e-9)


@given(st.integers(0, 12), st.integers(1, 12), st.floats(0.01, 0.99))
def test_a_binomial_tail_is_that_of_scipy(k: int, n: int, share: float) -> None:
    assert statistics.binomial_tail(k, n, share) == pytest.approx(
        float(stats.binom.sf(k - 1, n, share)), abs=1e-9
    )
