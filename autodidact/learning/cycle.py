"""The learning cycle: the main path of the learner, on one screen.

    fetch:  source → document → curated → queued
    learn:  agenda → job, probes frozen → study process → gate → published or rejected

`agenda` says what a cycle does (learn, consolidate, forget); the study process (`study`)
trains and measures; this module alone decides, publishes and writes the ledger. A cycle that was
cut off is closed by what stands on disk: published if its version does, resumed if its job is still
valid, else interrupted with its documents back in the queue. This is the only place that catches
SourceError.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autodidact import checkpoints, curation, inbox
from autodidact.errors import AutodidactError, CheckpointError, Misfit, ResourceError, SourceError
from autodidact.evaluation import gate, judge
from autodidact.home import free_bytes, write_atomic
from autodidact.learning import admission, forget
from autodidact.learning.agenda import Agenda
from autodidact.learning.process import Stopped, run_study
from autodidact.lessons.material import RULES
from autodidact.models import bases
from autodidact.reading.chunks import chunks
from autodidact.reports import build
from autodidact.reports.build import Report, line
from autodidact.settings import Settings
from autodidact.sources.backoff import Outage
from autodidact.store import passages
from autodidact.store.documents import StoredDocument
from autodidact.store.ledger import LearnerStore
from autodidact.types import wire
from autodidact.types.cycle import CycleState, Job, Known, Parent, Reason, Study, Verdict, failed
from autodidact.types.documents import Document, Probe
from autodidact.types.protocols import Source

log = logging.getLogger(__name__)
LOW_WATER_BYTES = 512 * 2**20
PASSAGE_WORDS = 80
ROLLED_BACK = "the version it was made from was rolled back meanwhile"
Progress = Callable[[dict[str, Any]], None]


class Learner:
    """Reads and learns. One at a time works in a home folder; the caller holds its lock."""

    def __init__(
        self,
        settings: Settings,
        store: LearnerStore,
        sources: Sequence[Source],
        base: bases.Base,
        progress: Progress,
        lock_handle: int,
    ) -> None:
        self.settings = settings
        self.store = store
        self.sources = list(sources)
        self.stopping = threading.Event()
        self._home = settings.home
        self._base = base
        self._progress = progress
        self._lock_handle = lock_handle
        self._retries: dict[str, float] = {}
        self._filters = curation.build(settings.curation)
        self._agenda = Agenda(settings, store, base)
        self._outages = {s.name: Outage(s.name, seed=settings.training.seed) for s in sources}

    # Fetch ---------------------------------------------------------------------------------

    def fetch(self, *, retry: bool = False) -> int:
        """Ask the sources for something new: all that are due, or with `retry` only those whose
        outage allows another try. Returns how many documents came."""
        return sum(self._fetch(source, retry) for source in self.sources)

    def retry_at(self) -> float | None:
        """When the first of the sources that are out of reach is to be tried again."""
        return min(self._retries.values(), default=None)

    def _fetch(self, source: Source, retry: bool) -> int:
        outage = self._outages[source.name]
        if self.stopping.is_set() or not outage.due(time.time()):
            return 0
        if retry and source.name not in self._retries:
            return 0
        new = 0
        since = self.store.sources.get(source.name).cursor
        self._progress({"phase": "fetching", "source": source.name})
        try:
            for document in source.documents(since):
                if self.stopping.is_set():
                    return new
                new += self._take(document)
                self.store.sources.update(source.name, cursor=document.cursor)
        except SourceError as error:
            next_at, line = outage.failed(error)
            self._retries[source.name] = next_at
            self.store.sources.update(source.name, error=str(error), next_at=next_at)
            if line:
                log.warning("%s", line)
            return new
        self._retries.pop(source.name, None)
        if line := outage.recovered():
            log.info("%s", line)
        self.store.sources.update(source.name, error="", last_at=time.time())
        if new:
            log.info("%s: %d new documents", source.name, new)
        return new

    def _take(self, document: Document) -> int:
        curated = curation.curate(document, self._filters)
        if isinstance(curated, Verdict):
            log.debug("refused: %s", curated.lines[0])
            return 0
        if not self.store.documents.add(curated, RULES):
            return 0
        admission.read_waiting(self.store, self.stopping)
        return 1

    # Learn ---------------------------------------------------------------------------------

    def recover(self) -> None:
        """At start: make good what a kill left open, by what stands on disk."""
        self._close_open()
        admission.read_waiting(self.store, self.stopping)
        try:
            self.tidy()
        except ResourceError as error:
            log.warning("%s; trying again later", error)

    def _close_open(self) -> None:
        """Close the cycles that were left running, but for one that can go on."""
        resumable = None
        wishes = [wish for _, wish in inbox.waiting(self._home)]
        rolled_back = any(isinstance(wish, inbox.Rollback) for wish in wishes)
        for n in self.store.cycles.running():
            stands = n in checkpoints.versions(self._home)
            undone = rolled_back and checkpoints.current(self._home) != n
            if stands and not undone and checkpoints.finish_publication(self._home, n):
                report = {**self._published_report(n), "state": "published", "reasons": []}
                self.store.cycles.finish(n, "published", (), {**report, "failed": []})
                log.info("cycle %d had published %s", n, checkpoints.name(n))
            elif not stands and self._job(n) is not None:
                resumable = n
            else:
                self.store.cycles.finish(n, "interrupted", (Reason("", "cut off"),), {})
                log.info("cycle %d was cut off; its documents are back in the queue", n)
        checkpoints.clear_staging(self._home, except_cycle=resumable)

    def learn(self) -> Report | None:
        """One cycle, from the queue to a published checkpoint or a rejection.

        Returns its report, or None when there is nothing to learn or it was asked to stop (the
        cycle then goes on at the next start). Errors of a study are recorded; nothing is published.
        """
        self._close_open()
        self._act_on_inbox()
        self._settle()
        free = free_bytes(self._home)
        if free < LOW_WATER_BYTES:
            need = LOW_WATER_BYTES / 2**30
            raise ResourceError(f"{self._home}: need {need:.1f} GiB, have {free / 2**30:.1f}")
        begun = time.monotonic()
        running = self.store.cycles.running()
        cycle = running[0] if running else self._begin()
        if cycle is None:
            return None
        job = self._job(cycle)
        if job is None:  # rolled back this very moment
            return self._close(cycle, "interrupted", (Reason("", ROLLED_BACK),), {}, begun)
        try:
            study = run_study(
                checkpoints.staging(self._home, cycle) / "job.json",
                self.stopping,
                lambda event: self._follow(job, event),
                self._lock_handle,
            )
        except Stopped:
            log.info("cycle %d stops here and goes on at the next start", cycle)
            return None
        except AutodidactError as error:
            said = checkpoints.staging(self._home, cycle) / "study.log"
            tail = said.read_text(errors="replace").splitlines()[-40:] if said.exists() else []
            about = {"kind": job.kind, "log": tail}
            closed = self._close(cycle, "failed", (Reason("", str(error)),), about, begun)
            self._settle()
            return closed
        return self._decide(cycle, job, study, begun)

    def _begin(self) -> int | None:
        """Write the job of a new cycle, probes frozen; None when there is nothing to do."""
        self._progress({"phase": "preparing"})
        cycle = max([self.store.cycles.last(), *checkpoints.versions(self._home)]) + 1
        admission.read_waiting(self.store, self.stopping)
        job = self._agenda.next(cycle)
        if job is None:
            return None
        job = replace(job, known=self._known(job.parent))
        staging = checkpoints.staging(self._home, cycle)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        write_atomic(staging / "job.json", wire.to_json(job).encode())
        log.info(
            "cycle %d: %s, %d documents offered, %d probes frozen",
            cycle, job.kind, len(job.lessons), len(job.probes),
        )  # fmt: skip
        return cycle

    def _decide(self, cycle: int, job: Job, study: Study, begun: float) -> Report:
        """Gate the measurements; publish or reject. The main decision of the project."""
        arms = {arm: judge.arm(measured) for arm, measured in study.measured.items()}
        looks = [(m["step"], judge.verdict(job, study.measured, m)) for m in study.looks]
        step, verdict = looks[-1]
        self._record(cycle, job.probes, arms)
        report = build.build(
            job,
            study,
            looks,
            arms,
            self._documents(study),
            self.store.material.findings(study.planned["documents"]),
            time.monotonic() - begun,
        )
        if checkpoints.current(self._home) != job.parent_version:
            return self._close(cycle, "interrupted", (Reason("", ROLLED_BACK),), report, begun)
        reasons = (*verdict.reasons, *build.no_better(job, verdict))
        if reasons:
            closed = self._close(cycle, "rejected", reasons, report, begun)
            self._settle()
            return closed
        self._progress({"phase": "publishing"})
        manifest = {
            "parent": job.parent.version if job.parent else None,
            "cycle": cycle,
            "kind": job.kind,
            "base": build.about_base(job),
            "document_ids": study.planned["documents"],
            "forgets": list(job.forgets),
            "created_at": time.time(),
            "settings": {**job.training, "gate": asdict(job.gate), "step": step},
            "report": {key: value for key, value in report.items() if key != "probes"},
        }
        staged = checkpoints.staging(self._home, cycle) / "adapter"
        (staged / checkpoints.REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False))
        try:
            checkpoints.publish(self._home, staged, cycle, manifest)
        except ResourceError as error:  # no fault of the documents: no try is counted
            return self._close(cycle, "interrupted", (Reason("", str(error)),), report, begun)
        except CheckpointError as error:
            return self._close(cycle, "failed", (Reason("", str(error)),), report, begun)
        self._remember(study, cycle)
        closed = self._close(cycle, "published", (), report, begun)
        self.tidy()
        return closed

    def tidy(self) -> None:
        """After a publication: versions beyond the limit, and what was forgotten, leave the disk;
        the passages on offer are those of what is learned."""
        self._settle()
        for version in checkpoints.retain(self._home, self.settings.keep_versions):
            log.debug("version %s deleted", checkpoints.name(version))
        self._index()

    def _settle(self) -> None:
        """Finish forgetting where no further cycle is needed for it."""
        if count := forget.settle(self._home, self.store):
            self._progress({"event": "forgotten"})
            log.info("%d documents forgotten", count)
            self._index()

    def _index(self) -> None:
        """Bring the passages that chat may look up in line with what is learned."""
        learned = self.store.documents.in_state("learned")
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

    def _close(
        self, cycle: int, state: CycleState, reasons: Sequence[Reason], report: Report, begun: float
    ) -> Report:
        report = {
            "cycle": cycle, "ok": state == "published", "state": state,
            "documents": [], "seconds": round(time.monotonic() - begun), **report,
        }  # fmt: skip
        report |= {
            "ok": state == "published",
            "state": state,
            "reasons": build.plain(reasons),
            "failed": list(failed(reasons)) if state == "rejected" else [],
        }
        self.store.cycles.finish(cycle, state, reasons, report)
        shutil.rmtree(checkpoints.staging(self._home, cycle), ignore_errors=True)
        log.info("%s", line(report))
        return report

    def _record(self, cycle: int, probes: Sequence[Probe], arms: dict[str, gate.Arm]) -> None:
        splits = {probe.id: probe.split for probe in probes}
        for arm, measured in arms.items():
            rows = [{**r.row(), "split": splits[i]} for i, r in measured.probes.items()]
            self.store.probes.record(cycle, arm, rows)

    def _documents(self, study: Study) -> list[StoredDocument]:
        return [self.store.documents.get(i) for i in study.planned["documents"]]

    def _known(self, parent: Parent | None) -> dict[str, Known]:
        """What earlier cycles measured of general text and chat, of the base and of this parent."""
        path = self._home / "measured.json"
        try:
            known = json.loads(path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(known, dict) or known.get("anchors") != self._anchors_begin():
            return {}
        found = {"base": _known(known["base"])} if "base" in known else {}
        if parent and known.get("version") == parent.version:
            found["parent"] = _known(known["candidate"])
        return found

    def _remember(self, study: Study, version: int) -> None:
        parts = {
            arm: {key: study.measured[arm][key] for key in ("general", "chat")}
            for arm in ("base", "candidate")
        }
        known = json.dumps({"version": version, "anchors": self._anchors_begin(), **parts})
        write_atomic(self._home / "measured.json", known.encode())

    def _anchors_begin(self) -> str:
        """What tells these anchors from others: they are only ever appended to."""
        try:
            rows = json.loads((self._home / "anchors.json").read_text())
            first = json.dumps([rows["texts"][:4], rows["chats"][:4]])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return hashlib.sha256(first.encode()).hexdigest()

    # Parts ---------------------------------------------------------------------------------

    def _published_report(self, version: int) -> Report:
        """The whole report of a version; without the answers if that file cannot be read."""
        try:
            path = checkpoints.folder(self._home, version) / checkpoints.REPORT
            report: Report = json.loads(path.read_text())
        except (OSError, ValueError):
            report = checkpoints.read(self._home, version).manifest["report"]
        return report

    def _job(self, cycle: int) -> Job | None:
        """The job of a cycle if it can (still) be worked on: its parent is what serves now."""
        path = checkpoints.staging(self._home, cycle) / "job.json"
        if not path.exists():
            return None
        try:
            job = wire.from_json(Job, path.read_bytes(), path.name)
        except Misfit as error:
            log.warning("cycle %d cannot go on: %s", cycle, error)
            return None
        same = job.parent_version == checkpoints.current(self._home)
        return job if same and Path(job.base.path).is_dir() else None

    def _follow(self, job: Job, event: dict[str, Any]) -> None:
        if event["event"] == "planned":
            self.store.cycles.study(job.cycle, event["documents"])
        elif event["event"] == "anchors":
            data = Path(event["path"]).read_bytes()
            write_atomic(self._home / "anchors.json", data)
        elif event["event"] == "log":
            log.info("%s", event["line"])
        self._progress({"cycle": job.cycle, **event})

    def _act_on_inbox(self) -> None:
        """Wishes of the command line and of the server's operator."""
        for path, wish in inbox.waiting(self._home):
            if isinstance(wish, inbox.Rollback):
                now = checkpoints.current(self._home)  # the last of several rollbacks counts
                count = self.store.documents.requeue_after(now)
                log.info("rolled back to %d; %d documents back in the queue", now, count)
                self._index()
            elif isinstance(wish, inbox.Forget):
                self._forget(wish.documents)
            else:
                log.warning("inbox/%s: not understood; dropped", path.name)
            path.unlink()

    def _forget(self, documents: Sequence[int]) -> None:
        """Stop teaching and offering these documents now; the next cycle relearns the rest."""
        why = Reason("", "something was to be forgotten")
        for cycle in self.store.cycles.running():
            self.store.cycles.finish(cycle, "interrupted", (why,), {})
        checkpoints.clear_staging(self._home)
        count = self.store.documents.forget(documents)
        self._index()
        log.info("%d documents to be forgotten", count)


def _known(arm: dict[str, Any]) -> Known:
    return Known(tuple(arm["general"]), tuple(arm["chat"]))
