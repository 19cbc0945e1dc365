"""From facts to training examples and to probes frozen before training.

Of a fact's six question wordings four are trained; one is the probe's, never trained for this
fact; one is kept for people (the page suggests it), neither trained nor measured. Which is which
rotates by a hash of the fact, so that every wording is trained for *other* facts: a probe asks in
words the model knows about a fact it was never asked that way. `unseen_probes` ask in a seventh
wording, which is trained for no fact at all: they tell whether what was learned reaches beyond the
wordings of the training. Distractors make a probe decide
between facts, not forms: other answers of the same document and kind, and answers that other
documents give to the same question.

The text itself comes as its chunks, and half as much again in other cuts: from the middle of a
chunk to the middle of the next, or with the sentences in another order (shuffled and re-cut
documents teach facts rather than their neighbourhood; Ovadia et al. 2024, Allen-Zhu and Li 2023).

Everything is deterministic: the same documents give the same examples and probes.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from autodidact.curation import normalise
from autodidact.reading import gaps, statements
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
    """What the rules find in a document, and what gaps find in the sentences they leave."""
    pieces = tuple(normalise.chunks(document_id, document))
    about = statements.subject(document.title, document.text)
    found: list[Fact] = []
    for piece in pieces:
        found += statements.read(piece, about)
        found += gaps.read(piece, about, statements.sentences_read(piece, about))
    return Reading(document_id, document.title, pieces, tuple(statements.unambiguous(found)))


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
    """One pass over a document: its questions both ways, gaps, restatements and text."""
    made: list[Example] = []
    for fact in reading.facts:
        asked = [("question", question, fact.answer) for question in wordings(fact).trained]
        gap = _gap(fact)
        if gap:
            frame = CLOZE[_hash(fact.subject, fact.relation, "cloze") % len(CLOZE)]
            asked.append(("cloze", frame.format(gap), fact.answer))
        reversed_ = _reversed(reading, fact)
        if reversed_:
            asked.append(("reversed", reversed_, fact.subject.removeprefix("the ")))
        number = probe_id(reading.document_id, fact)
        for kind, question, answer in asked:
            dialogue = (Message("user", question), Message("assistant", answer))
            made.append(
                Example(kind, fact.chunk_id, reading.document_id, messages=dialogue, fact=number)
            )
        restated = " ".join(fact.restatements)
        made.append(
            Example("restatement", fact.chunk_id, reading.document_id, text=restated, fact=number)
        )
    for chunk_id, text in _texts(reading):
        whole = f"{reading.title}\n\n{text}"
        made.append(Example("text", chunk_id, reading.document_id, text=whole))
    return made


def _texts(reading: Reading) -> Iterator[tuple[str, str]]:
    """(chunk id, text): every chunk as it is, every other one once more in another form."""
    chunks = reading.chunks
    first = _hash(reading.title, "forms") % 2
    for n, chunk in enumerate(chunks):
        yield chunk.id, chunk.text
        if n % 2 != first:
            continue
        own = _sentences(chunk)
        if n + 1 < len(chunks) and _hash(chunk.id, chunk.text, "form") % 2:
            following = _sentences(chunks[n + 1])
            yield chunk.id, " ".join(own[len(own) // 2 :] + following[: len(following) // 2])
        elif len(own) > 2:
            yield chunk.id, " ".join(sorted(own, key=lambda s: _hash(chunk.id, s, "order")))


def _sentences(chunk: Chunk) -> list[str]:
    return [s for paragraph in chunk.text.split("\n\n") for s in normalise.sentences(paragraph)]


def _reversed(reading: Reading, fact: Fact) -> str:
    """The question that the subject answers: "What has Maren Wren as its keeper?"; "" where the
    answer is no name, or leads to more than one fact of the document."""
    if fact.kind != "name" or fact.relation.startswith("span "):
        return ""
    same = normalise_answer(fact.answer)
    if sum(normalise_answer(other.answer) == same for other in reading.facts) > 1:
        return ""
    text = "\n\n".join(chunk.text for chunk in reading.chunks)
    pronoun = statements.subject(reading.title, text).pronoun
    who = {"It": "What", "He": "Who", "She": "Who"}.get(pronoun, "Who or what")
    if fact.relation.startswith("attribute "):
        noun = fact.relation.removeprefix("attribute ")
        whose = {"It": "its", "He": "his", "She": "her"}.get(pronoun, "the")
        return f"{who} has {fact.answer} as {whose} {noun}?"
    told, subject = fact.restatements[0].removesuffix("."), fact.subject
    begins = told[: len(subject)].lower() == subject.lower()
    return f"{who}{told[len(subject) :]}?" if begins else ""


def probes(
    readings: Sequence[Reading],
    others: Sequence[Reading],
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
        )
        for document_id, fact, distractors, same in _measurable(readings, others)
    ]


def unseen_probes(readings: Sequence[Reading], others: Sequence[Reading]) -> list[Probe]:
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
        )
        for document_id, fact, distractors, same in _measurable(readings, others)
        if fact.unseen
    ]


def _measurable(
    readings: Sequence[Reading], others: Sequence[Reading]
) -> Iterator[tuple[int, Fact, tuple[str, ...], int]]:
    pool = _Pool([*readings, *others])
    for reading in readings:
        for fact in reading.facts:
            distractors, same = _distractors(reading.document_id, fact, pool)
            if distractors:
                yield reading.document_id, fact, distractors, same


def probe_id(document_id: int, fact: Fact) -> str:
    return f"{document_id}-{_hash(fact.subject, fact.relation):08x}"


class _Pool:
    """The facts of all documents, by what makes an answer a distractor for another one."""

    def __init__(self, readings: Sequence[Reading]) -> None:
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
            self.kind[kind] = sorted(answers, key=lambda pair: (_hash(pair[1]), pair))


def _distractors(document_id: int, fact: Fact, pool: _Pool) -> tuple[tuple[str, ...], int]:
    """Half from the same document (same kind), half from other documents (same relation, else
    same kind), in an order fixed by a hash; and how many of them, first, are of the same one."""

    def order(other: Fact) -> int:
        return _hash(fact.subject, fact.relation, other.subject, other.answer)

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
    start = _hash(fact.subject, fact.relation, "start") % len(rest)
    turned = (*rest[start:], *rest[:start])
    choose((answer for owner, answer in turned if owner != document_id), MAX_DISTRACTORS)
    return tuple(chosen), own


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
    """Whether they are the same after normalisation; citation marks do not count."""
    return normalise_answer(uncited(reply)) == normalise_answer(uncited(answer))


def uncited(reply: str) -> str:
    """A reply without its citation marks: "Maren Dace [1]" → "Maren Dace"."""
    return re.sub(r"\s*\[\d{1,2}\]", "", reply)


def _hash(*parts: str) -> int:
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:4], "big")
