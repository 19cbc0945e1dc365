"""Forgetting: what a person asks for, and how the learner sees it through.

    command   finds the documents, asks, and leaves a request in the learner's inbox
    settle    the learner's side, called before each cycle and after it: finishes what can be

Weights cannot be told to forget one text, so a version that learned it is replaced by one that
never did: a fresh adapter, trained from the base on everything else (exact unlearning; Bourtoule et
al. 2021 do the same by shards). Every step is decided by what stands on disk and in the ledger, so
that a kill between any two of them is made good by the next call.

Limits: conversations are not touched, nor what was copied out of the home folder. A document that
was queued, and so lent questions for comparison, may stand in the reports of versions that never
learned it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from autodidact import checkpoints
from autodidact.errors import ResourceError
from autodidact.store.documents import MAX_TRIES
from autodidact.store.ledger import LearnerStore

log = logging.getLogger(__name__)
LATEST = 20
"""How many of the latest cycles are looked at for the last that came to an end."""


# The learner's side ------------------------------------------------------------------------------


def settle(home: Path, store: LearnerStore) -> int:
    """Finish forgetting as far as no further cycle is needed. Returns how many documents are
    forgotten now; 0 also while a cycle that relearns the rest is still due.

    Raises ResourceError if a version that must go is being read; the next call tries again.
    """
    wanted = {stored.id for stored in store.documents.in_state("forgetting")}
    if not wanted:
        return 0
    now = checkpoints.current(home)
    if wanted <= _forgotten_by(home, now):
        return _finish(home, store, now)
    if not store.documents.to_unlearn():
        return store.scrub()
    if not store.documents.count("learned") or _refused(store):
        log.warning("the untouched base serves; what else was learned goes back to the queue")
        checkpoints.point(home, checkpoints.BASE_VERSION)
        store.documents.requeue_after(checkpoints.BASE_VERSION)
        return _finish(home, store, checkpoints.BASE_VERSION)
    return 0


def _finish(home: Path, store: LearnerStore, keep: int) -> int:
    """Delete every version but `keep`, pinned or not, then what the ledger knows."""
    checkpoints.discard(home, [v for v in checkpoints.versions(home) if v != keep])
    left = [checkpoints.name(v) for v in checkpoints.versions(home) if v != keep]
    if left:
        raise ResourceError(f"{home}: {', '.join(left)}: in use, cannot be deleted yet")
    return store.scrub()


def _forgotten_by(home: Path, version: int) -> set[int]:
    """Documents that this version was trained anew to be without."""
    if version == checkpoints.BASE_VERSION:
        return set()
    return set(checkpoints.read(home, version).manifest.get("forgets", ()))


def _refused(store: LearnerStore) -> bool:
    """Whether the rest could not be relearned: the gate refused it, or it failed too often."""
    ended = [c for c in store.cycles.latest(LATEST) if c.state not in ("running", "interrupted")]
    if ended and ended[0].kind == "forget" and ended[0].state == "rejected":
        return True
    latest = [(c.kind, c.state) for c in ended[:MAX_TRIES]]
    return latest == [("forget", "failed")] * MAX_TRIES


# The command -------------------------------------------------------------------------------------
