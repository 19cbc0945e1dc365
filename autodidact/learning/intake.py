"""From the sources to the queue: what is new is fetched, curated, stored and read.

A source that is out of reach is tried again later, ever more seldom, and the others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

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
from autodidact.types.protocols import Source

log = logging.getLogger(__name__)


class Intake:
    """Asks the sources; `stopping` ends it between two documents."""

    def __init__(
        self,
        settings: Settings,
        store: LearnerStore,
        sources: Sequence[Source],
        hear: Hear,
        stopping: threading.Event,
    ) -> None:
        self._store = store
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
        new = 0
        since = self._store.sources.get(source.name).cursor
        self._hear(PhaseEvent("fetching"))
        try:
            for document in source.documents(since):
                if self._stopping.is_set():
                    return new
                new += self._take(document)
                self._store.sources.update(source.name, cursor=document.cursor)
        except SourceError as error:
            next_at, line = outage.failed(error)
            self._retries[source.name] = next_at
            self._store.sources.update(source.name, error=str(error), next_at=next_at)
            if line:
                log.warning("%s", line)
            return new
        self._retries.pop(source.name, None)
        if line := outage.recovered():
            log.info("%s", line)
        self._store.sources.update(source.name, error="", last_at=time.time())
        if new:
            log.info("%s: %d new documents", source.name, new)
        return new

    def _take(self, document: Document) -> int:
        curated = curation.curate(document, self._filters)
        if isinstance(curated, Verdict):
            log.debug("refused: %s", curated.lines[0])
            return 0
        if not self._store.documents.add(curated, RULES):
            return 0
        admission.read_waiting(self._store, self._stopping)
        return 1
