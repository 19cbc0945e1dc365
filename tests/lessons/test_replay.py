"""Replay: which facts come again, how often against each other, and that no text takes it all."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.lessons import replay
from autodidact.lessons.replay import DOCUMENT_CAP, DUE, EVEN, FADED
from autodidact.types.documents import LearnedFact

CYCLE = 40
LOGPROBS = st.none() | st.floats(-30, 0)


@st.composite
def memories(draw: st.DrawFn, least: int = 1, documents: int = 30) -> list[LearnedFact]:
    """Facts of up to `documents` documents, some never measured."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(1, documents), st.integers(0, CYCLE - 1), LOGPROBS, LOGPROBS
            ),
            min_size=least,
            max_size=60,
        )
    )  # fmt: skip
    return [
        LearnedFact(f"{document}-{i:08x}", document, learned_in, then, now)
        for i, (document, learned_in, then, now) in enumerate(rows)
    ]


def by_document(facts: list[LearnedFact], shares: dict[str, float]) -> Counter[int]:
    totals: Counter[int] = Counter()
    for fact in facts:
        totals[fact.document_id] += shares[fact.fact]  # type: ignore[assignment]
    return totals


def one_each(count: int) -> list[LearnedFact]:
    """A fact a document, learned three cycles ago (not due), as well known as when learned."""
    return [LearnedFact(f"{i}-0000000a", i, CYCLE - 3, -1.0, -1.0) for i in range(1, count + 1)]


@given(memories())
def test_the_shares_of_all_facts_sum_to_one_and_every_fact_has_one(
    facts: list[LearnedFact],
) -> None:
    shares = replay.weights(facts, CYCLE)
    assert list(shares) == [fact.fact for fact in facts]
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0


@given(memories())
def test_no_document_gets_more_than_the_cap(facts: list[LearnedFact]) -> None:
    totals = by_document(facts, replay.weights(facts, CYCLE))
    assert max(totals.values()) <= max(DOCUMENT_CAP, 1 / len(totals)) * (1 + 1e-6)


@given(memories(least=2, documents=4))
def test_of_few_documents_each_gets_the_same(facts: list[LearnedFact]) -> None:
    """With fewer than ten the cap cannot hold; the nearest to it is an equal share."""
    totals = by_document(facts, replay.weights(facts, CYCLE))
    assert list(totals.values()) == pytest.approx([1 / len(totals)] * len(totals))


@given(memories(least=2), st.integers(0, 59), st.floats(0.1, 10))
def test_a_fact_that_has_faded_more_weighs_no_less(
    facts: list[LearnedFact], which: int, more: float
) -> None:
    facts = [replace(f, then=f.then or -1.0, now=f.now or -1.0) for f in facts]
    fact = facts[which % len(facts)]
    assert fact.now is not None
    worse = replace(fact, now=fact.now - more)
    before = replay.weights(facts, CYCLE)
    after = replay.weights([worse if f is fact else f for f in facts], CYCLE)
    assert after[fact.fact] >= before[fact.fact] * (1 - 1e-9)


def test_half_goes_by_fading_and_the_rest_to_what_is_due_and_to_all() -> None:
    facts = one_each(40)
    facts[0] = replace(facts[0], now=-1.2)
    for i in range(1, 21):
        facts[i] = replace(facts[i], now=-1.2, document_id=100 + i)
    for i in range(21, 31):
        facts[i] = replace(facts[i], learned_in=CYCLE - 4)
    shares = list(replay.weights(facts, CYCLE).values())
    even = EVEN / 40
    assert shares[:21] == pytest.approx([FADED / 21 + even] * 21)
    assert shares[21:31] == pytest.approx([DUE / 10 + even] * 10)
    assert shares[31:] == pytest.approx([even] * 9)


@pytest.mark.parametrize("age", range(1, 20))
def test_facts_are_due_1_2_4_8_cycles_after_they_were_learned(age: int) -> None:
    facts = one_each(40)
    facts[7] = replace(facts[7], learned_in=CYCLE - age)
    shares = replay.weights(facts, CYCLE)
    others = shares[facts[0].fact]
    assert (shares[facts[7].fact] > others) == (age in (1, 2, 4, 8, 16))


def test_a_fact_that_got_better_counts_as_not_faded() -> None:
    facts = one_each(30)
    facts[3] = replace(facts[3], now=-0.1)
    assert len({round(share, 12) for share in replay.weights(facts, CYCLE).values()}) == 1


def test_a_fact_never_measured_counts_as_faded_as_the_others_on_average() -> None:
    facts = [replace(f, now=-1.0 - 0.1 * (i % 3)) for i, f in enumerate(one_each(30))]
    facts[0] = replace(facts[0], now=None)
    facts[1] = replace(facts[1], then=None)
    shares = list(replay.weights(facts, CYCLE).values())
    typical = sum(shares[2:]) / 28
    assert shares[0] == shares[1]
    assert shares[0] == pytest.approx(typical)


def test_with_nothing_measured_and_nothing_due_all_share_evenly() -> None:
    facts = [replace(f, then=None, now=None) for f in one_each(25)]
    assert list(replay.weights(facts, CYCLE).values()) == pytest.approx([1 / 25] * 25)


def test_nothing_remembered_nothing_replayed() -> None:
    assert replay.weights([], CYCLE) == {}
    assert replay.choose({}, "seed") == {}


# Choosing ---------------------------------------------------------------------------------------

SHARES = st.dictionaries(st.text(max_size=6), st.floats(0, 1), max_size=40)


@given(SHARES, st.integers(0, 50), st.text(max_size=4))
def test_what_is_chosen_is_chosen_once_and_weighs_once(
    shares: dict[str, float], most: int, seed: str
) -> None:
    chosen = replay.choose(shares, seed, most)
    assert len(chosen) == min(most, len(shares))
    assert chosen.keys() <= shares.keys()
    if len(shares) <= most:
        assert chosen == shares
    else:
        assert set(chosen.values()) <= {1 / most if most else 0}, "drawn by share, then even"
    assert chosen == replay.choose(shares, seed, most)


@given(SHARES, st.integers(0, 50))
def test_what_has_no_share_comes_last(shares: dict[str, float], most: int) -> None:
    chosen = replay.choose(shares, "seed", most)
    if any(shares[fact] == 0 for fact in chosen):
        assert {fact for fact, share in shares.items() if share > 0} <= chosen.keys()


@pytest.mark.parametrize("least", [5e-324, 2.2e-311, 1e-300])
def test_the_smallest_share_goes_before_none(least: float) -> None:
    for seed in range(50):
        assert replay.choose({"": 0.0, "0": least}, str(seed), 1) == {"0": 1.0}


def test_larger_shares_are_chosen_more_often_and_seeds_differ() -> None:
    shares = {"often": 0.5, **{f"seldom {i}": 0.05 for i in range(10)}}
    drawn = [frozenset(replay.choose(shares, str(seed), 3)) for seed in range(400)]
    count = Counter(fact for facts in drawn for fact in facts)
    # By hand: 1 − (1/2)(9/19)(8/18)… is about 0.9 for the one, 3/11 on average for all.
    assert count["often"] > 320
    assert all(40 < count[f"seldom {i}"] < 160 for i in range(10))
    assert len(set(drawn)) > 50


def test_of_thousands_with_small_shares_every_one_has_its_chance() -> None:
    """Small shares must not come out alike: then the order of the facts would choose."""
    order = random.Random(1)
    raw = [1 + order.random() for _ in range(6000)]
    shares = {str(i): value / sum(raw) for i, value in enumerate(raw)}
    chosen = [int(fact) for fact in replay.choose(shares, "seed", 1500)]
    quarters = Counter(i // 1500 for i in chosen)
    assert all(300 < quarters[q] < 450 for q in range(4)), quarters
