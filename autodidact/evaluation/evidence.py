"""Exact answers as evidence: how likely are so many, if nothing was learned? Pure.

Two models that learned nothing are tried, and the gate takes the larger p-value: one that knows at
most which answers belong to a document (`by_lot`), and one that knows nothing of these documents
(`without_the_best`). `gate` says when they decide.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from autodidact.evaluation import statistics
from autodidact.reading.answers import normalise_answer, stands, uncited
from autodidact.types.cycle import ProbeResult
from autodidact.types.documents import Probe

FEWEST_WITHIN = 12
"""So many probes with rivals in their own document can show something by themselves."""
Results = Mapping[str, ProbeResult]
"""By the probe's id."""


def by_lot(probes: Sequence[Probe], results: Results) -> float:
    """p-value of so many exact answers if it knows at most which answers belong to a document.

    Where several of one kind were asked of one document, its own replies are dealt to these
    questions by lot. A question without such neighbours is guessed, one of its rivals in the
    document, and never with more than ½. Where enough have neighbours, they alone must show it:
    of the others the right answer may be the only one that the document has. Their p counts half,
    which leaves them the whole level: twelve may be six pairs, whose p is 1/64 at the least.
    """
    groups: dict[tuple[int, str], list[Probe]] = defaultdict(list)
    for probe in probes:
        groups[probe.document_id, probe.kind].append(probe)
    neighbours = [group for group in groups.values() if len(group) > 1]
    p = _p_by_lot(list(groups.values()), results)
    if sum(map(len, neighbours)) >= FEWEST_WITHIN:
        p = max(p, _p_by_lot(neighbours, results) / 2)
    return p


def _p_by_lot(groups: Sequence[Sequence[Probe]], results: Results) -> float:
    return statistics.at_least(
        sum(bool(results[p.id].correct) for group in groups for p in group),
        [_right_by_lot(group, results) for group in groups],
    )


def _right_by_lot(group: Sequence[Probe], results: Results) -> list[float]:
    """Probabilities of 0, 1, 2, … exact answers, if nothing is known of which is which."""
    if len(group) == 1:
        chance = 1 / (1 + max(1, group[0].same))
        return [1 - chance, chance]
    answers = [normalise_answer(uncited(p.answer)) for p in group]
    replies = []
    for answer, found in zip(answers, (results[p.id] for p in group), strict=True):
        said = normalise_answer(uncited(found.reply))
        named = [answer] if found.correct else [other for other in answers if stands(other, said)]
        replies.append(max(named, key=len, default=said))
    return statistics.dealt(replies, answers)


def without_the_best(
    probes: Sequence[Probe], control: int, controls: int, results: Results
) -> float:
    """Fisher's p against controls, without the document that would make it smallest: what
    a single one shows may be the luck of that document. 1 where nothing is left to compare."""
    asked = Counter(p.document_id for p in probes)
    exact = Counter(p.document_id for p in probes if results[p.id].correct)
    return max(
        (
            statistics.fisher(exact.total() - exact[d], asked.total() - asked[d], control, controls)
            for d in asked
        ),
        default=1.0,
    )
