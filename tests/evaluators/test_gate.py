"""The gate, on measurements small enough to add up by hand."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact.evaluators import gate
from autodidact.evaluators.recall import ProbeResult
from autodidact.types import Probe, Verdict

Margins = Mapping[str, float]
FINE = {"base": 3.0, "parent": 3.0, "candidate": 3.01}


def probe(name: str, split: str = "taught") -> Probe:
    """`d1-a` is probe a of document 1; a control document has a negative number."""
    document = int(name.removeprefix("d").rpartition("-")[0])
    return Probe(name, document, "Who?", "Ida", ("Odo",), "name", "by", "by/0", split)  # type: ignore[arg-type]


def results(margins: Margins, correct: Sequence[str] = ()) -> dict[str, ProbeResult]:
    return {n: ProbeResult(n, "", int(n in correct), -1.0, value) for n, value in margins.items()}


def effect(taught: Margins, control: Margins) -> tuple[float, float, int]:
    """The effect of rises: every probe was at margin 0 before."""
    probes = [probe(n) for n in taught] + [probe(n, "control") for n in control]
    now = {**taught, **control}
    found = gate.learned_effect(probes, results(dict.fromkeys(now, 0.0)), results(now))
    return found.value, found.stderr, found.n


def decide(
    taught: Margins,
    control: Margins,
    general: Mapping[str, float] = FINE,
    limit: float = 0.1,
    sound: str = "",
) -> Verdict:
    probes = [probe(n) for n in taught] + [probe(n, "control") for n in control]
    now = {**taught, **control}
    return gate.decide(
        probes, results(dict.fromkeys(now, 0.0)), results(now), general, limit, sound
    )


TAUGHT = {"d1-a": 2.0, "d1-b": 1.6, "d2-a": 1.8, "d2-b": 2.2, "d3-a": 1.9, "d3-b": 2.1}
CONTROL = {"d-1-a": 0.1, "d-1-b": -0.1, "d-2-a": 0.2, "d-2-b": 0.0, "d-3-a": -0.2, "d-3-b": 0.0}


# By hand ----------------------------------------------------------------------------------------


def test_the_effect_is_a_difference_of_differences() -> None:
    value, _, n = effect({"d1-a": 2.0, "d2-a": 1.0, "d3-a": 3.0}, {"d-1-a": 0.5, "d-2-a": -0.1})
    assert value == pytest.approx(2.0 - 0.2)
    assert n == 3


def test_a_rise_that_the_parent_had_already_does_not_count() -> None:
    probes = [probe("d1-a"), probe("d2-a"), probe("d3-a")]
    before = results({"d1-a": 1.0, "d2-a": 2.0, "d3-a": 3.0})
    now = results({"d1-a": 1.5, "d2-a": 2.5, "d3-a": 3.5})
    assert gate.learned_effect(probes, before, now).value == pytest.approx(0.5)


def test_probes_of_a_document_are_not_independent() -> None:
    """Three documents with two probes each; what counts is how documents differ.

    Rises 1, 1 | 2, 2 | 3, 3: mean 2. Sums of deviations -2, 0, 2; m/(m-1) = 3/2; the variance of
    the mean is 3/2 · (4 + 0 + 4) / 6² = 1/3.
    """
    taught = {"d1-a": 1.0, "d1-b": 1.0, "d2-a": 2.0, "d2-b": 2.0, "d3-a": 3.0, "d3-b": 3.0}
    value, stderr, n = effect(taught, {})
    assert (value, n) == (2.0, 6)
    assert stderr == pytest.approx(math.sqrt(1 / 3))
    six_documents = {f"d{i}-a": rise for i, rise in enumerate(taught.values(), start=1)}
    assert effect(six_documents, {})[1] < stderr


def test_with_fewer_than_three_documents_the_probes_are_the_units() -> None:
    """Rises 1, 2, 3, 6: mean 3, variance (4 + 1 + 0 + 9) / 3 = 14/3, of the mean 14/12."""
    value, stderr, _ = effect({"d1-a": 1.0, "d1-b": 2.0, "d2-a": 3.0, "d2-b": 6.0}, {})
    assert value == 3.0
    assert stderr == pytest.approx(math.sqrt(14 / 12))


def test_the_errors_of_both_arms_add_up() -> None:
    taught = {"d1-a": 1.0, "d2-a": 2.0, "d3-a": 3.0}
    control = {"d-1-a": 0.0, "d-2-a": 1.0, "d-3-a": 2.0}
    _, alone, _ = effect(taught, {})
    assert effect(taught, control)[1] == pytest.approx(math.sqrt(2) * alone)


def test_the_lower_bound_is_one_sided_95_per_cent() -> None:
    verdict = decide(TAUGHT, CONTROL)
    margin = verdict.metrics["margin"]
    assert margin["lower"] == pytest.approx(margin["value"] - 1.645 * margin["stderr"])
    assert margin["n"] == len(TAUGHT)


# Each rule rejects by itself ---------------------------------------------------------------------


def test_a_candidate_that_learned_and_forgot_nothing_passes() -> None:
    verdict = decide(TAUGHT, CONTROL)
    assert verdict.ok
    assert verdict.reasons == ()


def test_one_that_is_not_sound_is_rejected_whatever_it_learned() -> None:
    verdict = decide(TAUGHT, CONTROL, sound="the loss is not finite")
    assert verdict == Verdict(False, ("sound: the loss is not finite",))


def only_reason(verdict: Verdict, rule: str) -> None:
    assert not verdict.ok
    [reason] = verdict.reasons
    assert reason.startswith(rule)
    assert "\n" not in reason


def test_one_that_learned_nothing_is_rejected() -> None:
    only_reason(decide(dict.fromkeys(TAUGHT, 0.0), CONTROL), "learned: ")


def test_one_whose_control_rose_as_much_is_rejected() -> None:
    """It learned the form of an answer, not the facts."""
    risen = {name: 2.0 + value for name, value in CONTROL.items()}
    only_reason(decide(TAUGHT, risen), "learned: ")


def test_one_whose_rise_is_within_the_noise_is_rejected() -> None:
    noisy = {"d1-a": 4.0, "d2-a": -3.0, "d3-a": 2.5, "d4-a": -2.0, "d5-a": 1.0}
    only_reason(decide(noisy, CONTROL), "learned: ")


def test_one_without_a_taught_probe_is_rejected() -> None:
    only_reason(decide({}, CONTROL), "learned: no probe")


def test_one_with_a_single_probe_is_rejected_and_its_figures_are_figures() -> None:
    verdict = decide({"d1-a": 9.0}, CONTROL)
    only_reason(verdict, "learned: too few probes")
    assert verdict.metrics["margin"]["stderr"] is None
    json.dumps(verdict.metrics, allow_nan=False)


def test_one_that_forgot_is_rejected() -> None:
    verdict = decide(TAUGHT, CONTROL, {"base": 3.0, "parent": 3.0, "candidate": 3.11})
    only_reason(verdict, "general: +0.110 nat")


def test_drift_is_measured_from_the_base_and_not_from_the_parent() -> None:
    """Small steps add up: the parent had used most of what is allowed."""
    verdict = decide(TAUGHT, CONTROL, {"base": 3.0, "parent": 3.09, "candidate": 3.12})
    only_reason(verdict, "general: ")


def test_what_is_not_a_number_never_passes() -> None:
    nan = float("nan")
    assert not decide(TAUGHT, CONTROL, {**FINE, "candidate": nan}).ok
    assert not decide({**TAUGHT, "d1-a": nan}, CONTROL).ok
    assert not decide(TAUGHT, {**CONTROL, "d-1-a": nan}).ok


def test_all_reasons_are_told() -> None:
    verdict = decide(
        dict.fromkeys(TAUGHT, 0.0), CONTROL, {"base": 3.0, "parent": 3.0, "candidate": 4.0}
    )
    assert [reason.partition(":")[0] for reason in verdict.reasons] == ["learned", "general"]


# Figures ----------------------------------------------------------------------------------------


def test_what_is_known_is_counted_by_split() -> None:
    probes = [probe("d1-a"), probe("d1-b"), probe("d9-a", "kept"), probe("d-1-a", "control")]
    names = [p.id for p in probes]
    before = results(dict.fromkeys(names, 0.0), ["d9-a"])
    now = results(dict.fromkeys(names, 1.0), ["d9-a", "d1-a"])
    metrics = gate.decide(probes, before, now, FINE, 0.1).metrics
    assert metrics["taught"] == {"k": 1, "n": 2, "before": 0}
    assert metrics["kept"] == {"k": 1, "n": 1, "before": 1}
    assert metrics["control"] == {"k": 0, "n": 1, "before": 0}
    assert metrics["general"]["pct"] == pytest.approx(100 * 0.01 / 3.0)
    assert metrics["general"]["rise"] == pytest.approx(0.01)


def test_probes_that_were_not_measured_are_left_out() -> None:
    probes = [probe("d1-a"), probe("d2-a")]
    some = results({"d1-a": 1.0})
    assert gate.counts(probes, some, some, "taught")["n"] == 1
    assert gate.learned_effect(probes, some, some).n == 1


# Properties -------------------------------------------------------------------------------------

RISES = st.dictionaries(
    st.tuples(st.integers(1, 6), st.sampled_from("abcd")).map(lambda k: f"d{k[0]}-{k[1]}"),
    st.floats(-5, 5),
    max_size=20,
)


def negative(rises: Margins) -> dict[str, float]:
    return {f"d-{name[1:]}": value for name, value in rises.items()}


@settings(deadline=None)
@given(RISES)
def test_the_same_model_twice_never_passes(margins: Margins) -> None:
    """A/A: parent and candidate measure the same, whatever they measure."""
    probes = [probe(n) for n in margins] + [probe(n, "control") for n in negative(margins)]
    same = results({**margins, **negative(margins)})
    assert not gate.decide(probes, same, same, FINE, 0.1).ok


@settings(deadline=None)
@given(RISES)
def test_taught_and_control_alike_never_pass(rises: Margins) -> None:
    """Placebo: whatever was learned, it was not the taught documents."""
    assert not decide(rises, negative(rises)).ok


@settings(deadline=None)
@given(RISES, RISES, st.integers(0, 99))
def test_the_order_of_the_probes_does_not_matter(
    taught: Margins, control: Margins, seed: int
) -> None:
    probes = [probe(n) for n in taught] + [probe(n, "control") for n in negative(control)]
    now = results({**taught, **negative(control)})
    before = results(dict.fromkeys(now, 0.0))
    shuffled = random.Random(seed).sample(probes, len(probes))
    one = gate.learned_effect(probes, before, now)
    other = gate.learned_effect(shuffled, before, now)
    assert (other.value, other.n) == (pytest.approx(one.value, abs=1e-9), one.n)
    assert other.stderr == pytest.approx(one.stderr, abs=1e-6)


@settings(deadline=None)
@given(RISES.filter(lambda rises: len(rises) > 1), st.floats(0.1, 5))
def test_learning_more_never_makes_it_fail(rises: Margins, more: float) -> None:
    if decide(rises, {}).ok:
        assert decide({name: value + more for name, value in rises.items()}, {}).ok


@settings(deadline=None)
@given(RISES, RISES)
def test_the_error_is_never_negative_and_the_verdict_always_has_a_reason_or_none(
    taught: Margins, control: Margins
) -> None:
    verdict = decide(taught, negative(control))
    assert verdict.ok == (not verdict.reasons)
    json.dumps(verdict.metrics, allow_nan=False)
