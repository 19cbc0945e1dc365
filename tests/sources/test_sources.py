"""The contract of every source, run over each entry of the table."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import GeneratorType

import pytest

from autodidact.errors import SettingError, SourceError
from autodidact.settings import SourcesSettings, tree
from autodidact.sources import build, every, load
from autodidact.sources.wikipedia import WikipediaSettings
from autodidact.types.documents import Document
from autodidact.types.protocols import Source
from tests.mediawiki import MediaWiki

TEXT = "The Black Oar is an inn by the old docks, opened in 1647 by a sailmaker. " * 5
TITLES = ["Black Oar", "Brine Pie", "Great Hobb"]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[SourcesSettings]:
    """What gives each source three documents and something that it has to skip."""
    folder = tmp_path / "library"
    folder.mkdir()
    for title in TITLES:
        (folder / f"{title}.md").write_text(f"# {title}\n\n{TEXT}\n\n{TEXT}")
    (folder / "Another.txt").write_bytes(bytes(50))
    with MediaWiki() as wiki:
        for title in TITLES:
            wiki.add(title, f"{TEXT}\n{TEXT}")
        named = WikipediaSettings(
            endpoint=wiki.endpoint, titles=("Another", *TITLES), random=0, timeout_s=5.0
        )
        yield type(tree()().sources)(files=(folder,), wikipedia=named)


MAKERS: dict[str, Callable[[SourcesSettings], Source]] = {
    "files": lambda settings: load("files")(settings.files[0]),
    "wikipedia": lambda settings: load("wikipedia")(settings.wikipedia),
}
UNREADABLE: dict[str, Callable[[SourcesSettings], Source]] = {
    "files": lambda settings: load("files")(settings.files[0] / "gone"),
    "wikipedia": lambda settings: load("wikipedia")(
        settings.wikipedia.model_copy(update={"endpoint": "http://127.0.0.1:1/api.php"})
    ),
}


@pytest.fixture(params=sorted(every()))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(name: str, settings: SourcesSettings) -> Source:
    return MAKERS[name](settings)


def test_documents_are_complete_and_storable(source: Source) -> None:
    documents = list(source.documents(None))
    assert [document.title for document in documents] == TITLES
    assert len({document.uri for document in documents}) == len(documents)
    for document in documents:
        assert isinstance(document, Document)
        assert document.source == source.name
        assert document.digest == ""
        assert document.cursor
        assert document.text.split("\n\n") == [TEXT.strip(), TEXT.strip()]
        for value in (document.uri, document.title, document.license, document.cursor):
            assert "\n" not in value
            assert value.encode().decode() == value


def test_documents_come_one_by_one(source: Source) -> None:
    documents = source.documents(None)
    assert isinstance(documents, GeneratorType)
    assert next(documents).title == TITLES[0]
    documents.close()


def test_every_cursor_is_accepted_and_loses_nothing(source: Source) -> None:
    documents = list(source.documents(None))
    for stored, document in enumerate(documents, 1):
        seen = {later.uri for later in source.documents(document.cursor)}
        assert seen >= {missing.uri for missing in documents[stored:]}


def test_a_strange_cursor_means_from_the_beginning(source: Source) -> None:
    assert [document.title for document in source.documents("of another source")] == TITLES


def test_a_bad_document_is_one_warning(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        list(source.documents(None))
        list(source.documents(None))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{source.name}: ")
    assert "Another" in caplog.messages[0]


def test_failure_is_one_line_and_only_when_read(name: str, settings: SourcesSettings) -> None:
    documents = UNREADABLE[name](settings).documents(None)
    with pytest.raises(SourceError) as caught:
        next(documents)
    assert len(str(caught.value).splitlines()) == 1


def test_build_gives_the_enabled_sources_in_order(settings: SourcesSettings) -> None:
    other = settings.files[0].parent / "notes"
    both = settings.model_copy(update={"files": (*settings.files, other)})
    assert [source.name for source in build(both)] == ["files:library", "files:notes", "wikipedia"]
    off = both.wikipedia.model_copy(update={"enabled": False})
    without = both.model_copy(update={"wikipedia": off})
    assert [source.name for source in build(without)] == ["files:library", "files:notes"]


def test_two_folders_of_one_name_are_refused(settings: SourcesSettings, tmp_path: Path) -> None:
    twice = (settings.files[0], tmp_path / "other" / "library")
    with pytest.raises(SettingError, match=r"sources\.files: two folders are called library"):
        build(settings.model_copy(update={"files": twice}))


def test_an_unknown_source_names_the_nearest() -> None:
    with pytest.raises(SourceError, match="did you mean wikipedia"):
        load("wikipeda")


def test_the_table_imports_nothing_before_it_is_used() -> None:
    heavy = "httpx wikipediaapi trafilatura markdown_it torch"
    code = f"import sys, autodidact.sources; print(*(set({heavy.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
