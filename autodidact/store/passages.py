"""`passages.db`: the full-text index over what was learned. Only the learner writes it.

Derived data: everything in it can be made again from `learner.db`, so a file that is damaged or of
another schema is thrown away by the writer and written anew. Readers open the file for each search,
so that they see at once what was synchronised, also when the file itself was replaced; a missing or
still empty file is an index without passages.

FTS5 with Porter's stemmer ranks by BM25 (Robertson and Zaragoza, 2009, "The Probabilistic Relevance
Framework: BM25 and Beyond"), the title weighing `TITLE_WEIGHT` times as much as the text. A
question never reaches FTS5 as a query: only its words do (`telling`), each as a quoted phrase, so
that no operator, column filter or quote in it means anything.

Limits: words are what `unicode61` takes for words, which does not segment Chinese, Japanese or
Thai; the stemmer and the stop words are English; only the first `MAX_WORDS` telling words of a
question count.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import sqlite_utils

from autodidact.errors import AutodidactError
from autodidact.store.connection import SERVER_PATIENCE_MS, Connections

TITLE_WEIGHT = 3.0
MAX_WORDS = 32
MAX_LETTERS = 64
_ORDINAL_BITS = 20
"""A passage's rowid is its document's id and its ordinal, so that counting documents reads no
text."""

STOP_WORDS = frozenset(
    """
    a about after again all also am an and any are as at be because been before being but by can
    could describe did do does doing done during each either else ever every explain few for from
    get give go had has have having he her here hers him his how i if in into is it its itself just
    know let lie lies like make many may me might mine more most much must my name no nor not now
    of off on once one only or other our ours out over own place places please say shall she should
    show so some such tell than that the their theirs them then there these they thing things this
    those through to too under until up upon us very was we well were what when where whether which
    while who whom whose why will with word words would year years yes yet you your yours
    """.split()  # noqa: SIM905
)
"""English words of which questions are made, and which tell nothing about what is asked for."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class IndexedDocument:
    """A document as it is to be found. `date` is an ISO 8601 day, `digest` that of its text."""

    document_id: int
    title: str
    uri: str
    date: str
    digest: str
    passages: tuple[str, ...]


@dataclass(frozen=True)
class Hit:
    """A passage that holds some of the words searched for: `words`, in its text or its title.
    `score` is BM25, higher is better."""

    document_id: int
    title: str
    uri: str
    date: str
    text: str
    score: float
    words: frozenset[str]


def telling(question: str) -> tuple[str, ...]:
    """The different words of a question that say what it is about, in order, at most `MAX_WORDS`.

    Letters and digits only: whatever the question is, they are safe within a quoted phrase.
    """
    found: dict[str, None] = {}
    for match in _WORD.finditer(unicodedata.normalize("NFC", question)):
        word = match[0][:MAX_LETTERS].lower()
        if word in STOP_WORDS or (len(word) == 1 and word.isascii() and word.isalpha()):
            continue
        found[word] = None
        if len(found) == MAX_WORDS:
            break
    return tuple(found)


def _v1(db: sqlite_utils.Database) -> None:
    db.table("documents").create(
        {"id": int, "title": str, "uri": str, "date": str, "mark": str},
        pk="id",
        not_null={"title", "uri", "date", "mark"},
    )
    db.conn.execute(
        "CREATE VIRTUAL TABLE passages USING "
        "fts5(title, text, tokenize = 'porter unicode61 remove_diacritics 2')"
    )


MIGRATIONS = (_v1,)


class PassageIndex:
    """The index in one file. The writer is used by one thread, a reader by any number."""

    def __init__(self, path: Path, readonly: bool = False) -> None:
        self.path = path
        self.readonly = readonly
        self._writer = None if readonly else _opened(path)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    # Writing -----------------------------------------------------------------------------

    def sync(self, entries: Iterable[IndexedDocument]) -> None:
        """Make the index hold exactly these documents: one transaction adds, removes and replaces.

        A document given twice counts as given last. What was removed is overwritten in the file.
        Raises ResourceError when the disk is full.
        """
        if self._writer is None:
            raise AssertionError(f"{self.path.name} was opened for reading")
        wanted = {entry.document_id: entry for entry in entries}
        try:
            _sync(self._writer, wanted)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._writer.close()
            _remove(self.path)
            self._writer = _opened(self.path)
            _sync(self._writer, wanted)

    # Reading -----------------------------------------------------------------------------

    def search(self, query: str, limit: int) -> list[Hit]:
        """The best passages for any text, best first; none where nothing fits.

        Raises AutodidactError when the file cannot be read.
        """
        words = telling(query)
        if not words or limit < 1:
            return []
        with self._reading() as db:
            if db is None:
                return []
            rows = db.conn.execute(
                "SELECT passages.rowid AS id, documents.id AS document_id, documents.title, "
                "documents.uri, documents.date, passages.text, bm25(passages, ?, 1.0) AS rank_ "
                "FROM passages JOIN documents ON documents.id = passages.rowid >> ? "
                "WHERE passages MATCH ? ORDER BY rank_, passages.rowid LIMIT ?",
                (TITLE_WEIGHT, _ORDINAL_BITS, _any_of(words), limit),
            ).fetchall()
            held = _held(db, words, [row["id"] for row in rows])
        return [
            Hit(
                row["document_id"],
                row["title"],
                row["uri"],
                row["date"],
                row["text"],
                -row["rank_"],
                frozenset(held[row["id"]]),
            )
            for row in rows
        ]

    def frequencies(self, words: Sequence[str]) -> dict[str, int]:
        """In how many documents each word occurs, in the text or the title, as FTS5 stems it.

        Raises AutodidactError when the file cannot be read.
        """
        with self._reading() as db:
            if db is None:
                return dict.fromkeys(words, 0)
            sql = "SELECT count(DISTINCT rowid >> ?) FROM passages WHERE passages MATCH ?"
            return {
                word: db.conn.execute(sql, (_ORDINAL_BITS, _any_of([word]))).fetchone()[0]
                for word in words
            }

    def documents(self) -> int:
        """How many documents are in it. Raises AutodidactError when the file cannot be read."""
        return self._total("SELECT count(*) FROM documents")

    def count(self) -> int:
        """How many passages are in it. Raises AutodidactError when the file cannot be read."""
        return self._total("SELECT count(*) FROM passages")

    def _total(self, sql: str) -> int:
        with self._reading() as db:
            return 0 if db is None else int(db.conn.execute(sql).fetchone()[0])

    @contextmanager
    def _reading(self) -> Iterator[sqlite_utils.Database | None]:
        """One moment of the index: a transaction. None when nothing was ever written."""
        connections = self._writer or Connections(
            self.path, (), readonly=True, patience_ms=SERVER_PATIENCE_MS
        )
        try:
            db = connections.read()
            db.conn.execute("BEGIN")
            try:
                schema = db.conn.execute("PRAGMA user_version").fetchone()[0]
                if schema > len(MIGRATIONS):
                    raise AutodidactError(
                        f"{self.path}: made by a newer version of Autodidact; update Autodidact"
                    )
                yield db if schema else None
            finally:
                db.conn.execute("ROLLBACK")
        except FileNotFoundError:
            yield None
        except sqlite3.DatabaseError as error:
            raise AutodidactError(
                f"{self.path}: cannot be read ({error}); the learner writes it anew "
                "when it next publishes"
            ) from None
        finally:
            if self._writer is None:
                connections.close()


def _opened(path: Path) -> Connections:
    """The file for writing; one that is damaged or of another schema is started anew."""
    try:
        return _prepared(path)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
    except AutodidactError as error:  # not a database at all, or of a newer schema
        if isinstance(error.__context__, sqlite3.OperationalError):
            raise  # a folder that may not be written, a full disk
    _remove(path)
    return _prepared(path)


def _prepared(path: Path) -> Connections:
    connections = Connections(path, MIGRATIONS)
    connections.read().conn.execute("PRAGMA secure_delete=ON")
    return connections


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """A lock or a full disk is no damage: only a file that cannot be read as ours is."""
    malformed = type(error) in (sqlite3.DatabaseError, sqlite3.IntegrityError)
    return malformed or "no such" in str(error)


def _remove(path: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _sync(connections: Connections, wanted: dict[int, IndexedDocument]) -> None:
    marks = {document_id: _mark(entry) for document_id, entry in wanted.items()}
    with connections.write() as db:
        there = {row["id"]: row["mark"] for row in db.table("documents").rows}
        gone = [
            document_id for document_id, mark in there.items() if marks.get(document_id) != mark
        ]
        for document_id in gone:
            _delete(db, document_id)
        for document_id, entry in wanted.items():
            if there.get(document_id) != marks[document_id]:
                _insert(db, entry, marks[document_id])
        if gone:
            # Merges the index into one piece: until then it still spells out what was deleted.
            db.conn.execute("INSERT INTO passages(passages) VALUES ('optimize')")
    if gone:
        connections.read().conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _mark(entry: IndexedDocument) -> str:
    return hashlib.sha256(json.dumps(astuple(entry)).encode()).hexdigest()


def _delete(db: sqlite_utils.Database, document_id: int) -> None:
    first = document_id << _ORDINAL_BITS
    last = first + (1 << _ORDINAL_BITS) - 1
    db.conn.execute("DELETE FROM passages WHERE rowid BETWEEN ? AND ?", (first, last))
    db.conn.execute("DELETE FROM documents WHERE id = ?", (document_id,))


def _insert(db: sqlite_utils.Database, entry: IndexedDocument, mark: str) -> None:
    assert len(entry.passages) < 1 << _ORDINAL_BITS
    db.conn.execute(
        "INSERT INTO documents(id, title, uri, date, mark) VALUES (?, ?, ?, ?, ?)",
        (entry.document_id, entry.title, entry.uri, entry.date, mark),
    )
    first = entry.document_id << _ORDINAL_BITS
    db.conn.executemany(
        "INSERT INTO passages(rowid, title, text) VALUES (?, ?, ?)",
        ((first + i, entry.title, text) for i, text in enumerate(entry.passages)),
    )


def _any_of(words: Sequence[str]) -> str:
    """The FTS5 query for any of these words. They come from `telling`: no quotes in them."""
    return " OR ".join(f'"{word}"' for word in words)


def _held(
    db: sqlite_utils.Database, words: Sequence[str], rowids: Sequence[int]
) -> dict[int, set[str]]:
    """Which of the words each of these passages holds."""
    held: dict[int, set[str]] = {rowid: set() for rowid in rowids}
    sql = (
        "SELECT rowid FROM passages WHERE passages MATCH ? "
        "AND rowid IN (SELECT value FROM json_each(?))"
    )
    for word in words:
        for row in db.conn.execute(sql, (_any_of([word]), json.dumps(list(rowids)))):
            held[row["rowid"]].add(word)
    return held
