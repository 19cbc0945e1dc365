"""From a document as fetched to one worth storing: normalise, refuse, hash.

Exact duplicates are found by the sha256 of the normalised text. Near-duplicates, language,
quality and safety filters are not covered here.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import replace

from autodidact.types.cycle import Verdict
from autodidact.types.documents import Document

MIN_WORDS = 20
_CONTROL = re.compile(r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\ufeff]")


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
