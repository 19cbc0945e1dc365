"""What is done between two cycles: cycles that a kill left open are closed by what stands on disk,
wishes of people are granted, what is to be forgotten and old versions leave, passages follow.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autodidact import checkpoints, inbox
from autodidact.errors import Misfit, ResourceError
from autodidact.learning import admission, forget
from autodidact.learning.progress import Hear
from autodidact.learning.staging import read_job
from autodidact.reading.chunks import chunks
from autodidact.store import passages
from autodidact.store.ledger import LearnerStore
from autodidact.types.cycle import Reason
from autodidact.types.events import ForgottenEvent
from autodidact.types.report import CycleReport, report_from_json, report_of

log = logging.getLogger(__name__)
PASSAGE_WORDS = 80


class Upkeep:
    """Keeps a home and its ledger in order."""

    def __init__(
        self,
        home: Path,
        store: LearnerStore,
        keep_versions: int,
        hear: Hear,
        stopping: threading.Event,
    ) -> None:
        self._home = home
        self._store = store
        self._keep_versions = keep_versions
        self._hear = hear
        self._stopping = stopping
        self._indexing = threading.Lock()
        self._indexed: set[tuple[int, str, str]] = set()

    def recover(self) -> None:
        """At start: make good what a kill left open, by what stands on disk."""
        self.close_open()
        admission.read_waiting(self._store, self._stopping)
        try:
            self.tidy()
        except ResourceError as error:
            log.warning("%s; trying again later", error)

    def close_open(self) -> None:
        """Close the cycles that were left running, but for one that can go on."""
        resumable = None
        wishes = [wish for _, wish in inbox.waiting(self._home)]
        rolled_back = any(isinstance(wish, inbox.Rollback) for wish in wishes)
        for n in self._store.cycles.running():
            stands = n in checkpoints.versions(self._home)
            undone = rolled_back and checkpoints.current(self._home) != n
            if stands and not undone and checkpoints.finish_publication(self._home, n):
                self._store.cycles.finish(n, "published", (), self._published_report(n))
                log.info("cycle %d had published %s", n, checkpoints.name(n))
            elif not stands and read_job(self._home, n) is not None:
                resumable = n
            else:
                why = (Reason("", "cut off"),)
                self._store.cycles.finish(n, "interrupted", why, None)
                log.info("cycle %d was cut off; its documents are back in the queue", n)
        checkpoints.clear_staging(self._home, except_cycle=resumable)

    def tidy(self) -> None:
        """After a publication: versions beyond the limit, and what was forgotten, leave the disk;
        the passages on offer are those of what is learned."""
        self.settle()
        for version in checkpoints.retain(self._home, self._keep_versions):
            log.debug("version %s deleted", checkpoints.name(version))
        self.index()

    def settle(self) -> None:
        """Finish forgetting where no further cycle is needed for it."""
        if count := forget.settle(self._home, self._store):
            self._hear(ForgottenEvent())
            log.info("%d documents forgotten", count)
            self.index()

    def index(self) -> None:
        """Bring the passages that chat may look up in line with what is learned. From any thread:
        what is learned is read within the turn, so that the last to have it knows the latest."""
        with self._indexing:
            self._index()

    def refresh(self) -> None:
        """`index`, where something has changed since it was last done."""
        with self._indexing:
            if self._store.documents.offered() != self._indexed:
                self._index()

    def _index(self) -> None:
        offered = self._store.documents.offered()
        learned = self._store.documents.in_state("learned")
        with_index = passages.PassageIndex(self._home / "passages.db")
        try:
            with_index.sync(
                passages.IndexedDocument(
                    stored.id,
                    stored.document.title,
                    stored.document.uri,
                    time.strftime("%Y-%m-%d", time.gmtime(stored.added_at)),
                    stored.document.digest,
                    tuple(c.text for c in chunks(stored.id, stored.document, PASSAGE_WORDS)),
                )
                for stored in learned
            )
        finally:
            with_index.close()
        self._indexed = offered

    def act_on_inbox(self) -> None:
        """Wishes of the command line and of the server's operator."""
        for path, wish in inbox.waiting(self._home):
            if isinstance(wish, inbox.Rollback):
                now = checkpoints.current(self._home)  # the last of several rollbacks counts
                count = self._store.documents.requeue_after(now)
                log.info("rolled back to %d; %d documents back in the queue", now, count)
                self.index()
            elif isinstance(wish, inbox.Forget):
                self._forget(wish.documents)
            elif isinstance(wish, inbox.Retry):
                count = self._store.documents.retry(wish.documents)
                log.info("%d documents that were given up are back in the queue", count)
            else:
                log.warning("inbox/%s: not understood; dropped", path.name)
            path.unlink()

    def _forget(self, documents: Sequence[int]) -> None:
        """Stop teaching and offering these documents now; the next cycle relearns the rest."""
        why = Reason("", "something was to be forgotten")
        for cycle in self._store.cycles.running():
            self._store.cycles.finish(cycle, "interrupted", (why,), None)
        checkpoints.clear_staging(self._home)
        count = self._store.documents.forget(documents)
        self.index()
        log.info("%d documents to be forgotten", count)

    def _published_report(self, version: int) -> CycleReport | None:
        """The whole report of a version; without the answers if that file cannot be read."""
        path = checkpoints.folder(self._home, version) / checkpoints.REPORT
        report: CycleReport | None
        try:
            report = report_from_json(json.loads(path.read_text("utf-8")), path.name)
        except (OSError, ValueError, Misfit):
            report = report_of(checkpoints.read(self._home, version).manifest)
        return replace(report, state="published", reasons=()) if report else None
