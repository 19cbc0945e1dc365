"""What the learner says that it does, through the real row of its database."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from autodidact.learning import progress
from autodidact.learning.progress import Reporter
from autodidact.store.ledger import LearnerStore
from autodidact.types.cycle import Reason
from autodidact.types.events import Event, PhaseEvent, ProgressEvent, StepEvent, WaitEvent
from autodidact.types.report import CycleReport
from autodidact.types.status import LearnerStatus
from tests.workplace import wait_for

REFUSED = CycleReport(1, "rejected", 9, reasons=(Reason("kept", "forgot"),))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LearnerStore]:
    store = LearnerStore(tmp_path / "learner.db")
    yield store
    store.close()


@pytest.fixture
def reporter(store: LearnerStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reporter]:
    monkeypatch.setattr(progress, "STATUS_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "COUNTDOWN_S", 0.1)
    monkeypatch.setattr(progress, "BEAT_S", 0.05)
    reporter = Reporter(store, None)
    yield reporter
    reporter.stopped()


def said(store: LearnerStore) -> LearnerStatus:
    status = store.status.read()
    assert status is not None
    return status


def left(store: LearnerStore) -> float:
    seconds = said(store).left_s
    assert seconds is not None
    return seconds


def test_told_without_a_pause_it_is_never_silent_for_five_seconds() -> None:
    assert progress.COUNTDOWN_S + progress.BEAT_S < 5
    assert progress.HEARTBEAT_S < 5


@pytest.mark.parametrize(
    "last",
    [
        PhaseEvent("loading", left_s=300.0),
        PhaseEvent("preparing", eta_s=30.0, left_s=300.0),
        PhaseEvent("planning", left_s=300.0),
        ProgressEvent(0, 48, eta_s=20.0, left_s=300.0),
        StepEvent(1, 9, 2.0, eta_s=100.0, left_s=300.0),
    ],
    ids=lambda event: f"{event.event} {getattr(event, 'phase', '')}",
)
def test_the_time_left_counts_down_while_a_long_pass_says_nothing(
    reporter: Reporter, store: LearnerStore, last: Event
) -> None:
    reporter(last, 1)
    first = said(store)
    wait_for(lambda: left(store) < 299.8, 20, "the cycle's time to go on")
    then = said(store)
    assert then.cycle_s == 300
    assert (then.step, then.of, then.phase) == (first.step, first.of, first.phase)
    assert (then.eta_s is None) == (first.eta_s is None)
    assert first.eta_s is None or (then.eta_s or 0) < first.eta_s


def test_a_phase_that_takes_longer_than_expected_names_no_time(
    reporter: Reporter, store: LearnerStore
) -> None:
    reporter(PhaseEvent("preparing", eta_s=0.2, left_s=300.0), 1)
    wait_for(lambda: said(store).eta_s is None, 20, "the end of what was expected")
    assert 290 < left(store) < 300


def test_a_cycle_takes_at_least_as_long_as_its_phase(
    reporter: Reporter, store: LearnerStore
) -> None:
    reporter(StepEvent(1, 90, 2.0, eta_s=500.0, left_s=300.0), 1)
    assert left(store) > 490
    reporter(PhaseEvent("measuring", left_s=-12.0), 1)
    assert -20 < left(store) <= -12, "over its time"


def test_the_next_cycle_has_a_time_of_its_own(reporter: Reporter, store: LearnerStore) -> None:
    reporter(PhaseEvent("training", left_s=300.0), 1)
    reporter.verdict(REFUSED)
    reporter(PhaseEvent("preparing"))
    assert (said(store).left_s, said(store).cycle_s) == (None, None)
    reporter(PhaseEvent("loading", left_s=60.0), 2)
    assert said(store).cycle_s == 60
    reporter.idle(queued=1)
    assert (said(store).left_s, said(store).cycle_s) == (None, None)


def test_the_last_verdict_is_still_known_after_a_restart(
    reporter: Reporter, store: LearnerStore
) -> None:
    reporter.verdict(REFUSED)
    reporter.stopped()
    again = Reporter(store, None)
    again(PhaseEvent("fetching"))
    again.stopped()
    assert said(store).verdict == REFUSED


def test_on_a_terminal_a_phase_that_counts_nothing_has_a_bar_too(store: LearnerStore) -> None:
    screen = io.StringIO()
    reporter = Reporter(store, Console(file=screen, force_terminal=True, width=100))
    reporter(PhaseEvent("loading", left_s=275.0), 1)
    reporter(PhaseEvent("measuring", left_s=270.0), 1)
    reporter(ProgressEvent(48, 210, eta_s=30.0, left_s=270.0), 1)
    reporter.stopped()
    for shown in ("loading", "4:35 of the cycle left", "48/210", "0:30 left, 4:30 of the cycle"):
        assert shown in screen.getvalue()


def test_a_wait_is_in_the_status_at_once_and_leaves_the_step(
    store: LearnerStore, reporter: Reporter
) -> None:
    reporter(PhaseEvent("training"), 3)
    reporter(StepEvent(5, 9, 1.0, 60.0), 3)
    reporter(WaitEvent(True), 3)
    now = said(store)
    assert (now.state, now.step, now.of, now.waits) == ("training", 5, 9, True)
    reporter(WaitEvent(False), 3)
    assert not said(store).waits


@pytest.mark.parametrize("then", ["phase", "idle"])
def test_a_study_that_ended_waits_no_more(
    store: LearnerStore, reporter: Reporter, then: str
) -> None:
    reporter(PhaseEvent("measuring"), 3)
    reporter(WaitEvent(True), 3)
    if then == "phase":
        reporter(PhaseEvent("preparing"), 4)
    else:
        reporter.idle()
    assert not said(store).waits


def test_the_log_says_it_once_in_a_while(
    reporter: Reporter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.INFO):
        reporter(PhaseEvent("training"), 3)
        for _ in range(5):
            reporter(WaitEvent(True), 3)
            reporter(WaitEvent(False), 3)
        assert caplog.messages == ["training waits for the chat"]
        monkeypatch.setattr(progress, "LOG_WAITS_EVERY_S", 0.0)
        reporter(WaitEvent(True), 3)
    assert caplog.messages == 2 * ["training waits for the chat"]
