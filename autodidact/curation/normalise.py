"""One form for every text and title, and the hash that tells whether two texts are the same."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import replace

from autodidact.types.documents import Document

_CONTROL = re.compile(r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\ufeff]")


def normalised(document: Document) -> Document:
    """The document with normalised title and text, and the digest of that text."""
    text = normalise(document.text)
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
