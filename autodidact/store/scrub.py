"""Taking what is to be forgotten out of the ledger, within one transaction.

Gone are the text, title and address of a document, its probes and what was answered to them, its
part of the stored reports and of the last verdict; further its answers where other probes have them
as distractors, and where a model gave one of them to another question. What other documents say
stays theirs: an answer that one of their probes has too is left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlite_utils

from autodidact.store import material

FORGOTTEN = "(forgotten)"
STAND_INS = 3
"""Distractors that a probe gets when it has lost all of its own."""


@dataclass(frozen=True)
class _Gone:
    """Addresses by the ids of the documents, and their answers that no other document gives."""

    uris: Mapping[int, str]
    answers: frozenset[str]


def scrub(db: sqlite_utils.Database) -> int:
    """Delete what is known of the documents in state `forgetting`. Returns how many there were."""
    rows = db.conn.execute("SELECT id, uri FROM documents WHERE state = 'forgetting'").fetchall()
    uris = {int(row["id"]): str(row["uri"]) for row in rows}
    if not uris:
        return 0
    ids = json.dumps(list(uris))
    of_theirs = "document_id IN (SELECT value FROM json_each(?))"
    theirs = db.conn.execute(f"SELECT answer FROM probes WHERE {of_theirs}", (ids,))  # noqa: S608
    answers = {row["answer"] for row in theirs.fetchall()}
    db.conn.execute(
        f"DELETE FROM results WHERE probe_id IN (SELECT id FROM probes WHERE {of_theirs})",  # noqa: S608
        (ids,),
    )
    db.conn.execute(f"DELETE FROM probes WHERE {of_theirs}", (ids,))  # noqa: S608
    material.delete(db, uris)
    others = db.conn.execute("SELECT DISTINCT answer FROM probes").fetchall()
    gone = _Gone(uris, frozenset(answers - {row["answer"] for row in others}))
    _scrub_distractors(db, gone)
    db.conn.execute(
        "UPDATE results SET reply = '' WHERE reply IN (SELECT value FROM json_each(?))",
        (json.dumps(list(gone.answers)),),
    )
    _scrub_reports(db, gone)
    for number, uri in uris.items():
        blank = {"text": "", "title": FORGOTTEN, "uri": unreadable(uri), "cycle": None}
        db.table("documents").update(number, {**blank, "state": "forgotten"})
    return len(uris)


def unreadable(uri: str) -> str:
    """What stays of a forgotten address: enough to know it again, not to read it."""
    return f"sha256:{hashlib.sha256(uri.encode()).hexdigest()}"


def _scrub_distractors(db: sqlite_utils.Database, gone: _Gone) -> None:
    """Other probes lose these answers. Margins measured before and after then differ a little; what
    decides on kept answers is their likelihood, which does not."""
    probes = db.conn.execute("SELECT id, kind, answer, distractors FROM probes").fetchall()
    kinds: dict[str, dict[str, None]] = {}
    for row in probes:
        kinds.setdefault(row["kind"], {})[row["answer"]] = None
    every = [answer for answers in kinds.values() for answer in answers]
    for row in probes:
        offered = json.loads(row["distractors"])
        left = [answer for answer in offered if answer not in gone.answers]
        if left == offered:
            continue
        alike = [answer for answer in (*kinds[row["kind"]], *every) if answer != row["answer"]]
        left = left or list(dict.fromkeys(alike))[:STAND_INS]
        if left:
            db.conn.execute(
                "UPDATE probes SET distractors = ?, same = 0 WHERE id = ?",
                (json.dumps(left), row["id"]),
            )


def _scrub_reports(db: sqlite_utils.Database, gone: _Gone) -> None:
    for row in db.conn.execute("SELECT n, report FROM cycles WHERE report IS NOT NULL").fetchall():
        after = json.dumps(_without(json.loads(row["report"]), gone))
        if after != row["report"]:
            db.conn.execute("UPDATE cycles SET report = ? WHERE n = ?", (after, row["n"]))
    for row in db.conn.execute("SELECT id, payload FROM status").fetchall():
        payload = json.loads(row["payload"])
        if payload.get("verdict"):
            payload["verdict"] = _without(payload["verdict"], gone)
            db.table("status").update(row["id"], {"payload": json.dumps(payload)})


def _without(report: dict[str, Any], gone: _Gone) -> dict[str, Any]:
    """A report without these documents."""
    uris = set(gone.uris.values())
    changed = dict(report)
    if "documents" in report:
        changed["documents"] = [
            {**d, "title": FORGOTTEN, "uri": ""} if d.get("id") in gone.uris else d
            for d in report["documents"]
        ]
    if "probes" in report:
        changed["probes"] = [
            {key: _unsaid(value, gone) for key, value in row.items()}
            for row in report["probes"]
            if row.get("document_id") not in gone.uris
        ]
    if "suggestions" in report:
        changed["suggestions"] = [r for r in report["suggestions"] if r.get("source") not in uris]
    return changed


def _unsaid(value: Any, gone: _Gone) -> Any:
    """One arm's result without a reply that is an answer of theirs; anything else as it is."""
    if isinstance(value, dict) and value.get("reply") in gone.answers:
        return {**value, "reply": ""}
    return value
