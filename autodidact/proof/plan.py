"""What is done, in which order, and how long it will take. Pure.

For each seed the articles are shuffled and `articles` of them taken: half A, half B. Arm A is
taught A and has B for control; arm B is the swap. Naive arms are paired likewise; the negative
controls (placebo, shuffled answers) are trained once a seed, on the side of arm A.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autodidact.errors import SettingError

Kind = Literal["learned", "naive", "placebo", "shuffled-within", "shuffled-between"]
CONTROLS = ("placebo", "shuffled-within", "shuffled-between", "naive", "aa")
LEAST_MINUTES = 3.0
ANCHOR_SHARE, ANCHOR_LEAST_S, ANCHOR_MOST_S = 0.05, 10.0, 240.0
RETENTION_QUESTIONS = 40
"""Questions an article that are asked after each cycle of a stream."""
BOOK_QUESTIONS = 100
"""Questions of an arm's taught articles that are asked with passages."""


@dataclass(frozen=True)
class TrialArm:
    """One model to train. `taught` is the side that counts as taught when it is measured (for the
    placebo too, which reads other documents); `cycles` are the taught articles in the order of a
    stream."""

    name: str
    seed: int
    side: Literal["A", "B"]
    kind: Kind
    taught: tuple[str, ...]
    control: tuple[str, ...]
    cycles: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Unit:
    """A piece of work that is finished as a whole and kept as a file of that name. `what` says who
    does it; `arm`, `title` and `cycle` say on what."""

    name: str
    what: Literal["anchors", "base", "general", "train", "ask", "retention", "book"]
    seconds: float
    arm: TrialArm | None = None
    title: str = ""
    cycle: int = 0
    book: Literal["", "base", "learned"] = ""


@dataclass(frozen=True)
class Costs:
    """Seconds that one of each takes on this machine, tried out. `lora` means with an adapter."""

    anchors: float
    ask: float
    ask_lora: float
    book: float
    book_lora: float
    general: float
    general_lora: float
    step: float
    naive_step: float
    export: float


def draw(
    titles: Sequence[str], articles: int, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The two halves of a seed. Raises SettingError if there are not so many articles."""
    if articles < 4 or articles % 2:
        raise SettingError(f"--articles {articles}: must be even and at least 4")
    if articles > len(titles):
        raise SettingError(f"--articles {articles}: only {len(titles)} documents have questions")
    chosen = random.Random(f"articles {seed}").sample(sorted(titles), articles)
    return tuple(chosen[: articles // 2]), tuple(chosen[articles // 2 :])


def consecutive(titles: Sequence[str], cycles: int) -> tuple[tuple[str, ...], ...]:
    """The articles in `cycles` consecutive groups, as equal as can be."""
    if not 1 <= cycles <= len(titles):
        raise SettingError(
            f"--cycles {cycles}: must be from 1 to {len(titles)}, the taught articles"
        )
    bounds = [round(i * len(titles) / cycles) for i in range(cycles + 1)]
    return tuple(tuple(titles[a:b]) for a, b in itertools.pairwise(bounds))


def arms(
    titles: Sequence[str], articles: int, seeds: int, cycles: int, controls: Sequence[str]
) -> list[TrialArm]:
    """All models to train, in order."""
    made: list[TrialArm] = []
    for seed in range(seeds):
        half = draw(titles, articles, seed)
        kinds: list[Kind] = ["learned"]
        kinds += [k for k in ("naive", "placebo", "shuffled-within", "shuffled-between")
                  if k in controls]  # fmt: skip
        for kind in kinds:
            for i, side in enumerate(("A", "B")):
                if i and kind not in ("learned", "naive"):
                    continue
                taught, control = half[i], half[1 - i]
                groups = consecutive(taught, cycles if kind == "learned" else 1)
                name = f"s{seed}-{kind}-{side}"
                made.append(TrialArm(name, seed, "B" if i else "A", kind, taught, control, groups))
    return made


def units(
    arms: Sequence[TrialArm],
    questions: Mapping[str, int],
    numbers: Mapping[str, int],
    naive_steps: Mapping[str, int],
    costs: Costs,
    minutes: float,
) -> list[Unit]:
    """Every unit of work with its estimated seconds. `questions` and `numbers` by article;
    `naive_steps` by arm; `minutes` of training an arm."""
    used = sorted({t for arm in arms for t in (*arm.taught, *arm.control)}, key=numbers.__getitem__)
    made = [Unit("anchors", "anchors", costs.anchors)]
    made += [
        Unit(f"base-{numbers[t]:03d}", "base", questions[t] * costs.ask, title=t) for t in used
    ]
    made.append(Unit("base-general", "general", costs.general))
    for arm in arms:
        for cycle, _ in enumerate(arm.cycles, 1):
            train_s = minutes * 60 / len(arm.cycles)
            if arm.kind == "naive":
                train_s = naive_steps[arm.name] * costs.naive_step
            name = f"{arm.name}-train-{cycle:02d}"
            made.append(Unit(name, "train", train_s + costs.export, arm, cycle=cycle))
            if len(arm.cycles) > 1:
                asked = sum(min(RETENTION_QUESTIONS, questions[t]) for t in arm.taught)
                seconds = asked * costs.ask_lora + costs.general_lora
                name = f"{arm.name}-kept-{cycle:02d}"
                made.append(Unit(name, "retention", seconds, arm, cycle=cycle))
        for title in (*arm.taught, *arm.control):
            seconds = questions[title] * costs.ask_lora
            made.append(Unit(f"{arm.name}-{numbers[title]:03d}", "ask", seconds, arm, title))
        made.append(Unit(f"{arm.name}-general", "general", costs.general_lora, arm))
        if arm.kind == "learned":
            asked = min(BOOK_QUESTIONS, sum(questions[title] for title in arm.taught))
            for book, cost in (("base", costs.book), ("learned", costs.book_lora)):
                made.append(
                    Unit(f"{arm.name}-book-{book}", "book", asked * cost, arm,
                         book="base" if book == "base" else "learned")
                )  # fmt: skip
    return made


def minutes_left(units: Sequence[Unit], arms: Sequence[TrialArm], left_s: float) -> float:
    """Training minutes of an arm, if all but training takes what `units` (those still to do, made
    with 0 minutes) say and `left_s` is left; three at least."""
    trained = sum(arm.kind != "naive" for arm in arms)
    rest = sum(unit.seconds for unit in units)
    return max(LEAST_MINUTES, (0.96 * left_s - rest) / 60 / trained)
