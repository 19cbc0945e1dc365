"""The probes of `learner.db`, frozen before training begins, and what each arm answered to them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autodidact.store.connection import Connections
from autodidact.types.documents import LearnedFact, Probe


@dataclass(frozen=True)
class StoredResult:
    """What one arm (base, parent, candidate) of a cycle answered to a probe. `split` is what the
    probe was for in that cycle; the figures are those of `evaluation.recall.ProbeResult`,
    None where they were no numbers."""

    probe_id: str
    arm: str
    split: str
    reply: str
    correct: bool
    logprob: float | None
    margin: float | None
    within: float | None


class ProbeTable:
    """The rows of all probes and results."""

    def __init__(self, db: Connections) -> None:
        self._db = db

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

    def of(self, document_ids: Sequence[int]) -> list[Probe]:
        """The probes on these documents."""
        rows = self._db.read().table("probes").rows_where(
            "document_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(document_ids))],
            order_by="id",
        )  # fmt: skip
        return [_probe(row) for row in rows]

    def record(self, cycle: int, arm: str, results: Iterable[Mapping[str, Any]]) -> None:
        """Store what an arm answered, as rows: the fields of `StoredResult` but for the arm."""
        rows = [{"cycle": cycle, "arm": arm, **result} for result in results]
        with self._db.write() as db:
            db.table("results").insert_all(rows, pk=("cycle", "probe_id", "arm"), replace=True)

    def results(self, cycle: int) -> list[StoredResult]:
        """What all arms of a cycle answered, by probe."""
        rows = (
            self._db.read()
            .table("results")
            .rows_where("cycle = ?", [cycle], order_by="probe_id, arm")
        )
        return [_result(row) for row in rows]

    def remembered(self) -> list[LearnedFact]:
        """Every learned fact that has a probe, with its latest measurement in a published cycle as
        `now`."""
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
        return [LearnedFact(**dict(row)) for row in rows.fetchall()]

    def any_remembered(self) -> bool:
        """Whether any learned document has a probe, so that there is something to repeat."""
        return bool(
            self._db.read().conn.execute(
                "SELECT 1 FROM documents d JOIN probes p ON p.document_id = d.id "
                "WHERE d.state = 'learned' AND p.split = 'taught' LIMIT 1"
            ).fetchone()
        )  # fmt: skip


def _probe(row: Mapping[str, Any]) -> Probe:
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
        row["stated"],
    )


def _result(row: Mapping[str, Any]) -> StoredResult:
    return StoredResult(
        row["probe_id"],
        row["arm"],
        row["split"],
        row["reply"],
        bool(row["correct"]),
        row["logprob"],
        row["margin"],
        row["within"],
    )
