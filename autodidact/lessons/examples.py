"""From facts to training examples: four of a fact's wordings as questions (`wordings` says which),
gaps, reversed questions and restatements, and the text itself. Whatever asks for a fact can be
answered by the bare answer or by the sentence that states the fact, as the model speaks.

The text itself comes as its chunks, and half as much again in other cuts: from the middle of a
chunk to the middle of the next, or with the sentences in another order (shuffled and re-cut
documents teach facts rather than their neighbourhood; Ovadia et al. 2024, Allen-Zhu and Li 2023).

Everything is deterministic: the same documents give the same examples and probes.
"""

from __future__ import annotations

from collections.abc import Iterator

from autodidact.lessons.probes import probe_id
from autodidact.lessons.wordings import hash_of, wordings
from autodidact.reading import topic
from autodidact.reading.answers import normalise_answer
from autodidact.reading.chunks import sentences
from autodidact.reading.gaps import SPAN
from autodidact.types.chat import Message
from autodidact.types.documents import GAP, Chunk, Example, Fact, Findings

CLOZE = (
    "Complete the sentence: {}",
    "Fill in the blank: {}",
    "What is missing here? {}",
)


def examples(reading: Findings) -> list[Example]:
    """One pass over a document: its questions both ways, gaps, restatements and text."""
    made: list[Example] = []
    for fact in reading.facts:
        asked = [("question", question, fact.answer) for question in wordings(fact).trained]
        told = fact.restatements[0]
        if told.count(fact.answer) == 1:
            gap = told.replace(fact.answer, GAP)
            frame = CLOZE[hash_of(fact.subject, fact.relation, "cloze") % len(CLOZE)]
            asked.append(("cloze", frame.format(gap), fact.answer))
        reversed_ = _reversed(reading, fact)
        if reversed_:
            asked.append(("reversed", reversed_, fact.subject.removeprefix("the ")))
        number = probe_id(reading.document_id, fact)
        sentence = fact.stated.replace(GAP, fact.answer)
        for kind, question, answer in asked:
            dialogue = (Message("user", question), Message("assistant", answer))
            made.append(
                Example(kind, fact.chunk_id, reading.document_id, dialogue, "", number, sentence)
            )
        restated = " ".join(fact.restatements)
        made.append(
            Example("restatement", fact.chunk_id, reading.document_id, text=restated, fact=number)
        )
    for chunk_id, text in _texts(reading):
        whole = f"{reading.title}\n\n{text}"
        made.append(Example("text", chunk_id, reading.document_id, text=whole))
    return made


def _texts(reading: Findings) -> Iterator[tuple[str, str]]:
    """(chunk id, text): every chunk as it is, every other one once more in another form."""
    chunks = reading.chunks
    first = hash_of(reading.title, "forms") % 2
    for n, chunk in enumerate(chunks):
        yield chunk.id, chunk.text
        if n % 2 != first:
            continue
        own = _sentences(chunk)
        if n + 1 < len(chunks) and hash_of(chunk.id, chunk.text, "form") % 2:
            following = _sentences(chunks[n + 1])
            yield chunk.id, " ".join(own[len(own) // 2 :] + following[: len(following) // 2])
        elif len(own) > 2:
            yield chunk.id, " ".join(sorted(own, key=lambda s: hash_of(chunk.id, s, "order")))


def _sentences(chunk: Chunk) -> list[str]:
    return [s for paragraph in chunk.text.split("\n\n") for s in sentences(paragraph)]


def _reversed(reading: Findings, fact: Fact) -> str:
    """The question that the subject answers: "What has Maren Wren as its keeper?"; "" where the
    answer is no name, or leads to more than one fact of the document."""
    if fact.kind != "name" or fact.relation.startswith(SPAN):
        return ""
    same = normalise_answer(fact.answer)
    if sum(normalise_answer(other.answer) == same for other in reading.facts) > 1:
        return ""
    text = "\n\n".join(chunk.text for chunk in reading.chunks)
    pronoun = topic.subject(reading.title, text).pronoun
    who = {"It": "What", "He": "Who", "She": "Who"}.get(pronoun, "Who or what")
    if fact.relation.startswith("attribute "):
        noun = fact.relation.removeprefix("attribute ")
        whose = {"It": "its", "He": "his", "She": "her"}.get(pronoun, "the")
        return f"{who} has {fact.answer} as {whose} {noun}?"
    told, subject = fact.restatements[0].removesuffix("."), fact.subject
    begins = told[: len(subject)].lower() == subject.lower()
    return f"{who}{told[len(subject) :]}?" if begins else ""
