"""The gate: stored measurements → Verdict. Pure functions, no model, no files.

A candidate passes when all of these hold. A bound holds one-sided with probability 1 − 0.05/looks:
98.3 % at three looks, because a cycle may look at three step sizes and publish the first that
passes. Where two kinds of evidence may show the same, each has half of that error: 99.2 %.

- *sound*: it was trained on supervised tokens and loads and answers in the engine (checked before
  this module sees any figure; a failure there arrives as `sound`), and every stored figure of all
  arms is a finite number;
- *learned*: by margins or by exact answers, each with half of the error, so that both together err
  no more often than one rule would; a mean margin that did not rise refuses whatever is exact.
  - Margins rose more on taught than on control probes. The effect is the difference in differences
    (candidate − parent, taught − control) in nats a token; its lower bound, bootstrapped with
    documents as the units, must lie above 0. Without control probes the rise is compared with
    zero, and the text says so: it then also counts what any training would raise. Where enough
    probes have rivals in their own document (`FEWEST_WITHIN`), the margin over those alone must
    have risen too: a model that only knows which answers belong to a document, and not to which
    question, raises the first margin (measured: answers shuffled within documents passed it).
  - Exact answers, of questions that the parent did not answer: more than two models give that
    learned nothing, because a bound over documents cannot be shown with three of them. Against one
    that knows *at most which answers belong to a document*, its own replies are dealt to the
    questions of one kind about one document by lot (an exact permutation test, so it does not
    matter that answers of one document come together). A question alone of its kind in its document
    counts as a coin, and from `FEWEST_WITHIN` others on those must show it by themselves. Against
    one that *knows nothing of these documents*, Fisher's exact test with the controls, without the
    document that shows most: the luck of one is no learning. So one document never passes this
    way, nor does anything without controls;
- *general*: the NLL of held-out blocks (`training.anchors`). The upper bound of the mean rise
  over the untouched base must not exceed `general_limit`; the mean rise over the parent not
  `general_step`. Blocks are independent texts, so each is a unit of its own;
- *kept*: the NLL of answers of earlier documents. Its mean rise since each was learned must not
  exceed `kept_limit`, from `FEWEST_KEPT` probes on (the mean of a few is mostly luck); over the
  parent it may exceed `kept_step` only while chance explains it (lower bound, clustered by
  document, not above 0);
- *chat*: the share of chat prompts with a well-formed reply must not fall more than `chat_limit`
  below the base's, with fewer than `FEWEST_CHATS` prompts unless chance explains it (of 24 replies
  two more are cut off at the limit by mere luck); nor more than `chat_step` below the parent's
  unless chance explains it (exact one-sided McNemar test on the same prompts, p ≥ .05);
- *mind*: the share of everyday prompts (greetings, "who are you", common knowledge) whose reply is
  worse than the base's (`mind`) must not exceed `mind_limit` unless chance explains it (binomial);
  nor exceed the share of a parent that is not the base by more than `mind_step` unless chance
  explains it (McNemar as above).

When n is small the rules differ in kind. Conditions on a mean or a share alone (general/parent,
kept/learned, chat/base with many prompts) decide on the figure as it stands. Conditions
on a bound that must be shown (learned/control, general/base) fail when there is too little to show
it: one taught probe never passes, nor do a few exact answers. Conditions that reject only what
chance does not explain (kept/parent, chat/parent, mind) cannot reject then: McNemar needs at least
five replies lost and none won. Drift that is too small or too rarely measured to show against the
parent is left to its anchor: the base for general text and chat, the day of learning for what is
kept.

A rule without data (no kept probes, no chat prompts) is left out; *learned* without a taught probe
fails. Probes count that were answered by both sides of a comparison; blocks and prompts must be
the same in all arms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from types import MappingProxyType
from typing import Literal

from autodidact.evaluation import statistics
from autodidact.evaluation.evidence import FEWEST_WITHIN, by_lot, without_the_best
from autodidact.evaluation.statistics import Interval
from autodidact.types.cycle import (
    CHANCE,
    ChatFigures,
    Count,
    Figures,
    GeneralNll,
    Limits,
    MarginRise,
    ProbeResult,
    Reason,
    RuleResult,
    Verdict,
)
from autodidact.types.documents import Probe

FEWEST_KEPT = 20
FEWEST_CHATS = 100
NOTHING_BEFORE: Mapping[str, float] = MappingProxyType({})

RuleName = Literal["learned", "general", "kept", "chat", "mind"]


@dataclass(frozen=True)
class Arm:
    """The stored measurements of one version of the model. `general`: NLL a token of each block;
    `chat`: per prompt, whether the reply was well-formed (`well_formed`); `worse`: per everyday
    prompt, whether its reply is worse than the base's (`mind`). Blocks and prompts are the same and
    in the same order in all arms."""

    probes: Mapping[str, ProbeResult]
    general: Sequence[float]
    chat: Sequence[bool]
    worse: Sequence[bool] = ()


def decide(
    probes: Sequence[Probe],
    base: Arm,
    parent: Arm,
    candidate: Arm,
    limits: Limits,
    when_learned: Mapping[str, float] = NOTHING_BEFORE,
    sound: str = "",
    learn: bool = True,
) -> Verdict:
    """The verdict and every figure behind it; what is not finite is None there.

    `base.probes` may be empty. `when_learned`: mean log-probability a token of a kept probe's
    answer when its document was learned. `sound`: a fault or "". `learn`: False where the cycle
    taught nothing new (consolidation, forgetting), so that nothing can be *learned*.
    """
    if sound:
        return Verdict(False, (Reason("sound", sound),))
    effect, learned = _learned(probes, parent, candidate, limits)
    results = [
        *(learned if learn else ()),
        *_general(base.general, parent.general, candidate.general, limits),
        *_kept(probes, parent, candidate, when_learned, limits),
        *_chat(base.chat, parent.chat, candidate.chat, limits),
        *_mind(parent.worse, candidate.worse, limits),
    ]
    fault = _not_finite({"base": base, "parent": parent, "candidate": candidate}, when_learned)
    reasons = [Reason("sound", fault)] if fault else []
    reasons += [Reason(result.rule, result.text) for result in results if result.refuses]
    taught, unseen, control, kept = (
        counts(probes, parent, candidate, split)
        for split in ("taught", "unseen", "control", "kept")
    )
    figures = Figures(
        taught,
        unseen,
        control,
        kept,
        MarginRise(_plain(effect.value), _plain(effect.stderr), _plain(effect.lower), effect.n),
        _general_means(base.general, parent.general, candidate.general, limits),
        ChatFigures(
            *(Count(_well_formed(arm.chat), len(arm.chat)) for arm in (base, parent, candidate))
        ),
    )
    return Verdict(not reasons, tuple(reasons), tuple(results), figures)


def counts(probes: Sequence[Probe], parent: Arm, candidate: Arm, split: str) -> Count:
    """Probes of a split answered exactly: k of n by the candidate, `before` by its parent."""
    asked = [p.id for p in _asked(probes, split, parent, candidate)]
    return Count(
        sum(int(candidate.probes[i].correct) for i in asked),
        len(asked),
        sum(int(parent.probes[i].correct) for i in asked),
    )


# The rules, in the order of the report -----------------------------------------------------------


def _learned(
    probes: Sequence[Probe], parent: Arm, candidate: Arm, limits: Limits
) -> tuple[Interval, list[RuleResult]]:
    """By margins or by exact answers: what fails is excused where the other passes, unless a
    margin fell."""
    asked, controls = (_asked(probes, s, parent, candidate) for s in ("taught", "control"))
    effect, first = _margin(asked, controls, parent, candidate, limits)
    margins = [first, *_margin_within(asked, controls, parent, candidate, limits)]
    exact = list(_exact(asked, controls, parent, candidate, limits))
    rose = all(row.value is not None and row.value > 0 for row in margins)
    by_margin = all(row.ok for row in margins)
    by_exact = rose and any(row.ok for row in exact)
    return effect, [
        *(_excused(row, by_exact, "exact answers show it") for row in margins),
        *(_excused(row, by_margin, "the margin shows it") for row in exact),
    ]


def _excused(row: RuleResult, shown: bool, why: str) -> RuleResult:
    """A test that failed refuses nothing where the other evidence shows what it could not."""
    if row.ok or not shown:
        return row
    return replace(row, excused=True, text=f"{row.text}; {why}")


def _margin(
    asked: Sequence[Probe],
    controls: Sequence[Probe],
    parent: Arm,
    candidate: Arm,
    limits: Limits,
) -> tuple[Interval, RuleResult]:
    before, now = (
        {i: _figure(result.margin) for i, result in arm.probes.items()}
        for arm in (parent, candidate)
    )
    taught, control = (_rises(group, before, now) for group in (asked, controls))
    effect = statistics.clustered_bootstrap(taught, control, limits.learned_level)
    if effect.n == 0:
        text = "no probe on a taught document was measured"
    elif math.isnan(effect.value):
        text = "a margin is not a finite number"
    elif math.isinf(effect.lower):
        text = f"too few probes to tell ({effect.n} taught, {len(controls)} control)"
    else:
        against = (
            f"taught − control {effect.value:+.2f} nat"
            if controls
            else f"taught {effect.value:+.2f} nat (no control probes: compared with zero)"
        )
        text = (
            f"margin {against}, lower bound {effect.lower:+.2f}, must be above 0 "
            f"({effect.n} probes of {_documents(len(taught))}, {len(controls)} control)"
        )
    return effect, _rule(
        "learned", "control", effect.lower > 0, effect, 0.0, text,
        before=_mean([before[p.id] for p in asked]), now=_mean([now[p.id] for p in asked]),
    )  # fmt: skip


def _margin_within(
    asked: Sequence[Probe],
    controls: Sequence[Probe],
    parent: Arm,
    candidate: Arm,
    limits: Limits,
) -> Iterator[RuleResult]:
    """The same for margins over answers of the same document, where enough probes have such."""
    before, now = (
        {i: _figure(r.within) for i, r in arm.probes.items() if r.within is not None}
        for arm in (parent, candidate)
    )
    there, others = (
        [p for p in group if p.id in before and p.id in now] for group in (asked, controls)
    )
    taught = _rises(there, before, now)
    if len(there) < FEWEST_WITHIN or len(taught) < statistics.FEWEST_CLUSTERS:
        return
    effect = statistics.clustered_bootstrap(
        taught, _rises(others, before, now), limits.learned_level
    )
    text = (
        f"margin over answers of the same document {effect.value:+.2f} nat, lower bound "
        f"{effect.lower:+.2f}, must be above 0 ({effect.n} probes of {_documents(len(taught))})"
    )
    yield _rule(
        "learned", "document", effect.lower > 0, effect, 0.0, text,
        before=_mean([before[p.id] for p in there]), now=_mean([now[p.id] for p in there]),
    )  # fmt: skip


def _exact(
    asked: Sequence[Probe],
    controls: Sequence[Probe],
    parent: Arm,
    candidate: Arm,
    limits: Limits,
) -> Iterator[RuleResult]:
    """Newly exact answers: more than a model gives that knows no single fact."""
    if not asked:
        return
    new, other = (
        [p for p in group if not parent.probes[p.id].correct] for group in (asked, controls)
    )
    k, control = (sum(bool(candidate.probes[p.id].correct) for p in g) for g in (new, other))
    results = candidate.probes
    p = max(by_lot(new, results), without_the_best(new, control, len(other), results))
    limit = 1 - limits.learned_level
    text = (
        f"{k} of {len(new)} newly exact ({_documents(len({p.document_id for p in new}))}), "
        f"control {control} of {len(other)}; chance explains it with p {p:.4f}, "
        f"must be at most {limit:.4f}"
    )
    if not other:
        text += " (no control probes)"
    before, now = (
        _mean([float(bool(arm.probes[p.id].correct)) for p in asked]) for arm in (parent, candidate)
    )
    share = k / len(new) if new else math.nan
    found = share - (control / len(other) if other else 0.0)
    yield RuleResult(
        "learned", "exact", p <= limit, _plain(found), None, None, limit, _plain(before),
        _plain(now), len(new), "share", text, p,
    )  # fmt: skip


def _general(
    base: Sequence[float], parent: Sequence[float], candidate: Sequence[float], limits: Limits
) -> Iterator[RuleResult]:
    if not (len(base) or len(parent) or len(candidate)):
        return
    for against, before, limit in (
        ("base", base, limits.general_limit),
        ("parent", parent, limits.general_step),
    ):
        rise = _paired_rise(before, candidate, limits.level)
        value_decides = against == "parent"
        if len(before) != len(candidate):
            text = f"{len(candidate)} blocks measured, {len(before)} of the {against}"
        elif math.isnan(rise.value):
            text = f"the NLL of a block is not a finite number (against the {against})"
        elif math.isinf(rise.upper) and not value_decides:
            text = "one block is too few to tell"
        else:
            bound = "mean" if value_decides else f"upper bound {rise.upper:+.3f}"
            text = (
                f"{rise.value:+.3f} nat over the {against}, {bound}, limit {limit:+.3f} "
                f"({rise.n} blocks)"
            )
        ok = (rise.value if value_decides else rise.upper) <= limit
        yield _rule(
            "general", against, ok, rise, limit, text, before=_mean(before), now=_mean(candidate)
        )


def _kept(
    probes: Sequence[Probe],
    parent: Arm,
    candidate: Arm,
    when_learned: Mapping[str, float],
    limits: Limits,
) -> Iterator[RuleResult]:
    then = {i: -_figure(logprob) for i, logprob in when_learned.items()}
    before, now = (
        {i: -_figure(result.logprob) for i, result in arm.probes.items()}
        for arm in (parent, candidate)
    )
    for against, nll, limit in (
        ("learned", then, limits.kept_limit),
        ("parent", before, limits.kept_step),
    ):
        here = [p for p in probes if p.split == "kept" and p.id in nll and p.id in now]
        if not here:
            continue
        rises = _rises(here, nll, now)
        rise = statistics.clustered_mean(rises, limits.level)
        since = "since learned" if against == "learned" else "over the parent"
        where = f"({rise.n} probes of {_documents(len(rises))})"
        if math.isnan(rise.value):
            ok, text = False, f"the NLL of an answer is not a finite number ({since})"
        elif against == "learned":
            ok = rise.value <= limit or rise.n < FEWEST_KEPT
            few = "" if rise.n >= FEWEST_KEPT else "; too few to decide"
            text = f"{rise.value:+.3f} nat {since}, mean, limit {limit:+.3f} {where}{few}"
        else:
            ok = not (rise.value > limit and rise.lower > 0)
            bound = "unknown" if math.isinf(rise.lower) else f"{rise.lower:+.3f}"
            text = (
                f"{rise.value:+.3f} nat {since}, lower bound {bound}, limit {limit:+.3f} "
                f"unless the bound is 0 or less {where}"
            )
        yield _rule(
            "kept", against, ok, rise, limit, text,
            before=_mean([nll[p.id] for p in here]), now=_mean([now[p.id] for p in here]),
        )  # fmt: skip


def _chat(
    base: Sequence[bool], parent: Sequence[bool], candidate: Sequence[bool], limits: Limits
) -> Iterator[RuleResult]:
    if not (len(base) or len(parent) or len(candidate)):
        return
    n, k = len(candidate), _well_formed(candidate)
    for against, replies, limit in (
        ("base", base, limits.chat_limit),
        ("parent", parent, limits.chat_step),
    ):
        k_before = _well_formed(replies)
        # whole numbers add up exactly: 15 of 300 is .05, and not above it
        fall = _paired_rise(list(map(bool, candidate)), list(map(bool, replies)), limits.level)
        ok = fall.value <= limit
        if fall.n == 0:
            text = f"{n} prompts answered, {len(replies)} by the {against}"
        else:
            text = (
                f"well-formed {k} of {n}, the {against} {k_before}: "
                f"{100 * (k - k_before) / n:+.1f} points, limit {-100 * limit:+.1f}"
            )
        if (against == "parent" or n < FEWEST_CHATS) and fall.n:
            p = _luck(replies, candidate)
            ok = ok or not p < CHANCE
            text += f" unless p ≥ {CHANCE:.2f}, p {p:.3f}"
        yield _rule(
            "chat", against, ok, fall, limit, text, unit="share",
            before=_mean(list(map(bool, replies))), now=_mean(list(map(bool, candidate))),
        )  # fmt: skip


def _mind(
    parent: Sequence[bool], candidate: Sequence[bool], limits: Limits
) -> Iterator[RuleResult]:
    n, k, before = len(candidate), sum(candidate), sum(parent)
    if not n:
        return
    share = _paired_rise([False] * n, list(candidate), limits.level)
    chance = statistics.binomial_tail(k, n, limits.mind_limit)
    text = (
        f"{k} of {n} everyday prompts answered worse than by the base, "
        f"limit {100 * limits.mind_limit:.0f} % unless p ≥ {CHANCE:.2f}, p {chance:.3f}"
    )
    yield _rule(
        "mind", "base", not chance < CHANCE, share, limits.mind_limit, text, unit="share",
        before=0.0, now=k / n,
    )  # fmt: skip
    if len(parent) != n:
        return
    rise = _paired_rise(list(parent), list(candidate), limits.level)
    p = _luck(candidate, parent)
    ok = k - before <= limits.mind_step * n or not p < CHANCE
    text = (
        f"worse than the base {k} of {n}, the parent {before}: "
        f"{100 * (k - before) / n:+.1f} points, "
        f"limit {100 * limits.mind_step:+.1f} unless p ≥ {CHANCE:.2f}, p {p:.3f}"
    )
    yield _rule(
        "mind", "parent", ok, rise, limits.mind_step, text, unit="share",
        before=before / n, now=k / n,
    )  # fmt: skip


# Figures -----------------------------------------------------------------------------------------


def _rule(
    rule: RuleName,
    against: str,
    ok: bool,
    found: Interval,
    limit: float,
    text: str,
    *,
    before: float,
    now: float,
    unit: str = "nat",
) -> RuleResult:
    return RuleResult(
        rule,
        against,
        bool(ok),
        _plain(found.value),
        _plain(found.lower),
        _plain(found.upper),
        limit,
        _plain(before),
        _plain(now),
        found.n,
        unit,
        text,
    )


def _general_means(
    base: Sequence[float], parent: Sequence[float], candidate: Sequence[float], limits: Limits
) -> GeneralNll:
    first, before, now = (_mean(arm) for arm in (base, parent, candidate))
    return GeneralNll(
        base=_plain(first),
        parent=_plain(before),
        candidate=_plain(now),
        rise=_plain(now - first),
        limit=limits.general_limit,
        pct=_plain(100 * (now - first) / first if first else math.nan),
        n=len(candidate),
    )


def _paired_rise(before: Sequence[float], now: Sequence[float], level: float) -> Interval:
    """Of independent units measured twice; NaN where the measurements do not pair up."""
    if len(before) != len(now):
        return statistics.clustered_mean([], level)
    rises = [[_figure(b) - _figure(a)] for a, b in zip(before, now, strict=True)]
    return statistics.clustered_mean(rises, level)


def _asked(probes: Sequence[Probe], split: str, parent: Arm, candidate: Arm) -> list[Probe]:
    """Probes of a split that both versions answered."""
    return [
        p for p in probes
        if p.split == split and p.id in parent.probes and p.id in candidate.probes
    ]  # fmt: skip


def _rises(
    probes: Sequence[Probe], before: Mapping[str, float], now: Mapping[str, float]
) -> list[list[float]]:
    """now − before of each probe, by document."""
    clusters: dict[int, list[float]] = {}
    for probe in probes:
        rise = now[probe.id] - before[probe.id]
        clusters.setdefault(probe.document_id, []).append(rise)
    return list(clusters.values())


def _luck(more: Sequence[bool], fewer: Sequence[bool]) -> float:
    """One-sided p of McNemar's test that `more` holds of more units than `fewer` by luck alone."""
    pairs = list(zip(more, fewer, strict=True))
    return statistics.mcnemar(
        sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    ).one_sided


def _well_formed(replies: Sequence[bool]) -> int:
    return sum(bool(reply) for reply in replies)


def _documents(n: int) -> str:
    return f"{n} document" + "s" * (n != 1)


def _mean(values: Sequence[float]) -> float:
    figures = [_figure(value) for value in values]
    try:
        return math.fsum(figures) / len(figures) if figures else math.nan
    except (OverflowError, ValueError):  # beyond the floats, or ∞ − ∞
        return math.nan


def _figure(value: object) -> float:
    """A stored figure as a number: SQLite keeps NaN as NULL, which comes back as None."""
    return float(value) if isinstance(value, Real) else math.nan


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _not_finite(arms: Mapping[str, Arm], when_learned: Mapping[str, float]) -> str:
    """The first stored figure that is no finite number, in words; "" if there is none."""
    for name, arm in arms.items():
        for probe_id, result in arm.probes.items():
            for what, value in (("margin", result.margin), ("log-probability", result.logprob)):
                if not math.isfinite(_figure(value)):
                    return f"{name}: the {what} of probe {probe_id} is {value}"
        for number, value in enumerate(arm.general, start=1):
            if not math.isfinite(_figure(value)):
                return f"{name}: the NLL of general block {number} is {value}"
    for probe_id, value in when_learned.items():
        if not math.isfinite(_figure(value)):
            return f"when learned: the log-probability of probe {probe_id} is {value}"
    return ""
