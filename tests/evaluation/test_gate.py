"""The gate: what each rule lets through and what it stops, on figures small enough to follow."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autodidact.evaluation import gate
from autodidact.evaluation.evidence import FEWEST_WITHIN
from autodidact.evaluation.gate import Arm, Limits
from autodidact.types.cycle import ChatFigures, Count, ProbeResult, Reason, RuleResult, Verdict
from autodidact.types.documents import Probe

Figures = Mapping[str, float]
LIMITS = Limits(
    general_limit=0.02,
    general_step=0.01,
    kept_limit=0.15,
    kept_step=0.05,
    chat_limit=0.05,
    chat_step=0.02,
)
TAUGHT = {"d1-a": 2.0, "d1-b": 1.6, "d2-a": 1.8, "d2-b": 2.2, "d3-a": 1.9, "d3-b": 2.1}
CONTROL = {"d-1-a": 0.1, "d-1-b": -0.1, "d-2-a": 0.2, "d-2-b": 0.0, "d-3-a": -0.2, "d-3-b": 0.0}
KEPT = {f"d{10 + i}-{probe}": -1.0 for i in range(10) for probe in "ab"}
"""Log-probability of each answer before."""
BLOCKS = tuple(3.0 + 0.1 * math.sin(i) for i in range(200))
CHATS = (True,) * 280 + (False,) * 20


def probe(name: str, split: str = "taught") -> Probe:
    """`d1-a` is probe a of document 1; a control document has a negative number."""
    document = int(name.removeprefix("d").rpartition("-")[0])
    return Probe(name, document, "Who?", "Ida", ("Odo",), "name", "by", "by/0", split)  # type: ignore[arg-type]


def results(
    margins: Figures, logprobs: Figures | None = None, correct: Sequence[str] = ()
) -> dict[str, ProbeResult]:
    return {
        n: ProbeResult(n, "", int(n in correct), (logprobs or {}).get(n, -1.0), margin)
        for n, margin in margins.items()
    }


def decide(
    taught: Figures = TAUGHT,
    control: Figures = CONTROL,
    kept: Figures | None = None,
    *,
    general: Sequence[float] = BLOCKS,
    chat: Sequence[bool] = CHATS,
    worse: Sequence[bool] = (),
    parent: dict[str, Any] | None = None,
    limits: Limits = LIMITS,
    when_learned: Figures = KEPT,
    **more: Any,
) -> Verdict:
    """The candidate has these rises of margins, these log-probabilities of what it kept, this NLL
    of the blocks and these chats; before, margins were 0, and parent and base were alike."""
    kept = KEPT if kept is None else kept
    probes = [
        *(probe(n) for n in taught),
        *(probe(n, "control") for n in control),
        *(probe(n, "kept") for n in kept),
    ]
    now = {**taught, **control, **dict.fromkeys(kept, 0.0)}
    before = Arm(results(dict.fromkeys(now, 0.0), KEPT), BLOCKS, CHATS)
    candidate = Arm(results(now, kept), general, chat, worse)
    base = Arm({}, BLOCKS, CHATS)
    return gate.decide(
        probes, base, replace(before, **(parent or {})), candidate, limits, when_learned, **more
    )


def rule(verdict: Verdict, name: str, against: str) -> RuleResult:
    [found] = [r for r in verdict.results if (r.rule, r.against) == (name, against)]
    return found


def refused_by(verdict: Verdict, *tests: str) -> None:
    """Exactly these tests failed, each with one line that begins with its rule."""
    assert not verdict.ok
    failed = [f"{r.rule}/{r.against}" for r in verdict.results if r.refuses]
    assert failed == list(tests)
    assert [r.rule for r in verdict.reasons] == [t.partition("/")[0] for t in tests]
    assert not any("\n" in line for line in verdict.lines)


def shifted(figures: Figures, by: float) -> dict[str, float]:
    return {name: value + by for name, value in figures.items()}


def lost(count: int, won: int = 0) -> list[bool]:
    """The chats of before, so many of the well-formed ones lost and so many of the others won."""
    chats = list(CHATS)
    chats[:count] = [False] * count
    chats[280 : 280 + won] = [True] * won
    return chats


# All rules at once ------------------------------------------------------------------------------


def test_a_candidate_that_learned_and_forgot_nothing_passes() -> None:
    verdict = decide()
    assert (verdict.ok, verdict.reasons) == (True, ())
    assert [(r.rule, r.against) for r in verdict.results] == [
        ("learned", "control"),
        ("learned", "exact"),
        ("general", "base"),
        ("general", "parent"),
        ("kept", "learned"),
        ("kept", "parent"),
        ("chat", "base"),
        ("chat", "parent"),
    ]
    json.dumps(asdict(verdict), allow_nan=False)


def test_every_rule_tells_its_figures_in_a_line() -> None:
    keys = {
        "rule", "against", "ok", "value", "lower", "upper", "limit", "before", "now", "n", "unit",
        "text", "p", "excused",
    }  # fmt: skip
    for found in decide().results:
        assert asdict(found).keys() == keys
        assert found.text
        assert "\n" not in found.text


def test_one_that_is_not_sound_is_rejected_whatever_it_learned() -> None:
    verdict = decide(sound="the loss is not finite")
    assert verdict == Verdict(False, (Reason("sound", "the loss is not finite"),))


def test_all_reasons_are_told() -> None:
    verdict = decide(
        dict.fromkeys(TAUGHT, 0.0),
        kept=shifted(KEPT, -1.0),
        general=[value + 1 for value in BLOCKS],
        chat=[False] * 300,
    )
    refused_by(
        verdict, "learned/control", "learned/exact", "general/base", "general/parent",
        "kept/learned", "kept/parent", "chat/base", "chat/parent",
    )  # fmt: skip


def test_more_looks_ask_for_wider_bounds() -> None:
    assert LIMITS.level == pytest.approx(1 - 0.05 / 3)
    one = decide(limits=replace(LIMITS, looks=1)).figures.margin
    three = decide().figures.margin
    assert (one.value, one.stderr) == (three.value, three.stderr)
    assert one.lower > three.lower


# Learned ----------------------------------------------------------------------------------------


def test_the_effect_is_a_difference_of_differences() -> None:
    verdict = decide(
        {"d1-a": 2.0, "d2-a": 1.0, "d3-a": 3.0}, {"d-1-a": 0.5, "d-2-a": -0.1, "d-3-a": 0.2}
    )
    assert verdict.figures.margin.value == pytest.approx(2.0 - 0.2)
    assert verdict.figures.margin.n == 3
    assert rule(verdict, "learned", "control").now == 2.0


def test_a_rise_that_the_parent_had_already_does_not_count() -> None:
    now = {"d1-a": 1.5, "d2-a": 2.5, "d3-a": 3.5}
    verdict = decide(now, {}, parent={"probes": results(shifted(now, -0.5))})
    assert verdict.figures.margin.value == pytest.approx(0.5)


def test_one_that_learned_nothing_is_rejected() -> None:
    refused_by(decide(dict.fromkeys(TAUGHT, 0.0)), "learned/control", "learned/exact")


def test_one_whose_control_rose_as_much_is_rejected() -> None:
    """It learned the form of an answer, not the facts."""
    refused_by(decide(TAUGHT, shifted(CONTROL, 2.0)), "learned/control", "learned/exact")


def test_one_whose_rise_is_within_the_noise_is_rejected() -> None:
    noisy = {"d1-a": 4.0, "d2-a": -3.0, "d3-a": 2.5, "d4-a": -2.0, "d5-a": 1.0}
    refused_by(decide(noisy), "learned/control", "learned/exact")


def test_what_one_document_taught_is_not_learning_from_all() -> None:
    """Many probes of one document stand for one document."""
    rises = {f"d{i}-{p}": (5.0 if i == 1 else 0.0) for i in range(1, 6) for p in "abcdefgh"}
    refused_by(decide(rises, {}), "learned/control", "learned/exact")
    apart = {f"d{i}-a": rise for i, rise in enumerate(rises.values(), start=1)}
    assert decide(apart, {}, kept={}).ok, "forty documents of which eight were learned well"


def test_without_a_taught_probe_nothing_was_learned() -> None:
    verdict = decide({})
    refused_by(verdict, "learned/control")
    assert verdict.lines[0].startswith("learned: no probe")


def test_a_single_probe_is_too_few() -> None:
    verdict = decide({"d1-a": 9.0})
    refused_by(verdict, "learned/control", "learned/exact")
    assert verdict.lines[0].startswith("learned: too few probes")
    assert verdict.figures.margin.stderr is None


def test_without_control_probes_the_rise_is_compared_with_zero_and_it_says_so() -> None:
    verdict = decide(TAUGHT, {})
    assert verdict.ok
    found = rule(verdict, "learned", "control")
    assert found.value == pytest.approx(sum(TAUGHT.values()) / 6)
    assert "compared with zero" in found.text


def test_a_cycle_without_anything_new_need_not_have_learned() -> None:
    verdict = decide({}, learn=False)
    assert verdict.ok
    assert "learned" not in {r.rule for r in verdict.results}
    refused_by(decide({}, learn=False, chat=lost(40)), "chat/base", "chat/parent")


def test_unseen_wordings_and_forgotten_probes_decide_nothing() -> None:
    names = ["d1-x", "d2-x", "d3-x", "d4-x"]
    probes = [probe(n) for n in TAUGHT] + [probe(n, "control") for n in CONTROL]
    before = Arm(results(dict.fromkeys([*TAUGHT, *CONTROL, *names], 0.0)), BLOCKS, CHATS)
    now = Arm(results({**TAUGHT, **CONTROL, **dict.fromkeys(names, -9.0)}), BLOCKS, CHATS)
    plain = gate.decide(probes, before, before, now, LIMITS)
    more = [probe(n, split) for n, split in zip(names, ["unseen", "forgotten"] * 2, strict=True)]
    assert gate.decide([*probes, *more], before, before, now, LIMITS).reasons == plain.reasons == ()


# General ----------------------------------------------------------------------------------------


def test_the_upper_bound_over_the_base_counts_and_not_the_mean() -> None:
    noise = np.random.default_rng(5).normal(0.0, 0.1, 200)
    rises = noise - noise.mean() + 0.009
    verdict = decide(general=[b + r for b, r in zip(BLOCKS, rises, strict=True)])
    refused_by(verdict, "general/base")
    found = rule(verdict, "general", "base")
    assert found.value == pytest.approx(0.009)
    assert found.upper > 0.02
    assert "+0.009 nat over the base, upper bound +0.02" in verdict.lines[0]


def test_drift_is_measured_from_the_base_and_not_from_the_parent() -> None:
    """Small steps add up: the parent had used most of what is allowed."""
    parent = {"general": [b + 0.018 for b in BLOCKS]}
    verdict = decide(general=[b + 0.024 for b in BLOCKS], parent=parent)
    refused_by(verdict, "general/base")
    assert rule(verdict, "general", "parent").value == pytest.approx(0.006)


def test_a_large_step_is_refused_while_the_base_is_still_near() -> None:
    refused_by(decide(general=[b + 0.015 for b in BLOCKS]), "general/parent")


def test_the_old_figures_of_general_text_are_still_told() -> None:
    told = decide(general=[b + 0.004 for b in BLOCKS]).figures.general
    mean = sum(BLOCKS) / 200
    assert (told.base, told.n, told.limit) == (pytest.approx(mean), 200, 0.02)
    assert told.rise == pytest.approx(0.004)
    assert told.pct == pytest.approx(100 * 0.004 / mean)


def test_one_block_is_too_few_to_show_an_upper_bound() -> None:
    verdict = decide(general=[3.0], parent={"general": [3.0]})
    refused_by(verdict, "general/base")
    assert "1 blocks measured, 200 of the base" in verdict.lines[0]
    arm = Arm(results({**TAUGHT}), [3.0], [])
    alone = gate.decide([], arm, arm, arm, LIMITS, learn=False)
    refused_by(alone, "general/base")
    assert "too few" in alone.lines[0]


def test_what_was_never_measured_is_left_out() -> None:
    probes = [probe(n) for n in TAUGHT]
    before, now = (Arm(results(m), [], []) for m in (dict.fromkeys(TAUGHT, 0.0), TAUGHT))
    verdict = gate.decide(probes, before, before, now, LIMITS)
    assert verdict.ok
    assert {r.rule for r in verdict.results} == {"learned"}
    json.dumps(asdict(verdict), allow_nan=False)


@pytest.mark.parametrize("part", ["general", "chat"])
def test_arms_that_were_not_measured_alike_are_refused(part: str) -> None:
    whole: Sequence[Any] = BLOCKS if part == "general" else CHATS
    candidate: dict[str, Any] = {part: whole[:-1]}
    refused_by(decide(**candidate), f"{part}/base", f"{part}/parent")
    refused_by(decide(**{part: []}), f"{part}/base", f"{part}/parent")  # type: ignore[arg-type]
    refused_by(decide(parent={part: []}), f"{part}/parent")


# Kept -------------------------------------------------------------------------------------------


def test_slow_fading_adds_up_since_the_day_of_learning() -> None:
    """No step was large: what counts is the sum of them."""
    when_learned = shifted(KEPT, 0.2)
    verdict = decide(kept=shifted(KEPT, -0.01), when_learned=when_learned)
    refused_by(verdict, "kept/learned")
    assert rule(verdict, "kept", "learned").value == pytest.approx(0.21)
    assert rule(verdict, "kept", "parent").value == pytest.approx(0.01)


def test_a_fall_from_the_parent_that_chance_does_not_explain_is_refused() -> None:
    """The parent knew it better than on the day of learning; that is not lost again at once."""
    verdict = decide(kept=shifted(KEPT, -0.1))
    refused_by(verdict, "kept/parent")


def test_a_fall_from_the_parent_within_chance_is_let_through() -> None:
    """Rises 0.1 on average, with documents 1 nat apart."""
    kept = {n: value - 0.1 + (-1) ** int(n[1:3]) for n, value in KEPT.items()}
    verdict = decide(kept=kept)
    assert verdict.ok
    found = rule(verdict, "kept", "parent")
    assert (found.value > 0.05, found.lower < 0) == (True, True)


def test_a_sure_but_small_fall_from_the_parent_is_let_through() -> None:
    verdict = decide(kept=shifted(KEPT, -0.04))
    assert verdict.ok
    assert rule(verdict, "kept", "parent").lower > 0


def test_probes_without_a_day_of_learning_are_compared_with_the_parent_alone() -> None:
    verdict = decide(when_learned={})
    assert verdict.ok
    assert rule(verdict, "kept", "parent").n == 20
    assert ("kept", "learned") not in {(r.rule, r.against) for r in verdict.results}


def test_without_probes_of_the_parent_what_is_kept_is_compared_with_the_day_of_learning() -> None:
    """So it is when everything is learned anew, to forget something."""
    probes = [probe(n, "kept") for n in KEPT]
    base = Arm({}, BLOCKS, CHATS)
    for by, ok in ((-0.14, True), (-0.16, False)):
        now = Arm(results(dict.fromkeys(KEPT, 0.0), shifted(KEPT, by)), BLOCKS, CHATS)
        verdict = gate.decide(probes, base, base, now, LIMITS, KEPT, learn=False)
        assert rule(verdict, "kept", "learned").ok == verdict.ok == ok


# Chat -------------------------------------------------------------------------------------------


def test_five_points_below_the_base_are_the_limit() -> None:
    already = {"chat": lost(15)}
    assert decide(chat=lost(15), parent=already).ok
    refused_by(decide(chat=lost(16), parent=already), "chat/base")


def test_a_clear_loss_against_the_parent_is_refused() -> None:
    """Seven lost and none won of 300: 2.3 points, p = 1/128."""
    verdict = decide(chat=lost(7))
    refused_by(verdict, "chat/parent")
    assert verdict.lines[0].endswith("p 0.008")
    assert decide(chat=lost(6)).ok, "2 points are the limit"


def test_a_loss_within_chance_is_let_through() -> None:
    """17 lost and 10 won: 2.3 points, P(X ≥ 17 of 27) = .124."""
    verdict = decide(chat=lost(17, won=10))
    assert verdict.ok
    assert rule(verdict, "chat", "parent").text.endswith("p 0.124")


@pytest.mark.parametrize(("k", "ok"), [(1, True), (4, True), (5, False), (10, False)])
def test_with_few_prompts_a_fall_counts_only_beyond_chance(k: int, ok: bool) -> None:
    """Five lost and none won are the fewest that McNemar's test tells from chance at 5 %."""
    few = Arm({}, [], [True] * 10)
    fallen = Arm({}, [], [False] * k + [True] * (10 - k))
    verdict = gate.decide([], few, few, fallen, LIMITS, learn=False)
    assert verdict.ok == ok
    if not ok:
        refused_by(verdict, "chat/base", "chat/parent")


def test_with_many_prompts_the_base_limits_whatever_chance_explains() -> None:
    """A small loss a cycle would add up unseen."""
    many = Arm({}, [], [True] * 50 + [False] * 50)
    swapped = Arm({}, [], [True] * 25 + [False] * 56 + [True] * 19)
    assert not rule(gate.decide([], many, many, swapped, LIMITS, learn=False), "chat", "base").ok


def test_chats_are_counted_by_arm() -> None:
    assert decide(chat=lost(3)).figures.chat == ChatFigures(
        base=Count(280, 300), parent=Count(280, 300), candidate=Count(277, 300)
    )


# Counts -----------------------------------------------------------------------------------------


def test_what_is_known_is_counted_by_split() -> None:
    splits = {
        "d1-a": "taught", "d1-b": "taught", "d1-au": "unseen", "d9-a": "kept", "d-1-a": "control"
    }  # fmt: skip
    zero = dict.fromkeys(splits, 0.0)
    before = Arm(results(zero, correct=["d9-a"]), [], [])
    now = Arm(results(zero, correct=["d9-a", "d1-a"]), [], [])
    probes = [probe(n, split) for n, split in splits.items()]
    figures = gate.decide(probes, before, before, now, LIMITS).figures
    assert figures.taught == Count(1, 2, 0)
    assert figures.unseen == Count(0, 1, 0)
    assert figures.kept == Count(1, 1, 1)
    assert figures.control == Count(0, 1, 0)


def test_probes_that_were_not_measured_are_left_out() -> None:
    probes = [probe("d1-a"), probe("d2-a")]
    some = Arm(results({"d1-a": 1.0}), [], [])
    figures = gate.decide(probes, some, some, some, LIMITS).figures
    assert figures.taught.n == 1
    assert figures.margin.n == 1


# Not a number -----------------------------------------------------------------------------------

ODD = st.sampled_from([math.nan, math.inf, -math.inf, None])


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["base", "parent", "candidate", "learned"]),
    st.sampled_from(["margin", "logprob", "general"]),
    st.sampled_from([*TAUGHT, *CONTROL, *KEPT]),
    ODD,
)
def test_what_is_not_a_number_never_passes(where: str, what: str, name: str, odd: Any) -> None:
    """Wherever it stands, and None too: a database keeps NaN as NULL."""
    probes = [probe(n) for n in TAUGHT] + [probe(n, "control") for n in CONTROL]
    probes += [probe(n, "kept") for n in KEPT]
    zero, rises = (
        dict.fromkeys([*TAUGHT, *CONTROL, *KEPT], 0.0),
        {**TAUGHT, **CONTROL, **dict.fromkeys(KEPT, 0.0)},
    )
    arms = {
        arm: Arm(results(rises if arm == "candidate" else zero), BLOCKS, CHATS)
        for arm in ("base", "parent", "candidate")
    }
    then = dict(KEPT)
    assert gate.decide(probes, *arms.values(), LIMITS, then).ok  # type: ignore[arg-type]
    if where == "learned":
        name = name if name in KEPT else "d10-a"
        then[name] = odd
    elif what == "general":
        arms[where] = replace(arms[where], general=[odd, *BLOCKS[1:]])
    else:
        rows = dict(arms[where].probes)
        rows[name] = replace(rows[name], **{what: odd})
        arms[where] = replace(arms[where], probes=rows)
    verdict = gate.decide(probes, *arms.values(), LIMITS, then)  # type: ignore[arg-type]
    assert not verdict.ok
    assert verdict.lines[0].startswith("sound: ")
    assert str(odd) in verdict.lines[0]
    json.dumps(asdict(verdict), allow_nan=False)


def test_figures_too_large_to_add_up_never_pass() -> None:
    huge = dict.fromkeys(TAUGHT, 1.7e308)
    verdict = decide(huge)
    refused_by(verdict, "learned/control", "learned/exact")
    json.dumps(asdict(verdict), allow_nan=False)
    refused_by(decide(general=[1.7e308] * 200), "general/base", "general/parent")


# Error rates and power --------------------------------------------------------------------------


def study(
    draw: np.random.Generator, documents: int, effect: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Rises of taught and control probes, five a document. Spread 1 within and .6 between
    documents, as assumed for the numbers of power."""
    rises = draw.normal(size=(2 * documents, 5)) + 0.6 * draw.normal(size=(2 * documents, 1))
    rises[:documents] += effect
    rows = {
        f"d{i + 1 if i < documents else documents - 1 - i}-{'abcde'[j]}": float(rises[i, j])
        for i in range(2 * documents)
        for j in range(5)
    }
    return (
        {n: rise for n, rise in rows.items() if not n.startswith("d-")},
        {n: rise for n, rise in rows.items() if n.startswith("d-")},
    )


def test_labels_that_mean_nothing_pass_at_the_promised_rate() -> None:
    """A/A: documents are called taught or control by lot, 400 times."""
    draw = np.random.default_rng(11)
    taught, control = study(draw, 20, 0.0)
    documents = sorted({n.rpartition("-")[0] for n in {**taught, **control}})
    rises = {**taught, **control}
    passed = 0
    for _ in range(400):
        chosen = set(draw.permutation(documents)[:20])
        labelled: dict[bool, dict[str, float]] = {True: {}, False: {}}
        for name, rise in rises.items():
            labelled[name.rpartition("-")[0] in chosen][name] = rise
        passed += decide(labelled[True], labelled[False], {}, general=BLOCKS, chat=CHATS).ok
    low, high = stats.binom.ppf([0.001, 0.999], 400, 0.05 / 3 / 2)
    assert low <= passed <= high


def test_an_effect_is_found() -> None:
    """1 nat at 20 documents of five probes a side, 40 times."""
    draw = np.random.default_rng(12)
    assert sum(decide(*study(draw, 20, 1.0), {}).ok for _ in range(40)) >= 38


# Properties -------------------------------------------------------------------------------------

RISES = st.dictionaries(
    st.tuples(st.integers(1, 6), st.sampled_from("abcd")).map(lambda k: f"d{k[0]}-{k[1]}"),
    st.floats(-5, 5),
    max_size=20,
)


def negative(rises: Figures) -> dict[str, float]:
    return {f"d-{name[1:]}": value for name, value in rises.items()}


@settings(deadline=None, max_examples=40)
@given(RISES)
def test_the_same_model_twice_never_passes(margins: Figures) -> None:
    """A/A: parent and candidate measure the same, whatever they measure."""
    every = {**margins, **negative(margins)}
    probes = [probe(n, "control" if n.startswith("d-") else "taught") for n in every]
    same = Arm(results(every), [], [])
    assert not gate.decide(probes, same, same, same, LIMITS).ok


@settings(deadline=None, max_examples=40)
@given(RISES)
def test_taught_and_control_alike_never_pass(rises: Figures) -> None:
    """Placebo: whatever was learned, it was not the taught documents."""
    assert not decide(rises, negative(rises), {}).ok


@settings(deadline=None, max_examples=40)
@given(st.floats(-1, 1).filter(lambda by: abs(by - 0.01) > 1e-6 and abs(by - 0.02) > 1e-6))
def test_a_uniform_shift_of_the_nll_is_the_rise_and_its_bounds(by: float) -> None:
    verdict = decide(general=[value + by for value in BLOCKS])
    for against in ("base", "parent"):
        found = rule(verdict, "general", against)
        for figure in ("value", "lower", "upper"):
            assert getattr(found, figure) == pytest.approx(by, abs=1e-9)
    assert rule(verdict, "general", "base").ok == (by < 0.02)
    assert rule(verdict, "general", "parent").ok == (by < 0.01)


@settings(deadline=None, max_examples=40)
@given(RISES, RISES, st.integers(0, 99))
def test_the_order_of_probes_blocks_and_prompts_does_not_matter(
    taught: Figures, control: Figures, seed: int
) -> None:
    every = {**taught, **negative(control), **KEPT}
    splits = {**dict.fromkeys(negative(control), "control"), **dict.fromkeys(KEPT, "kept")}
    probes = [probe(n, splits.get(n, "taught")) for n in every]
    draw = random.Random(seed)
    blocks = [(b, b + draw.gauss(0, 0.1)) for b in BLOCKS[:20]]
    chats = [(draw.random() < 0.9, draw.random() < 0.8) for _ in range(20)]
    faded = {n: -1 - draw.random() for n in every}

    def verdict() -> Verdict:
        before = Arm(
            results(dict.fromkeys(every, 0.0)), [b for b, _ in blocks], [b for b, _ in chats]
        )
        now = Arm(results(every, faded), [n for _, n in blocks], [n for _, n in chats])
        return gate.decide(probes, before, before, now, LIMITS, KEPT)

    first = verdict()
    for items in (probes, blocks, chats):
        draw.shuffle(items)  # type: ignore[arg-type]
    assert verdict() == first


@settings(deadline=None, max_examples=40)
@given(RISES.filter(lambda rises: len(rises) > 1), st.floats(0.1, 5))
def test_learning_more_never_makes_it_fail(rises: Figures, more: float) -> None:
    if decide(rises, {}, {}).ok:
        assert decide(shifted(rises, more), {}, {}).ok


@settings(deadline=None, max_examples=40)
@given(RISES, RISES)
def test_a_verdict_has_a_reason_or_is_ok_and_is_json(taught: Figures, control: Figures) -> None:
    verdict = decide(taught, negative(control))
    assert verdict.ok == (not verdict.reasons)
    assert verdict.ok == all(r.ok or r.excused for r in verdict.results)
    json.dumps(asdict(verdict), allow_nan=False)


def with_rivals(rises: Figures, within: Figures) -> tuple[list[Probe], Arm, Arm]:
    """Probes with answers of their own document among the distractors, before and after."""
    probes = [probe(n, "control" if n.startswith("d-") else "taught") for n in rises]
    before = {n: replace(r, within=0.0) for n, r in results(dict.fromkeys(rises, 0.0)).items()}
    after = {n: replace(r, within=within[n]) for n, r in results(rises).items()}
    return probes, Arm(before, BLOCKS, CHATS), Arm(after, BLOCKS, CHATS)


@pytest.mark.parametrize(("known", "passes"), [(2.0, True), (-0.5, False)])
def test_knowing_which_answers_belong_to_a_document_is_not_knowing_the_answer(
    known: float, passes: bool
) -> None:
    """Eight documents, two probes each: all answers of each rose against those of others."""
    names = [f"d{n}-{p}" for n in range(1, 9) for p in "ab"]
    controls = [f"d-{n}-{p}" for n in range(1, 9) for p in "ab"]
    wobble = {n: 0.1 * (i % 3) for i, n in enumerate([*names, *controls])}
    rises = {n: wobble[n] + (1.0 if n in names else 0.0) for n in wobble}
    within = {n: wobble[n] + (known if n in names else 0.0) for n in wobble}
    probes, before, after = with_rivals(rises, within)
    verdict = gate.decide(probes, Arm({}, BLOCKS, CHATS), before, after, LIMITS)
    assert rule(verdict, "learned", "control").ok
    found = rule(verdict, "learned", "document")
    assert (found.ok, found.n) == (passes, 16)
    assert found.value == pytest.approx(known, abs=0.2)
    assert verdict.ok is passes


def test_too_few_rivals_of_the_same_document_decide_nothing() -> None:
    names = [f"d{n}-a" for n in range(1, FEWEST_WITHIN)]
    rises = {n: 1.0 + 0.1 * (i % 3) for i, n in enumerate(names)}
    probes, before, after = with_rivals(rises, dict.fromkeys(names, -3.0))
    verdict = gate.decide(probes, Arm({}, BLOCKS, CHATS), before, after, LIMITS)
    assert [r.against for r in verdict.results if r.rule == "learned"] == ["control", "exact"]


# Exact answers ----------------------------------------------------------------------------------

SHAPE = (3, 2, 1, 1)
"""How many questions of each kind a document has: seven."""


def asked_of(documents: int, split: str = "taught", shape: Sequence[int] = SHAPE) -> list[Probe]:
    """Probes with an answer of their own each; control documents have negative numbers."""
    sign = 1 if split == "taught" else -1
    return [
        Probe(
            f"{split}{d}-{k}-{i}", sign * (d + 1), "Who?", f"{split}{d}{k}{i}", ("Odo",),
            f"kind{k}", "by", "by/0", split, min(3, size - 1),  # type: ignore[arg-type]
        )
        for d in range(documents)
        for k, size in enumerate(shape)
        for i in range(size)
    ]  # fmt: skip


def replied(probes: Sequence[Probe], replies: Sequence[str], margin: float = 0.0) -> Arm:
    return Arm(
        {
            p.id: ProbeResult(p.id, reply, int(reply == p.answer), -1.0, margin)
            for p, reply in zip(probes, replies, strict=True)
        },
        [],
        [],
    )


def judged(
    taught: Sequence[Probe],
    replies: Sequence[str],
    control: Sequence[Probe],
    guesses: Sequence[str] | None = None,
    *,
    before: Sequence[str] | None = None,
    rises: Sequence[float] | None = None,
) -> Verdict:
    """The margins of what is taught rise by these, in turn: by default on average, but too unevenly
    to show it. Controls do not rise."""
    guesses = guesses or [""] * len(control)
    rises = rises or [9.0 if i % 2 else -8.0 for i in range(len(taught))]
    probes = [*taught, *control]
    parent = replied(probes, [*(before or [""] * len(taught)), *[""] * len(control)])
    now = replied(probes, [*replies, *guesses]).probes
    risen = {p.id: replace(now[p.id], margin=by) for p, by in zip(taught, rises, strict=True)}
    return gate.decide(probes, Arm({}, [], []), parent, Arm({**now, **risen}, [], []), LIMITS)


def right(probes: Sequence[Probe], share: int = 1) -> list[str]:
    """The true answers, but every so many-th."""
    return [p.answer if share == 1 or i % share else "?" for i, p in enumerate(probes)]


def exactly(
    taught: Sequence[Probe],
    replies: Sequence[str],
    control: Sequence[Probe],
    guesses: Sequence[str] | None = None,
) -> RuleResult:
    """What exact answers say, all margins alike."""
    verdict = judged(taught, replies, control, guesses, rises=[1.0] * len(taught))
    return rule(verdict, "learned", "exact")


def test_few_documents_with_nearly_all_answers_exact_pass() -> None:
    """Three documents, 17 of 21 exact, none of the controls: the margin alone cannot show it."""
    taught, control = asked_of(3), asked_of(8, "control")
    verdict = judged(taught, right(taught, 6), control)
    margin, exact = (rule(verdict, "learned", against) for against in ("control", "exact"))
    assert (verdict.ok, margin.ok, margin.excused, exact.ok) == (True, False, True, True)
    assert exact.text.startswith("17 of 21 newly exact (3 documents), control 0 of 56; chance")
    assert margin.text.endswith("; exact answers show it")
    assert (exact.before, exact.now) == (0.0, pytest.approx(17 / 21))
    assert 0 < exact.p <= exact.limit == pytest.approx(0.05 / 3 / 2)


@pytest.mark.parametrize("shape", [(3, 2, 1, 1), (4, 3), (2, 2, 1, 1, 1), (1,) * 7, (2, 1, 1, 1)])
@pytest.mark.parametrize("documents", [3, 5, 8])
def test_all_answers_exact_and_none_of_the_controls_pass(
    shape: tuple[int, ...], documents: int
) -> None:
    """However the questions of a document compete: three documents are enough."""
    taught, control = asked_of(documents, shape=shape), asked_of(6, "control")
    assert exactly(taught, right(taught), control).ok


def test_a_margin_that_did_not_rise_refuses_whatever_is_exact() -> None:
    taught, control = asked_of(3), asked_of(8, "control")
    verdict = judged(taught, right(taught), control, rises=[-0.1] * len(taught))
    assert rule(verdict, "learned", "exact").ok
    refused_by(verdict, "learned/control")


def test_exact_answers_that_do_not_show_it_are_excused_where_the_margin_does() -> None:
    taught, control = asked_of(6), asked_of(6, "control")
    verdict = judged(taught, [""] * len(taught), control, rises=[2.0] * len(taught))
    exact = rule(verdict, "learned", "exact")
    assert (verdict.ok, exact.ok, exact.excused) == (True, False, True)


def test_answers_of_the_right_documents_to_the_wrong_questions_do_not_count() -> None:
    """Every answer of a document is given, to a neighbour's question."""
    taught, control = asked_of(6, shape=(3, 2)), asked_of(6, "control")
    replies = [a for d in range(0, 30, 5) for a in _turned([p.answer for p in taught[d : d + 5]])]
    refused_by(judged(taught, replies, control), "learned/control", "learned/exact")


def test_sentences_that_say_the_answers_to_the_wrong_questions_do_not_count() -> None:
    taught, control = asked_of(6, shape=(3, 2)), asked_of(6, "control")
    answers = [a for d in range(0, 30, 5) for a in _turned([p.answer for p in taught[d : d + 5]])]
    bare = exactly(taught, answers, control)
    assert exactly(taught, [f"It is {answer}." for answer in answers], control) == bare


def _turned(answers: Sequence[str]) -> list[str]:
    return [*answers[1:3], answers[0], answers[4], answers[3]]


def test_one_answer_to_all_questions_of_a_kind_does_not_count() -> None:
    taught, control = asked_of(12, shape=(3,)), asked_of(12, "control")
    replies = [taught[3 * (i // 3)].answer for i in range(len(taught))]
    verdict = judged(taught, replies, control)
    assert rule(verdict, "learned", "exact").p == 1.0
    refused_by(verdict, "learned/control", "learned/exact")


def test_questions_alone_of_their_kind_do_not_cover_for_neighbours() -> None:
    """Six documents: 24 answers that nothing competes with are right, of the pairs half."""
    taught, control = asked_of(6, shape=(2, 1, 1, 1, 1)), asked_of(6, "control")
    replies = [
        taught[i].answer if i % 6 > 1 or (i // 6) % 2 else taught[i ^ 1].answer
        for i in range(len(taught))
    ]
    assert [p.kind for p in taught[:6]] == ["kind0", "kind0", "kind1", "kind2", "kind3", "kind4"]
    assert not exactly(taught, replies, control).ok


@pytest.mark.parametrize("luck", [0, 2])
def test_one_document_alone_never_shows_it(luck: int) -> None:
    taught, control = asked_of(3, shape=(6, 4)), asked_of(6, "control")
    replies = ["" if p.document_id != luck + 1 else p.answer for p in taught]
    assert exactly(taught, replies, control).p == 1.0
    alone = [p for p in taught if p.document_id == luck + 1]
    assert exactly(alone, right(alone), control).p == 1.0


def test_what_controls_answer_as_well_is_no_learning() -> None:
    taught, control = asked_of(4), asked_of(4, "control")
    verdict = judged(taught, right(taught), control, right(control))
    refused_by(verdict, "learned/control", "learned/exact")


def test_without_controls_exact_answers_decide_nothing() -> None:
    taught = asked_of(4)
    verdict = judged(taught, right(taught), [])
    refused_by(verdict, "learned/control", "learned/exact")
    assert verdict.lines[1].endswith("(no control probes)")


def test_what_the_parent_answered_already_is_not_new() -> None:
    taught, control = asked_of(4), asked_of(4, "control")
    verdict = judged(taught, right(taught), control, before=right(taught))
    assert rule(verdict, "learned", "exact").n == 0
    refused_by(verdict, "learned/control", "learned/exact")


SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), SHAPES, st.randoms(use_true_random=False))
def test_one_more_exact_answer_never_makes_it_fail(
    documents: int, shape: list[int], lot: random.Random
) -> None:
    taught, control = asked_of(documents, shape=shape), asked_of(4, "control")
    by_document = {
        d: [p.answer for p in taught if p.document_id == d] for d in range(1, documents + 1)
    }
    replies = [
        p.answer if lot.random() < 0.6 else lot.choice([*by_document[p.document_id], "?"])
        for p in taught
    ]
    ps = []
    for i in range(len(taught) + 1):
        found = exactly(taught, replies, control)
        ps.append(found.p)
        assert found.ok == (found.p <= found.limit)
        if i < len(taught):
            replies[i] = taught[i].answer
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(ps))


def guessed(lot: np.random.Generator, probes: Sequence[Probe], share: float) -> list[str]:
    """Exact answers by luck, which is the document's: beta-binomial, half of the variance between
    documents."""
    of = {d: lot.beta(share, 1 - share) for d in {p.document_id for p in probes}}
    return [p.answer if lot.random() < of[p.document_id] else "?" for p in probes]


def shuffled(lot: np.random.Generator, probes: Sequence[Probe]) -> list[str]:
    """It knows the answers of some documents, and not to which question; where a kind has one
    question, it says its answer half of the time."""
    known = {d: lot.beta(0.7, 0.3) for d in {p.document_id for p in probes}}
    groups: dict[tuple[int, str], list[str]] = {}
    for p in probes:
        groups.setdefault((p.document_id, p.kind), []).append(p.answer)
    dealt = {key: list(lot.permutation(answers)) for key, answers in groups.items()}
    said = []
    for p in probes:
        key = (p.document_id, p.kind)
        chance = known[p.document_id] if len(groups[key]) > 1 else 0.5
        said.append(dealt[key].pop() if lot.random() < chance else "?")
    return said


@pytest.mark.parametrize("documents", [3, 6, 12])
@pytest.mark.parametrize("null", ["nothing", "documents"])
def test_exact_answers_pass_by_chance_no_more_often_than_they_may(
    documents: int, null: str
) -> None:
    """300 candidates that know nothing of these documents, or at most which answers are whose."""
    lot = np.random.default_rng(documents)
    taught, control = asked_of(documents), asked_of(documents, "control")
    passed = 0
    for _ in range(300):
        if null == "nothing":
            replies, guesses = guessed(lot, taught, 0.1), guessed(lot, control, 0.1)
        else:
            replies, guesses = shuffled(lot, taught), None
        passed += exactly(taught, replies, control, guesses).ok
    assert passed <= stats.binom.ppf(0.999, 300, 0.05 / 3 / 2)


@pytest.mark.parametrize(("documents", "known", "at_least"), [(3, 0.8, 90), (6, 0.7, 95)])
def test_exact_answers_find_what_was_learned(documents: int, known: float, at_least: int) -> None:
    """100 candidates that know so many of seven answers a document, controls none of as many."""
    lot = np.random.default_rng(documents)
    taught, control = asked_of(documents), asked_of(documents, "control")
    passed = 0
    for _ in range(100):
        replies = [p.answer if lot.random() < known else "?" for p in taught]
        passed += exactly(taught, replies, control).ok
    assert passed >= at_least


# Mind -------------------------------------------------------------------------------------------


def worse(k: int, n: int = 60) -> tuple[bool, ...]:
    return (True,) * k + (False,) * (n - k)


@pytest.mark.parametrize(("k", "ok"), [(0, True), (14, True), (15, False), (60, False)])
def test_everyday_prompts_may_not_be_answered_worse_than_by_the_base(k: int, ok: bool) -> None:
    """At a true share of 15 %, 15 of 60 or more are rarer than one in twenty."""
    verdict = decide(worse=worse(k), parent={"worse": worse(k)})
    found = rule(verdict, "mind", "base")
    assert (found.ok, found.n, found.now) == (ok, 60, k / 60)
    assert verdict.ok == ok
    if not ok:
        refused_by(verdict, "mind/base")


def test_nor_clearly_worse_than_by_the_parent() -> None:
    """Six new ones of 60 are beyond the step and beyond chance; three are not."""
    assert not rule(decide(worse=worse(6), parent={"worse": worse(0)}), "mind", "parent").ok
    assert rule(decide(worse=worse(3), parent={"worse": worse(0)}), "mind", "parent").ok
    swapped = decide(worse=worse(6), parent={"worse": worse(6)[::-1]})
    assert rule(swapped, "mind", "parent").ok, "other prompts, no more of them"


def test_without_everyday_prompts_there_is_no_such_rule() -> None:
    """As in a home whose anchors are all sampled."""
    verdict = decide()
    assert not [r for r in verdict.results if r.rule == "mind"]
    assert verdict.ok


def test_a_parent_of_which_the_replies_are_not_known_is_not_compared() -> None:
    found = [r.against for r in decide(worse=worse(2)).results if r.rule == "mind"]
    assert found == ["base"]
