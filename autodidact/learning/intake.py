"""From the sources to the queue: what is new is fetched, curated, stored and read.

A source that is out of reach is tried again later, ever more seldom, and the others go on. What a
source has no more is withdrawn: it is not looked up nor repeated any longer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from autodidact import curation
from autodidact.errors import SourceError
from autodidact.learning import admission
from autodidact.learning.progress import Hear
from autodidact.lessons.material import RULES
from autodidact.settings import Settings
from autodidact.sources.backoff import Outage
from autodidact.store.ledger import LearnerStore
from autodidact.types.cycle import Verdict
from autodidact.types.documents import Document
from autodidact.types.events import PhaseEvent
from autodidact.types.protocols import Inventory, Source

log = logging.getLogger(__name__)


class Intake:
    """Asks the sources; `stopping` ends it between two documents. `refresh` is called after each
    source, to bring what may be looked up in line."""

    def __init__(
        self,
        settings: Settings,
        store: LearnerStore,
        sources: Sequence[Source],
        hear: Hear,
        stopping: threading.Event,
        refresh: Callable[[], None],
    ) -> None:
        self._store = store
        self._refresh = refresh
        self._sources = list(sources)
        self._hear = hear
        self._stopping = stopping
        self._filters = curation.build(settings.curation)
        self._outages = {s.name: Outage(s.name, seed=settings.training.seed) for s in sources}
        self._retries: dict[str, float] = {}

    def fetch(self, *, retry: bool = False) -> int:
        """Ask the sources for something new: all that are due, or with `retry` only those whose
        outage allows another try. Returns how many documents came."""
        return sum(self._fetch(source, retry) for source in self._sources)

    def retry_at(self) -> float | None:
        """When the first of the sources that are out of reach is to be tried again."""
        return min(self._retries.values(), default=None)

    def _fetch(self, source: Source, retry: bool) -> int:
        outage = self._outages[source.name]
        if self._stopping.is_set() or not outage.due(time.time()):
            return 0
        if retry and source.name not in self._retries:
            return 0
        self._hear(PhaseEvent("fetching"))
        passing = _Pass(self._store, source.name)
        whole = isinstance(source, Inventory)
        try:
            for document in source.documents(self._store.sources.get(source.name).cursor):
                if self._stopping.is_set():
                    return passing.new
                self._take(document, passing, replaces=not whole)
        except SourceError as error:
            next_at, line = outage.failed(error)
            self._retries[source.name] = next_at
            self._store.sources.update(source.name, error=str(error), next_at=next_at)
            if line:
                log.warning("%s", line)
            self._refresh()
            return passing.new
        finally:
            passing.keep_cursor()
        self._follow(source, passing)
        self._refresh()
        self._retries.pop(source.name, None)
        if line := outage.recovered():
            log.info("%s", line)
        self._store.sources.update(source.name, error="", last_at=time.time())
        if passing.new:
            log.info("%s: %d new documents", source.name, passing.new)
        return passing.new

    def _follow(self, source: Source, passing: _Pass) -> None:
        """Withdraw what the source has no more, as far as that can be known of it."""
        gone = source.gone if isinstance(source, Inventory) else _not_known
        done = self._store.documents.follow(source.name, passing.given, gone)
        passing.new += done.queued
        if done.lost and not passing.given:
            log.warning(
                "%s: nothing is there any more (is it mounted?): its %d learned documents are "
                "neither looked up nor repeated until they are back", source.name, done.lost,
            )  # fmt: skip
        elif done.lost:
            log.info(
                "%s: %d learned documents are not there any more, or say something else: no longer "
                "looked up nor repeated; to unlearn them: python -m autodidact forget --gone",
                source.name, done.lost,
            )  # fmt: skip

    def _take(self, document: Document, passing: _Pass, *, replaces: bool) -> None:
        curated = curation.curate(document, self._filters)
        if isinstance(curated, Verdict):
            log.debug("refused: %s", curated.lines[0])
            passing.at(document.cursor)
            return
        passing.given.setdefault(curated.digest, {})[curated.uri] = curated.title
        new = self._store.documents.add(curated, RULES, replaces=replaces)
        passing.at(document.cursor)
        if not new:
            return
        passing.new += 1
        passing.keep_cursor()
        admission.read_waiting(self._store, self._stopping)


def _not_known(uri: str) -> bool:
    """Of a source that does not give all that it has, nothing is ever known to be gone."""
    return False


class _Pass:
    """One reading of a source: what it gave, as `DocumentTable.follow` takes it, and how far it has
    come. The cursor is stored with each new document and at the end: a transaction for each of
    thousands of known ones took most of the time."""

    def __init__(self, store: LearnerStore, source: str) -> None:
        self.new = 0
        self.given: dict[str, dict[str, str]] = {}
        self._store = store
        self._source = source
        self._cursor: str | None = None

    def at(self, cursor: str) -> None:
        self._cursor = cursor

    def keep_cursor(self) -> None:
        if self._cursor is not None:
            self._store.sources.update(self._source, cursor=self._cursor)
            self._cursor = None
