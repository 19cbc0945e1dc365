"""Which fact is shown next: those that the model does not know yet more often than those it knows.

A fact counts as known once the model would have said its answer by itself, word for word, in the
last two of its sequences that it was shown, which ask for it in two ways. Each fact is drawn by
stride scheduling (Waldspurger and Weihl 1995): the next one is the one whose time has come, and a
draw puts it off by 1, or by `KNOWN` once it is known. So all unknown facts are shown equally often,
each of its sequences in turn, and a fact that is forgotten on the way comes back to its full share.

Facts of earlier cycles (replay) take part in the same way. They begin as known, and get at most
the share that is set for replay; within it, their weights decide.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from autodidact.errors import Misfit
from autodidact.training.pace import Clock
from autodidact.training.sequences import TrainingSequence
from autodidact.types import wire

KNOWN = 4.0
WORDINGS = 2
"""So many different sequences in a row tell that a fact is known."""


def replay_share(new: int, old: int, most: float) -> float:
    """The share of replay among `new` facts to learn and `old` known ones: what their strides
    give, `most` at most."""
    return min(most, old / KNOWN / (new + old / KNOWN)) if old else 0.0


@dataclass
class _Fact:
    """`due`: when its next draw comes, in draws of an unknown fact. `said`: the last sequences
    shown, by their number, and whether they were said by the model itself."""

    rows: tuple[TrainingSequence, ...]
    weight: float
    known: bool
    due: float
    shown: int = 0
    said: list[tuple[int, bool]] = field(default_factory=list)

    def stride(self) -> float:
        return (KNOWN if self.known else 1.0) / self.weight


@dataclass(frozen=True)
class _Draws:
    """What `Sampler.state` writes: of each fact, in order, when it is due, how often it was
    shown, whether it is known, and what was said; and what replay is owed of a row."""

    facts: tuple[tuple[float, int, bool, tuple[tuple[int, bool], ...]], ...]
    owed: float


class Sampler:
    """Batches of `size` rows, `share` of them of `old`. No fact comes twice in a batch while there
    are enough facts. Implements `feed.Feed`."""

    def __init__(
        self,
        new: Sequence[TrainingSequence],
        old: Sequence[TrainingSequence],
        share: float,
        size: int,
        seed: int,
    ) -> None:
        order = random.Random(seed)
        self._size = size
        self._share = share if old and new else 0.0
        self._new = _facts(new or old, order, known=False)
        self._old = _facts(old, order, known=True) if self._share else []
        self._begin = self._state(0.0)
        self.restore("", Clock())

    def next(self, *, early: bool = False) -> list[TrainingSequence]:
        self._owed += self._share * self._size
        count = int(self._owed)
        self._owed -= count
        return self._drawn(self._new, self._size - count) + self._drawn(self._old, count)

    def heard(self, batch: Sequence[TrainingSequence], right: Sequence[bool]) -> None:
        for row, said in zip(batch, right, strict=False):
            fact, number = self._where[row]
            fact.said = [(n, s) for n, s in fact.said if n != number][1 - WORDINGS :]
            fact.said.append((number, said))
            enough = min(WORDINGS, len(fact.rows))
            fact.known = len(fact.said) >= enough and all(s for _, s in fact.said)

    @property
    def known(self) -> int:
        """How many of the new facts are known by now."""
        return sum(fact.known for fact in self._new)

    def state(self) -> str:
        return wire.to_json(self._state(self._owed))

    def restore(self, state: str, clock: Clock) -> None:
        try:
            found = wire.from_json(_Draws, state.encode(), "sampler") if state else self._begin
        except Misfit:
            found = self._begin
        if len(found.facts) != len(self._new) + len(self._old):
            found = self._begin
        self._owed = found.owed
        self._where: dict[TrainingSequence, tuple[_Fact, int]] = {}
        for fact, (due, shown, known, said) in zip(
            (*self._new, *self._old), found.facts, strict=True
        ):
            fact.due, fact.shown, fact.known, fact.said = due, shown, known, list(said)
            self._where.update((row, (fact, number)) for number, row in enumerate(fact.rows))

    def _state(self, owed: float) -> _Draws:
        return _Draws(
            tuple((f.due, f.shown, f.known, tuple(f.said)) for f in (*self._new, *self._old)), owed
        )

    def _drawn(self, facts: Sequence[_Fact], count: int) -> list[TrainingSequence]:
        rows: list[TrainingSequence] = []
        while len(rows) < count:
            for fact in heapq.nsmallest(count - len(rows), facts, key=lambda f: f.due):
                rows.append(fact.rows[fact.shown % len(fact.rows)])
                fact.shown += 1
                fact.due += fact.stride()
        return rows


def _facts(rows: Sequence[TrainingSequence], order: random.Random, *, known: bool) -> list[_Fact]:
    """By fact; a sequence on no fact (a text) is one for itself. Each begins at another time of its
    first stride, so that equal ones take turns."""
    found: dict[object, list[TrainingSequence]] = {}
    for number, row in enumerate(dict.fromkeys(rows)):
        found.setdefault(row.fact or number, []).append(row)
    groups = [order.sample(group, len(group)) for group in found.values()]
    mean = sum(group[0].weight * len(group) for group in groups) / max(1, len(groups))
    made = []
    for group in groups:
        weight = max(group[0].weight * len(group) / mean, 1e-3)
        fact = _Fact(tuple(group), weight if known else 1.0, known, 0.0)
        fact.due = order.random() * fact.stride()
        made.append(fact)
    return made


def batches(sampler: Sampler) -> Iterator[list[TrainingSequence]]:
    """Endless batches of a sampler that hears nothing, as trials of speed take them."""
    while True:
        yield sampler.next()
