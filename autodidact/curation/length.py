"""Refuses documents with too few words to learn a fact from."""

from __future__ import annotations

from pydantic import Field

from autodidact.settings import Section
from autodidact.types.documents import Document

MIN_WORDS = 20


class LengthSettings(Section):
    """Documents that are too short."""

    enabled: bool = True
    """Refuse them at all."""
    min_words: int = Field(MIN_WORDS, ge=1)
    """A document with fewer words is not taken."""


class Length:
    """The filter."""

    name = "length"
    settings = LengthSettings

    def __init__(self, settings: LengthSettings) -> None:
        self._least = settings.min_words

    def check(self, document: Document) -> Document | str:
        words = len(document.text.split())
        if words < self._least:
            return f"{words} words, at least {self._least} are needed"
        return document
