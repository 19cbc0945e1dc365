"""From a document as fetched to one worth storing: normalise, refuse, hash, cut into chunks.

Exact duplicates are found by the sha256 of the normalised text. Near-duplicates, language,
quality and safety filters are not covered here.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace

from autodidact.types import Chunk, Document, Verdict

MIN_WORDS = 20
_CONTROL = re.compile(r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\ufeff]")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Sr|Jr|No|vs|ca|c|e\.g|i\.e|approx|Inc|Ltd|Co|Mt)|\b[A-Z])\.$"
)


def curate(document: Document) -> Document | Verdict:
    """The document with normalised text and its digest, or a Verdict that says why not."""
    text = normalise(document.text)
    words = len(text.split())
    if words < MIN_WORDS:
        return Verdict(False, (f"{document.uri}: {words} words, at least {MIN_WORDS} are needed",))
    title = " ".join(normalise(document.title).split()) or document.uri
    digest = hashlib.sha256(text.encode()).hexdigest()
    return replace(document, title=title, text=text, digest=digest)


def normalise(text: str) -> str:
    """Unicode NFC, no control characters, single spaces, paragraphs separated by one blank line.

    Idempotent. Lone surrogates (undecodable bytes) are dropped.
    """
    text = text.encode("utf-8", "ignore").decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub(" ", unicodedata.normalize("NFC", text))
    paragraphs = (
        "\n".join(" ".join(line.split()) for line in block.split("\n")).strip()
        for block in re.split(r"\n\s*\n", text)
    )
    return unicodedata.normalize("NFC", "\n\n".join(block for block in paragraphs if block))


def sentences(paragraph: str) -> list[str]:
    """Split running text at sentence ends; abbreviations and initials do not end a sentence."""
    found: list[str] = []
    start = 0
    for match in re.finditer(r"[.!?][\"'”’)]*\s+(?=[\"'“‘(]?[A-Z0-9])", paragraph):
        piece = paragraph[start : match.end()].strip()
        if _ABBREVIATION.search(piece):
            continue
        found.append(piece)
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
