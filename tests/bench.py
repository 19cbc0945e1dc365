"""A learner in a home of its own, around the study process of `fake_study`."""

from __future__ import annotations

import sqlite3
from typing import Any

from autodidact import sources
from autodidact.home import prepare_home
from autodidact.learning.cycle import Learner
from autodidact.models import bases
from autodidact.store.cycles import StoredCycle
from autodidact.store.ledger import LearnerStore
from autodidact.types.events import Event
from autodidact.types.report import CycleReport
from tests import fake_study
from tests.versions import BASE_SHA
from tests.workplace import Workplace


class Bench:
    """A home with a learner in it; `restart` is what happens after a kill."""

    def __init__(self, place: Workplace) -> None:
        self.place = place
        self.home = place.home
        self.events: list[Event] = []
        prepare_home(self.home)
        self.restart()

    def restart(self, **sections: Any) -> Learner:
        settings = self.place.settings(**sections)
        self.store = LearnerStore(self.home / "learner.db")
        base = bases.Base("tiny", self.place.folder / "model", "folder", "", BASE_SHA, "")
        self.learner = Learner(
            settings, self.store, sources.build(settings.sources), base, self.hear, 0
        )
        return self.learner

    def hear(self, event: Event, cycle: int | None = None) -> None:
        self.events.append(event)

    def states(self) -> dict[str, str]:
        """Titles and states of all documents, superseded ones left out."""
        states = ("queued", "studying", "learned", "given_up", "unusable", "forgetting")
        return {d.document.title: s for s in states for d in self.store.documents.in_state(s)}

    def script(self, *steps: list[str]) -> None:
        fake_study.script(self.place.folder, *steps)

    def cycle(self, number: int) -> StoredCycle:
        found = self.store.cycles.get(number)
        assert found is not None
        return found

    def passages(self) -> set[int]:
        """Documents that chat may look up."""
        with sqlite3.connect(self.home / "passages.db") as db:
            return {number for (number,) in db.execute("SELECT id FROM documents")}

    def learn(self) -> CycleReport:
        """One cycle that must come to an end."""
        report = self.learner.learn()
        assert report is not None
        return report
