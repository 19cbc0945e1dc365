"""The timetable, around a learner that answers from a queue."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import scheduler
from autodidact.errors import CheckpointError, ResourceError
from autodidact.settings import ScheduleSettings
from autodidact.types.cycle import Reason
from autodidact.types.report import CycleReport
from scheduler import Timetable
from tests.workplace import wait_for

Answer = dict[str, Any] | Exception | Callable[[], Any] | None
DONE = CycleReport(1, "published", 9)
RARELY = ScheduleSettings(fetch_minutes=60, learn_minutes=60)
OFTEN = ScheduleSettings(fetch_minutes=60, learn_minutes=0.001)


class QueueLearner:
    """`learn` gives what is queued, then None; `fetch` likewise, then 0."""

    def __init__(self, *answers: Answer, fetches: tuple[Answer, ...] = ()) -> None:
        self.answers = deque(answers)
        self.fetches = deque(fetches)
        self.stopping = threading.Event()
        self.store = self.documents = self
        self.calls: list[str] = []
        self.retry: float | None = None

    def learn(self) -> Any:
        return self._answer("learn", self.answers, None)

    def fetch(self, *, retry: bool = False) -> Any:
        return self._answer("retry" if retry else "fetch", self.fetches, 0)

    def retry_at(self) -> float | None:
        return self.retry

    def count(self, state: str) -> int:
        return 3

    def _answer(self, name: str, queue: deque[Answer], empty: object) -> Any:
        self.calls.append(name)
        answer = queue.popleft() if queue else empty
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


class ListReporter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.verdicts: list[CycleReport] = []
        self.idles: list[dict[str, Any]] = []

    def verdict(self, report: CycleReport) -> None:
        self.verdicts.append(report)

    def idle(self, **more: Any) -> None:
        self.idles.append(more)


class Run:
    """A timetable at work in a thread of its own."""

    def __init__(self, learner: QueueLearner, settings: ScheduleSettings = RARELY) -> None:
        self.learner = learner
        self.reporter = ListReporter()
        self.raised: BaseException | None = None
        timetable = Timetable(learner, self.reporter, settings)  # type: ignore[arg-type]

        def work() -> None:
            try:
                timetable.run()
            except BaseException as error:
                self.raised = error

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def until(self, condition: Callable[[], object], what: str) -> None:
        wait_for(condition, 20, what)

    def end(self) -> None:
        self.learner.stopping.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


def test_it_fetches_at_once_and_learns_as_soon_as_that_is_done() -> None:
    run = Run(QueueLearner(DONE, DONE, fetches=(None,)))
    run.until(lambda: len(run.learner.calls) == 4, "a fetch and three tries to learn")
    run.until(lambda: len(run.reporter.idles) == 2, "to be idle")
    run.end()
    assert run.learner.calls == ["fetch", "learn", "learn", "learn"], "until nothing is left"
    assert run.reporter.verdicts == [DONE, DONE]
    assert run.reporter.idles[-1]["queued"] == 3
    assert run.reporter.idles[-1]["next_at"] > time.time() + 3000
    assert run.raised is None


def test_after_a_failed_cycle_it_waits_for_the_next_time() -> None:
    failed = CycleReport(1, "failed", 9)
    run = Run(QueueLearner(failed, DONE))
    run.until(lambda: run.reporter.verdicts, "the verdict")
    run.until(lambda: len(run.reporter.idles) == 2, "to be idle")
    run.end()
    assert run.reporter.verdicts == [failed]
    assert run.learner.calls == ["fetch", "learn"]


def test_without_memory_it_is_tried_ever_more_seldom() -> None:
    starved = CycleReport(1, "interrupted", 9, reasons=(Reason("memory", "killed"),))
    run = Run(QueueLearner(*[starved] * 5), OFTEN)
    run.until(lambda: len(run.reporter.idles) == 2, "to be idle")
    time.sleep(0.5)
    run.end()
    assert run.learner.calls.count("learn") == 1, "not at each look"
    assert run.reporter.verdicts == [starved], "the page says why"
    assert run.reporter.idles[-1]["next_at"] > time.time() + 20


def test_what_waits_is_learned_at_the_next_look_not_the_next_fetch() -> None:
    run = Run(
        QueueLearner(CycleReport(1, "failed", 9)),
        ScheduleSettings(fetch_minutes=60, learn_minutes=5),
    )
    run.until(lambda: len(run.reporter.idles) == 2, "to be idle")
    run.end()
    assert 200 < run.reporter.idles[-1]["next_at"] - time.time() <= 300


def test_a_full_disk_is_waited_for() -> None:
    run = Run(QueueLearner(ResourceError("need 0.5 GiB, have 0.1"), DONE), OFTEN)
    run.until(lambda: run.reporter.verdicts, "the next try")
    run.end()
    assert run.raised is None


@pytest.mark.parametrize("fault", [CheckpointError("damaged"), ZeroDivisionError()])
@pytest.mark.parametrize("where", ["learn", "fetch"])
def test_any_other_fault_ends_the_learner_and_is_raised(fault: Exception, where: str) -> None:
    learner = QueueLearner(fault) if where == "learn" else QueueLearner(fetches=(fault,))
    run = Run(learner)
    run.thread.join(20)
    assert not run.thread.is_alive()
    assert run.raised is fault
    assert learner.stopping.is_set()


def test_learning_never_overlaps_with_itself() -> None:
    at_work, most = threading.Lock(), []

    def long() -> dict[str, Any]:
        most.append(at_work.acquire(blocking=False))
        threading.Event().wait(0.05)
        at_work.release()
        return DONE

    run = Run(QueueLearner(*[long] * 6), OFTEN)
    run.until(lambda: len(run.reporter.verdicts) == 6, "six cycles")
    run.end()
    assert most == [True] * 6


def test_fetching_and_learning_may_overlap() -> None:
    fetched = threading.Event()

    def cycle() -> dict[str, Any]:
        assert fetched.wait(20)
        return DONE

    def slow() -> int:
        wait_for(lambda: "learn" in learner.calls, 20, "a cycle beside the fetch")
        fetched.set()
        return 1

    learner = QueueLearner(cycle, fetches=(slow,))
    run = Run(learner, OFTEN)
    run.until(lambda: run.reporter.verdicts, "the cycle")
    run.end()
    assert run.raised is None


def test_a_source_out_of_reach_is_tried_again_when_it_is_due() -> None:
    learner = QueueLearner()
    learner.retry = time.time()
    run = Run(learner)
    run.until(lambda: "retry" in learner.calls, "the retry")
    run.end()
    assert learner.calls[0] == "fetch"


def test_stopping_waits_for_the_cycle_that_runs() -> None:
    finished = threading.Event()

    def cycle() -> None:
        learner.stopping.wait(20)
        finished.set()

    learner = QueueLearner(cycle)
    run = Run(learner)
    run.until(lambda: "learn" in learner.calls, "the cycle")
    run.end()
    assert finished.is_set()
    assert learner.calls.count("learn") == 1


@pytest.mark.parametrize(("moved_s", "fetches"), [(-7200.0, 2), (7200.0, 1), (-10.0, 1)])
def test_a_clock_that_is_put_back_puts_off_nothing(
    monkeypatch: pytest.MonkeyPatch, moved_s: float, fetches: int
) -> None:
    """The wall clock itself cannot be set here: with the offset alone two hours less, what was due
    in one becomes due at once, which shows that it moved along."""
    offset = scheduler.offset_s()
    moved = threading.Event()
    looks: list[float] = []

    def look() -> float:
        looks.append(offset + (moved_s if moved.is_set() else 0.0))
        return looks[-1]

    monkeypatch.setattr(scheduler, "LOOK_S", 0.02)
    monkeypatch.setattr(scheduler, "offset_s", look)
    run = Run(QueueLearner())
    run.until(lambda: run.reporter.idles, "the first fetch")
    moved.set()
    seen = len(looks)
    run.until(lambda: len(looks) > seen + 10, "some looks at the clock")
    run.until(lambda: run.learner.calls.count("fetch") >= fetches, "what is due")
    run.end()
    assert run.learner.calls.count("fetch") == fetches


def test_a_failure_that_repeats_itself_backs_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Looked at every 60 ms, tried at once, and then only a minute later; by then it goes well."""
    failed = CycleReport(1, "failed", 9, reasons=(Reason("", "no memory"),))
    clock = [time.time()]
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(
        time=lambda: clock[0], monotonic=time.monotonic))  # fmt: skip
    learner = QueueLearner(failed, failed, DONE)
    run = Run(learner, OFTEN)
    run.until(lambda: run.reporter.verdicts, "the first failure")
    run.until(lambda: run.reporter.idles, "to be idle")
    time.sleep(0.5)
    assert learner.calls.count("learn") == 1, "looked at and not tried"
    assert run.reporter.idles[-1]["next_at"] > clock[0] + 50
    for wait_s, tries in ((80, 2), (160, 4)):
        clock[0] += wait_s
        run.until(lambda n=tries: learner.calls.count("learn") >= n, "the next try")
    run.end()
    assert [report.state for report in run.reporter.verdicts] == ["failed", "failed", "published"]
    assert "no memory" in caplog.text
