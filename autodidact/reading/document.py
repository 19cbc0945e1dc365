"""A document → the facts in it: its chunks, what the shapes of statements give, and what gaps give
of the sentences that they leave.
"""

from __future__ import annotations

from dataclasses import replace

from autodidact.reading import gaps, statements
from autodidact.reading.chunks import chunks
from autodidact.reading.topic import subject
from autodidact.types.documents import GAP, Document, Fact, Findings

MOST_WORDS = 20
"""A longer sentence is no answer."""


def read_document(document_id: int, document: Document) -> Findings:
    """What the rules find in a document, and what gaps find in the sentences they leave."""
    pieces = tuple(chunks(document_id, document))
    about = subject(document.title, document.text)
    found: list[Fact] = []
    for piece in pieces:
        found += statements.read(piece, about)
        found += gaps.read(piece, about, statements.sentences_read(piece, about))
    facts = tuple(replace(fact, stated=_stated(fact)) for fact in statements.unambiguous(found))
    return Findings(document_id, document.title, pieces, facts)


def _stated(fact: Fact) -> str:
    """The sentence that states the fact, the answer blanked; "" where it is long, or would not be
    one sentence with exactly one gap."""
    told = fact.sentence if fact.relation.startswith(gaps.SPAN) else fact.restatements[0]
    if told.count(fact.answer) != 1 or len(told.split()) > MOST_WORDS or "\n" in told:
        return ""
    return told.replace(fact.answer, GAP)
