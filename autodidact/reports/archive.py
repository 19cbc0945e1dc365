"""Cycles as the ledger and the manifests have them, made into report cards. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlite_utils.db import NotFoundError

from autodidact import checkpoints
from autodidact.errors import CheckpointError
from autodidact.reports import cards
from autodidact.store.ledger import LearnerStore, StoredDocument

Row = Mapping[str, Any]


def read_card(home: Path, store: LearnerStore, n: int) -> dict[str, Any] | None:
    """The report card of cycle `n`; None if there was no such cycle."""
    row = store.cycle(n)
    if row is None:
        return None
    return cards.card(
        row, weights=_weights(home, row), withdrawn=withdrawn(store, row), said=store.status()
    )


def read_list(store: LearnerStore, before: int | None, most: int) -> list[dict[str, Any]]:
    """Up to `most` cycles in brief, newest first; only those with a number below `before`."""
    found: list[dict[str, Any]] = []
    said = store.status()
    last = store.last_cycle()
    n = last if before is None else min(last, before - 1)
    while n > 0 and len(found) < most:
        row = store.cycle(n)
        if row is not None:
            found.append(cards.brief(row, withdrawn=withdrawn(store, row), said=said))
        n -= 1
    return found


def latest_closed(store: LearnerStore) -> int | None:
    """The newest cycle that came to an end."""
    for n in range(store.last_cycle(), 0, -1):
        row = store.cycle(n)
        if row is not None and row["state"] != "running":
            return n
    return None


def withdrawn(store: LearnerStore, row: Row) -> bool:
    """Whether a published cycle was rolled back: the documents it taught are its no longer."""
    if row["state"] != "published" or not row["documents"]:
        return False
    found = [stored(store, number) for number in row["documents"]]
    return all(document is not None and document.cycle != row["n"] for document in found)


def stored(store: LearnerStore, number: int) -> StoredDocument | None:
    try:
        return store.document(number)
    except NotFoundError:
        return None


def _weights(home: Path, row: Row) -> str:
    """The sha256 of the adapter as its manifest gives it; "" once the version is deleted."""
    if row["state"] != "published":
        return ""
    try:
        manifest = checkpoints.read(home, row["n"]).manifest
        return str(manifest["files"][checkpoints.WEIGHTS]["sha256"])
    except (CheckpointError, OSError, KeyError, TypeError):
        return ""
