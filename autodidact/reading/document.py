"""A document → the facts in it: its chunks, what the shapes of statements give, and what gaps give
of the sentences that they leave.
"""

from __future__ import annotations

from autodidact.reading import gaps, statements
from autodidact.reading.chunks import chunks
from autodidact.reading.topic import subject
from autodidact.types.documents import Document, Fact, Findings


def read_document(document_id: int, document: Document) -> Findings:
    """What the rules find in a document, and what gaps find in the sentences they leave."""
    pieces = tuple(chunks(document_id, document))
    about = subject(document.title, document.text)
    found: list[Fact] = []
    for piece in pieces:
        found += statements.read(piece, about)
        found += gaps.read(piece, about, statements.sentences_read(piece, about))
    return Findings(document_id, document.title, pieces, tuple(statements.unambiguous(found)))
