"""Which earlier facts a cycle repeats, and how often against each other. Pure.

A fifth of the weight goes by how much a fact has faded (NLL now − NLL when it was learned), a fifth
to the facts that are due by expanding spacing (1, 2, 4, 8, … cycles after they were learned,
Landauer and Bjork 1978), and the rest evenly to all: what is still known must be kept known, and
with half of the weight on what has faded most, lost facts took the room of the others
(docs/lab-log.md). No document gets more than a cap, for the same reason.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from autodidact.types.documents import LearnedFact

FADED, DUE, EVEN = 0.2, 0.2, 0.6
DOCUMENT_CAP = 0.10
MOST_FACTS = 1500


def weights(facts: Sequence[LearnedFact], cycle: int) -> dict[str, float]:
    """Share of the replay that each fact gets in `cycle`; they sum to 1 (empty for no facts)."""
    if not facts:
        return {}
    known = [fact.faded for fact in facts if fact.faded is not None]
    usual = sum(known) / len(known) if known else 1.0
    parts = (
        (FADED, [usual if fact.faded is None else fact.faded for fact in facts]),
        (DUE, [float(_is_due(cycle - fact.learned_in)) for fact in facts]),
        (EVEN, [1.0] * len(facts)),
    )
    alive = [(share, values) for share, values in parts if sum(values) > 0]
    whole = sum(share for share, _ in alive)
    shares = [
        sum(share / whole * values[i] / sum(values) for share, values in alive)
        for i in range(len(facts))
    ]
    return dict(zip((fact.fact for fact in facts), _capped(facts, shares), strict=True))


def choose(shares: dict[str, float], seed: str, most: int = MOST_FACTS) -> dict[str, float]:
    """At most `most` of the facts. Where there are more, they are drawn without replacement by
    their shares (Efraimidis and Spirakis 2006), and those drawn share evenly: weighed again by
    their shares they would count twice."""
    if len(shares) <= most:
        return shares
    order = random.Random(seed)
    # −log of their keys: the keys themselves, u^(1/share), are all 0 for thousands of small shares
    waits = {
        fact: order.expovariate(1) / share if share > 0 else math.inf
        for fact, share in shares.items()
    }
    # A wait may be infinite for the smallest shares, too: none is before whoever has none.
    first = sorted(waits, key=lambda fact: (shares[fact] <= 0, waits[fact]))
    return dict.fromkeys(first[:most], 1 / most if most else 0.0)


def _is_due(age: int) -> bool:
    return age > 0 and age & (age - 1) == 0


def _capped(facts: Sequence[LearnedFact], shares: Sequence[float]) -> list[float]:
    """Shares with each document's total cut to the cap, what is cut spread over the others."""
    documents: dict[int, float] = {}
    for fact, share in zip(facts, shares, strict=True):
        documents[fact.document_id] = documents.get(fact.document_id, 0.0) + share
    cap = max(DOCUMENT_CAP, 1 / len(documents))
    totals = dict(documents)
    full: set[int] = set()
    while True:
        over = {d for d, total in totals.items() if d not in full and total > cap * (1 + 1e-9)}
        if not over:
            break
        full |= over
        rest = sum(documents[d] for d in documents if d not in full)
        room = 1 - cap * len(full)
        for d in documents:
            totals[d] = cap if d in full else documents[d] / rest * room if rest else 0.0
    whole = sum(totals.values())
    return [
        share * totals[fact.document_id] / documents[fact.document_id] / whole
        for fact, share in zip(facts, shares, strict=True)
    ]
