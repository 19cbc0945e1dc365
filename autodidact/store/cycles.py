"""The cycles of `learner.db`: begun, taught, finished, and what they say about the next one.

A cycle that is begun is `running` until it is finished, also over a kill. Which documents it taught
and what becomes of them is written in the same transaction.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autodidact.errors import Misfit
from autodidact.store import documents
from autodidact.store.connection import Connections
from autodidact.types import wire
from autodidact.types.cycle import CycleState, Kind, Reason, failed, reasons_from_json
from autodidact.types.report import CycleReport, report_from_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredCycle:
    """One cycle. `documents` are the numbers of those it taught. There is no `report` until it has
    ended, nor of one that was interrupted; `settings` are those of the training."""

    n: int
    state: CycleState
    kind: Kind
    parent: int | None
    started_at: float
    ended_at: float | None
    documents: list[int]
    reasons: tuple[Reason, ...]
    report: CycleReport | None
    settings: dict[str, Any]


class CycleTable:
    """The rows of all cycles."""

    def __init__(self, db: Connections) -> None:
        self._db = db

    # A cycle's course --------------------------------------------------------------------

    def begin(
        self, n: int, parent: int | None, settings: dict[str, Any], kind: Kind = "learn"
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

    def study(self, cycle: int, document_ids: Sequence[int]) -> None:
        """Say which documents the running cycle teaches."""
        with self._db.write() as db:
            db.table("cycles").update(cycle, {"documents": json.dumps(list(document_ids))})
            documents.begin_study(db, cycle, document_ids)

    def finish(
        self,
        cycle: int,
        state: CycleState,
        reasons: Sequence[Reason],
        report: CycleReport | None,
    ) -> None:
        """Close a cycle and move its documents: published → learned, else back to the queue."""
        with self._db.write() as db:
            db.table("cycles").update(
                cycle,
                {
                    "state": state,
                    "ended_at": time.time(),
                    "reasons": json.dumps([asdict(reason) for reason in reasons]),
                    "report": wire.to_json(report) if report else None,
                },
            )
            documents.end_study(db, cycle, state, reasons)

    # Looking -----------------------------------------------------------------------------

    def get(self, n: int) -> StoredCycle | None:
        """One cycle with its report; None if there was no such cycle."""
        rows = list(self._db.read().table("cycles").rows_where("n = ?", [n]))
        return _stored(rows[0]) if rows else None

    def latest(self, limit: int = 20) -> list[StoredCycle]:
        """The latest cycles, newest first."""
        rows = self._db.read().table("cycles").rows_where(order_by="n desc", limit=limit)
        return [_stored(row) for row in rows]

    def last(self) -> int:
        """The number of the newest cycle; 0 before the first."""
        row = self._db.read().conn.execute("SELECT MAX(n) FROM cycles").fetchone()
        return int(row[0] or 0)

    def running(self) -> list[int]:
        """Cycles that were begun and not finished: the one that runs, or what a kill left."""
        rows = self._db.read().conn.execute("SELECT n FROM cycles WHERE state = 'running'")
        return [int(n) for (n,) in rows.fetchall()]

    # When to begin anew ------------------------------------------------------------------

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
        """How many of the latest cycles were rejected for general text, kept answers, chat or mind,
        since one was published or a consolidation was tried."""
        count = 0
        for row in self._db.read().conn.execute(
            "SELECT kind, state, reasons FROM cycles WHERE state IN ('published', 'rejected') "
            "ORDER BY n DESC LIMIT 20"
        ):
            rules = set(failed(reasons_from_json(json.loads(row["reasons"] or "[]"))))
            refused = row["kind"] == "learn" and row["state"] == "rejected"
            if not refused or not rules & {"general", "kept", "chat", "mind"}:
                break
            count += 1
        return count

    def latest_rise(self) -> float | None:
        """Mean rise in general NLL over the base of the latest published cycle, in nats a token."""
        row = self._db.read().conn.execute(
            "SELECT n, state, report FROM cycles WHERE state = 'published' ORDER BY n DESC LIMIT 1"
        ).fetchone()  # fmt: skip
        report = _report(row) if row else None
        return report.figures.general.rise if report and report.figures else None


def _stored(row: Mapping[str, Any]) -> StoredCycle:
    return StoredCycle(
        row["n"],
        row["state"],
        row["kind"],
        row["parent"],
        row["started_at"],
        row["ended_at"],
        json.loads(row["documents"] or "[]"),
        reasons_from_json(json.loads(row["reasons"] or "[]")),
        _report(row),
        json.loads(row["settings"] or "{}"),
    )


def _report(row: Mapping[str, Any]) -> CycleReport | None:
    """None where there is none, or where it makes no sense to this version."""
    stored = json.loads(row["report"] or "{}")
    if not stored:
        return None
    whole = {"cycle": row["n"], "state": row["state"], "seconds": 0, **stored}
    try:
        return report_from_json(whole, f"the report of cycle {row['n']}")
    except Misfit as error:
        log.warning("%s", error)
        return None
