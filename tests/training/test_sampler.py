"""The sampler: what is known comes seldom, what is not often, and every batch is what it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.training.pace import Clock
from autodidact.training.sampler import KNOWN, Sampler, replay_share
from autodidact.training.sequences import TrainingSequence


def rows(facts: int, forms: int = 4, name: str = "f") -> list[TrainingSequence]:
    return [
        TrainingSequence((1, f, form), (-100, f, form), "question", 1, fact=f"{name}{f}")
        for f in range(facts)
        for form in range(forms)
    ]


def shown(made: Sampler, steps: int, known: Sequence[str] = ()) -> Counter[str]:
    """How often each fact came, while the model knows `known` and nothing else."""
    count: Counter[str] = Counter()
    for _ in range(steps):
        batch = made.next()
        count.update(row.fact for row in batch)
        made.heard(batch, [row.fact in known for row in batch])
    return count


@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 8), st.integers(0, 5))
def test_unknown_facts_take_turns_and_so_do_their_sequences(
    facts: int, forms: int, size: int, seed: int
) -> None:
    made = Sampler(rows(facts, forms), [], 0.0, size, seed)
    drawn = [row for _ in range(30) for row in made.next()]
    by_fact = Counter(row.fact for row in drawn)
    assert max(by_fact.values()) - min(by_fact[f"f{i}"] for i in range(facts)) <= 1
    by_row = Counter(drawn)
    for i in range(facts):
        of_fact = [by_row[row] for row in rows(facts, forms) if row.fact == f"f{i}"]
        assert max(of_fact) - min(of_fact) <= 1


@given(st.integers(8, 20), st.integers(1, 8), st.integers(0, 3))
def test_no_fact_comes_twice_in_a_batch(facts: int, size: int, seed: int) -> None:
    made = Sampler(rows(facts), [], 0.0, size, seed)
    for _ in range(20):
        batch = made.next()
        assert len({row.fact for row in batch}) == len(batch) == size


def test_what_is_known_comes_four_times_as_seldom() -> None:
    known = [f"f{i}" for i in range(10)]
    count = shown(Sampler(rows(20), [], 0.0, 8, 1), 400, known)
    often = sum(count[f] for f in count if f not in known) / 10
    seldom = sum(count[f] for f in known) / 10
    assert often / seldom == pytest.approx(KNOWN, rel=0.05)


def test_one_wording_does_not_make_a_fact_known_and_one_miss_unmakes_it() -> None:
    made = Sampler(rows(1), [], 0.0, 1, 1)
    answers = iter([True, True, False, True, True])
    states = []
    for said in answers:
        made.heard(made.next(), [said])
        states.append(made.known)
    assert states == [0, 1, 0, 0, 1]


def test_the_same_wording_twice_is_one() -> None:
    made = Sampler(rows(1, forms=2), [], 0.0, 1, 1)
    first = made.next()
    made.heard(first, [True])
    made.heard(first, [True])
    assert made.known == 0
    made.heard(made.next(), [True])
    assert made.known == 1


def test_replay_gets_its_share_by_weight() -> None:
    old = [replace(row, weight=3.0 if row.fact == "o0" else 1.0) for row in rows(4, name="o")]
    count = shown(Sampler(rows(10), old, 0.25, 8, 1), 400)
    replayed = {fact: n for fact, n in count.items() if fact.startswith("o")}
    assert sum(replayed.values()) / sum(count.values()) == pytest.approx(0.25, abs=0.01)
    # all unknown: their weights alone decide
    assert replayed["o0"] / replayed["o1"] == pytest.approx(3, rel=0.1)


def test_where_nothing_is_new_everything_is_to_be_learned() -> None:
    made = Sampler([], rows(5), 0.6, 4, 1)
    assert len(made.next()) == 4
    assert made.known == 0


@given(st.integers(0, 12), st.integers(0, 200), st.floats(0, 0.9))
def test_the_share_of_replay_is_bounded(new: int, old: int, most: float) -> None:
    share = replay_share(new, old, most)
    assert 0 <= share <= most
    assert share == 0 or old


@given(st.integers(0, 25), st.integers(1, 25), st.integers(0, 9))
def test_it_goes_on_with_the_very_next_batch(before: int, after: int, seed: int) -> None:
    def fresh() -> Sampler:
        return Sampler(rows(6), rows(5, name="o"), 0.3, 4, seed)

    def go(made: Sampler, steps: int) -> list[list[TrainingSequence]]:
        batches = []
        for _ in range(steps):
            batches.append(made.next())
            made.heard(batches[-1], [sum(row.ids) % 2 == 0 for row in batches[-1]])
        return batches

    whole = fresh()
    go(whole, before)
    resumed = fresh()
    resumed.restore(whole.state(), Clock(step=before))
    assert go(resumed, after) == go(whole, after)
    resumed.restore("", Clock())
    assert go(resumed, 5) == go(fresh(), 5), "without a state it begins anew"
    resumed.restore(Sampler(rows(2), [], 0.0, 4, 0).state(), Clock(step=3))
    assert go(resumed, 5) == go(fresh(), 5), "nor with one of other facts"
