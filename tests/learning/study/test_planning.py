"""What fits into a cycle: documents, steps, replay, and how much is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.learning.study import planning as plans
from autodidact.settings import TrainingSettings
from autodidact.training.recipe import recipe_for
from autodidact.training.sampler import replay_share
from autodidact.types.cycle import Plan
from autodidact.types.documents import Probe, Split

LIMITS = {"taught": 120, "unseen": 40, "control": 60, "kept": 200, "forgotten": 120}


def passes(alone: int, old: bool = True) -> Callable[[Sequence[int], float], int]:
    """Steps of one pass: `alone` a document, and replay on top; nothing queued: all the store."""

    def a_pass(documents: Sequence[int], share: float) -> int:
        new = alone * (len(documents) or 10)
        return max(1, round(new / (1 - share))) if old else max(1, new)

    return a_pass


def fit(
    step_s: float, train_s: float = 60.0, documents: int = 4, share: float = 0.0, **limits: Any
) -> Plan:
    offered = list(range(1, documents + 1))
    recipe = recipe_for(8_000_000, 8, TrainingSettings(**limits), autocast=False)
    return plans.fit(
        recipe, plans.FORMS_A_PASS, offered, passes(7), lambda taken: share, step_s, train_s
    )


def exposures(plan: Plan) -> float:
    return float(plan.steps / plan.steps_a_pass * plans.FORMS_A_PASS)


def test_a_fast_machine_takes_every_document_and_stops_at_enough_exposures() -> None:
    made = fit(0.001, max_exposures=70)
    assert made.documents == (1, 2, 3, 4)
    # 7 steps a document and pass, 10 passes show a fact 70 times.
    assert made.steps == made.most_steps == 280
    assert exposures(made) == 70


def test_a_slow_machine_takes_fewer_documents_to_learn_them_well() -> None:
    # 120 steps are possible. Two documents make 14 steps a pass: 8.6 passes, 60 exposures.
    made = fit(0.5, min_exposures=56)
    assert made.documents == (1, 2)
    assert made.steps == 120
    assert exposures(made) == 60


@pytest.mark.parametrize("train_s", [60.0, 0.0, -30.0])
def test_the_slowest_machine_still_learns_one_document(train_s: float) -> None:
    made = fit(1000.0, train_s)
    assert made.documents == (1,)
    assert made.steps == plans.MIN_STEPS


def test_the_first_cycle_has_nothing_to_replay_however_much_time_is_left() -> None:
    made = fit(0.001, share=0.0)
    assert made.replay == 0.0
    assert made.steps == made.most_steps < 60_000


def test_replay_is_shared_out_among_what_is_taken_not_what_is_offered() -> None:
    """Twenty documents wait and a few fit: beside those the known facts weigh more."""
    recipe = recipe_for(135_000_000, 30, TrainingSettings(), autocast=False)

    def share_of(taken: Sequence[int]) -> float:
        return replay_share(7 * len(taken), 70, 0.6)

    offered = list(range(20))
    made = plans.fit(recipe, 6.0, offered, passes(5), share_of, 1.0, 60.0)
    assert 1 <= len(made.documents) < 10
    assert made.replay == share_of(made.documents) > share_of(offered)
    assert made.steps / made.steps_a_pass >= recipe.least / 6.0


def test_time_that_new_facts_do_not_need_goes_to_replay() -> None:
    # 560 steps are possible; 280 show every new fact 70 times. The other half is replay.
    made = fit(60 / 560, share=0.25, max_exposures=70)
    assert made.replay == pytest.approx(0.5)
    assert made.steps == pytest.approx(560, abs=1)
    assert exposures(made) == pytest.approx(70, rel=0.02)


def test_replay_takes_nine_tenths_at_most_and_then_the_cycle_is_shorter() -> None:
    made = fit(0.0001, share=0.25, max_exposures=70)
    assert made.replay == plans.MOST_REPLAY
    assert made.steps == pytest.approx(2800, abs=10)
    assert made.steps < 600_000


def test_a_share_of_replay_beyond_nine_tenths_is_kept_to() -> None:
    assert fit(0.0001, share=0.95, replay_share=0.95).replay == 0.95


def test_without_documents_all_of_the_store_is_relearned() -> None:
    made = fit(0.001, documents=0, max_exposures=70)
    assert made.documents == ()
    assert made.replay == 0.0
    assert made.steps == 700


@given(
    documents=st.integers(0, 20),
    alone=st.integers(1, 40),
    old=st.booleans(),
    least=st.floats(0, 0.99),
    step_s=st.floats(1e-4, 1e3),
    train_s=st.floats(-100, 1e4),
    shown=st.tuples(st.integers(1, 200), st.integers(1, 400)),
)
def test_whatever_the_machine_the_plan_keeps_its_promises(
    documents: int,
    alone: int,
    old: bool,
    least: float,
    step_s: float,
    train_s: float,
    shown: tuple[int, int],
) -> None:
    settings = TrainingSettings(min_exposures=shown[0], max_exposures=shown[1])
    recipe = recipe_for(8_000_000, 8, settings, autocast=False)
    offered = list(range(documents))
    share = least if old and offered else 0.0
    a_pass = passes(alone, old)
    made = plans.fit(
        recipe, plans.FORMS_A_PASS, offered, a_pass, lambda taken: share, step_s, train_s
    )
    taken = made.documents
    possible = max(plans.MIN_STEPS, int(train_s / step_s))
    assert list(taken) == offered[: len(taken)]
    assert bool(taken) == bool(offered)
    assert plans.MIN_STEPS <= made.steps <= possible
    assert made.steps <= made.most_steps
    assert made.steps_a_pass == a_pass(taken, made.replay)
    if share == 0:
        assert made.replay == 0
    else:
        assert share <= made.replay <= max(share, plans.MOST_REPLAY)
    enough = made.steps * plans.FORMS_A_PASS <= shown[1] * made.steps_a_pass
    assert enough or made.steps == plans.MIN_STEPS
    if len(taken) > 1:
        shows = possible / a_pass(taken, share) * plans.FORMS_A_PASS
        assert shows >= shown[0] * (1 - 1e-9)
    if len(taken) < len(offered):
        next_one = offered[: len(taken) + 1]
        assert possible / a_pass(next_one, share) * plans.FORMS_A_PASS < shown[0]


# What is measured -------------------------------------------------------------------------------


def probe(number: int, document_id: int, split: Split = "taught") -> Probe:
    return Probe(f"{document_id}-{number:08x}", document_id, "", "", ("x",), "", "", "", split)


def test_only_questions_about_documents_that_were_taken_are_asked() -> None:
    probes = [
        probe(1, 1), probe(2, 2), probe(3, 1, "unseen"), probe(4, 2, "unseen"),
        probe(5, -1, "control"), probe(6, 9, "kept"), probe(7, 8, "forgotten"),
    ]  # fmt: skip
    found = plans.pools(probes, [1])
    assert {split: [p.document_id for p in pool] for split, pool in found.items()} == {
        "taught": [1], "unseen": [1], "control": [-1], "kept": [9], "forgotten": [8],
    }  # fmt: skip
    assert set(plans.pools(probes, [])) == {"control", "kept", "forgotten"}


COUNTS = st.dictionaries(st.sampled_from(sorted(LIMITS)), st.integers(0, 500))
SECONDS = st.fixed_dictionaries(
    dict.fromkeys(("probes", "blocks", "chats"), st.floats(0, 100, allow_subnormal=False))
)


@given(COUNTS, st.dictionaries(st.sampled_from(sorted(LIMITS)), st.integers(0, 300)), SECONDS,
       st.floats(-100, 1e4), st.integers(1, 3))  # fmt: skip
def test_no_more_is_measured_than_there_is_and_may_be_and_never_too_little(
    there: dict[str, int],
    less: dict[str, int],
    seconds: dict[str, float],
    budget_s: float,
    arms: int,
) -> None:
    limits = LIMITS | less
    wanted, blocks, chats = plans.sizes(there, limits, seconds, budget_s, arms)
    assert wanted.keys() == there.keys()
    for split, count in wanted.items():
        most = min(there[split], limits[split])
        assert min(most, plans.MIN_PROBES) <= count <= most
    assert blocks >= plans.MIN_BLOCKS
    assert chats >= plans.MIN_CHATS


@given(COUNTS, SECONDS, st.floats(0, 1e4), st.integers(1, 3))
def test_measuring_stays_within_its_time_but_for_the_few_that_are_always_measured(
    there: dict[str, int], seconds: dict[str, float], budget_s: float, arms: int
) -> None:
    wanted, blocks, chats = plans.sizes(there, LIMITS, seconds, budget_s, arms)
    most = sum(n for n in wanted.values() if n > plans.MIN_PROBES)
    spent = 2 * most * seconds["probes"]
    spent += arms * (blocks * (blocks > plans.MIN_BLOCKS)) * seconds["blocks"]
    spent += arms * (chats * (chats > plans.MIN_CHATS)) * seconds["chats"]
    assert spent <= budget_s * (1 + 1e-6) + 1e-6


def test_with_time_enough_all_that_may_be_is_measured() -> None:
    there = {"taught": 500, "control": 20}
    seconds = {"probes": 0.01, "blocks": 0.01, "chats": 0.01}
    wanted, blocks, chats = plans.sizes(there, LIMITS, seconds, 1000, 3)
    assert wanted == {"taught": 120, "control": 20}
    assert (blocks, chats) == (5000, 8333)


def test_arms_whose_figures_are_known_leave_room_for_more_blocks() -> None:
    seconds = {"probes": 0.01, "blocks": 0.01, "chats": 0.01}
    few, many = (plans.sizes({"taught": 9}, LIMITS, seconds, 60, arms)[1] for arms in (3, 1))
    assert many == pytest.approx(3 * few, abs=3)


def test_probes_are_taken_from_documents_in_turn() -> None:
    probes = [probe(i, 1) for i in range(10)] + [probe(i, 2) for i in (20, 21)] + [probe(30, 3)]
    assert [p.document_id for p in plans.spread(probes, 5)] == [1, 2, 3, 1, 2]
    assert plans.spread(probes[::-1], 5) == plans.spread(probes, 5)
    assert len(plans.spread(probes, 100)) == 13


@given(st.lists(st.integers(1, 5), max_size=40), st.integers(0, 50))
def test_no_document_has_two_more_than_another_that_still_has_some(
    owners: list[int], limit: int
) -> None:
    probes = [probe(i, owner) for i, owner in enumerate(owners)]
    taken = plans.spread(probes, limit)
    assert len(taken) == len(set(taken)) == min(limit, len(probes))
    counts = {o: sum(p.document_id == o for p in taken) for o in set(owners)}
    most = max(counts.values(), default=0)
    for owner, count in counts.items():
        assert count >= min(owners.count(owner), math.floor(most - 1))


@pytest.mark.parametrize(
    ("rise", "times"), [(-0.1, 1.0), (0.0, 1.0), (0.02, 1.0), (0.03, 2.25), (0.04, 4.0), (9.0, 4.0)]
)
def test_the_kl_weight_grows_with_the_drift_beyond_its_target(rise: float, times: float) -> None:
    assert plans.kl_weight(10, 0.02, rise) == pytest.approx(10 * times)


def test_without_a_drift_target_the_kl_weight_stays() -> None:
    assert plans.kl_weight(10, 0, 5.0) == 10


def test_relearning_a_store_takes_the_time_that_its_size_asks_for() -> None:
    recipe = recipe_for(8_000_000, 8, TrainingSettings(), autocast=False)
    small, large = (plans.relearning_s(recipe, 7, steps, 0.5) for steps in (4, 40))
    assert large == pytest.approx(10 * small)
    made = plans.fit(recipe, 7, [], passes(4), lambda taken: 0.0, 0.5, large)
    assert made.steps * 7 / 40 == pytest.approx(plans.RELEARN * recipe.least, rel=0.02)
