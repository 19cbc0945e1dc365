"""Probes, frozen before training: the question that training never asks for its fact, the answer,
and the wrong answers that it must beat.

`write_unseen_probes` ask in a seventh wording, trained for no fact at all: they tell whether
what was learned reaches beyond the wordings of the training. Distractors make a probe decide
between facts, not forms: other answers of the same document and kind, and answers that other
documents give to the same question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from autodidact.lessons.wordings import hash_of, wordings
from autodidact.reading.answers import normalise_answer
from autodidact.types.documents import Fact, Findings, Probe

MAX_DISTRACTORS = 6


def write_probes(
    readings: Sequence[Findings],
    others: Sequence[Findings],
    split: Literal["taught", "control", "kept"],
) -> list[Probe]:
    """A probe for each fact of `readings` that has a distractor; `others` lend answers too."""
    return [
        Probe(
            id=probe_id(document_id, fact),
            document_id=document_id,
            question=wordings(fact).probe,
            answer=fact.answer,
            distractors=distractors,
            same=same,
            kind=fact.kind,
            relation=fact.relation,
            wording=f"{fact.relation.split()[0]}/{wordings(fact).probe_number}",
            split=split,
            stated=fact.stated,
        )
        for document_id, fact, distractors, same in _measurable(readings, others)
    ]


def write_unseen_probes(readings: Sequence[Findings], others: Sequence[Findings]) -> list[Probe]:
    """The same facts and distractors in wordings that are trained for no fact: id + "u"."""
    return [
        Probe(
            id=f"{probe_id(document_id, fact)}u",
            document_id=document_id,
            question=fact.unseen,
            answer=fact.answer,
            distractors=distractors,
            same=same,
            kind=fact.kind,
            relation=fact.relation,
            wording=f"{fact.relation.split()[0]}/unseen",
            split="unseen",
            stated=fact.stated,
        )
        for document_id, fact, distractors, same in _measurable(readings, others)
        if fact.unseen
    ]


def _measurable(
    readings: Sequence[Findings], others: Sequence[Findings]
) -> Iterator[tuple[int, Fact, tuple[str, ...], int]]:
    pool = _Pool([*readings, *others])
    for reading in readings:
        for fact in reading.facts:
            distractors, same = _distractors(reading.document_id, fact, pool)
            if distractors:
                yield reading.document_id, fact, distractors, same


def probe_id(document_id: int, fact: Fact) -> str:
    return f"{document_id}-{hash_of(fact.subject, fact.relation):08x}"


class _Pool:
    """The facts of all documents, by what makes an answer a distractor for another one."""

    def __init__(self, readings: Sequence[Findings]) -> None:
        self.own: dict[tuple[int, str], list[Fact]] = defaultdict(list)
        self.relation: dict[str, list[tuple[int, Fact]]] = defaultdict(list)
        self.kind: dict[str, list[tuple[int, str]]] = {}
        kinds: dict[str, set[tuple[int, str]]] = defaultdict(set)
        for reading in readings:
            for fact in reading.facts:
                self.own[reading.document_id, fact.kind].append(fact)
                self.relation[fact.relation].append((reading.document_id, fact))
                kinds[fact.kind].add((reading.document_id, fact.answer))
        for kind, answers in kinds.items():
            self.kind[kind] = sorted(answers, key=lambda pair: (hash_of(pair[1]), pair))


def _distractors(document_id: int, fact: Fact, pool: _Pool) -> tuple[tuple[str, ...], int]:
    """Half from the same document (same kind), half from other documents (same relation, else
    same kind), in an order fixed by a hash; and how many of them, first, are of the same one."""

    def order(other: Fact) -> int:
        return hash_of(fact.subject, fact.relation, other.subject, other.answer)

    true = normalise_answer(fact.answer)
    same = sorted(pool.own[document_id, fact.kind], key=order)
    asked = [other for owner, other in pool.relation[fact.relation] if owner != document_id]
    chosen: list[str] = []

    def choose(answers: Iterable[str], most: int) -> None:
        for answer in answers:
            if len(chosen) >= most:
                return
            if answer not in chosen and normalise_answer(answer) != true:
                chosen.append(answer)

    choose((other.answer for other in same), MAX_DISTRACTORS // 2)
    own = len(chosen)
    choose((other.answer for other in sorted(asked, key=order)), MAX_DISTRACTORS)
    rest = pool.kind[fact.kind]
    start = hash_of(fact.subject, fact.relation, "start") % len(rest)
    turned = (*rest[start:], *rest[:start])
    choose((answer for owner, answer in turned if owner != document_id), MAX_DISTRACTORS)
    return tuple(chosen), own
