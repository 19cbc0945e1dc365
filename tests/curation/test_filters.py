"""Filters: in their order, the first refusal counts, and what they change is normal again."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from pydantic import ValidationError

from autodidact import curation
from autodidact.curation.length import Length, LengthSettings
from autodidact.settings import tree
from autodidact.types.cycle import Reason, Verdict
from autodidact.types.documents import Document
from tests.workplace import document

WORDS = "word " * 30


class Played:
    """Answers with what it was given, and remembers what it was asked."""

    name = "played"

    def __init__(self, text: str = "", reason: str = "") -> None:
        self.text, self.reason = text, reason
        self.asked: list[Document] = []

    def check(self, document: Document) -> Document | str:
        self.asked.append(document)
        return self.reason or replace(document, text=self.text or document.text)


def test_by_default_only_the_length_counts() -> None:
    assert [one.name for one in curation.build(tree()().curation)] == ["length"]
    assert [one.name for one in curation.DEFAULT] == ["length"]


def test_a_filter_sees_the_normal_text() -> None:
    played = Played()
    curation.curate(document(" A\u00a0title", f"First\r\n\r\n\r\n{WORDS}"), [played])
    assert played.asked[0].title == "A title"
    assert played.asked[0].text == f"First\n\n{WORDS.strip()}"


def test_a_changed_text_is_normalised_and_hashed_anew() -> None:
    curated = curation.curate(document("Title", WORDS), [Played("other  text\u200b\r\n")])
    assert isinstance(curated, Document)
    assert curated.text == "other text"
    assert curated.digest == hashlib.sha256(b"other text").hexdigest()


def test_the_first_refusal_counts() -> None:
    first, last = Played(reason="dull"), Played(reason="long")
    verdict = curation.curate(document("Title", WORDS), [Played("kept"), first, last])
    assert verdict == Verdict(False, (Reason("", "notes/Title.md: dull"),))
    assert first.asked[0].text == "kept"
    assert not last.asked


def test_without_filters_every_document_is_taken() -> None:
    assert isinstance(curation.curate(document("Title", ""), []), Document)


def test_the_least_length_can_be_set() -> None:
    verdict = curation.curate(document("Title", WORDS), [Length(LengthSettings(min_words=31))])
    assert verdict == Verdict(
        False, (Reason("", "notes/Title.md: 30 words, at least 31 are needed"),)
    )
    with pytest.raises(ValidationError):
        LengthSettings(min_words=0)
