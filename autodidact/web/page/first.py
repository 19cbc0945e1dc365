"""The first facts that a learner studies, for who waits for the first cycle: plain data, taken from
documents of others, so whatever shows them escapes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from autodidact.store.ledger import LearnerStore
from autodidact.types.documents import Fact

MOST = 5


@dataclass(frozen=True)
class FirstFact:
    """A question and its answer, and the title of the document that says so."""

    question: str
    answer: str
    title: str


@dataclass(frozen=True)
class FirstFacts:
    """`studying`: a cycle trains on them now; else they are what the next cycle takes up first."""

    studying: bool
    facts: tuple[FirstFact, ...]


def facts(store: LearnerStore) -> FirstFacts | None:
    """Up to five: of the documents of the cycle that runs, or the first of the queue, each in turn
    (a cycle takes them in this order). None where no document with a fact waits."""
    taught = store.documents.numbers("studying")[:MOST]
    found = store.material.findings(taught or store.documents.queue(MOST))
    columns = [[_shown(fact, f.title) for fact in _for_people(f.facts)] for f in found]
    in_turn = [fact for row in zip_longest(*columns) for fact in row if fact is not None]
    return FirstFacts(bool(taught), tuple(in_turn[:MOST])) if in_turn else None


def _for_people(found: Sequence[Fact]) -> list[Fact]:
    """Those first that have a question kept for people."""
    return sorted((f for f in found if f.questions), key=lambda fact: fact.suggestion < 0)[:MOST]


def _shown(fact: Fact, title: str) -> FirstFact:
    return FirstFact(fact.questions[max(fact.suggestion, 0)], fact.answer, title)
