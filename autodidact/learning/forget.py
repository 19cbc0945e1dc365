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

import difflib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from autodidact import checkpoints, settings
from autodidact.errors import AutodidactError, ResourceError
from autodidact.store.ledger import MAX_TRIES, LearnerStore, StoredDocument

log = logging.getLogger(__name__)
TITLES_SHOWN = 10
LATEST = 20
"""How many of the latest cycles are looked at for the last that came to an end."""


# The learner's side ------------------------------------------------------------------------------


def settle(home: Path, store: LearnerStore) -> int:
    """Finish forgetting as far as no further cycle is needed. Returns how many documents are
    forgotten now; 0 also while a cycle that relearns the rest is still due.

    Raises ResourceError if a version that must go is being read; the next call tries again.
    """
    wanted = {stored.id for stored in store.documents("forgetting")}
    if not wanted:
        return 0
    now = checkpoints.current(home)
    if wanted <= _forgotten_by(home, now):
        return _finish(home, store, now)
    if not store.to_unlearn():
        return store.scrub()
    if not store.count("learned") or _refused(store):
        log.warning("the untouched base serves; what else was learned goes back to the queue")
        checkpoints.point(home, checkpoints.BASE_VERSION)
        store.requeue_after(checkpoints.BASE_VERSION)
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
    ended = [c for c in store.cycles(LATEST) if c["state"] not in ("running", "interrupted")]
    if ended and ended[0]["kind"] == "forget" and ended[0]["state"] == "rejected":
        return True
    latest = [(c["kind"], c["state"]) for c in ended[:MAX_TRIES]]
    return latest == [("forget", "failed")] * MAX_TRIES


# The command -------------------------------------------------------------------------------------


def find(store: LearnerStore, what: str) -> list[StoredDocument]:
    """The documents that `what` means: an id, an address, a title, the name of a source. Raises
    AutodidactError, with the nearest titles, where it means none."""
    found = store.matching(what)
    if not found:
        near = nearest(store.titles(), what)
        hint = f"; nearest: {', '.join(near)}" if near else "; no document is known"
        raise AutodidactError(f"{' '.join(what.split())}: no such document or source{hint}")
    return found


def nearest(titles: Sequence[str], what: str, most: int = 3) -> list[str]:
    """The titles most like `what`, best first, whatever their likeness. Case does not count."""
    told = " ".join(what.casefold().split())

    def likeness(title: str) -> tuple[bool, float]:
        folded = title.casefold()
        return bool(told) and told in folded, difflib.SequenceMatcher(None, folded, told).ratio()

    return sorted(dict.fromkeys(titles), key=likeness, reverse=True)[:most]


def request(home: Path, document_ids: Sequence[int]) -> Path:
    """Leave the wish in the learner's inbox: a small file, renamed into place whole."""
    path = home / "inbox" / f"forget-{time.time_ns()}.json"
    path.parent.mkdir(exist_ok=True)
    wish = {"do": "forget", "documents": list(document_ids)}
    checkpoints.write_atomic(path, json.dumps(wish).encode())
    return path


def listing(found: Sequence[StoredDocument]) -> str:
    """What would be forgotten: at most `TITLES_SHOWN` titles, one a line, and the count."""
    lines = [f"  {d.id}  {d.document.title}  ({d.state})" for d in found[:TITLES_SHOWN]]
    if len(found) > TITLES_SHOWN:
        lines.append(f"  … and {len(found) - TITLES_SHOWN} more")
    return "\n".join([*lines, counted(len(found))])


def counted(n: int) -> str:
    return f"{n} document{'' if n == 1 else 's'}"


PROMISE = """\
When the learner acts on it, before its next cycle, they are looked up no more. What it learned from
them goes with the weights: the next cycle trains everything else anew from the base, and then all
older versions are deleted, pinned ones too. If that does not pass the gate, the untouched base
serves and the rest is learned again. Their sources do not bring them back, nor another text at the
same address. Conversations are not touched: delete those on the page.
If no learner runs, this does it now: python web_learner.py --once"""


def forget(
    what: Annotated[str, typer.Argument(help="Id, address or title of a document, or a source.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Annotated[Path | None, typer.Option(help="Folder shared by learner and server.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Forget a document, or all of a source: its text, its questions, what was learned from it."""
    root = settings.load(config, home=home).home
    if not (root / "learner.db").exists():
        raise AutodidactError(f"{root}: no learner has run here yet; start web_learner.py")
    store = LearnerStore(root / "learner.db", readonly=True)
    try:
        found = find(store, what)
    finally:
        store.close()
    print(f"To be forgotten:\n{listing(found)}")
    if not yes and not typer.confirm("Forget for good?"):
        raise AutodidactError("nothing was forgotten")
    request(root, [stored.id for stored in found])
    print(f"{counted(len(found))} will be forgotten.\n{PROMISE}")
