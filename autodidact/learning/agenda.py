"""What the next cycle does, and its job: learn what is queued, consolidate, or forget.

    forget       something was asked to be forgotten: a fresh adapter on the rest of the store
    consolidate  every so many published cycles the running adapter repeats the whole store and
                 learns nothing new; when the drift budget is spent or the gate has refused several
                 cycles, a fresh adapter learns the store from the base. Adopted if it is better
    learn        otherwise, if a queued document has a fact: the running adapter goes on

A job is everything that the study process needs, as plain data; probes are frozen before it is
written. Nothing here trains, measures or decides.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from autodidact import checkpoints
from autodidact.curation import normalise
from autodidact.evaluation.gate import Limits
from autodidact.lessons import examples, replay
from autodidact.lessons.probes import write_probes, write_unseen_probes
from autodidact.models import bases
from autodidact.reading.document import Findings, read_document
from autodidact.settings import Settings
from autodidact.sources.files import Files
from autodidact.store.ledger import LearnerStore, StoredDocument
from autodidact.types.documents import Document, Probe

log = logging.getLogger(__name__)
CONTROL_DOCUMENTS = 30
KEPT_DOCUMENTS = 60
DISTRACTOR_DOCUMENTS = 60
STORE_FACTS = 20_000
DRIFT_SPENT = 0.9
"""Share of the limit on general NLL at which a consolidation is due."""
DRIFT_REST = 5
"""Cycles that must be published between two consolidations for drift."""
STUCK_AFTER = 3
"""Cycles refused in a row for what they cost: the running adapter has no room left."""

Kind = Literal["learn", "consolidate", "forget"]


@dataclass(frozen=True)
class Agenda:
    """Reads the ledger and says what is next."""

    settings: Settings
    store: LearnerStore
    base: bases.Base

    @property
    def home(self) -> Path:
        return self.settings.home

    def next(self, cycle: int) -> dict[str, Any] | None:
        """The job of `cycle`, its probes frozen in the ledger; None when there is nothing to do."""
        kind = self._kind()
        if kind is None:
            return None
        begun = time.monotonic()
        if kind == "learn":
            parts, probes = self._learn(cycle)
        else:
            parts, probes = self._relearn(cycle)
        parent = checkpoints.current(self.home)
        training = self.settings.training
        self.store.begin_cycle(cycle, parent or None, training.model_dump(), kind)
        self.store.freeze(cycle, (p for p in probes if p.split not in ("kept", "forgotten")))
        gate = self.settings.gate.model_dump()
        memory = self._remembered()
        minutes = self.settings.cycle_minutes
        return {
            "cycle": cycle,
            "kind": kind,
            "minutes": minutes * (1 if kind == "learn" else training.consolidation_cycles),
            "spent_s": time.monotonic() - begun,
            "frozen_at": time.time(),
            "base": {"name": self.base.name, "path": str(self.base.path),
                     "sha256": self.base.sha256, "revision": self.base.revision},
            "parent": _parent(self.home, parent),
            "rise": (self.store.latest_rise() or 0.0) if parent else 0.0,
            "anchors": str(self.home / "anchors.json"),
            "threads": training.threads,
            "training": training.model_dump(),
            "gate": {name: gate[name] for name in Limits.__dataclass_fields__ if name in gate},
            "probes": [asdict(p) for p in probes],
            "when_learned": {r.fact: r.then for r in memory if r.then is not None},
            "limits": {
                "taught": self.settings.gate.taught_probes,
                "unseen": self.settings.gate.unseen_probes,
                "control": self.settings.gate.control_probes,
                "kept": self.settings.gate.kept_probes,
                "forgotten": self.settings.gate.taught_probes,
            },
            "known": {},
            **parts,
        }  # fmt: skip

    def _kind(self) -> Kind | None:
        if self.store.count("forgetting"):
            return "forget"
        if self._consolidation_due():
            return "consolidate"
        return "learn" if self._readable(1) else None

    def _consolidation_due(self) -> bool:
        since = self.store.published_since_consolidation()
        every = self.settings.training.consolidate_every
        if not since or not self.store.remembered():
            return False
        if every and since >= every:
            return True
        return self._drift_spent() and (since >= DRIFT_REST or self._stuck())

    def _drift_spent(self) -> bool:
        """Whether the running adapter has no room left: only a fresh one gives it back."""
        rise = self.store.latest_rise()
        limit = self.settings.gate.general_limit
        return self._stuck() or (rise is not None and rise >= DRIFT_SPENT * limit)

    def _stuck(self) -> bool:
        return self.store.refused_in_a_row() >= STUCK_AFTER

    # Learning what is queued -----------------------------------------------------------------

    def _learn(self, cycle: int) -> tuple[dict[str, Any], list[Probe]]:
        queued = self._readable(self.settings.training.documents_per_cycle)
        taught = [read_document(d.id, d.document) for d in queued]
        later = self.store.documents("queued", len(queued) + CONTROL_DOCUMENTS)[len(queued) :]
        control = self._control(later)
        learned = self.store.documents("learned")
        earlier = _sample(learned, DISTRACTOR_DOCUMENTS, f"{self._seed}:{cycle}:lend")
        lending = [*(read_document(d.id, d.document) for d in earlier), *control]
        asked = _sample(learned, KEPT_DOCUMENTS, f"{self._seed}:{cycle}:kept")
        probes = [
            *_rivals_alike(lambda lent: write_probes(taught, lent, "taught"), lending),
            *_rivals_alike(lambda lent: write_unseen_probes(taught, lent), lending),
            *_rivals_alike(lambda lent: write_probes(control, lent, "control"), taught),
            *self._frozen(asked, "kept"),
        ]
        shares = replay.weights(self._remembered(), cycle)
        shares = replay.choose(shares, f"{self._seed}:{cycle}")
        return {
            "fresh": False,
            "documents": [
                {
                    "id": r.document_id,
                    "examples": [asdict(e) for e in examples.examples(r)],
                    "chunks": [asdict(c) for c in r.chunks],
                }
                for r in taught
            ],
            **self._rows(learned, shares),
        }, probes  # fmt: skip

    def _readable(self, limit: int) -> list[StoredDocument]:
        """Up to `limit` queued documents in which the rules find a fact."""
        found: list[StoredDocument] = []
        for stored in self.store.documents("queued"):
            if len(found) == limit:
                break
            if read_document(stored.id, stored.document).facts:
                found.append(stored)
            else:
                self.store.set_unusable(stored.id, "no rule finds a fact in it")
        return found

    def _control(self, later: Sequence[StoredDocument]) -> list[Findings]:
        """Documents that this cycle does not teach: the never-taught folder, else the queue's."""
        folder = self.settings.sources.control
        readings = []
        if folder is not None and folder.is_dir():
            for number, document in enumerate(Files(folder).documents(None), start=1):
                curated = normalise.curate(document)
                if isinstance(curated, Document):
                    readings.append(read_document(-number, curated))
        readings = readings or [read_document(d.id, d.document) for d in later]
        if not readings:
            log.warning("no control documents: gains are measured against nothing never taught")
        return readings

    # Relearning the store --------------------------------------------------------------------

    def _relearn(self, cycle: int) -> tuple[dict[str, Any], list[Probe]]:
        learned = self.store.documents("learned")
        everything = {r.fact: 1.0 for r in self._remembered()}
        shares = replay.choose(everything, f"{self._seed}:{cycle}", STORE_FACTS)
        asked = _sample(learned, 4 * KEPT_DOCUMENTS, f"{self._seed}:{cycle}:kept")
        probes = self._frozen(asked, "kept")
        forgets = self.store.documents("forgetting")
        probes += self._frozen(forgets, "forgotten")
        job = {
            "documents": [],
            "forgets": [d.id for d in forgets],
            "fresh": bool(forgets) or self._drift_spent(),
            **self._rows(learned, shares),
        }
        return job, probes

    def _rows(self, learned: Sequence[StoredDocument], shares: dict[str, float]) -> dict[str, Any]:
        """Training examples of the chosen facts, with the share of each fact."""
        wanted = {fact.partition("-")[0] for fact in shares}
        rows = [
            asdict(example)
            for stored in learned
            if str(stored.id) in wanted
            for example in examples.examples(read_document(stored.id, stored.document))
            if example.fact in shares
        ]
        return {"replay": rows, "shares": shares}

    def _remembered(self) -> list[replay.Remembered]:
        return [replay.Remembered(**row) for row in self.store.remembered()]

    def _frozen(
        self, documents: Sequence[StoredDocument], split: Literal["kept", "forgotten"]
    ) -> list[Probe]:
        """The probes that were frozen when these documents were taught."""
        if not documents:
            return []
        found = self.store.probes([d.id for d in documents])
        return [replace(p, split=split) for p in found if p.split == "taught"]

    @property
    def _seed(self) -> int:
        return self.settings.training.seed


def _rivals_alike(
    make: Callable[[Sequence[Findings]], list[Probe]], lending: Sequence[Findings]
) -> list[Probe]:
    """Probes whose wrong answers come from documents of their own arm; only facts that have no
    rival there borrow one.

    Training makes the answers in its texts likelier, right or wrong, and lets others fade. Against
    rivals of another arm a margin would rise for that alone, and what was never taught with them.
    """
    alike = make([])
    have = {probe.id for probe in alike}
    return [*alike, *(probe for probe in make(lending) if probe.id not in have)]


def _sample(documents: Sequence[StoredDocument], most: int, seed: str) -> list[StoredDocument]:
    return random.Random(seed).sample(list(documents), min(len(documents), most))


def _parent(home: Path, version: int) -> dict[str, Any] | None:
    if version == checkpoints.BASE_VERSION:
        return None
    return {"version": version, "path": str(checkpoints.folder(home, version))}
