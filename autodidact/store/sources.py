"""What `learner.db` knows of each source: how far it has got, and when it is to be asked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, Unpack

from autodidact.store.connection import Connections


@dataclass(frozen=True)
class SourceState:
    """`documents` counts what came from it, controls left out."""

    name: str
    cursor: str | None
    last_at: float | None
    next_at: float | None
    error: str
    documents: int


class Changes(TypedDict, total=False):
    cursor: str
    last_at: float
    next_at: float
    error: str


class SourceTable:
    """The rows of all sources."""

    def __init__(self, db: Connections) -> None:
        self._db = db

    def get(self, name: str) -> SourceState:
        """A source's state, empty for one that is not known yet."""
        rows = list(self._db.read().table("sources").rows_where("name = ?", [name]))
        row = rows[0] if rows else {}
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

    def all(self) -> list[SourceState]:
        return [self.get(row["name"]) for row in list(self._db.read().table("sources").rows)]

    def update(self, name: str, **changes: Unpack[Changes]) -> None:
        """Store some of what is known of a source; the rest stays."""
        with self._db.write() as db:
            db.table("sources").upsert({"name": name, **changes}, pk="name")
