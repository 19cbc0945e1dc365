"""Normalising, refusing, hashing and cutting documents."""

from __future__ import annotations

import hashlib
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact import curation
from autodidact.curation import length, normalise
from autodidact.reading.chunks import chunks, sentences
from autodidact.types.cycle import Verdict
from autodidact.types.documents import Document
from tests.workplace import document

ANY = st.text(st.characters(), max_size=200)
"""Everything that a Python string can hold, lone surrogates included."""
MESSY = st.lists(
    st.one_of(
        st.sampled_from(
            [" ", "\n", "\n\n", "\r\n", "\r", "\t", "\u00a0", "\u200b", "\ufeff", "\u2028", "\x00"]
        ),
        st.sampled_from(["a", "e\u0301", "\u00e9", "\ud800", "Dr.", "word", "\u0301", "ﬁ"]),
        st.text(max_size=5),
    ),
    max_size=40,
).map("".join)


@settings(deadline=None)
@given(st.one_of(ANY, MESSY))
def test_normalising_again_changes_nothing(text: str) -> None:
    once = normalise.normalise(text)
    assert normalise.normalise(once) == once


@settings(deadline=None)
@given(st.one_of(ANY, MESSY))
def test_what_is_normal_can_be_stored_and_shown(text: str) -> None:
    normal = normalise.normalise(text)
    assert normal.encode("utf-8").decode("utf-8") == normal, "no lone surrogates"
    assert not [c for c in normal if unicodedata.category(c) == "Cc" and c != "\n"]
    assert not set(normal) & set("\u200b\ufeff\u2028\u2029\u202e"), "nothing invisible"
    assert unicodedata.is_normalized("NFC", normal)
    assert "  " not in normal
    assert "\n\n\n" not in normal
    assert normal == normal.strip()
    assert all(line == line.strip() for line in normal.split("\n"))


@settings(deadline=None)
@given(st.lists(st.text("abc.", min_size=1, max_size=8), min_size=1, max_size=30))
def test_normalising_loses_no_word(words: list[str]) -> None:
    messy = "\r\n \u00a0".join(words)
    assert normalise.normalise(messy).split() == words


def test_undecodable_bytes_are_dropped() -> None:
    assert normalise.normalise("caf\udce9 au lait") == "caf au lait"


# Curating ---------------------------------------------------------------------------------------

WORDS = "word " * length.MIN_WORDS


def test_a_document_gets_its_normal_text_and_its_hash() -> None:
    raw = document("  A\u00a0title ", f"First\u200b line \r\n\r\n\r\n{WORDS}")
    curated = curation.curate(raw)
    assert isinstance(curated, Document)
    assert curated.title == "A title"
    assert curated.text == f"First line\n\n{WORDS.strip()}"
    assert curated.digest == hashlib.sha256(curated.text.encode()).hexdigest()
    assert (curated.source, curated.uri) == (raw.source, raw.uri)


@pytest.mark.parametrize("text", ["", " \n\n ", "too few words", "word " * (length.MIN_WORDS - 1)])
def test_a_document_with_few_words_is_refused_with_a_reason(text: str) -> None:
    verdict = curation.curate(document("Short", text))
    assert isinstance(verdict, Verdict)
    assert not verdict.ok
    assert "notes/Short.md" in verdict.lines[0]
    assert f"at least {length.MIN_WORDS}" in verdict.lines[0]


@pytest.mark.parametrize("title", ["", "  ", "\u200b", "\ud800"])
def test_a_document_without_a_title_is_called_by_its_address(title: str) -> None:
    curated = curation.curate(document(title, WORDS, "notes/x.md"))
    assert isinstance(curated, Document)
    assert curated.title == "notes/x.md"


@settings(deadline=None)
@given(MESSY, MESSY)
def test_texts_that_are_alike_when_normal_have_one_hash(one: str, other: str) -> None:
    def digest(text: str) -> str:
        curated = curation.curate(document("Title", WORDS + text))
        assert isinstance(curated, Document)
        return curated.digest

    one = one.replace("\r\n", "\n").replace("\r", "\n")
    for variant in (one.replace("\n", "\r\n"), one + " \n", unicodedata.normalize("NFD", one)):
        assert digest(variant) == digest(one)
    alike = normalise.normalise(WORDS + one) == normalise.normalise(WORDS + other)
    assert (digest(one) == digest(other)) == alike


# Sentences and chunks ---------------------------------------------------------------------------

PROSE = st.lists(
    st.sampled_from(
        ["The", "mill", "was", "built.", "Dr.", "Hale", "J.", "“Who?”", "he", "asked!", "It", "has",
         "3.5", "wings,", "e.g.", "two.", "(Or", "three.)", "No.", "7", "in", "1794.", "…", "A."]
    ),
    max_size=120,
)  # fmt: skip


@settings(deadline=None)
@given(PROSE)
def test_sentences_lose_no_word_and_keep_the_order(words: list[str]) -> None:
    found = sentences(" ".join(words))
    assert " ".join(found).split() == words
    assert all(sentence == sentence.strip() and sentence for sentence in found)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It was built. It fell down.", 2),
        ("Dr. Hale and Mrs. Teal met at No. 7. They left.", 2),
        ("J. R. Hale built it.", 1),
        ("Who built it? Nobody knows! It stands.", 3),
        ("He said “Go.” They went.", 2),
        ("It is 3.5 metres long. It is red.", 2),
        ("It was built in 1794. 12 men died.", 2),
        ("e.g. this one.", 1),
        ("no capital. so one sentence", 1),
        ("", 0),
    ],
)
def test_sentences_end_where_they_end(text: str, count: int) -> None:
    assert len(sentences(text)) == count


PARAGRAPHS = st.lists(PROSE.map(" ".join), max_size=8).map("\n\n".join).map(normalise.normalise)


@settings(deadline=None)
@given(PARAGRAPHS, st.integers(1, 60))
def test_chunks_lose_no_word_and_keep_the_order(text: str, most: int) -> None:
    found = list(chunks(9, document("Title", text), max_words=most))
    assert [word for chunk in found for word in chunk.text.split()] == text.split()
    assert [chunk.id for chunk in found] == [f"9:{i}" for i in range(len(found))]
    assert {chunk.heading for chunk in found} <= {"Title"}
    for chunk in found:
        assert chunk.text == chunk.text.strip()
        whole = [s for p in chunk.text.split("\n\n") for s in sentences(p)]
        assert len(chunk.text.split()) <= most or len(whole) == 1, "a long sentence stays whole"


def test_paragraphs_stay_apart_in_a_chunk() -> None:
    text = "The mill was built. It stands.\n\nIts keeper is Odo."
    [chunk] = chunks(1, document("Mill", text))
    assert chunk.text == text


def test_a_document_without_words_has_no_chunk() -> None:
    assert list(chunks(1, document("Empty", ""))) == []
