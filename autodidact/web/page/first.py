"""The first facts that a learner studies, for who waits for the first cycle: plain data, taken from
documents of others, so whatever shows them escapes them.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    left = [(each.title, [fact for fact in each.facts if fact.questions]) for each in found]
    shown: list[FirstFact] = []
    told: set[str] = set()
    while len(shown) < MOST and any(rows for _, rows in left):
        for title, rows in left:
            if rows and len(shown) < MOST:
                fact = min(rows, key=lambda row: (row.relation in told, row.suggestion < 0))
                rows.remove(fact)
                told.add(fact.relation)  # another kind of fact next, as far as there is one
                shown.append(_shown(fact, title))
    return FirstFacts(bool(taught), tuple(shown)) if shown else None


def _shown(fact: Fact, title: str) -> FirstFact:
    return FirstFact(fact.questions[max(fact.suggestion, 0)], fact.answer, title)
