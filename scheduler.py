"""The timetable of the learner: when to fetch, when to learn.

APScheduler with its memory store (its SQL store pickles). Jobs of one kind never overlap
(`max_instances=1`), missed ones run once when there is time (`coalesce`, no misfire limit: the
default of one second skips in silence). Fetching and learning may overlap: they meet only in the
ledger. A fetch wakes the learner at once.

APScheduler goes by the wall clock. Where that is put back, by hand or by the network's time, all
that is due moves with it: what was to come in ten minutes comes then, and not after the clock has
caught up. Where it jumps forward (or the machine slept), what has become due runs once.

A cycle that fails is tried again, ever more seldom as long as each try fails.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from datetime import datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from autodidact.errors import AutodidactError, ResourceError, StoreBusy
from autodidact.learning.cycle import Learner
from autodidact.learning.progress import Reporter
from autodidact.settings import ScheduleSettings
from autodidact.sources.backoff import Outage
from autodidact.types.report import CycleReport

LOOK_S = 5.0
"""How often the clock is looked at."""
MOVED_S = 30.0
"""A clock that is corrected by less was not put back."""
log = logging.getLogger(__name__)


def offset_s() -> float:
    """How far the wall clock is ahead of the one that nobody sets."""
    return time.time() - time.monotonic()


class Timetable:
    """Runs until `learner.stopping` is set. An error that is ours ends it; see `run`."""

    def __init__(self, learner: Learner, reporter: Reporter, settings: ScheduleSettings) -> None:
        self._learner = learner
        self._reporter = reporter
        self._settings = settings
        self._fault: BaseException | None = None
        self._busy = threading.Lock()
        self._failing = Outage("learning", lambda: time.time())
        self._again_at = 0.0
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(3)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def run(self) -> None:
        """Block until stopped. Raises what a job raised, if it was not a passing fault."""
        now = datetime.now().astimezone()
        minutes = self._settings
        add = self._scheduler.add_job
        add(self._guarded, "interval", minutes=minutes.fetch_minutes, next_run_time=now,
            id="fetch", args=[self._fetch])  # fmt: skip
        add(self._guarded, "interval", minutes=minutes.learn_minutes, id="learn",
            args=[self._learn])  # fmt: skip
        self._scheduler.start()
        try:
            offset = offset_s()
            while not self._learner.stopping.wait(LOOK_S):
                moved = offset_s() - offset
                if abs(moved) > MOVED_S:
                    offset += moved
                    self._clock_moved(moved)
        finally:
            self._scheduler.shutdown(wait=True)
        if self._fault is not None:
            raise self._fault

    def _clock_moved(self, seconds: float) -> None:
        if seconds > 0:
            return
        log.info("the clock was put back by %d minutes; what is due moves with it", -seconds / 60)
        for job in self._scheduler.get_jobs():
            if job.next_run_time is not None:
                with contextlib.suppress(JobLookupError):  # it has just run for the last time
                    job.modify(next_run_time=job.next_run_time + timedelta(seconds=seconds))

    def _guarded(self, job: object) -> None:
        try:
            job()  # type: ignore[operator]
        except (ResourceError, StoreBusy) as error:
            log.error("%s; trying again later", error)
            self._idle()
        except AutodidactError as error:
            self._fault = error
            self._learner.stopping.set()
        except BaseException as error:
            log.exception("a bug of ours stops the learner")
            self._fault = error
            self._learner.stopping.set()

    def _fetch(self, retry: bool = False) -> None:
        self._learner.fetch(retry=retry)
        if (at := self._learner.retry_at()) is not None:
            when = datetime.fromtimestamp(max(at, time.time() + 1)).astimezone()
            self._scheduler.add_job(
                self._guarded, "date", run_date=when, id="retry", replace_existing=True,
                args=[functools.partial(self._fetch, retry=True)],
            )  # fmt: skip
        if not self._busy.locked():
            self._idle()
        self._soon("learn")  # also without news: a cycle that was cut off goes on

    def _learn(self) -> None:
        if not self._failing.due(time.time()):
            return
        with self._busy:
            while not self._learner.stopping.is_set():
                report = self._learner.learn()
                if report is None:
                    break
                self._reporter.verdict(report)
                if report.state == "failed" or report.starved:
                    self._again_at, line = self._failing.failed(_why(report))
                    if line:
                        log.warning("%s", line)
                    break
                if line := self._failing.recovered():
                    log.info("%s", line)
                if report.state == "interrupted":
                    break
        if not self._learner.stopping.is_set():
            self._idle()

    def _soon(self, job: str) -> None:
        if self._scheduler.running and self._scheduler.get_job(job):
            self._scheduler.modify_job(job, next_run_time=datetime.now().astimezone())

    def _idle(self) -> None:
        queued = self._learner.store.documents.count("queued")
        jobs = [self._scheduler.get_job(name) for name in ("fetch", "learn")[: 1 + bool(queued)]]
        times = [job.next_run_time.timestamp() for job in jobs if job and job.next_run_time]
        at = max(min(times, default=time.time()), self._again_at if queued else 0.0)
        self._reporter.idle(queued=queued, next_at=at)


def _why(report: CycleReport) -> Exception:
    """What a cycle failed for."""
    return RuntimeError("; ".join(reason.line for reason in report.reasons) or "a cycle failed")
