"""Reading what was stored: every document that no rule has read yet becomes rows of the ledger.

A new document is read right after it is stored; so are, once, all documents of a home that was made
before there were such rows. Stopped or killed on the way, the next call goes on with the rest.
"""

from __future__ import annotations

import logging
import threading
import time

from autodidact.lessons.material import material
from autodidact.store.ledger import LearnerStore

log = logging.getLogger(__name__)
AT_ONCE = 100
SAY_EVERY_S = 5.0


def read_waiting(store: LearnerStore, stopping: threading.Event) -> int:
    """Read all that wait. Returns how many were; fewer if `stopping` was set on the way."""
    begun = said = time.monotonic()
    done = 0
    while numbers := store.material.unread(AT_ONCE):
        for number in numbers:
            if stopping.is_set():
                return done
            read(store, number)
            done += 1
            now = time.monotonic()
            if now - said > SAY_EVERY_S:
                said, left = now, store.material.count_unread()
                seconds = left * (now - begun) / done
                log.info("reading: %d documents done, %d left, about %.0f s", done, left, seconds)
    return done


def read(store: LearnerStore, number: int) -> None:
    """Read one document, if no rule has read it yet."""
    if store.material.is_unread(number):
        store.material.admit(number, material(number, store.documents.get(number).document))
