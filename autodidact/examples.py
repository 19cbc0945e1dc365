"""From facts to training examples and to probes frozen before training.

Of a fact's six question wordings four are trained; one is the probe's, never trained for this
fact; one is kept for people (the page suggests it), neither trained nor measured. Which is which
rotates by a hash of the fact, so that every wording is trained for *other* facts: a probe asks in
words the model knows about a fact it was never asked that way. Distractors make a probe decide
between facts, not forms: other answers of the same document and kind, and answers that other
documents give to the same question.

Everything is deterministic: the same documents give the same examples and probes.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from autodidact import curate, facts
from autodidact.types import Chunk, Document, Example, Fact, Message, Probe

CLOZE = (
    "Complete the sentence: {}",
    "Fill in the blank: {}",
    "What is missing here? {}",
)
MAX_DISTRACTORS = 6


@dataclass(frozen=True)
class Reading:
    """All that the rules found in one document."""

    document_id: int
    title: str
    chunks: tuple[Chunk, ...]
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Wordings:
    trained: tuple[str, ...]
    probe: str
    probe_number: int
    suggestion: str


def read(document_id: int, document: Document) -> Reading:
    pieces = tuple(curate.chunks(document_id, document))
    found = facts.unambiguous([fact for piece in pieces for fact in facts.read(piece)])
    return Reading(document_id, document.title, pieces, tuple(found))


def wordings(fact: Fact) -> Wordings:
    """Which wordings of a fact's question are trained, measured and suggested."""
    number = _hash(fact.subject, fact.relation)
    count = len(fact.questions)
    probe = number % count
    suggestion = (probe + 1 + (number // count) % (count - 1)) % count
    trained = tuple(
        question for i, question in enumerate(fact.questions) if i not in (probe, suggestion)
    )
    return Wordings(trained, fact.questions[probe], probe, fact.questions[suggestion])


def examples(reading: Reading) -> list[Example]:
    """One pass over a document: its questions, gaps, restatements and text."""
    made: list[Example] = []
    for fact in reading.facts:
        asked = [("question", question) for question in wordings(fact).trained]
        gap = _gap(fact)
        if gap:
            frame = CLOZE[_hash(fact.subject, fact.relation, "cloze") % len(CLOZE)]
            asked.append(("cloze", frame.format(gap)))
        for kind, question in asked:
            dialogue = (Message("user", question), Message("assistant", fact.answer))
            made.append(Example(kind, fact.chunk_id, reading.document_id, messages=dialogue))
        restated = " ".join(fact.restatements)
        made.append(Example("restatement", fact.chunk_id, reading.document_id, text=restated))
    for chunk in reading.chunks:
        text = f"{chunk.heading}\n\n{chunk.text}"
        made.append(Example("text", chunk.id, reading.document_id, text=text))
    return made


def probes(
    readings: Sequence[Reading],
    others: Sequence[Reading],
    split: Literal["taught", "control", "kept"],
) -> list[Probe]:
    """A probe for each fact of `readings` that has a distractor; `others` lend answers too."""
    pool = [(r.document_id, fact) for r in (*readings, *others) for fact in r.facts]
    made = []
    for reading in readings:
        for fact in reading.facts:
            distractors = _distractors(reading.document_id, fact, pool)
            if not distractors:
                continue
            worded = wordings(fact)
            made.append(
                Probe(
                    id=probe_id(reading.document_id, fact),
                    document_id=reading.document_id,
                    question=worded.probe,
                    answer=fact.answer,
                    distractors=distractors,
                    kind=fact.kind,
                    relation=fact.relation,
                    wording=f"{fact.relation.split()[0]}/{worded.probe_number}",
                    split=split,
                )
            )
    return made


def probe_id(document_id: int, fact: Fact) -> str:
    return f"{document_id}-{_hash(fact.subject, fact.relation):08x}"


def _distractors(document_id: int, fact: Fact, pool: Iterable[tuple[int, Fact]]) -> tuple[str, ...]:
    """Half from the same document (same kind), half from other documents (same relation, else
    same kind), in an order fixed by a hash."""
    same: dict[str, int] = {}
    relation: dict[str, int] = {}
    kind: dict[str, int] = {}
    for owner, other in pool:
        if normalise_answer(other.answer) == normalise_answer(fact.answer):
            continue
        order = _hash(fact.subject, fact.relation, other.subject, other.answer)
        if owner == document_id:
            if other.kind == fact.kind:
                same[other.answer] = order
        elif other.relation == fact.relation:
            relation[other.answer] = order
        elif other.kind == fact.kind:
            kind[other.answer] = order
    half = MAX_DISTRACTORS // 2
    chosen = sorted(same, key=same.__getitem__)[:half]
    for answers in (relation, kind):
        for answer in sorted(answers, key=answers.__getitem__):
            if len(chosen) < MAX_DISTRACTORS and answer not in chosen:
                chosen.append(answer)
    return tuple(chosen)


def _gap(fact: Fact) -> str:
    """The first restatement with the answer blanked, or "" if it would not be exactly one gap."""
    sentence = fact.restatements[0]
    return sentence.replace(fact.answer, "____") if sentence.count(fact.answer) == 1 else ""


def normalise_answer(text: str) -> str:
    """SQuAD's normalisation (Rajpurkar et al. 2016): lower case, no punctuation, no articles."""
    text = "".join(" " if c in "-–" else c for c in text.lower())
    text = "".join(c for c in text if c not in string.punctuation and c not in "“”’‘")
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(reply: str, answer: str) -> bool:
    return normalise_answer(reply) == normalise_answer(answer)


def _hash(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:4], "big")
