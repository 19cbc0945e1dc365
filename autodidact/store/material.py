"""What was found in each document, as rows: chunks, facts, training examples.

They are written once, when a document is admitted, and stay as they are: what was learned is
replayed, measured and shown by these rows, whatever the rules say by now. `documents.rules` is the
version of the rules that made them, 0 as long as a document has not been read. New rules reach a
document when its source delivers it again and no question on it was ever frozen.

A document is stored first and read right after (its examples depend on its number). A kill between
the two leaves it unread, like the documents of a home from before there were such rows: whoever
starts next reads on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlite_utils

from autodidact.store.connection import Connections
from autodidact.types.chat import Message
from autodidact.types.documents import Chunk, Example, Fact, Findings, Material

_UNREAD = "WHERE rules = 0 AND state NOT IN ('forgetting', 'forgotten')"
_FACT = ("subject", "relation", "kind", "answer", "sentence", "unseen", "probe", "suggestion",
         "stated")  # fmt: skip


def create(db: sqlite_utils.Database) -> None:
    """The tables, and counts of documents that triggers keep: counting reads no document."""
    db.table("documents").add_column("rules", int, not_null_default=0)
    db.table("documents").create_index(["state", "tries", "id"])
    db.conn.execute("CREATE INDEX idx_documents_unread ON documents(id) WHERE rules = 0")
    place = {"document_id": int, "ordinal": int}
    for table, columns in (
        ("chunks", {"text": str}),
        ("facts", {"chunk": int, **dict.fromkeys(_FACT[:6], str), "probe": int, "suggestion": int,
                   "questions": str, "restatements": str}),
        ("examples", {"chunk": int, "kind": str, "fact": str, "messages": str, "text": str}),
    ):  # fmt: skip
        db.table(table).create({**place, **columns}, pk=("document_id", "ordinal"))
    db.table("examples").create_index(["fact"])
    db.table("tallies").create({"source": str, "state": str, "n": int}, pk=("source", "state"))
    db.conn.execute(
        "INSERT INTO tallies SELECT source, state, COUNT(*) FROM documents GROUP BY source, state"
    )
    more = (
        "INSERT INTO tallies VALUES (new.source, new.state, 1) "
        "ON CONFLICT (source, state) DO UPDATE SET n = n + 1;"
    )
    less = "UPDATE tallies SET n = n - 1 WHERE source = old.source AND state = old.state;"
    for name, event, act in (
        ("document_added", "INSERT", more),
        ("document_moved", "UPDATE OF source, state", less + more),
        ("document_deleted", "DELETE", less),
    ):
        db.conn.execute(f"CREATE TRIGGER {name} AFTER {event} ON documents BEGIN {act} END")


def add_sentences(db: sqlite_utils.Database) -> None:
    """Columns for facts as sentences; those that were found before have none."""
    for table, column in (("facts", "stated"), ("examples", "sentence"), ("probes", "stated")):
        db.table(table).add_column(column, str, not_null_default="")


class MaterialTable:
    """The rows of all documents."""

    def __init__(self, db: Connections) -> None:
        self._db = db

    def unread(self, limit: int) -> list[int]:
        """Documents that are to be read, in the order in which they came."""
        sql = f"SELECT id FROM documents {_UNREAD} ORDER BY id LIMIT ?"  # noqa: S608
        rows = self._db.read().conn.execute(sql, (limit,))
        return [int(number) for (number,) in rows]

    def is_unread(self, document_id: int) -> bool:
        return bool(
            self._db.read().table("documents").count_where("id = ? AND rules = 0", [document_id])
        )

    def count_unread(self) -> int:
        sql = f"SELECT COUNT(*) FROM documents {_UNREAD}"  # noqa: S608
        return int(self._db.read().conn.execute(sql).fetchone()[0])

    def admit(self, document_id: int, material: Material) -> bool:
        """Store what was found in a document that is unread; False if it is read already.

        One without facts that waits to be learned becomes `unusable`.
        """
        with self._db.write() as db:
            cursor = db.conn.execute(
                "UPDATE documents SET rules = ? WHERE id = ? AND rules = 0",
                (material.rules, document_id),
            )
            if not cursor.rowcount:
                return False
            if not material.findings.facts:
                db.conn.execute(
                    "UPDATE documents SET state = 'unusable', reason = ? "
                    "WHERE id = ? AND state = 'queued'",
                    ("no rule finds a fact in it", document_id),
                )
            _write(db, document_id, material)
        return True

    def findings(self, document_ids: Sequence[int]) -> list[Findings]:
        """What was found in these documents, in their order."""
        wanted = json.dumps(list(document_ids))
        titles = dict(self._rows("SELECT id, title FROM documents WHERE id {in}", wanted))
        chunks: dict[int, list[Chunk]] = {}
        facts: dict[int, list[Fact]] = {}
        for row in self._rows(
            "SELECT * FROM chunks WHERE document_id {in} ORDER BY document_id, ordinal", wanted
        ):
            number = row["document_id"]
            chunk = Chunk(chunk_id(number, row["ordinal"]), number, titles[number], row["text"])
            chunks.setdefault(number, []).append(chunk)
        for row in self._rows(
            "SELECT * FROM facts WHERE document_id {in} ORDER BY document_id, ordinal", wanted
        ):
            facts.setdefault(row["document_id"], []).append(_fact(row))
        return [
            Findings(i, titles[i], tuple(chunks.get(i, ())), tuple(facts.get(i, ())))
            for i in document_ids
        ]

    def examples(self, document_ids: Sequence[int]) -> dict[int, list[Example]]:
        """The training examples of these documents, by document."""
        found: dict[int, list[Example]] = {number: [] for number in document_ids}
        for row in self._rows(
            "SELECT * FROM examples WHERE document_id {in} ORDER BY document_id, ordinal",
            json.dumps(list(document_ids)),
        ):
            found[row["document_id"]].append(_example(row))
        return found

    def examples_of(self, facts: Iterable[str]) -> list[Example]:
        """The training examples of these facts, as far as their documents are learned."""
        rows = self._rows(
            "SELECT examples.* FROM examples JOIN documents ON documents.id = document_id "
            "WHERE fact {in} AND state = 'learned' ORDER BY tries, documents.id, ordinal",
            json.dumps(list(facts)),
        )
        return [_example(row) for row in rows]

    def _rows(self, sql: str, values: str) -> list[Any]:
        """Rows of a query whose `{in}` takes a JSON list."""
        whole = sql.replace("{in}", "IN (SELECT value FROM json_each(?))")
        return self._db.read().conn.execute(whole, (values,)).fetchall()


def reread(db: sqlite_utils.Database, document_id: int, rules: int) -> bool:
    """Have a document read again that older rules read and no cycle has asked about yet."""
    cursor = db.conn.execute(
        "UPDATE documents SET rules = 0, state = 'queued', reason = NULL WHERE id = ? "
        "AND rules > 0 AND rules < ? AND state IN ('queued', 'unusable') "
        "AND NOT EXISTS (SELECT 1 FROM probes WHERE document_id = documents.id)",
        (document_id, rules),
    )
    if cursor.rowcount:
        delete(db, [document_id])
    return bool(cursor.rowcount)


def delete(db: sqlite_utils.Database, document_ids: Iterable[int]) -> None:
    """Remove all rows of these documents."""
    wanted = json.dumps(list(document_ids))
    for table in ("chunks", "facts", "examples"):
        db.conn.execute(
            f"DELETE FROM {table} WHERE document_id IN (SELECT value FROM json_each(?))",  # noqa: S608
            (wanted,),
        )


def chunk_id(document_id: int, ordinal: int) -> str:
    return f"{document_id}:{ordinal}"


def _write(db: sqlite_utils.Database, document_id: int, material: Material) -> None:
    delete(db, [document_id])
    found = material.findings
    ordinals = {chunk.id: n for n, chunk in enumerate(found.chunks)}
    db.conn.executemany(
        "INSERT INTO chunks (document_id, ordinal, text) VALUES (?, ?, ?)",
        [(document_id, n, chunk.text) for n, chunk in enumerate(found.chunks)],
    )
    marks = ", ".join("?" * (len(_FACT) + 5))
    db.conn.executemany(
        "INSERT INTO facts (document_id, ordinal, chunk, "  # noqa: S608  constants
        f"{', '.join(_FACT)}, questions, restatements) VALUES ({marks})",
        [
            (document_id, n, ordinals[fact.chunk_id], *(getattr(fact, name) for name in _FACT),
             json.dumps(fact.questions, ensure_ascii=False),
             json.dumps(fact.restatements, ensure_ascii=False))
            for n, fact in enumerate(found.facts)
        ],
    )  # fmt: skip
    db.conn.executemany(
        "INSERT INTO examples (document_id, ordinal, chunk, kind, fact, messages, text, sentence) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (document_id, n, ordinals[example.chunk_id], example.kind, example.fact,
             json.dumps([[m.role, m.content] for m in example.messages], ensure_ascii=False),
             example.text, example.sentence)
            for n, example in enumerate(material.examples)
        ],
    )  # fmt: skip


def _fact(row: Mapping[str, Any]) -> Fact:
    return Fact(
        chunk_id=chunk_id(row["document_id"], row["chunk"]),
        questions=tuple(json.loads(row["questions"])),
        restatements=tuple(json.loads(row["restatements"])),
        **{name: row[name] for name in _FACT},
    )


def _example(row: Mapping[str, Any]) -> Example:
    return Example(
        row["kind"],
        chunk_id(row["document_id"], row["chunk"]),
        row["document_id"],
        tuple(Message(role, content) for role, content in json.loads(row["messages"])),
        row["text"],
        row["fact"],
        row["sentence"],
    )
