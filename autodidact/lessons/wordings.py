"""Which wordings of a fact's question are trained, measured and suggested to people.

Of a fact's six question wordings four are trained; one is the probe's, never trained for this
fact; one is kept for people (the page suggests it), neither trained nor measured. Which is which
rotates by a hash of the fact, so that every wording is trained for *other* facts: a probe asks in
words the model knows about a fact it was never asked that way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from autodidact.types.documents import Fact


@dataclass(frozen=True)
class Wordings:
    trained: tuple[str, ...]
    probe: str
    probe_number: int
    suggestion: str


def wordings(fact: Fact) -> Wordings:
    """Which wordings of a fact's question are trained, measured and suggested."""
    fact = settled(fact)
    probe, suggestion = fact.probe, fact.suggestion
    trained = tuple(
        question for i, question in enumerate(fact.questions) if i not in (probe, suggestion)
    )
    return Wordings(trained, fact.questions[probe], probe, fact.questions[suggestion])


def settled(fact: Fact) -> Fact:
    """The fact with its probe's and its suggested question chosen, by a hash; one that is stored
    keeps the choice that was made when it was read."""
    if fact.probe >= 0:
        return fact
    number = hash_of(fact.subject, fact.relation)
    count = len(fact.questions)
    probe = number % count
    suggestion = (probe + 1 + (number // count) % (count - 1)) % count
    return replace(fact, probe=probe, suggestion=suggestion)


def hash_of(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:4], "big")
