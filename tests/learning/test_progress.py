"""What the learner shows of a study that waits for the chat."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from autodidact.learning import progress
from autodidact.learning.progress import Reporter
from autodidact.store.ledger import LearnerStore
from autodidact.types.events import PhaseEvent, StepEvent, WaitEvent
from autodidact.types.status import LearnerStatus


@pytest.fixture
def store(tmp_path: Path) -> LearnerStore:
    return LearnerStore(tmp_path / "learner.db")


@pytest.fixture
def reporter(store: LearnerStore) -> Iterator[Reporter]:
    made = Reporter(store, None)
    yield made
    made.stopped()


def said(store: LearnerStore) -> LearnerStatus:
    found = store.status.read()
    assert found is not None
    return found


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
