"""Waiting for the chat: how long at most, what that costs, and what ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from autodidact.learning.study import waiting
from autodidact.learning.study.session import Session
from autodidact.learning.study.waiting import LOOK_S, MOST_WAIT_S, SAY_AFTER_S, Waiting
from autodidact.types.events import WaitEvent
from tests.jobs import job


class Time(threading.Event):
    """A clock that only waiting and `work` move on; also the event that asks to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.stops_at = float("inf")

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        if self.now >= self.stops_at:
            self.set()
        return self.is_set()

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def until(time: Time, end: float) -> Callable[[], bool]:
    return lambda: time.now < end


def test_it_waits_as_long_as_the_reply_and_is_told_so_once(time: Time) -> None:
    told: list[tuple[float, WaitEvent]] = []
    wait = Waiting(until(time, 107), 300, time, lambda event: told.append((time.now, event)))
    wait()
    assert 107 <= time.now <= 107 + LOOK_S + 1e-6
    assert [event for _, event in told] == [WaitEvent(True), WaitEvent(False)]
    assert told[0][0] == pytest.approx(100 + SAY_AFTER_S, abs=2 * LOOK_S)
    assert wait.waited_s == pytest.approx(7, abs=2 * LOOK_S)
    assert wait.worked_s == pytest.approx(0, abs=1e-6)


def test_a_moment_is_not_worth_a_word(time: Time) -> None:
    told: list[WaitEvent] = []
    Waiting(until(time, 100.5), 300, time, told.append)()
    assert time.now >= 100.5
    assert told == []


def test_without_a_reply_it_goes_on_at_once(time: Time) -> None:
    Waiting(lambda: False, 300, time)()
    Waiting()()
    assert time.now == 100


def test_at_constant_chatting_a_step_is_done_after_the_longest_wait(time: Time) -> None:
    wait = Waiting(lambda: True, 300, time)
    for _ in range(3):
        before = time.now
        wait()
        assert time.now - before == pytest.approx(MOST_WAIT_S, abs=2 * LOOK_S)
        time.work(1)


@pytest.mark.parametrize("step_s", [0.04, 1.0, 9.0])
def test_at_constant_chatting_a_cycle_takes_twice_its_time(time: Time, step_s: float) -> None:
    """Whatever its steps take: the passes of a reply that writes anchors are short and many."""
    wait = Waiting(lambda: True, 300, time)
    session = Session(job(minutes=5.0), None, lambda event: None, waiting=wait)  # type: ignore[arg-type]
    while session.left_s > 0:
        wait()
        time.work(step_s)
    assert 590 <= time.now - 100 <= 600 + step_s + 2 * LOOK_S
    assert wait.worked_s == pytest.approx(300, abs=step_s)


def test_a_study_that_is_to_take_longer_waits_as_long_as_it_works(time: Time) -> None:
    """Relearning a store takes many cycles' time."""
    wait = Waiting(lambda: True, 60, time)
    while wait.worked_s < 3600:
        wait()
        time.work(1)
    assert wait.waited_s == pytest.approx(3600, rel=0.02)


def test_what_it_waits_is_given_back_to_the_cycle(time: Time) -> None:
    session = Session(
        job(minutes=5.0, spent_s=10.0), None, lambda event: None,  # type: ignore[arg-type]
        waiting=Waiting(until(time, 112), 300, time),
    )  # fmt: skip
    time.work(2)
    session.waiting()
    time.work(3)
    assert time.now > 114
    assert session.left_s == pytest.approx(300 - 10 - 2 - 3)


def test_asked_to_stop_it_waits_no_longer(time: Time) -> None:
    time.stops_at = 103
    told: list[WaitEvent] = []
    wait = Waiting(lambda: True, 300, time, told.append)
    wait()
    wait()
    assert 103 <= time.now <= 103 + 3 * LOOK_S
    assert told == [WaitEvent(True), WaitEvent(False)]


def test_what_a_reply_takes_from_a_step_that_it_falls_into_is_given_back(time: Time) -> None:
    """A step of 2 s of work, into which a reply of 3 s falls: 5 s by the wall."""
    replying = lambda: 101 <= time.now < 104  # noqa: E731
    wait = Waiting(replying, 300, time)
    wait()
    while time.now < 105:
        wait.look()
        time.work(LOOK_S)
    assert wait.worked_s == pytest.approx(2, abs=2 * LOOK_S)
    assert wait.waited_s == pytest.approx(3, abs=2 * LOOK_S)


def test_a_look_while_it_waits_counts_nothing_twice(time: Time) -> None:
    wait = Waiting(until(time, 107), 300, time)
    slow, time.wait = time.wait, lambda timeout=None: bool(wait.look() or slow(timeout))  # type: ignore[method-assign]
    wait()
    assert wait.waited_s == pytest.approx(7, abs=2 * LOOK_S)
    assert wait.worked_s == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("step_s", [0.5, 9.0])
def test_its_patience_ends_however_it_is_spent(time: Time, step_s: float) -> None:
    """At constant chatting, steps that get nothing done are waits as well, and end."""
    wait = Waiting(lambda: True, 300, time)
    while wait.worked_s < 300:
        wait()
        for _ in range(int(step_s / LOOK_S)):
            wait.look()
            time.work(LOOK_S)
    assert time.now - 100 == pytest.approx(600, abs=step_s + 1)


def test_the_time_that_counts_never_goes_back(time: Time) -> None:
    wait = Waiting(lambda: int(time.now * 7) % 3 == 0, 300, time)
    worked = [wait.worked_s]
    for n in range(400):
        if n % 3:
            wait.look()
        time.work(0.03 * (n % 5))
        worked.append(wait.worked_s)
    assert worked == sorted(worked)


def test_it_looks_by_itself() -> None:
    stop, looked = threading.Event(), threading.Event()

    def replying() -> bool:
        looked.set()
        return True

    wait = Waiting(replying, 300, stop)
    wait.follow()
    assert looked.wait(10)
    stop.set()


@pytest.mark.parametrize(("back_s", "ends_s"), [(None, 540), (90.0, 360)])
def test_of_a_first_cycle_only_so_much_is_given_back(
    time: Time, back_s: float | None, ends_s: float
) -> None:
    """Beside constant chatting."""
    wait = Waiting(lambda: True, 270, time, back_s=back_s)
    while wait.worked_s < 270:
        wait()
        for _ in range(20):
            wait.look()
            time.work(LOOK_S)
    assert time.now - 100 == pytest.approx(ends_s, abs=MOST_WAIT_S + 2)
