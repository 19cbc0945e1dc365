"""The documents of `learner.db`, each with its state: the queue of what is to be learned.

A document's state is `queued` → `studying` (cycle n) → `learned` (version n), or `given_up` after
too many rejected or failed cycles, `superseded` when its source delivered a newer text, `unusable`
when no rule finds a fact in it, `withdrawn` when its source has it no more. One that is to be
forgotten is `forgetting` as long as a version that learned from it may serve, then `forgotten`: its
text, title, probes and answers are gone, its digest and a hash of its address stay so that no
source brings it back. A `control` is never taught.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlite_utils

from autodidact.store import material, scrub
from autodidact.store.connection import Connections
from autodidact.types.cycle import CycleState, Reason
from autodidact.types.documents import Document

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
class Followed:
    """What following a source changed: learned documents that it has no more, or another text for,
    and documents that are back in the queue."""

    lost: int
    queued: int


_PRESENT = {"queued", "studying", "learned", "unusable", "given_up", "withdrawn"}
"""States of a text that is its address's, as far as is known."""


class DocumentTable:
    """The rows of all documents."""

    def __init__(self, db: Connections) -> None:
        self._db = db

    # Coming in ---------------------------------------------------------------------------

    def add(self, document: Document, rules: int = 0, *, replaces: bool = True) -> bool:
        """Queue a document, which is then to be read (`material`); False if this very text is known
        already, from whatever source. `rules` is the version of today's rules: a text that older
        ones read, and that no cycle has asked about, is queued to be read again.

        With `replaces`, what was at its address is superseded, and a text that was superseded and
        comes back (its source took a change back) is queued again; of a source that gives all that
        it has, `follow` sees to both when it has given it. A text that was withdrawn is known.
        What a source gives at an address that was forgotten is not taken, whatever it says by now,
        unless another text that stood there is still taught.
        """
        if self._settled(document, rules, replaces):
            return False
        with self._db.write() as db:
            if self._refused(db, document):
                return False
            known = db.conn.execute(
                "SELECT id, state FROM documents WHERE digest = ?", (document.digest,)
            ).fetchone()
            if known and not (replaces and known["state"] == "superseded"):
                return material.reread(db, known["id"], rules)
            if replaces:
                db.conn.execute(
                    "UPDATE documents SET state = 'superseded' "
                    "WHERE source = ? AND uri = ? AND state IN ('queued', 'learned', 'unusable')",
                    (document.source, document.uri),
                )
            if known:
                where = {name: getattr(document, name) for name in ("source", "uri", "title")}
                row = {**where, "state": "queued", "tries": 0, "cycle": None}
                db.table("documents").update(known["id"], row)
                return True
            db.table("documents").insert(
                {**asdict(document), "state": "queued", "tries": 0, "added_at": time.time()}
            )
        return True

    def _settled(self, document: Document, rules: int, replaces: bool) -> bool:
        """Whether this text is known and nothing is to be done: asked without a transaction,
        because most of what a folder gives has been there before."""
        row = self._db.read().conn.execute(
            "SELECT state, rules FROM documents WHERE digest = ?", (document.digest,)
        ).fetchone()  # fmt: skip
        if row is None or (replaces and row["state"] == "superseded"):
            return False
        return not (0 < row["rules"] < rules and row["state"] in ("queued", "unusable"))

    @staticmethod
    def _refused(db: sqlite_utils.Database, document: Document) -> bool:
        """Whether what stood at the document's address was forgotten. Forgetting an older text of
        an address that goes on being taught refuses only that text, which its digest does."""
        states = {
            row["state"]
            for row in db.conn.execute(
                "SELECT state FROM documents WHERE source = ? AND uri IN (?, ?)",
                (document.source, document.uri, scrub.unreadable(document.uri)),
            ).fetchall()
        }
        return bool(states & {"forgetting", "forgotten"}) and not states & _PRESENT

    def follow(
        self,
        source: str,
        given: Mapping[str, Mapping[str, str]],
        gone: Callable[[str], bool],
    ) -> Followed:
        """Bring the rows in line with what a source has just given: `given` has, by digest, the
        titles by the addresses where that text stands. `gone` says whether there is nothing more at
        an address, as far as the source knows.

        A text that moved has its new address. One that stands nowhere any more is withdrawn, and
        superseded where another text stands in its place; neither is offered, repeated or asked
        about, and what weights know of it stays until it is forgotten. A withdrawn text that is
        given again is what it was, but queued where it was unlearned meanwhile. So is a superseded
        one that has another address; at its old one, where later texts were taught since, it is
        queued.
        """
        taken = {uri for titles in given.values() for uri in titles}
        lost = queued = 0
        with self._db.write() as db:
            relearning = db.conn.execute(
                "SELECT 1 FROM cycles WHERE state = 'running' AND kind != 'learn'"
            ).fetchone()
            for row in db.conn.execute(
                "SELECT id, source, uri, digest, state, tries, cycle, rules, "
                "EXISTS (SELECT 1 FROM facts WHERE document_id = documents.id) AS facts "
                "FROM documents "
                "WHERE (source = ? AND state IN ('queued', 'learned', 'unusable', 'given_up')) "
                "OR state IN ('withdrawn', 'superseded')",
                (source,),
            ).fetchall():
                titles = given.get(row["digest"])
                present = row["state"] not in ("withdrawn", "superseded")
                change: dict[str, Any] = {}
                if titles:
                    here = row["source"] == source and row["uri"] in titles
                    if not here:
                        uri, title = next(iter(titles.items()))
                        change = {"source": source, "uri": uri, "title": title}
                    if not present:
                        reverted = row["state"] == "superseded" and here
                        change["state"] = _back(row, anew=reverted or bool(relearning))
                        if change["state"] == "queued":
                            change |= {"cycle": None, "tries": 0}
                            queued += 1
                elif row["source"] == source and present:
                    if row["uri"] in taken:
                        change = {"state": "superseded"}
                    elif gone(row["uri"]):
                        change = {"state": "withdrawn"}
                    lost += bool(change) and row["state"] == "learned"
                if change:
                    db.table("documents").update(row["id"], change)
        return Followed(lost, queued)

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

    # Looking -----------------------------------------------------------------------------

    def get(self, document_id: int) -> StoredDocument:
        return _stored(self._db.read().table("documents").get(document_id))

    def in_state(self, state: str, limit: int = 1_000_000) -> list[StoredDocument]:
        """Documents in a state: those tried least first, then in the order they came."""
        rows = (
            self._db.read()
            .table("documents")
            .rows_where("state = ?", [state], order_by="tries, id", limit=limit)
        )
        return [_stored(row) for row in rows]

    def numbers(self, state: str) -> list[int]:
        """Numbers of all documents in a state, in the order of `in_state`."""
        rows = self._db.read().conn.execute(
            "SELECT id FROM documents WHERE state = ? ORDER BY tries, id", (state,)
        )
        return [int(number) for (number,) in rows]

    def count(self, state: str) -> int:
        row = self._db.read().conn.execute(
            "SELECT SUM(n) FROM tallies WHERE state = ?", (state,)
        ).fetchone()  # fmt: skip
        return int(row[0] or 0)

    def states(self, cycle: int) -> dict[str, int]:
        """What has become of the documents that a cycle taught: how many are in each state."""
        rows = self._db.read().conn.execute(
            "SELECT state, COUNT(*) FROM documents WHERE id IN "
            "(SELECT taught.value FROM cycles, json_each(cycles.documents) AS taught "
            "WHERE cycles.n = ?) GROUP BY state",
            (cycle,),
        )
        return {str(state): int(n) for state, n in rows}

    def untried(self) -> int:
        """How many documents wait that no cycle has tried: those come first."""
        row = self._db.read().conn.execute(
            "SELECT COUNT(*) FROM documents WHERE state = 'queued' AND tries = 0 AND rules > 0"
        ).fetchone()  # fmt: skip
        return int(row[0])

    def queue(self, limit: int) -> list[int]:
        """Numbers of the first documents that can be learned: tried least, then in the order they
        came. Costs the same however many wait."""
        rows = self._db.read().conn.execute(
            "SELECT id FROM documents WHERE state = 'queued' AND rules > 0 "
            "ORDER BY tries, id LIMIT ?",
            (limit,),
        )
        return [int(number) for (number,) in rows]

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

    def gone(self) -> list[StoredDocument]:
        """Documents that a published cycle taught, and that their sources have no more, or another
        text for."""
        rows = self._db.read().table("documents").rows_where(
            "state IN ('withdrawn', 'superseded') AND id IN "
            "(SELECT taught.value FROM cycles, json_each(cycles.documents) AS taught "
            "WHERE cycles.state = 'published')",
            order_by="id",
        )  # fmt: skip
        return [_stored(row) for row in rows]

    def offered(self) -> set[tuple[int, str, str]]:
        """Number, address and title of each learned document: what chat may look up."""
        rows = self._db.read().conn.execute(
            "SELECT id, uri, title FROM documents WHERE state = 'learned'"
        )
        return {(row["id"], row["uri"], row["title"]) for row in rows}

    def titles(self) -> list[str]:
        """Titles of all documents that are not forgotten."""
        rows = self._db.read().table("documents").rows_where(
            "state NOT IN ('forgotten', 'control')", select="title", order_by="id"
        )  # fmt: skip
        return [row["title"] for row in rows]

    # Taking back -------------------------------------------------------------------------

    def requeue_after(self, version: int) -> int:
        """A rollback: documents learned after `version` go back to the queue. Returns how many."""
        with self._db.write() as db:
            cursor = db.conn.execute(
                "UPDATE documents SET state = 'queued', cycle = NULL "
                "WHERE state = 'learned' AND cycle > ?",
                (version,),
            )
            db.conn.execute(
                "UPDATE documents SET cycle = NULL WHERE state = 'withdrawn' AND cycle > ?",
                (version,),
            )
            return int(cursor.rowcount)

    def retry(self, document_ids: Sequence[int]) -> int:
        """Documents that were given up go back to the queue, as if never tried. Returns how
        many."""
        with self._db.write() as db:
            cursor = db.conn.execute(
                "UPDATE documents SET state = 'queued', tries = 0, reason = NULL "
                "WHERE id IN (SELECT value FROM json_each(?)) AND state = 'given_up'",
                (json.dumps(list(document_ids)),),
            )
            return int(cursor.rowcount)

    def given_up_for(self) -> dict[str, int]:
        """Why documents were given up, and how many for each reason."""
        rows = self._db.read().conn.execute(
            "SELECT reason, COUNT(*) AS n FROM documents WHERE state = 'given_up' "
            "GROUP BY reason ORDER BY n DESC, reason"
        )
        return {row["reason"] or "not known": int(row["n"]) for row in rows}

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


def begin_study(db: sqlite_utils.Database, cycle: int, document_ids: Sequence[int]) -> None:
    """These documents are taught in the running cycle."""
    db.conn.executemany(
        "UPDATE documents SET state = 'studying', cycle = ? WHERE id = ?",
        [(cycle, document_id) for document_id in document_ids],
    )


def end_study(
    db: sqlite_utils.Database, cycle: int, state: CycleState, reasons: Sequence[Reason]
) -> None:
    """What a cycle that has ended taught: published → learned, else back to the queue; given up
    after too many tries, for the `reasons` of the last."""
    if state == "published":
        db.conn.execute(
            "UPDATE documents SET state = 'learned' WHERE state = 'studying' AND cycle = ?",
            (cycle,),
        )
        db.conn.execute(  # made from the rest: withdrawn texts are not known any more, or not well
            "UPDATE documents SET cycle = NULL WHERE state = 'withdrawn' "
            "AND (SELECT kind FROM cycles WHERE n = ?) != 'learn'",
            (cycle,),
        )
        return
    tried = 1 if state in ("rejected", "failed") else 0
    db.conn.execute(
        "UPDATE documents SET tries = tries + :tried, cycle = NULL, "
        "state = CASE WHEN tries + :tried >= :most THEN 'given_up' ELSE 'queued' END, "
        "reason = CASE WHEN tries + :tried >= :most THEN :why END "
        "WHERE state = 'studying' AND cycle = :cycle",
        {
            "tried": tried,
            "most": MAX_TRIES,
            "why": "; ".join(reason.line for reason in reasons) or state,
            "cycle": cycle,
        },
    )


def _back(row: Mapping[str, Any], *, anew: bool) -> str:
    """The state of a text that its source has again; `anew`: it is to be learned again."""
    if row["rules"] and not row["facts"]:
        return "unusable"
    if row["tries"] >= MAX_TRIES:
        return "given_up"
    return "queued" if anew or row["cycle"] is None else "learned"


def _stored(row: Mapping[str, Any]) -> StoredDocument:
    fields = ("source", "uri", "title", "text", "license", "digest", "cursor")
    return StoredDocument(
        row["id"],
        Document(**{name: row[name] or "" for name in fields}),
        row["state"],
        row["tries"],
        row["cycle"],
        row["added_at"] or 0.0,
    )
