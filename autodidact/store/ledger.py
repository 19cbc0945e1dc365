"""`learner.db`: the ledger of learning. Only the learner's main process writes it.

`LearnerStore` opens the file, brings its schema up to date and holds its parts, each in a module of
its name: documents, material, probes, cycles, sources, status. What is one step in a part is one
transaction, also where it touches the tables of another.

The manifests on disk are the record of what was published: at start the learner closes the cycles
that a kill left running by what it finds there, so that a kill between the two neither loses a
document nor teaches it twice.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import sqlite_utils

from autodidact.store import material, scrub
from autodidact.store.connection import BUSY_TIMEOUT_MS, SERVER_PATIENCE_MS, Connections
from autodidact.store.cycles import CycleTable
from autodidact.store.documents import DocumentTable
from autodidact.store.material import MaterialTable
from autodidact.store.probes import ProbeTable
from autodidact.store.sources import SourceTable
from autodidact.store.status import StatusRow


class LearnerStore:
    """The ledger. `readonly=True` is for the server and the command line."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        patience_ms = SERVER_PATIENCE_MS if readonly else BUSY_TIMEOUT_MS
        self._db = Connections(path, MIGRATIONS, readonly=readonly, patience_ms=patience_ms)
        self.documents = DocumentTable(self._db)
        self.material = MaterialTable(self._db)
        self.probes = ProbeTable(self._db)
        self.cycles = CycleTable(self._db)
        self.sources = SourceTable(self._db)
        self.status = StatusRow(self._db)

    def close(self) -> None:
        self._db.close()

    def scrub(self) -> int:
        """Delete what is known of the documents to be forgotten, also from the file's free pages.
        Returns how many there were."""
        self._db.read().conn.execute("PRAGMA secure_delete=ON")
        with self._db.write() as db:
            count = scrub.scrub(db)
        if count:
            self._compact()
        return count

    def _compact(self) -> None:
        """Leave nothing of deleted rows in the file: what was deleted before `secure_delete` was
        on, and what the write-ahead log holds. With a reader in the way it is left for later."""
        with suppress(sqlite3.OperationalError):
            self._db.read().conn.execute("VACUUM")
            self._db.read().conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _v1(db: sqlite_utils.Database) -> None:
    db.table("documents").create(
        {
            "id": int,
            "source": str,
            "uri": str,
            "title": str,
            "text": str,
            "license": str,
            "digest": str,
            "cursor": str,
            "state": str,
            "tries": int,
            "cycle": int,
            "reason": str,
            "added_at": float,
        },
        pk="id",
        not_null={"source", "uri", "title", "text", "digest", "state", "tries"},
    )
    db.table("documents").create_index(["source", "digest"], unique=True)
    db.table("documents").create_index(["state"])
    db.table("sources").create(
        {"name": str, "cursor": str, "last_at": float, "next_at": float, "error": str}, pk="name"
    )
    db.table("cycles").create(
        {
            "n": int,
            "state": str,
            "parent": int,
            "started_at": float,
            "ended_at": float,
            "documents": str,
            "reasons": str,
            "report": str,
            "settings": str,
        },
        pk="n",
        not_null={"state", "started_at"},
    )
    db.table("probes").create(
        {
            "id": str,
            "cycle": int,
            "document_id": int,
            "split": str,
            "question": str,
            "answer": str,
            "distractors": str,
            "kind": str,
            "relation": str,
            "wording": str,
            "frozen_at": float,
        },
        pk="id",
        foreign_keys=[("cycle", "cycles", "n")],
    )
    db.table("probes").create_index(["document_id"])
    db.table("results").create(
        {
            "cycle": int,
            "probe_id": str,
            "arm": str,
            "split": str,
            "reply": str,
            "correct": int,
            "logprob": float,
            "margin": float,
        },
        pk=("cycle", "probe_id", "arm"),
        foreign_keys=[("cycle", "cycles", "n"), ("probe_id", "probes", "id")],
    )
    db.table("status").create({"id": int, "payload": str, "updated_at": float}, pk="id")


def _v2(db: sqlite_utils.Database) -> None:
    db.table("cycles").add_column("kind", str, not_null_default="learn")
    db.table("results").create_index(["probe_id", "arm"])


def _v3(db: sqlite_utils.Database) -> None:
    db.table("probes").add_column("same", int, not_null_default=0)
    db.table("results").add_column("within", float)


def _v6(db: sqlite_utils.Database) -> None:
    """A text is looked for by its digest, whatever its source, each time that it is delivered."""
    db.table("documents").create_index(["digest"])


MIGRATIONS = (_v1, _v2, _v3, material.create, material.add_sentences, _v6)
