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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from autodidact import checkpoints, curation
from autodidact.learning import admission
from autodidact.lessons import replay
from autodidact.lessons.probes import write_probes, write_unseen_probes
from autodidact.models import bases
from autodidact.settings import Settings
from autodidact.sources.files import Files
from autodidact.store.ledger import LearnerStore
from autodidact.types.cycle import Job, JobBase, Kind, Lesson, Limits, Parent
from autodidact.types.documents import Document, Example, Findings, Probe

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


@dataclass(frozen=True)
class Curriculum:
    """What a cycle trains on: lessons, and earlier facts by their shares."""

    fresh: bool
    lessons: tuple[Lesson, ...]
    replay: tuple[Example, ...]
    shares: dict[str, float]
    forgets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Agenda:
    """Reads the ledger and says what is next."""

    settings: Settings
    store: LearnerStore
    base: bases.Base

    @property
    def home(self) -> Path:
        return self.settings.home

    def next(self, cycle: int) -> Job | None:
        """The job of `cycle`, its probes frozen in the ledger; None when there is nothing to do."""
        kind = self.kind()
        if kind is None:
            return None
        begun = time.monotonic()
        if kind == "learn":
            work, probes = self._learn(cycle)
        else:
            work, probes = self._relearn(cycle)
        parent = checkpoints.current(self.home)
        training = self.settings.training
        self.store.cycles.begin(cycle, parent or None, training.model_dump(), kind)
        self.store.probes.freeze(cycle, (p for p in probes if p.split not in ("kept", "forgotten")))
        gate = self.settings.gate.model_dump()
        memory = self.store.probes.remembered()
        factor = 1.0 if kind == "learn" else training.consolidation_cycles
        limits = self.settings.gate
        return Job(
            cycle=cycle,
            kind=kind,
            minutes=self.settings.cycle_minutes * factor,
            spent_s=time.monotonic() - begun,
            frozen_at=time.time(),
            base=JobBase(self.base.name, str(self.base.path), self.base.sha256, self.base.revision),
            parent=_parent(self.home, parent),
            fresh=work.fresh,
            lessons=work.lessons,
            replay=work.replay,
            shares=work.shares,
            forgets=work.forgets,
            probes=tuple(probes),
            when_learned={r.fact: r.then for r in memory if r.then is not None},
            limits={
                "taught": limits.taught_probes,
                "unseen": limits.unseen_probes,
                "control": limits.control_probes,
                "kept": limits.kept_probes,
                "forgotten": limits.taught_probes,
            },
            gate=Limits(
                **{name: gate[name] for name in Limits.__dataclass_fields__ if name in gate}
            ),
            training=training.model_dump(),
            known={},
            rise=(self.store.cycles.latest_rise() or 0.0) if parent else 0.0,
            anchors=str(self.home / "anchors.json"),
            threads=training.threads,
            runtime=self.settings.server.wanted_runtime,
            graphs=str(self.home / bases.GRAPHS),
        )

    def kind(self) -> Kind | None:
        """What is due; None when there is nothing. The idle look: it reads no document."""
        if self.store.documents.count("forgetting"):
            return "forget"
        if self._consolidation_due():
            return "consolidate"
        return "learn" if self.store.documents.queue(1) else None

    def _consolidation_due(self) -> bool:
        since = self.store.cycles.published_since_consolidation()
        every = self.settings.training.consolidate_every
        if not since or not self.store.probes.any_remembered():
            return False
        if every and since >= every:
            return True
        return self._drift_spent() and (since >= DRIFT_REST or self._stuck())

    def _drift_spent(self) -> bool:
        """Whether the running adapter has no room left: only a fresh one gives it back."""
        rise = self.store.cycles.latest_rise()
        limit = self.settings.gate.general_limit
        return self._stuck() or (rise is not None and rise >= DRIFT_SPENT * limit)

    def _stuck(self) -> bool:
        return self.store.cycles.refused_in_a_row() >= STUCK_AFTER

    # Learning what is queued -----------------------------------------------------------------

    def _learn(self, cycle: int) -> tuple[Curriculum, list[Probe]]:
        material = self.store.material
        most = self.settings.training.documents_per_cycle
        queued = self.store.documents.queue(most + CONTROL_DOCUMENTS)
        taught = material.findings(queued[:most])
        control = self._control(queued[most:])
        learned = self.store.documents.numbers("learned")
        earlier = _sample(learned, DISTRACTOR_DOCUMENTS, f"{self._seed}:{cycle}:lend")
        lending = [*material.findings(earlier), *control]
        asked = _sample(learned, KEPT_DOCUMENTS, f"{self._seed}:{cycle}:kept")
        probes = [
            *_rivals_alike(lambda lent: write_probes(taught, lent, "taught"), lending),
            *_rivals_alike(lambda lent: write_unseen_probes(taught, lent), lending),
            *_rivals_alike(lambda lent: write_probes(control, lent, "control"), taught),
            *self._frozen(asked, "kept"),
        ]
        shares = replay.weights(self.store.probes.remembered(), cycle)
        shares = replay.choose(shares, f"{self._seed}:{cycle}")
        examples = material.examples(queued[:most])
        lessons = tuple(
            Lesson(found.document_id, found.chunks, tuple(examples[found.document_id]))
            for found in taught
        )
        return Curriculum(False, lessons, self._rows(shares), shares), probes

    def _control(self, later: Sequence[int]) -> list[Findings]:
        """Documents that this cycle does not teach: the never-taught folder, else the queue's."""
        numbers: list[int] = []
        folder = self.settings.sources.control
        if folder is not None and folder.is_dir():
            for document in Files(folder).documents(None):
                curated = curation.curate(document)
                if not isinstance(curated, Document):
                    continue
                number = self.store.documents.control(curated)
                if number is None:
                    log.warning("%s: is among what is taught, and no control", curated.title)
                    continue
                admission.read(self.store, number)
                numbers.append(number)
        numbers = numbers or list(later)
        if not numbers:
            log.warning("no control documents: gains are measured against nothing never taught")
        return self.store.material.findings(numbers)

    # Relearning the store --------------------------------------------------------------------

    def _relearn(self, cycle: int) -> tuple[Curriculum, list[Probe]]:
        learned = self.store.documents.numbers("learned")
        everything = {r.fact: 1.0 for r in self.store.probes.remembered()}
        shares = replay.choose(everything, f"{self._seed}:{cycle}", STORE_FACTS)
        asked = _sample(learned, 4 * KEPT_DOCUMENTS, f"{self._seed}:{cycle}:kept")
        probes = self._frozen(asked, "kept")
        forgets = self.store.documents.numbers("forgetting")
        probes += self._frozen(forgets, "forgotten")
        fresh = bool(forgets) or self._drift_spent()
        return Curriculum(fresh, (), self._rows(shares), shares, tuple(forgets)), probes

    def _rows(self, shares: dict[str, float]) -> tuple[Example, ...]:
        """Training examples of the chosen facts."""
        return tuple(self.store.material.examples_of(shares))

    def _frozen(self, documents: Sequence[int], split: Literal["kept", "forgotten"]) -> list[Probe]:
        """The probes that were frozen when these documents were taught."""
        if not documents:
            return []
        found = self.store.probes.of(documents)
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


def _sample(documents: Sequence[int], most: int, seed: str) -> list[int]:
    return random.Random(seed).sample(list(documents), min(len(documents), most))


def _parent(home: Path, version: int) -> Parent | None:
    if version == checkpoints.BASE_VERSION:
        return None
    return Parent(version, str(checkpoints.folder(home, version)))
