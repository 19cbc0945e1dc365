"""A document → what is stored of it to learn and to ask, by the rules of today.

`RULES` is their version: raise it with every change of `reading`, `wordings` or `examples` after
which a document would give other facts, questions or examples. What was made by older rules stays
as it is stored.
"""

from __future__ import annotations

from dataclasses import replace

from autodidact.lessons.examples import examples
from autodidact.lessons.wordings import settled
from autodidact.reading.document import read_document
from autodidact.types.documents import Document, Material

RULES = 2


def material(document_id: int, document: Document) -> Material:
    """All that the rules make of a document, the probe's wording of each fact settled."""
    found = read_document(document_id, document)
    found = replace(found, facts=tuple(settled(fact) for fact in found.facts))
    return Material(RULES, found, tuple(examples(found)))
