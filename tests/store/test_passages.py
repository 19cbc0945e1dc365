"""The full-text index: it holds exactly what it was given, and no question can harm or steer it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autodidact.errors import AutodidactError
from autodidact.store.passages import (
    MAX_WORDS,
    STOP_WORDS,
    IndexedDocument,
    PassageIndex,
    telling,
)

LIGHT = "The Anneck Light was built in 1794. Its keeper is Maren Dace."
INN = "The Black Oar is an inn. Its landlord is Harold Mabbot."


def document(
    document_id: int, title: str, *passages: str, digest: str = "d", uri: str = "library/x.md"
) -> IndexedDocument:
    return IndexedDocument(document_id, title, uri, "2026-11-20", digest, passages)


BOTH = [document(1, "Anneck Light", LIGHT), document(2, "Black Oar", INN, "It serves brine pie.")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "passages.db"


@pytest.fixture
def index(path: Path) -> PassageIndex:
    return PassageIndex(path)


def titles(index: PassageIndex, query: str) -> list[str]:
    return [hit.title for hit in index.search(query, 10)]


# What it holds -----------------------------------------------------------------------------------


def test_a_hit_says_where_it_is_from_and_which_words_it_holds(index: PassageIndex) -> None:
    index.sync(BOTH)
    (hit,) = index.search("Who is the landlord of the Black Oar at noon?", 1)
    assert (hit.document_id, hit.title, hit.uri) == (2, "Black Oar", "library/x.md")
    assert (hit.date, hit.text) == ("2026-11-20", INN)
    assert hit.words == {"landlord", "black", "oar"}
    assert hit.score > 0


def test_words_are_found_by_their_stem_without_accents_and_in_any_case(
    index: PassageIndex,
) -> None:
    index.sync([document(1, "Café Zürich", "Sailors kept the lamps.")])
    for query in ("CAFE", "zu\u0308rich", "lamp", "sailor", "LAMPS"):
        assert titles(index, query) == ["Café Zürich"]


def test_the_title_weighs_more_than_the_text(index: PassageIndex) -> None:
    index.sync(
        [document(1, "Gull Rock", "Seen from the lamp."), document(2, "Lamp", "It is a law.")]
    )
    assert titles(index, "lamp") == ["Lamp", "Gull Rock"]


def test_sync_adds_removes_and_replaces(index: PassageIndex) -> None:
    index.sync(BOTH)
    assert (index.count(), index.documents()) == (3, 2)
    index.sync([document(2, "Black Oar", "It was burnt.", digest="e"), document(3, "Salt", "Dry.")])
    assert (index.count(), index.documents()) == (2, 2)
    assert titles(index, "Anneck landlord brine") == []
    assert titles(index, "burnt") == ["Black Oar"]
    index.sync([])
    assert (index.count(), index.documents()) == (0, 0)


@pytest.mark.parametrize(
    "changed",
    [
        document(1, "The Light", LIGHT),
        document(1, "Anneck Light", LIGHT, uri="https://example.org/light"),
        document(1, "Anneck Light", LIGHT, digest="other"),
        document(1, "Anneck Light", "Dark", "now"),
    ],
)
def test_whatever_changed_is_replaced(index: PassageIndex, changed: IndexedDocument) -> None:
    index.sync(BOTH[:1])
    index.sync([changed])
    hits = index.search("light dark now", 10)
    assert {(hit.title, hit.uri) for hit in hits} == {(changed.title, changed.uri)}
    assert {hit.text for hit in hits} == set(changed.passages)


DOCUMENTS = st.dictionaries(
    st.integers(0, 2**31),
    st.tuples(
        st.text(st.characters(codec="utf-8"), max_size=8),
        st.lists(st.text("ab ", max_size=9), max_size=3),
    ),
    max_size=4,
)


@given(st.lists(DOCUMENTS, max_size=3))
@settings(max_examples=30)
def test_it_holds_exactly_what_it_was_given_last(
    tmp_path_factory: pytest.TempPathFactory, states: list[dict[int, tuple[str, list[str]]]]
) -> None:
    path = tmp_path_factory.mktemp("index") / "passages.db"
    index = PassageIndex(path)
    for state in states:
        index.sync(document(n, title, *texts) for n, (title, texts) in state.items())
        with sqlite3.connect(path) as db:
            rows = db.execute("SELECT rowid >> 20, title, text FROM passages ORDER BY rowid")
            assert rows.fetchall() == [
                (n, title, text) for n, (title, texts) in sorted(state.items()) for text in texts
            ]
            db.execute("INSERT INTO passages(passages) VALUES ('integrity-check')")
    index.close()


def test_a_sync_that_fails_halfway_changes_nothing(index: PassageIndex) -> None:
    index.sync(BOTH)
    with pytest.raises(UnicodeEncodeError):
        index.sync([document(3, "Salt", "Dry."), document(4, "\ud800", "Broken.")])
    assert titles(index, "Anneck salt") == ["Anneck Light"]


def test_what_was_removed_is_not_left_in_the_file(index: PassageIndex, path: Path) -> None:
    secret = "Quillfeather"
    more = [document(n, f"Filler {n}", "common words here " * 20) for n in range(10, 60)]
    index.sync([document(1, "Diary", f"{secret} was here."), *more])
    assert any(secret.encode() in file.read_bytes() for file in path.parent.iterdir())
    index.sync(more)
    for file in path.parent.iterdir():
        assert secret.lower()[:8].encode() not in file.read_bytes().lower()  # nor its stem


# Readers -----------------------------------------------------------------------------------------


def test_a_reader_sees_each_sync_at_once(index: PassageIndex, path: Path) -> None:
    reader = PassageIndex(path, readonly=True)
    assert titles(reader, "anneck") == []
    index.sync(BOTH)
    assert titles(reader, "anneck") == ["Anneck Light"]
    index.sync(BOTH[1:])
    assert (titles(reader, "anneck"), reader.count()) == ([], 2)


def test_a_missing_file_and_an_empty_one_have_no_passages(path: Path) -> None:
    reader = PassageIndex(path, readonly=True)
    assert (reader.search("anneck", 3), reader.count(), reader.documents()) == ([], 0, 0)
    assert reader.frequencies(["anneck"]) == {"anneck": 0}
    assert not path.exists()
    path.touch()
    assert (reader.search("anneck", 3), reader.count()) == ([], 0)


def test_a_reader_cannot_write(index: PassageIndex, path: Path) -> None:
    index.sync(BOTH)
    with pytest.raises(AssertionError, match="opened for reading"):
        PassageIndex(path, readonly=True).sync([])
    assert index.count() == 3


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database at all, however long it may be" * 100)


def _holes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


def _without_table(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE passages")


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")


@pytest.mark.parametrize("damage", [_garbage, _holes, _without_table, _newer])
def test_a_damaged_file_is_one_line_for_a_reader_and_written_anew_by_the_writer(
    index: PassageIndex, path: Path, damage: Callable[[Path], None]
) -> None:
    index.sync([*BOTH, *(document(n, f"More {n}", "words " * 50) for n in range(5, 40))])
    index.close()
    damage(path)
    reader = PassageIndex(path, readonly=True)
    with pytest.raises(AutodidactError) as told:
        reader.search("anneck", 3)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)
    anew = PassageIndex(path)
    anew.sync(BOTH)
    assert titles(anew, "anneck") == titles(reader, "anneck") == ["Anneck Light"]


def test_damage_while_it_is_open_is_mended_by_the_next_sync(
    index: PassageIndex, path: Path
) -> None:
    index.sync(BOTH)
    _garbage(path)
    index.sync([*BOTH, document(3, "Salt", "Dry.")])
    assert titles(PassageIndex(path, readonly=True), "salt") == ["Salt"]


def test_tables_that_disagree_are_written_anew(index: PassageIndex, path: Path) -> None:
    index.sync(BOTH)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM documents")  # passages without one are in the way
    index.sync(BOTH)
    assert (index.count(), index.documents()) == (3, 2)
    assert titles(index, "anneck") == ["Anneck Light"]


def test_a_folder_that_cannot_be_written_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "passages.db").mkdir()
    with pytest.raises(AutodidactError, match="cannot be opened"):
        PassageIndex(tmp_path / "passages.db")
    assert (tmp_path / "passages.db").is_dir()


def test_many_threads_read_while_one_writes(index: PassageIndex, path: Path) -> None:
    index.sync(BOTH)
    reader = PassageIndex(path, readonly=True)
    failures: list[Exception] = []

    def read() -> None:
        try:
            for _ in range(20):
                assert titles(reader, "anneck") == ["Anneck Light"]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(10):
        index.sync([*BOTH, document(3, f"Salt {n}", "Dry.")])
    for thread in threads:
        thread.join()
    assert failures == []


# Questions ---------------------------------------------------------------------------------------


def test_telling_words() -> None:
    assert telling("When was the Anneck Light's lamp lit, and by whom?") == (
        "anneck",
        "light",
        "lamp",
        "lit",
    )
    assert telling("What is it? Who are you?") == ()
    assert telling("1794 or 1794?") == ("1794",)
    assert len(telling(" ".join(f"word{n}" for n in range(1000)))) == MAX_WORDS
    assert not [word for word in STOP_WORDS if telling(word)]


ODD = [
    '" OR 1=1 --',
    'title : "Anneck"',
    "NOT anneck",
    "anneck NEAR(light, 2)",
    "{title text} : anneck",
    "-anneck ^light +built*",
    "anneck\x00light",
    "'; DROP TABLE passages; --",
    "\ud800 anneck \udfff",
    "😀🏳️‍🌈 ²½ ⅷ İ ß ﷽",
    "((((((",
    "AND OR NOT",
    "x" * 100_000,
    "anneck " * 15_000,
    " ".join(f"w{n}" for n in range(15_000)),
    '"' * 100_000,
]


@given(st.text() | st.text('"*^:(){}+-\x00 aANDORNOT', max_size=60) | st.sampled_from(ODD))
@example("")
def test_no_question_fails_or_means_anything_but_its_words(
    asked: tuple[PassageIndex, PassageIndex], query: str
) -> None:
    for index in asked:
        hits = index.search(query, 10)
        assert index.count() == 3
        words = set(telling(query))
        for hit in hits:
            assert hit.words
            assert hit.words <= words
        if not words:
            assert hits == []
        assert index.frequencies(tuple(words)).keys() == words


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[PassageIndex, PassageIndex]:
    path = tmp_path_factory.mktemp("asked") / "passages.db"
    index = PassageIndex(path)
    index.sync(BOTH)
    return index, PassageIndex(path, readonly=True)


@pytest.mark.parametrize("query", ODD)
def test_operators_are_words(asked: tuple[PassageIndex, PassageIndex], query: str) -> None:
    found = titles(asked[1], query)
    assert found == (["Anneck Light"] if "anneck" in telling(query) else [])


def test_frequencies_count_documents_not_passages(index: PassageIndex) -> None:
    index.sync([document(1, "Lamp", "one", "two", "three"), document(2, "Inn", "Its lamps.")])
    assert index.frequencies(["lamp", "two", "nowhere"]) == {"lamp": 2, "two": 1, "nowhere": 0}
