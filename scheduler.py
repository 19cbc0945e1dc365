"""The timetable of the learner: when to fetch, when to learn.

APScheduler with its memory store (its SQL store pickles). Jobs of one kind never overlap
(`max_instances=1`), missed ones run once when there is time (`coalesce`, no misfire limit: the
default of one second skips in silence). Fetching and learning may overlap: they meet only in the
ledger. A fetch wakes the learner at once.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from datetime import datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from autodidact.errors import AutodidactError, ResourceError
from autodidact.learning.cycle import Learner
from autodidact.learning.progress import Reporter
from autodidact.settings import ScheduleSettings

log = logging.getLogger(__name__)


class Timetable:
    """Runs until `learner.stopping` is set. An error that is ours ends it; see `run`."""

    def __init__(self, learner: Learner, reporter: Reporter, settings: ScheduleSettings) -> None:
        self._learner = learner
        self._reporter = reporter
        self._settings = settings
        self._fault: BaseException | None = None
        self._busy = threading.Lock()
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
            self._learner.stopping.wait()
        finally:
            self._scheduler.shutdown(wait=True)
        if self._fault is not None:
            raise self._fault

    def _guarded(self, job: object) -> None:
        try:
            job()  # type: ignore[operator]
        except ResourceError as error:
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
        with self._busy:
            while not self._learner.stopping.is_set():
                report = self._learner.learn()
                if report is None:
                    break
                self._reporter.verdict(report)
                if report.state in ("failed", "interrupted"):
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
        self._reporter.idle(queued=queued, next_at=min(times, default=time.time()))
