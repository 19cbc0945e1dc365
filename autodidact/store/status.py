"""What the learner says that it does, for the server: one row of `learner.db`, as JSON."""

from __future__ import annotations

import time
from dataclasses import replace

from autodidact.errors import Misfit
from autodidact.store.connection import Connections
from autodidact.types import wire
from autodidact.types.status import LearnerStatus


class StatusRow:
    """The latest word replaces the one before."""

    def __init__(self, db: Connections) -> None:
        self._db = db

    def write(self, status: LearnerStatus) -> None:
        """The row's own clock says when."""
        with self._db.write() as db:
            db.table("status").upsert(
                {"id": 1, "payload": wire.to_json(status), "updated_at": time.time()}, pk="id"
            )

    def read(self) -> LearnerStatus | None:
        """What the learner said last; None before its first word, and where another version of
        this program said it in a way that does not fit."""
        rows = list(self._db.read().table("status").rows)
        if not rows:
            return None
        try:
            said = wire.from_json(LearnerStatus, rows[0]["payload"], "the learner's status")
        except Misfit:
            return None
        return replace(said, updated_at=rows[0]["updated_at"])
