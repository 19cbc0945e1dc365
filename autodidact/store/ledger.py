"""`learner.db`: the ledger of learning. Only the learner's main process writes it.

A document's state is `queued` → `studying` (cycle n) → `learned` (version n), or `given_up` after
too many rejected or failed cycles, `superseded` when its source delivered a newer text, `unusable`
when no rule finds a fact in it. One that is to be forgotten is `forgetting` as long as a version
that learned from it may serve, then `forgotten`: its text, title, probes and answers are gone, its
digest and a hash of its address stay so that no source brings it back.

The manifests on disk are the record of what was published: at start the learner closes the cycles
that a kill left running by what it finds there, so that a kill between the two neither loses a
document nor teaches it twice.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import sqlite_utils

from autodidact.store import material, scrub
from autodidact.store.connection import Connections
from autodidact.types.cycle import Reason, failed, reasons_from_json
from autodidact.types.documents import Document, Probe

CycleState = Literal["running", "published", "rejected", "failed", "interrupted"]
MAX_TRIES = 3


@dataclass(frozen=True)
class StoredDocument:
    id: int
    document: Document
    state: str
    tries: int
    cycle: int | None
    added_at: float = 0.0


@dataclass(frozen=True)
class SourceState:
    name: str
    cursor: str | None
    last_at: float | None
    next_at: float | None
    error: str
    documents: int


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


MIGRATIONS = (_v1, _v2, _v3, material.create)


class LearnerStore:
    """The ledger. `readonly=True` is for the server and the command line."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self._db = Connections(path, MIGRATIONS, readonly=readonly)
        self.material = material.MaterialTable(self._db)

    def close(self) -> None:
        self._db.close()

    # Documents ---------------------------------------------------------------------------

    def add(self, document: Document, rules: int = 0) -> bool:
        """Queue a document, which is then to be read (`material`); False if this very text is known
        already, from whatever source. `rules` is the version of today's rules: a text that older
        ones read, and that no cycle has asked about, is queued to be read again.

        A text that was superseded and comes back (its source took a change back) is queued again.
        What a source gives at an address that was forgotten is not taken, whatever it says by now.
        """
        with self._db.write() as db:
            if db.conn.execute(
                "SELECT 1 FROM documents WHERE source = ? AND uri IN (?, ?) "
                "AND state IN ('forgetting', 'forgotten')",
                (document.source, document.uri, scrub.unreadable(document.uri)),
            ).fetchone():
                return False
            known = db.conn.execute(
                "SELECT id, state FROM documents WHERE digest = ?", (document.digest,)
            ).fetchone()
            if known and known["state"] != "superseded":
                return material.reread(db, known["id"], rules)
            db.conn.execute(
                "UPDATE documents SET state = 'superseded' "
                "WHERE source = ? AND uri = ? AND state IN ('queued', 'learned', 'unusable')",
                (document.source, document.uri),
            )
            if known:
                row = {"state": "queued", "tries": 0, "cycle": None}
                db.table("documents").update(known["id"], row)
                return True
            db.table("documents").insert(
                {**asdict(document), "state": "queued", "tries": 0, "added_at": time.time()}
            )
        return True

    def documents(self, state: str, limit: int = 1_000_000) -> list[StoredDocument]:
        """Documents in a state: those tried least first, then in the order they came."""
        rows = (
            self._db.read()
            .table("documents")
            .rows_where("state = ?", [state], order_by="tries, id", limit=limit)
        )
        return [_stored(row) for row in rows]

    def queue(self, limit: int) -> list[int]:
        """Numbers of the first documents that can be learned: tried least, then in the order they
        came. Costs the same however many wait."""
        rows = self._db.read().conn.execute(
            "SELECT id FROM documents WHERE state = 'queued' AND rules > 0 "
            "ORDER BY tries, id LIMIT ?",
            (limit,),
        )
        return [int(number) for (number,) in rows]

    def numbers(self, state: str) -> list[int]:
        """Numbers of all documents in a state, in the order of `documents`."""
        rows = self._db.read().conn.execute(
            "SELECT id FROM documents WHERE state = ? ORDER BY tries, id", (state,)
        )
        return [int(number) for (number,) in rows]

    def control(self, document: Document) -> int | None:
        """The number of a text that is never taught, stored if it is new, below 0; None if the same
        text is known from a source, and so may be taught."""
        with self._db.write() as db:
            known = db.conn.execute(
                "SELECT id, state FROM documents WHERE digest = ?", (document.digest,)
            ).fetchone()
            if known:
                return int(known["id"]) if known["state"] == "control" else None
            lowest = db.conn.execute("SELECT MIN(id) FROM documents").fetchone()[0]
            number = min(lowest or 0, 0) - 1
            db.table("documents").insert(
                {"id": number, **asdict(document), "state": "control", "tries": 0,
                 "added_at": time.time()}
            )  # fmt: skip
            return number

    def document(self, document_id: int) -> StoredDocument:
        return _stored(self._db.read().table("documents").get(document_id))

    def count(self, state: str) -> int:
        row = self._db.read().conn.execute(
            "SELECT SUM(n) FROM tallies WHERE state = ?", (state,)
        ).fetchone()  # fmt: skip
        return int(row[0] or 0)

    def matching(self, what: str) -> list[StoredDocument]:
        """Documents that a person means by an id, an address, a title or the name of a source;
        those that are forgotten already are left out."""
        rows = self._db.read().table("documents").rows_where(
            "(id = ? OR uri = ? OR title = ? OR source = ?) "
            "AND state NOT IN ('forgotten', 'control')",
            [int(what) if what.isdecimal() and len(what) < 16 else -1, what, what, what],
            order_by="id",
        )  # fmt: skip
        return [_stored(row) for row in rows]

    def titles(self) -> list[str]:
        """Titles of all documents that are not forgotten."""
        rows = self._db.read().table("documents").rows_where(
            "state NOT IN ('forgotten', 'control')", select="title", order_by="id"
        )  # fmt: skip
        return [row["title"] for row in rows]

    def forget(self, document_ids: Sequence[int]) -> int:
        """Mark documents as to be forgotten. Returns how many that were not yet."""
        with self._db.write() as db:
            cursor = db.conn.execute(
                "UPDATE documents SET state = 'forgetting' "
                "WHERE id IN (SELECT value FROM json_each(?)) "
                "AND state NOT IN ('forgetting', 'forgotten')",
                (json.dumps(list(document_ids)),),
            )
            return int(cursor.rowcount)

    def to_unlearn(self) -> int:
        """How many of the documents to be forgotten were taught in a cycle that was published, so
        that a version may know them and the rest must be learned anew."""
        row = self._db.read().conn.execute(
            "SELECT COUNT(*) FROM documents WHERE state = 'forgetting' AND id IN "
            "(SELECT taught.value FROM cycles, json_each(cycles.documents) AS taught "
            "WHERE cycles.state = 'published')"
        ).fetchone()  # fmt: skip
        return int(row[0])

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

    # Sources -----------------------------------------------------------------------------

    def source(self, name: str) -> SourceState:
        rows = list(self._db.read().table("sources").rows_where("name = ?", [name]))
        row: dict[str, Any] = rows[0] if rows else {}
        documents = self._db.read().conn.execute(
            "SELECT SUM(n) FROM tallies WHERE source = ? AND state != 'control'", (name,)
        ).fetchone()[0]  # fmt: skip
        return SourceState(
            name,
            row.get("cursor"),
            row.get("last_at"),
            row.get("next_at"),
            row.get("error") or "",
            int(documents or 0),
        )

    def sources(self) -> list[SourceState]:
        return [self.source(row["name"]) for row in list(self._db.read().table("sources").rows)]

    def set_source(self, name: str, **values: Any) -> None:
        """Store `cursor`, `last_at`, `next_at` or `error` of a source."""
        with self._db.write() as db:
            db.table("sources").upsert({"name": name, **values}, pk="name")

    # Cycles ------------------------------------------------------------------------------

    def begin_cycle(
        self, n: int, parent: int | None, settings: dict[str, Any], kind: str = "learn"
    ) -> None:
        with self._db.write() as db:
            db.table("cycles").insert(
                {
                    "n": n,
                    "state": "running",
                    "parent": parent,
                    "kind": kind,
                    "started_at": time.time(),
                    "documents": "[]",
                    "settings": json.dumps(settings),
                }
            )

    def last_cycle(self) -> int:
        row = self._db.read().conn.execute("SELECT MAX(n) FROM cycles").fetchone()
        return int(row[0] or 0)

    def freeze(self, cycle: int, probes: Iterable[Probe]) -> None:
        """Write probes down before training begins; the same probe is never frozen twice. One that
        was a control probe, because its document lent itself, becomes one on a taught document."""
        probes = list(probes)
        now = time.time()
        rows = []
        for probe in probes:
            row = asdict(probe)
            row["distractors"] = json.dumps(row["distractors"])
            rows.append({**row, "cycle": cycle, "frozen_at": now})
        with self._db.write() as db:
            db.table("probes").insert_all(rows, pk="id", ignore=True)
            db.conn.executemany(
                "UPDATE probes SET split = 'taught' WHERE id = ? AND split = 'control'",
                [(probe.id,) for probe in probes if probe.split == "taught"],
            )

    def probes(self, document_ids: Sequence[int]) -> list[Probe]:
        rows = self._db.read().table("probes").rows_where(
            "document_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(document_ids))],
            order_by="id",
        )  # fmt: skip
        return [_probe(row) for row in rows]

    def study(self, cycle: int, document_ids: Sequence[int]) -> None:
        """Say which documents the running cycle teaches."""
        with self._db.write() as db:
            db.table("cycles").update(cycle, {"documents": json.dumps(list(document_ids))})
            db.conn.executemany(
                "UPDATE documents SET state = 'studying', cycle = ? WHERE id = ?",
                [(cycle, document_id) for document_id in document_ids],
            )

    def record(self, cycle: int, arm: str, results: Iterable[dict[str, Any]]) -> None:
        rows = [{"cycle": cycle, "arm": arm, **result} for result in results]
        with self._db.write() as db:
            db.table("results").insert_all(rows, pk=("cycle", "probe_id", "arm"), replace=True)

    def finish_cycle(
        self, cycle: int, state: CycleState, reasons: Sequence[Reason], report: dict[str, Any]
    ) -> None:
        """Close a cycle and move its documents: published → learned, else back to the queue."""
        with self._db.write() as db:
            db.table("cycles").update(
                cycle,
                {
                    "state": state,
                    "ended_at": time.time(),
                    "reasons": json.dumps([asdict(reason) for reason in reasons]),
                    "report": json.dumps(report),
                },
            )
            _move_documents(db, cycle, state)

    def cycle(self, n: int) -> dict[str, Any] | None:
        """One cycle with its report, its `reasons` as `Reason`; or None."""
        rows = list(self._db.read().table("cycles").rows_where("n = ?", [n]))
        if not rows:
            return None
        row = dict(rows[0])
        for key, empty in (("documents", []), ("reasons", []), ("report", {}), ("settings", {})):
            row[key] = json.loads(row[key]) if row[key] else empty
        row["reasons"] = reasons_from_json(row["reasons"])
        return row

    def cycles(self, limit: int = 20) -> list[dict[str, Any]]:
        """The latest cycles, newest first."""
        rows = list(self._db.read().table("cycles").rows_where(order_by="n desc", limit=limit))
        return [cycle for row in rows if (cycle := self.cycle(row["n"])) is not None]

    def results(self, cycle: int) -> list[dict[str, Any]]:
        return [
            dict(row)
            for row in self._db.read()
            .table("results")
            .rows_where("cycle = ?", [cycle], order_by="probe_id, arm")
        ]

    def remembered(self) -> list[dict[str, Any]]:
        """Every learned fact that has a probe: `fact` (the probe's id), `document_id`, `learned_in`
        (cycle), and the mean log-probability a token of its answer when it was learned (`then`) and
        at its latest measurement in a published cycle (`now`), None where it was not measured."""
        rows = self._db.read().conn.execute(
            """
            SELECT p.id AS fact, p.document_id, d.cycle AS learned_in,
              (SELECT r.logprob FROM results r
               WHERE r.probe_id = p.id AND r.arm = 'candidate' AND r.cycle = d.cycle) AS "then",
              (SELECT r.logprob FROM results r JOIN cycles c ON c.n = r.cycle
               WHERE r.probe_id = p.id AND r.arm = 'candidate' AND c.state = 'published'
               ORDER BY r.cycle DESC LIMIT 1) AS "now"
            FROM probes p JOIN documents d ON d.id = p.document_id
            WHERE d.state = 'learned' AND p.split = 'taught' ORDER BY p.id
            """
        )
        return [dict(row) for row in rows.fetchall()]

    def has_learned(self) -> bool:
        """Whether any learned document has a probe, so that there is something to repeat."""
        return bool(
            self._db.read().conn.execute(
                "SELECT 1 FROM documents d JOIN probes p ON p.document_id = d.id "
                "WHERE d.state = 'learned' AND p.split = 'taught' LIMIT 1"
            ).fetchone()
        )  # fmt: skip

    def published_since_consolidation(self) -> int:
        """Cycles that were published since the adapter was last trained from the base; a
        consolidation that was refused or failed counts too, so that it is not tried at once."""
        row = self._db.read().conn.execute(
            "SELECT COUNT(*) FROM cycles WHERE kind = 'learn' AND state = 'published' AND n > "
            "COALESCE((SELECT MAX(n) FROM cycles WHERE kind != 'learn' "
            "AND state IN ('published', 'rejected', 'failed')), 0)"
        ).fetchone()  # fmt: skip
        return int(row[0])

    def refused_in_a_row(self) -> int:
        """How many of the latest cycles were rejected for general text, kept answers or chat,
        since one was published or a consolidation was tried."""
        count = 0
        for row in self._db.read().conn.execute(
            "SELECT kind, state, reasons FROM cycles WHERE state IN ('published', 'rejected') "
            "ORDER BY n DESC LIMIT 20"
        ):
            rules = set(failed(reasons_from_json(json.loads(row["reasons"] or "[]"))))
            refused = row["kind"] == "learn" and row["state"] == "rejected"
            if not refused or not rules & {"general", "kept", "chat"}:
                break
            count += 1
        return count

    def latest_rise(self) -> float | None:
        """Mean rise in general NLL over the base of the latest published cycle, in nats a token."""
        row = (
            self._db.read()
            .conn.execute(
                "SELECT report FROM cycles WHERE state = 'published' ORDER BY n DESC LIMIT 1"
            )
            .fetchone()
        )
        general = json.loads(row["report"]).get("general") if row and row["report"] else None
        return float(general["rise"]) if general and general["rise"] is not None else None

    def running(self) -> list[int]:
        """Cycles that were begun and not finished: the one that runs, or what a kill left."""
        rows = self._db.read().conn.execute("SELECT n FROM cycles WHERE state = 'running'")
        return [int(n) for (n,) in rows.fetchall()]

    def requeue_after(self, version: int) -> int:
        """A rollback: documents learned after `version` go back to the queue. Returns how many."""
        with self._db.write() as db:
            cursor = db.conn.execute(
                "UPDATE documents SET state = 'queued', cycle = NULL "
                "WHERE state = 'learned' AND cycle > ?",
                (version,),
            )
            return int(cursor.rowcount)

    # Status for the page -------------------------------------------------------------------

    def set_status(self, payload: dict[str, Any]) -> None:
        with self._db.write() as db:
            db.table("status").upsert(
                {"id": 1, "payload": json.dumps(payload), "updated_at": time.time()}, pk="id"
            )

    def status(self) -> dict[str, Any] | None:
        """What the learner said last, with `updated_at`; None before its first word."""
        rows = list(self._db.read().table("status").rows)
        if not rows:
            return None
        payload: dict[str, Any] = json.loads(rows[0]["payload"])
        return {**payload, "updated_at": rows[0]["updated_at"]}


def _move_documents(db: sqlite_utils.Database, cycle: int, state: CycleState) -> None:
    if state == "published":
        db.conn.execute(
            "UPDATE documents SET state = 'learned' WHERE state = 'studying' AND cycle = ?",
            (cycle,),
        )
        return
    tried = 1 if state in ("rejected", "failed") else 0
    db.conn.execute(
        "UPDATE documents SET tries = tries + ?, cycle = NULL, "
        "state = CASE WHEN tries + ? >= ? THEN 'given_up' ELSE 'queued' END "
        "WHERE state = 'studying' AND cycle = ?",
        (tried, tried, MAX_TRIES, cycle),
    )


def _stored(row: dict[str, Any]) -> StoredDocument:
    fields = ("source", "uri", "title", "text", "license", "digest", "cursor")
    return StoredDocument(
        row["id"],
        Document(**{name: row[name] or "" for name in fields}),
        row["state"],
        row["tries"],
        row["cycle"],
        row["added_at"] or 0.0,
    )


def _probe(row: dict[str, Any]) -> Probe:
    return Probe(
        row["id"],
        row["document_id"],
        row["question"],
        row["answer"],
        tuple(json.loads(row["distractors"])),
        row["kind"],
        row["relation"],
        row["wording"],
        row["split"],
        row["same"],
    )
