"""The learning cycle: the main path of the learner, on one screen.

    agenda → job, probes frozen → study process → gate → published or rejected

`agenda` says what a cycle does (learn, consolidate, forget); the study process (`study`) trains and
measures; this module alone decides and publishes. `intake` brings documents in, `upkeep` puts in
order what a kill, a rollback or a wish to forget has left.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from autodidact import checkpoints
from autodidact.errors import (
    AutodidactError,
    BaseUnfit,
    CheckpointError,
    OutOfMemory,
    ResourceError,
)
from autodidact.evaluation import gate, judge
from autodidact.home import free_bytes, write_atomic
from autodidact.learning import admission, baselines
from autodidact.learning.agenda import Agenda
from autodidact.learning.intake import Intake
from autodidact.learning.process import StudyStop, run_study
from autodidact.learning.progress import Hear
from autodidact.learning.staging import JOB, change_job, read_job, write_job
from autodidact.learning.upkeep import Upkeep
from autodidact.models import bases
from autodidact.reports import build
from autodidact.reports.prose import line
from autodidact.settings import Settings
from autodidact.store.documents import StoredDocument
from autodidact.store.ledger import LearnerStore
from autodidact.types import wire
from autodidact.types.cycle import (
    ArmName,
    CycleState,
    Job,
    Reason,
)
from autodidact.types.documents import Probe
from autodidact.types.events import (
    AnchorsEvent,
    LogEvent,
    PhaseEvent,
    PlanEvent,
    StudyEvent,
    StudyResult,
)
from autodidact.types.protocols import Source
from autodidact.types.report import CycleReport

log = logging.getLogger(__name__)
LOW_WATER_BYTES = 512 * 2**20
MOST_HALVINGS = 3
"""How often a study that had too little memory is tried with half as much at once."""
MEMORY_PAUSE_S = 10.0
"""Before the next try: what took the memory may be gone by then."""
ROLLED_BACK = "the version it was made from was rolled back meanwhile"


class Learner:
    """Reads and learns. One at a time works in a home folder; the caller holds its lock."""

    def __init__(
        self,
        settings: Settings,
        store: LearnerStore,
        sources: Sequence[Source],
        base: bases.Base,
        hear: Hear,
        lock_handle: int,
    ) -> None:
        self.settings = settings
        self.store = store
        self.stopping = threading.Event()
        self._home = settings.home
        self._base = base
        self._hear = hear
        self._lock_handle = lock_handle
        self._halvings = 0
        self._agenda = Agenda(settings, store, base)
        self._upkeep = Upkeep(settings.home, store, settings.keep_versions, hear, self.stopping)
        self._intake = Intake(settings, store, sources, hear, self.stopping, self._upkeep.refresh)

    def fetch(self, *, retry: bool = False) -> int:
        """Ask the sources for something new; see `Intake.fetch`. May run beside a cycle."""
        return self._intake.fetch(retry=retry)

    def retry_at(self) -> float | None:
        """When the first of the sources that are out of reach is to be tried again."""
        return self._intake.retry_at()

    def recover(self) -> None:
        """At start: make good what a kill left open."""
        self._upkeep.recover()

    def learn(self) -> CycleReport | None:
        """One cycle, from the queue to a published checkpoint or a rejection.

        Returns its report, or None when there is nothing to learn or it was asked to stop (the
        cycle then goes on at the next start). Errors of a study are recorded; nothing is published.
        Raises BaseUnfit where the base cannot be taught.
        """
        self._upkeep.close_open()
        self._upkeep.act_on_inbox()
        self._upkeep.settle()
        free = free_bytes(self._home)
        if free < LOW_WATER_BYTES:
            need = LOW_WATER_BYTES / 2**30
            raise ResourceError(f"{self._home}: need {need:.1f} GiB, have {free / 2**30:.1f}")
        begun = time.monotonic()
        running = self.store.cycles.running()
        cycle = running[0] if running else self._begin()
        if cycle is None:
            return None
        job = read_job(self._home, cycle)
        if job is None:  # rolled back this very moment
            return self._close(cycle, "interrupted", (Reason("", ROLLED_BACK),), None, begun)
        self._check_parent(job, begun)
        try:
            study = self._study(job)
        except StudyStop:
            log.info("cycle %d stops here and goes on at the next start", cycle)
            return None
        except OutOfMemory as error:  # its documents are not to blame
            why = Reason("memory", str(error))
            # Relearning has none under study: failed, so that it ends if it fails again and again.
            state: CycleState = "interrupted" if job.kind == "learn" else "failed"
            closed = self._close(cycle, state, (why,), self._said(job), begun)
            self._upkeep.settle()
            return closed
        except BaseUnfit as error:  # no cycle can mend it, and its documents are not to blame
            self._close(cycle, "interrupted", (Reason("", str(error)),), None, begun)
            raise
        except AutodidactError as error:
            why = Reason("", str(error))
            closed = self._close(cycle, "failed", (why,), self._said(job), begun)
            self._upkeep.settle()
            return closed
        return self._decide(cycle, job, study, begun)

    def _study(self, job: Job) -> StudyResult:
        """Run the study of a job. One that has too little memory goes on, from what it had found
        out, with half as much at once. So do later cycles, until the learner is started anew."""

        def follow(event: StudyEvent) -> None:
            self._follow(job, event)

        while True:
            self._halvings = max(self._halvings, job.halvings)
            try:
                return run_study(
                    checkpoints.staging(self._home, job.cycle) / JOB,
                    self.stopping,
                    follow,
                    self._lock_handle,
                    chat_first=self._home if self.settings.schedule.gives_way else None,
                )
            except OutOfMemory as error:
                if self._halvings >= MOST_HALVINGS:
                    raise
                log.warning("%s; it goes on with half as much at once", error)
                job = replace(job, halvings=self._halvings + 1)
                change_job(self._home, job)
                if self.stopping.wait(MEMORY_PAUSE_S):
                    raise StudyStop from error

    def _said(self, job: Job) -> CycleReport:
        """What there is to report of a study that did not come to its end: the last it said."""
        said = checkpoints.staging(self._home, job.cycle) / "study.log"
        tail = said.read_text("utf-8", "replace").splitlines()[-40:] if said.exists() else []
        return CycleReport(job.cycle, "failed", 0, job.kind, log=tuple(tail))

    def _begin(self) -> int | None:
        """Write the job of a new cycle, probes frozen; None when there is nothing to do."""
        self._hear(PhaseEvent("preparing"))
        cycle = max([self.store.cycles.last(), *checkpoints.versions(self._home)]) + 1
        admission.read_waiting(self.store, self.stopping)
        job = self._agenda.next(cycle)
        if job is None:
            return None
        known = baselines.known(self._home, job.parent)
        job = replace(job, known=known, halvings=self._halvings)
        write_job(self._home, job)
        log.info(
            "cycle %d: %s, %d documents offered, %d probes frozen",
            cycle, job.kind, len(job.lessons), len(job.probes),
        )  # fmt: skip
        return cycle

    def _check_parent(self, job: Job, begun: float) -> None:
        """Raises CheckpointError where the version to go on from is damaged: no cycle can mend it,
        so none is tried, and its documents are not to blame."""
        if not job.parent:
            return
        try:
            checkpoints.verify(self._home, job.parent.version, job.base.sha256)
        except CheckpointError as error:
            self._close(job.cycle, "interrupted", (Reason("", str(error)),), None, begun)
            raise CheckpointError(
                f"{error}: nothing can be learned on it; go back to an older version with "
                "python -m autodidact rollback --to N (python -m autodidact versions lists them)"
            ) from error

    def _decide(self, cycle: int, job: Job, study: StudyResult, begun: float) -> CycleReport:
        """Gate the measurements; publish or reject. The main decision of the project."""
        base, parent = study.base, study.parent
        arms = {m.arm: judge.arm(m) for m in (base, parent, study.candidate)}
        verdicts = [judge.verdict(job, base, parent, measured) for measured in study.looks]
        looks = [build.look(m.step, v) for m, v in zip(study.looks, verdicts, strict=True)]
        self._record(cycle, job.probes, arms)
        report = build.build(
            job,
            study,
            looks,
            arms,
            self._documents(study),
            self.store.material.findings(study.plan.documents),
            time.monotonic() - begun,
        )
        if checkpoints.current(self._home) != job.parent_version:
            return self._close(cycle, "interrupted", (Reason("", ROLLED_BACK),), report, begun)
        reasons = (*verdicts[-1].reasons, *build.no_better(job, verdicts[-1]))
        if reasons:
            closed = self._close(cycle, "rejected", reasons, report, begun)
            self._upkeep.settle()
            return closed
        self._hear(PhaseEvent("publishing"))
        staged = checkpoints.staging(self._home, cycle) / "adapter"
        told = wire.to_json(replace(report, state="published"))
        (staged / checkpoints.REPORT).write_text(told, "utf-8")
        manifest = build.manifest(job, report, study.plan.documents)
        try:
            checkpoints.publish(self._home, staged, cycle, manifest)
        except ResourceError as error:  # no fault of the documents: no try is counted
            return self._close(cycle, "interrupted", (Reason("", str(error)),), report, begun)
        except CheckpointError as error:
            return self._close(cycle, "failed", (Reason("", str(error)),), report, begun)
        baselines.remember(self._home, study, cycle)
        closed = self._close(cycle, "published", (), report, begun)
        self._upkeep.tidy()
        return closed

    def _close(
        self,
        cycle: int,
        state: CycleState,
        reasons: Sequence[Reason],
        about: CycleReport | None,
        begun: float,
    ) -> CycleReport:
        seconds = round(time.monotonic() - begun)
        about = about or CycleReport(cycle, state, seconds)
        report = replace(
            about, state=state, reasons=tuple(reasons), seconds=about.seconds or seconds
        )
        self.store.cycles.finish(cycle, state, reasons, report)
        shutil.rmtree(checkpoints.staging(self._home, cycle), ignore_errors=True)
        log.info("%s", line(report))
        return report

    def _record(
        self, cycle: int, probes: Sequence[Probe], arms: Mapping[ArmName, gate.Arm]
    ) -> None:
        splits = {probe.id: probe.split for probe in probes}
        for arm, measured in arms.items():
            rows = [{**asdict(r), "split": splits[i]} for i, r in measured.probes.items()]
            self.store.probes.record(cycle, arm, rows)

    def _documents(self, study: StudyResult) -> list[StoredDocument]:
        return [self.store.documents.get(i) for i in study.plan.documents]

    def _follow(self, job: Job, event: StudyEvent) -> None:
        match event:
            case PlanEvent():
                self.store.cycles.study(job.cycle, event.documents)
            case AnchorsEvent():
                write_atomic(self._home / "anchors.json", Path(event.path).read_bytes())
            case LogEvent():
                log.info("%s", event.line)
        self._hear(event, job.cycle)
