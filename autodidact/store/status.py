"""What the learner says that it does, for the server: one row of `learner.db`, as JSON."""

from __future__ import annotations

import json
import time
from typing import Any

from autodidact.store.connection import Connections


class StatusRow:
    """The latest word replaces the one before."""

    def __init__(self, db: Connections) -> None:
        self._db = db

    def write(self, payload: dict[str, Any]) -> None:
        with self._db.write() as db:
            db.table("status").upsert(
                {"id": 1, "payload": json.dumps(payload), "updated_at": time.time()}, pk="id"
            )

    def read(self) -> dict[str, Any] | None:
        """What the learner said last, with `updated_at`; None before its first word."""
        rows = list(self._db.read().table("status").rows)
        if not rows:
            return None
        payload: dict[str, Any] = json.loads(rows[0]["payload"])
        return {**payload, "updated_at": rows[0]["updated_at"]}
