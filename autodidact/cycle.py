"""The learning cycle: the main path of the learner, on one screen.

    fetch:  source → document → curated → queued
    learn:  queued → facts → examples, probes frozen → study process → gate → published or rejected

The study process (`autodidact.study`) trains and measures; this module alone decides, publishes and
writes the ledger. A cycle that was cut off is closed by what stands on disk: published if its
version does, resumed if its job is still valid, else interrupted with its documents back in the
queue. This is the only place that catches SourceError.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autodidact import checkpoints, curate, examples, hub
from autodidact.errors import AutodidactError, CheckpointError, ResourceError, SourceError
from autodidact.evaluators import gate
from autodidact.evaluators.recall import ProbeResult
from autodidact.settings import Settings
from autodidact.sources.backoff import Outage
from autodidact.sources.files import Files
from autodidact.store.learner import CycleState, LearnerStore, StoredDocument
from autodidact.study_process import Stopped, Study, run_study
from autodidact.types import Document, Probe, Source, Verdict

log = logging.getLogger(__name__)
LOW_WATER_BYTES = 512 * 2**20
REPLAY_DOCUMENTS = 60
CONTROL_DOCUMENTS = 30
Report = dict[str, Any]
Progress = Callable[[dict[str, Any]], None]


class Learner:
    """Reads and learns. One at a time works in a home folder; the caller holds its lock."""

    def __init__(
        self,
        settings: Settings,
        store: LearnerStore,
        sources: Sequence[Source],
        base: hub.Base,
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
        since = self.store.source(source.name).cursor
        self._progress({"phase": "fetching", "source": source.name})
        try:
            for document in source.documents(since):
                if self.stopping.is_set():
                    return new
                new += self._take(document)
                self.store.set_source(source.name, cursor=document.cursor)
        except SourceError as error:
            next_at, line = outage.failed(error)
            self._retries[source.name] = next_at
            self.store.set_source(source.name, error=str(error), next_at=next_at)
            if line:
                log.warning("%s", line)
            return new
        self._retries.pop(source.name, None)
        if line := outage.recovered():
            log.info("%s", line)
        self.store.set_source(source.name, error="", last_at=time.time())
        if new:
            log.info("%s: %d new documents", source.name, new)
        return new

    def _take(self, document: Document) -> int:
        curated = curate.curate(document)
        if isinstance(curated, Verdict):
            log.debug("refused: %s", curated.reasons[0])
            return 0
        return int(self.store.add(curated))

    # Learn ---------------------------------------------------------------------------------

    def recover(self) -> None:
        """Close what a kill left open, by what stands on disk."""
        resumable = None
        rolled_back = any((self._home / "inbox").glob("rollback-*.json"))
        for n in self.store.running():
            stands = n in checkpoints.versions(self._home)
            undone = rolled_back and checkpoints.current(self._home) != n
            if stands and not undone and checkpoints.finish_publication(self._home, n):
                manifest = checkpoints.read(self._home, n).manifest
                report = {**manifest["report"], "state": "published", "reasons": []}
                self.store.finish_cycle(n, "published", (), report)
                log.info("cycle %d had published %s", n, checkpoints.name(n))
            elif not stands and self._job(n) is not None:
                resumable = n
            else:
                self.store.finish_cycle(n, "interrupted", ("cut off",), {})
                log.info("cycle %d was cut off; its documents are back in the queue", n)
        checkpoints.clear_staging(self._home, except_cycle=resumable)

    def learn(self) -> Report | None:
        """One cycle, from the queue to a published checkpoint or a rejection.

        Returns its report, or None when there is nothing to learn or it was asked to stop (the
        cycle then goes on at the next start). Errors of a study are recorded; nothing is published.
        """
        self._act_on_inbox()
        free = checkpoints.free_bytes(self._home)
        if free < LOW_WATER_BYTES:
            need = LOW_WATER_BYTES / 2**30
            raise ResourceError(f"{self._home}: need {need:.1f} GiB, have {free / 2**30:.1f}")
        begun = time.monotonic()
        running = self.store.running()
        cycle = running[0] if running else self._begin()
        if cycle is None:
            return None
        job = self._job(cycle)
        assert job is not None
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
            return self._close(cycle, "failed", (str(error),), {"log": tail}, begun)
        return self._decide(cycle, job, study, begun)

    def _begin(self) -> int | None:
        """Freeze probes and write the job of a new cycle; None when no document has a fact."""
        queued = self._readable(self.settings.training.documents_per_cycle)
        if not queued:
            return None
        self._progress({"phase": "preparing", "documents": len(queued)})
        begun = time.monotonic()
        base = self._base
        cycle = max([self.store.last_cycle(), *checkpoints.versions(self._home)]) + 1
        parent = checkpoints.current(self._home)
        taught = [examples.read(d.id, d.document) for d in queued]
        later = self.store.documents("queued", len(queued) + CONTROL_DOCUMENTS)[len(queued) :]
        control = self._control(later)
        learned = self._sample(self.store.documents("learned"), cycle)
        earlier = [examples.read(d.id, d.document) for d in learned]
        probes = [
            *examples.probes(taught, [*earlier, *control], "taught"),
            *examples.probes(control, taught, "control"),
            *(replace(p, split="kept") for p in self._frozen(learned)),
        ]
        self.store.begin_cycle(cycle, parent or None, self.settings.training.model_dump())
        self.store.freeze(cycle, (p for p in probes if p.split != "kept"))
        job = {
            "cycle": cycle,
            "cycle_minutes": self.settings.cycle_minutes,
            "spent_s": time.monotonic() - begun,
            "base": {"name": base.name, "path": str(base.path), "sha256": base.sha256,
                     "revision": base.revision},
            "parent": _parent(self._home, parent),
            "anchors": str(self._home / "anchors.json"),
            "threads": self.settings.training.threads,
            "training": self.settings.training.model_dump(),
            "documents": [
                {"id": r.document_id, "examples": [asdict(e) for e in examples.examples(r)]}
                for r in taught
            ],
            "replay": [asdict(e) for r in earlier for e in examples.examples(r)],
            "probes": [asdict(p) for p in probes],
            "limits": {
                "taught": self.settings.gate.taught_probes,
                "control": self.settings.gate.control_probes,
                "kept": self.settings.gate.kept_probes,
            },
        }  # fmt: skip
        staging = checkpoints.staging(self._home, cycle)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        checkpoints.write_atomic(staging / "job.json", json.dumps(job).encode())
        log.info(
            "cycle %d: %d documents offered, %d probes frozen", cycle, len(taught), len(probes)
        )
        return cycle

    def _decide(self, cycle: int, job: dict[str, Any], study: Study, begun: float) -> Report:
        """Gate the measurements; publish or reject. The main decision of the project."""
        probes = [_probe(row) for row in job["probes"]]
        splits = {probe.id: probe.split for probe in probes}
        arms = {
            arm: {row["probe_id"]: ProbeResult(**row) for row in measured["rows"]}
            for arm, measured in study.measured.items()
        }
        for arm, results in arms.items():
            rows = [{**r.row(), "split": splits[i]} for i, r in results.items()]
            self.store.record(cycle, arm, rows)
        general = {arm: measured["nll"] for arm, measured in study.measured.items()}
        verdict = gate.decide(
            probes, arms["parent"], arms["candidate"], general, self.settings.gate.general_limit
        )
        report = self._report(cycle, job, study, verdict, arms, begun)
        if checkpoints.current(self._home) != (job["parent"] or {}).get("version", 0):
            reason = "the version it was made from was rolled back meanwhile"
            return self._close(cycle, "interrupted", (reason,), report, begun)
        if not verdict.ok:
            return self._close(cycle, "rejected", verdict.reasons, report, begun)
        self._progress({"phase": "publishing"})
        manifest = {
            "parent": (job["parent"] or {}).get("version"),
            "cycle": cycle,
            "base": {key: job["base"][key] for key in ("name", "revision", "sha256")},
            "document_ids": study.planned["documents"],
            "created_at": time.time(),
            "settings": job["training"],
            "report": {key: value for key, value in report.items() if key != "probes"},
        }
        staged = checkpoints.staging(self._home, cycle) / "adapter"
        (staged / checkpoints.REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False))
        try:
            checkpoints.publish(self._home, staged, cycle, manifest)
        except ResourceError as error:  # no fault of the documents: no try is counted
            return self._close(cycle, "interrupted", (str(error),), report, begun)
        except CheckpointError as error:
            return self._close(cycle, "failed", (str(error),), report, begun)
        closed = self._close(cycle, "published", (), report, begun)
        for version in checkpoints.retain(self._home, self.settings.keep_versions):
            log.debug("version %s deleted", checkpoints.name(version))
        return closed

    def _close(
        self, cycle: int, state: CycleState, reasons: Sequence[str], report: Report, begun: float
    ) -> Report:
        report = {
            "cycle": cycle, "ok": state == "published", "state": state, "reasons": list(reasons),
            "documents": [], "seconds": round(time.monotonic() - begun), **report,
        }  # fmt: skip
        report |= {"ok": state == "published", "state": state, "reasons": list(reasons)}
        self.store.finish_cycle(cycle, state, reasons, report)
        shutil.rmtree(checkpoints.staging(self._home, cycle), ignore_errors=True)
        log.info("%s", line(report))
        return report

    def _report(
        self,
        cycle: int,
        job: dict[str, Any],
        study: Study,
        verdict: Verdict,
        arms: dict[str, dict[str, ProbeResult]],
        begun: float,
    ) -> Report:
        documents = [self.store.document(i) for i in study.planned["documents"]]
        asked = [_probe(row) for row in job["probes"] if row["id"] in arms["candidate"]]
        return {
            "cycle": cycle,
            "ok": verdict.ok,
            "version": cycle,
            "parent": (job["parent"] or {}).get("version"),
            "learned": verdict.metrics.get("taught"),
            **{k: v for k, v in verdict.metrics.items() if k != "taught"},
            "documents": [{"title": d.document.title, "uri": d.document.uri} for d in documents],
            "suggestions": _suggestions(documents, arms["candidate"]),
            "exposures": study.done["exposures"],
            "steps": study.done["steps"],
            "reasons": list(verdict.reasons),
            "seconds": round(time.monotonic() - begun + job["spent_s"]),
            "probes": [
                {
                    "question": p.question, "answer": p.answer, "split": p.split,
                    "document_id": p.document_id, "kind": p.kind, "wording": p.wording,
                    "before": arms["parent"][p.id].row(), "now": arms["candidate"][p.id].row(),
                }
                for p in asked
            ],
        }  # fmt: skip

    # Parts ---------------------------------------------------------------------------------

    def _readable(self, limit: int) -> list[StoredDocument]:
        """Up to `limit` queued documents in which the rules find a fact."""
        found: list[StoredDocument] = []
        for stored in self.store.documents("queued"):
            if len(found) == limit:
                break
            if examples.read(stored.id, stored.document).facts:
                found.append(stored)
            else:
                self.store.set_unusable(stored.id, "no rule finds a fact in it")
        return found

    def _control(self, later: Sequence[StoredDocument]) -> list[examples.Reading]:
        """Documents that this cycle does not teach: the never-taught folder, else the queue's."""
        folder = self.settings.sources.control
        readings = []
        if folder is not None and folder.is_dir():
            for number, document in enumerate(Files(folder).documents(None), start=1):
                curated = curate.curate(document)
                if isinstance(curated, Document):
                    readings.append(examples.read(-number, curated))
        readings = readings or [examples.read(d.id, d.document) for d in later]
        if not readings:
            log.warning("no control documents: gains are measured against nothing never taught")
        return readings

    def _sample(self, learned: list[StoredDocument], cycle: int) -> list[StoredDocument]:
        order = random.Random(f"{self.settings.training.seed}:{cycle}")
        return order.sample(learned, min(len(learned), REPLAY_DOCUMENTS))

    def _frozen(self, documents: Sequence[StoredDocument]) -> list[Probe]:
        return self.store.probes([d.id for d in documents]) if documents else []

    def _job(self, cycle: int) -> dict[str, Any] | None:
        """The job of a cycle if it can (still) be worked on: its parent is what serves now."""
        path = checkpoints.staging(self._home, cycle) / "job.json"
        if not path.exists():
            return None
        job: dict[str, Any] = json.loads(path.read_text())
        same = (job["parent"] or {}).get("version", 0) == checkpoints.current(self._home)
        return job if same and Path(job["base"]["path"]).is_dir() else None

    def _follow(self, job: dict[str, Any], event: dict[str, Any]) -> None:
        if event["event"] == "planned":
            self.store.study(job["cycle"], event["documents"])
        elif event["event"] == "anchors":
            data = Path(event["path"]).read_bytes()
            checkpoints.write_atomic(self._home / "anchors.json", data)
        elif event["event"] == "log":
            log.info("%s", event["line"])
        self._progress({"cycle": job["cycle"], **event})

    def _act_on_inbox(self) -> None:
        """Requests of the command line; each is a small JSON file, renamed into place whole."""
        for path in sorted((self._home / "inbox").glob("*.json")):
            try:
                request = json.loads(path.read_text())
            except ValueError:
                request = None
            request = request if isinstance(request, dict) else {}
            if request.get("do") == "rollback" and isinstance(request.get("to"), int):
                count = self.store.requeue_after(request["to"])
                log.info("rolled back to %d; %d documents back in the queue", request["to"], count)
            else:
                log.warning("inbox/%s: not understood; dropped", path.name)
            path.unlink()


def line(report: Report) -> str:
    """A cycle on one line, for the terminal."""
    parts = [f"cycle {report['cycle']}", f"{len(report['documents'])} documents"]
    if report.get("learned"):
        learned, general = report["learned"], report["general"]
        parts.append(f"learned {learned['k']}/{learned['n']} (before {learned['before']})")
        parts.append(f"general {general['pct']:+.1f} %")
    if report["state"] == "published":
        parts.append(f"published {checkpoints.name(report['cycle'])}")
    else:
        parts.append(f"{report['state']}: {'; '.join(report['reasons'])}")
    return " · ".join([*parts, f"{report['seconds']} s"])


def _suggestions(
    documents: Sequence[StoredDocument], candidate: dict[str, ProbeResult]
) -> list[dict[str, str]]:
    """Questions for people, on facts whose probe passed, in a wording that is neither trained nor
    measured; documents in turn, three at most."""
    found = []
    for stored in documents:
        reading = examples.read(stored.id, stored.document)
        for fact in reading.facts:
            result = candidate.get(examples.probe_id(stored.id, fact))
            if result and result.correct and fact.kind in ("name", "year", "measure"):
                question = examples.wordings(fact).suggestion
                found.append({"question": question, "source": stored.document.uri})
                break
    return found[:3]


def _parent(home: Path, version: int) -> dict[str, Any] | None:
    if version == checkpoints.BASE_VERSION:
        return None
    return {"version": version, "path": str(checkpoints.folder(home, version))}


def _probe(row: dict[str, Any]) -> Probe:
    return Probe(**{**row, "distractors": tuple(row["distractors"])})
