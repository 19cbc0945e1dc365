"""Cycles as they are told, and what they say about the next one."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from autodidact.store.ledger import LearnerStore
from autodidact.types.cycle import Count, CycleState, Kind, Reason, reasons_from_json
from autodidact.types.report import CycleReport
from tests.ledgers import figures
from tests.store.rows import answered, document, run_cycle


def test_cycles_are_told_newest_first_with_their_reports(store: LearnerStore) -> None:
    for n in (1, 2):
        store.documents.add(document(n))
        run_cycle(store, n, [n], "published" if n == 1 else "rejected")
    store.cycles.begin(3, 1, {"rank": 8})
    assert [cycle.n for cycle in store.cycles.latest()] == [3, 2, 1]
    assert [cycle.n for cycle in store.cycles.latest(1)] == [3]
    second = store.cycles.get(2)
    assert second is not None
    assert (second.state, second.parent, second.documents) == ("rejected", 1, [2])
    assert (second.reasons, second.report) == (
        (Reason("", "because"),),
        CycleReport(2, "rejected", 0),
    )
    assert second.settings == {"rank": 4}
    assert second.ended_at is not None
    assert second.ended_at >= second.started_at
    running = store.cycles.get(3)
    assert running is not None
    assert (running.report, running.reasons, running.ended_at) == (None, (), None)
    assert store.cycles.running() == [3]
    assert store.cycles.last() == 3
    assert store.cycles.get(4) is None


# When to begin anew ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cycles", "since"),
    [
        ([], 0),
        ([("learn", "published")] * 3, 3),
        ([("learn", "published"), ("learn", "rejected"), ("learn", "failed")], 1),
        ([("learn", "published"), ("consolidate", "published")], 0),
        ([("learn", "published"), ("consolidate", "rejected"), ("learn", "published")], 1),
        ([("learn", "published"), ("consolidate", "failed")], 0),
        ([("learn", "published"), ("consolidate", "interrupted")], 1),
        ([("learn", "published"), ("forget", "published"), ("learn", "published")], 1),
    ],
)
def test_cycles_since_the_adapter_was_trained_anew(
    store: LearnerStore, cycles: list[tuple[Kind, CycleState]], since: int
) -> None:
    for n, (kind, outcome) in enumerate(cycles, start=1):
        store.cycles.begin(n, None, {}, kind)
        store.cycles.finish(n, outcome, (), {})
    assert store.cycles.published_since_consolidation() == since


@pytest.mark.parametrize(
    ("cycles", "count"),
    [
        ([], 0),
        ([("learn", "rejected", "general: x"), ("learn", "rejected", "kept: x")], 2),
        ([("learn", "rejected", "chat: x"), ("learn", "published", "")], 0),
        ([("learn", "rejected", "chat: x"), ("learn", "rejected", "learned: x")], 0),
        ([("learn", "rejected", "chat: x"), ("learn", "interrupted", "cut off")], 1),
        ([("learn", "rejected", "kept: x"), ("consolidate", "rejected", "general: x")], 0),
    ],
)
def test_cycles_refused_in_a_row_for_what_has_worn(
    store: LearnerStore, cycles: list[tuple[Kind, CycleState, str]], count: int
) -> None:
    for n, (kind, outcome, reason) in enumerate(cycles, start=1):
        store.cycles.begin(n, None, {}, kind)
        reasons = reasons_from_json([reason])  # as versions before wrote them
        store.cycles.finish(n, outcome, reasons, {})
    assert store.cycles.refused_in_a_row() == count


def test_the_rise_in_general_text_is_that_of_the_latest_published_cycle(
    store: LearnerStore,
) -> None:
    assert store.cycles.latest_rise() is None
    store.documents.add(document(1))
    outcomes: tuple[CycleState, ...] = ("published", "published", "rejected")
    for n, outcome in enumerate(outcomes, start=1):
        answered(store, n, -1.0, outcome)
    assert store.cycles.latest_rise() == 0.02
    some = figures(1, 2)
    unknown = replace(some, general=replace(some.general, rise=None))
    for n, found in ((4, None), (5, unknown)):
        store.cycles.begin(n, None, {})
        report = CycleReport(n, "published", 0, figures=found)
        store.cycles.finish(n, "published", (), report)
        assert store.cycles.latest_rise() is None


def test_reports_of_a_home_from_before_are_read_whole(tmp_path: Path) -> None:
    """As 2790bd5 stored them: figures among the other keys, reasons as texts, λ by its letter."""
    with sqlite3.connect(tmp_path / "learner.db") as db:
        db.executescript((Path(__file__).parent / "home_before_facts.sql").read_text())
    store = LearnerStore(tmp_path / "learner.db")
    second, first = (cycle.report for cycle in store.cycles.latest())
    assert first is not None
    assert second is not None
    assert first.figures is not None
    assert second.figures is not None
    assert (second.figures.taught, second.figures.kept) == (Count(7, 7, 0), Count(7, 7, 7))
    assert (second.step, second.looks[-1].figures) == (1.0, second.figures)
    assert {rule.rule for rule in second.rules} == {"learned", "general", "kept", "chat"}
    assert all(look.rules for look in second.looks)
    assert len(second.probes) > len(first.probes) > 20
    assert store.cycles.latest_rise() == pytest.approx(second.figures.general.rise)
    store.close()
