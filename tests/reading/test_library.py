"""The library that comes with the project: plain, original, and apart from its control articles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autodidact import curation
from autodidact.curation import length
from autodidact.reading.chunks import chunks
from autodidact.settings import PROJECT
from autodidact.sources.files import Files
from autodidact.types.documents import Document

TAUGHT = sorted((PROJECT / "library").glob("*.md"))
CONTROL = sorted((PROJECT / "library" / "control").glob("*.md"))
named = pytest.mark.parametrize("path", [*TAUGHT, *CONTROL], ids=lambda path: path.stem)


def title(path: Path) -> str:
    return path.read_text("ascii").splitlines()[0].removeprefix("# ")


def test_there_are_forty_articles_and_enough_to_compare_with() -> None:
    assert len(TAUGHT) == 40
    assert len(CONTROL) >= 12


@named
def test_an_article_is_plain_ascii_under_a_title(path: Path) -> None:
    text = path.read_bytes().decode("ascii")
    heading, blank, *body = text.splitlines()
    assert re.fullmatch(r"# [A-Z][A-Za-z' -]+", heading)
    assert blank == ""
    assert len(" ".join(body).split()) >= length.MIN_WORDS
    assert not re.search(r"[<>\[\]|_*`]", text.removeprefix("#")), "no markup"
    slug = re.sub(r"[^a-z]+", "-", title(path).lower().replace("'", ""))
    assert path.stem == slug


@named
def test_an_article_is_short_enough_for_one_chunk(path: Path) -> None:
    document = curation.curate(Document("f", path.name, title(path), path.read_text(), "", "", ""))
    assert isinstance(document, Document)
    assert len(list(chunks(1, document))) == 1


def test_every_article_has_a_title_of_its_own() -> None:
    titles = [title(path) for path in (*TAUGHT, *CONTROL)]
    assert len(set(titles)) == len(titles)


def test_no_control_article_is_mentioned_in_what_is_taught() -> None:
    taught = " ".join(path.read_text() for path in TAUGHT)
    for path in CONTROL:
        assert title(path) not in taught


def test_the_source_reads_all_of_it_and_leaves_control_out() -> None:
    read = list(Files(PROJECT / "library").documents(None))
    assert sorted(document.title for document in read) == sorted(map(title, TAUGHT))
    assert not any("control" in document.uri for document in read)
