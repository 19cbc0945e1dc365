"""Running text as sentences, and a document as chunks that fit a training sequence. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from autodidact.types.documents import Chunk, Document

_END = re.compile(r"[.!?](?P<closing>[\"'”’)]*)\s+(?=[\"'“‘(]?[A-Z0-9])")
_LONGEST = 8
"""Characters of an abbreviation, at most, with its full stop."""
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Sr|Jr|No|vs|ca|c|e\.g|i\.e|approx|Inc|Ltd|Co|Mt)|\b[A-Z])\.$"
)


def sentences(paragraph: str) -> list[str]:
    """Split running text at sentence ends; abbreviations and initials do not end a sentence."""
    found: list[str] = []
    start = 0
    for match in _END.finditer(paragraph):
        # The last few characters tell: looking at all since `start` would take the square of the
        # time for a line of nothing but initials.
        end = match.start() + 1
        if not match["closing"] and _ABBREVIATION.search(
            paragraph, max(start, end - _LONGEST), end
        ):
            continue
        found.append(paragraph[start : match.end()].strip())
        start = match.end()
    rest = paragraph[start:].strip()
    return [*found, rest] if rest else found


def chunks(document_id: int, document: Document, max_words: int = 200) -> Iterator[Chunk]:
    """Cut at paragraph and sentence borders into pieces of up to `max_words` words.

    200 words are about 300 tokens of a small tokenizer, so that a chunk with its heading stays
    within 384.
    """
    piece: list[str] = []
    size = 0
    number = 0
    for paragraph in document.text.split("\n\n"):
        for sentence in [*sentences(paragraph.replace("\n", " ")), "\n\n"]:
            words = len(sentence.split())
            if size and size + words > max_words:
                yield _chunk(document_id, number, document.title, piece)
                number, piece, size = number + 1, [], 0
            piece.append(sentence)
            size += words
    if size:
        yield _chunk(document_id, number, document.title, piece)


def _chunk(document_id: int, number: int, heading: str, piece: list[str]) -> Chunk:
    text = re.sub(r" *\n\n *", "\n\n", " ".join(piece)).strip()
    return Chunk(f"{document_id}:{number}", document_id, heading, text)
