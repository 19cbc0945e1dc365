"""What fits into the time of a cycle: documents, steps, replay, questions to measure. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from autodidact.training.pace import QUESTIONS_FIRST, Clock
from autodidact.training.recipe import Recipe
from autodidact.types.cycle import Plan
from autodidact.types.documents import Probe, Split

MIN_STEPS = 8
ENOUGH_TIMED = 10
"""So many steps tell their pace."""
FORMS_A_PASS = 7
"""How often one pass over everything shows a fact: four questions, a gap, a restatement, the
text."""
MOST_REPLAY = 0.9
MOST_KL = 4.0
RELEARN = 3
"""How often each fact is shown when a store is relearned from the base, in parts of what a cycle
shows it at least: about what brought two thirds of invented facts to exact answers in one cycle
(docs/lab-log.md)."""
MIN_BLOCKS, MIN_CHATS, MIN_PROBES = 16, 24, 12
PROBE_PART, BLOCK_PART, CHAT_PART = 0.6, 0.15, 0.25


def kl_weight(weight: float, target: float, rise: float) -> float:
    """The weight of the KL term for an adapter that has drifted by `rise`, in nats a token.

    A fixed weight sets what one cycle drifts, not where a hundred cycles end: every fact that is
    added takes a little. So the weight follows the drift, as the adaptive penalty of PPO does
    (Schulman et al. 2017, section 4): while there is room facts are cheap, and near the target the
    pull grows until what is learned costs nothing more.
    """
    if not target or rise <= target:
        return weight
    return weight * min(MOST_KL, (rise / target) ** 2)


def relearning_s(recipe: Recipe, forms: float, steps_a_pass: int, step_s: float) -> float:
    """Seconds of training that relearning a whole store from the base takes, however long that is:
    what was learned over many cycles does not fit into the time of one."""
    return RELEARN * recipe.least / forms * steps_a_pass * step_s


def fit(
    recipe: Recipe,
    forms: float,
    offered: Sequence[int],
    a_pass: Callable[[Sequence[int], float], int],
    share_of: Callable[[Sequence[int]], float],
    step_s: float,
    train_s: float,
) -> Plan:
    """Take as many documents, in order, as can be shown the recipe's `least` times in `train_s`;
    at least one. Nothing `offered` means that all of the store is relearned. A pass shows a fact
    `forms` times.

    `a_pass(documents, share)` counts the steps of one pass with that share of replay, and
    `share_of(documents)` says what it is to be beside these, 0 where there is nothing to replay.
    New facts are shown at most the recipe's `most` times: the time that this leaves goes to replay,
    up to nine tenths, and only then is a cycle shorter than it might be.
    """
    possible = max(MIN_STEPS, int(train_s / step_s))
    least, most = recipe.least / forms, recipe.most / forms
    taken = list(offered)
    while len(taken) > 1 and possible / a_pass(taken, share_of(taken)) < least:
        taken.pop()
    share = share_of(taken)
    if share and possible > most * a_pass(taken, share):
        alone = a_pass(taken, 0.0)
        share = max(share, min(MOST_REPLAY, 1 - most * alone / possible))
    steps_a_pass = a_pass(taken, share)
    most_steps = max(MIN_STEPS, int(most * steps_a_pass))
    return Plan(
        documents=tuple(taken),
        steps=max(MIN_STEPS, min(possible, most_steps)),
        most_steps=most_steps,
        steps_a_pass=steps_a_pass,
        replay=share,
        train_s=train_s,
        seconds_per_step=step_s,
        forms=forms,
    )


@dataclass(frozen=True)
class PlanPace:
    """The pace of a plan: so many steps, corrected up to half-way by how long they really take."""

    plan: Plan

    @property
    def steps(self) -> int:
        return self.plan.steps

    def fraction(self, clock: Clock) -> float:
        return clock.step / clock.steps

    def early(self, clock: Clock) -> bool:
        return clock.step < int(self.plan.steps * QUESTIONS_FIRST)

    def corrected(self, clock: Clock, recent_s: Sequence[float]) -> int:
        if len(recent_s) < ENOUGH_TIMED or clock.step > clock.steps / 2:
            return clock.steps
        left = int((self.plan.train_s - clock.trained_s) / fmean(recent_s))
        return max(MIN_STEPS, clock.step + 1, min(self.plan.most_steps, clock.step + left))


def pools(probes: Sequence[Probe], documents: Sequence[int]) -> dict[Split, list[Probe]]:
    """Probes by split; those on offered documents only if the document was taken."""
    taken = set(documents)
    found: dict[Split, list[Probe]] = {}
    for probe in probes:
        if probe.split not in ("taught", "unseen") or probe.document_id in taken:
            found.setdefault(probe.split, []).append(probe)
    return found


def sizes(
    there: Mapping[Split, int],
    limits: Mapping[Split, int],
    seconds: Mapping[str, float],
    budget_s: float,
    arms: int,
) -> tuple[dict[Split, int], int, int]:
    """How many probes of each split, blocks and chats can be measured in `budget_s`.

    `seconds`: what one of each takes. Probes are asked of parent and candidate, blocks and chats of
    `arms` models. A few of each are measured however slow the machine is.
    """
    wanted = {split: min(count, limits[split]) for split, count in there.items()}
    fits = max(0, int(budget_s * PROBE_PART / 2 / max(seconds["probes"], 1e-6)))
    total = sum(wanted.values())
    if fits < total:
        wanted = {s: max(min(n, MIN_PROBES), n * fits // total) for s, n in wanted.items()}
    blocks = int(budget_s * BLOCK_PART / arms / max(seconds["blocks"], 1e-6))
    chats = int(budget_s * CHAT_PART / arms / max(seconds["chats"], 1e-6))
    return wanted, max(MIN_BLOCKS, blocks), max(MIN_CHATS, chats)


def spread(probes: Sequence[Probe], limit: int) -> list[Probe]:
    """`limit` of the probes, taking documents in turn."""
    turns: dict[int, int] = {}
    ranked: list[tuple[int, int, Probe]] = []
    for probe in sorted(probes, key=lambda p: p.id.rpartition("-")[2]):
        turns[probe.document_id] = turns.get(probe.document_id, 0) + 1
        ranked.append((turns[probe.document_id], len(ranked), probe))
    return [probe for _, _, probe in sorted(ranked, key=lambda r: r[:2])[:limit]]
