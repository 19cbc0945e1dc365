"""The benchmark of the chat beside a study: what it counts."""

from __future__ import annotations

from autodidact.types.status import LearnerStatus
from benchmarks import beside
from benchmarks.beside import Reply, Work


def test_what_a_study_does_is_counted_by_phase() -> None:
    said = iter(
        [
            None,
            LearnerStatus("preparing", "preparing", 1, 128, 6000),
            LearnerStatus("preparing", "preparing", 1, 384, 6000),
            LearnerStatus("preparing", "preparing", 1, 384, 6000, waits=True),
            LearnerStatus("preparing", "planning", 1),
            LearnerStatus("training", "training", 1, 3, 90),
            LearnerStatus("training", "training", 1, 5, 80),  # the pace was corrected
            LearnerStatus("training", "training", 2, 1, 80),
            LearnerStatus("measuring", "measuring", 2, 48, 96),
            LearnerStatus("measuring", "measuring", 2, 0, 96),  # of the next version
            LearnerStatus("measuring", "measuring", 2, 48, 96),
        ]
    )
    work = Work(lambda: next(said))
    for _ in range(11):
        work.look()
    assert work.done == {"preparing": 256, "training": 3 + 2 + 1, "measuring": 96}
    assert work.a_minute(120) == "128.0 preparing, 3.0 training, 48.0 measuring"


def test_a_study_that_did_nothing_is_told_so() -> None:
    work = Work(lambda: LearnerStatus("preparing", "preparing", 1, 128, 6000))
    work.look()
    work.look()
    assert work.a_minute(60) == "nothing"


def test_a_line_has_speeds_and_percentiles() -> None:
    line = beside.told([Reply(10.0, 0.2), Reply(None, 0.4), Reply(14.0, 0.2)])
    assert "12.0 (10.0–14.0) tokens/s  first 0.20 p50 0.40 p99 s  n=3" in line
    assert beside.told([]).strip() == "nobody chats"
