"""Cycles as the ledger and the manifests have them, made into report cards. Reads only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlite_utils.db import NotFoundError

from autodidact import checkpoints
from autodidact.errors import CheckpointError
from autodidact.reports import cards
from autodidact.store.cycles import StoredCycle
from autodidact.store.documents import StoredDocument
from autodidact.store.ledger import LearnerStore


def read_card(home: Path, store: LearnerStore, n: int) -> dict[str, Any] | None:
    """The report card of cycle `n`; None if there was no such cycle."""
    cycle = store.cycles.get(n)
    if cycle is None:
        return None
    return cards.card(
        cycle,
        weights=_weights(home, cycle),
        withdrawn=withdrawn(store, cycle),
        said=store.status.read(),
    )


def read_list(store: LearnerStore, before: int | None, most: int) -> list[dict[str, Any]]:
    """Up to `most` cycles in brief, newest first; only those with a number below `before`."""
    found: list[dict[str, Any]] = []
    said = store.status.read()
    last = store.cycles.last()
    n = last if before is None else min(last, before - 1)
    while n > 0 and len(found) < most:
        cycle = store.cycles.get(n)
        if cycle is not None:
            found.append(cards.brief(cycle, withdrawn=withdrawn(store, cycle), said=said))
        n -= 1
    return found


def latest_closed(store: LearnerStore) -> int | None:
    """The newest cycle that came to an end."""
    for n in range(store.cycles.last(), 0, -1):
        cycle = store.cycles.get(n)
        if cycle is not None and cycle.state != "running":
            return n
    return None


def withdrawn(store: LearnerStore, cycle: StoredCycle) -> bool:
    """Whether a published cycle was rolled back: the documents it taught are its no longer."""
    if cycle.state != "published" or not cycle.documents:
        return False
    found = [stored(store, number) for number in cycle.documents]
    return all(document is not None and document.cycle != cycle.n for document in found)


def stored(store: LearnerStore, number: int) -> StoredDocument | None:
    try:
        return store.documents.get(number)
    except NotFoundError:
        return None


def _weights(home: Path, cycle: StoredCycle) -> str:
    """The sha256 of the adapter as its manifest gives it; "" once the version is deleted."""
    if cycle.state != "published":
        return ""
    try:
        manifest = checkpoints.read(home, cycle.n).manifest
        return str(manifest["files"][checkpoints.WEIGHTS]["sha256"])
    except (CheckpointError, OSError, KeyError, TypeError):
        return ""
