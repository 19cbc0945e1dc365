"""Stops, kills, rollbacks, a full disk: nothing is lost and nothing is learned twice."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from autodidact import checkpoints
from autodidact.checkpoints import publication
from autodidact.errors import ResourceError
from autodidact.learning import cycle
from autodidact.reports import prose
from autodidact.types.report import CycleReport
from tests import fake_study
from tests.bench import Bench
from tests.versions import one_line, publish
from tests.workplace import wait_for

pytest_plugins = ["tests.core_fixtures"]

# Stops, kills, rollbacks ------------------------------------------------------------------------


def test_a_stopped_cycle_goes_on_at_the_next_start(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(["plan", "save:5", "heed"])
    state = checkpoints.staging(bench.home, 1) / "resume" / "state.json"
    stopper = threading.Thread(
        target=lambda: (wait_for(state.exists, 30, "the state"), bench.learner.stopping.set())
    )
    stopper.start()
    assert bench.learner.learn() is None
    stopper.join()
    assert set(bench.states().values()) == {"studying"}
    assert bench.store.cycles.running() == [1]
    bench.restart().recover()
    assert state.exists()
    report = bench.learn()
    assert (report.cycle, report.state) == (1, "published")
    assert [c for c, _ in fake_study.started(bench.place.folder)] == [1, 1]


def test_a_cycle_whose_job_is_gone_is_closed_and_its_documents_queue_again(bench: Bench) -> None:
    bench.learner.fetch()
    bench.store.cycles.begin(1, None, {})
    bench.store.cycles.study(1, [1, 2])
    bench.restart().recover()
    assert bench.cycle(1).state == "interrupted"
    assert set(bench.states().values()) == {"queued"}
    assert bench.learn().cycle == 2


def test_a_job_that_an_older_version_wrote_counts_as_cut_off(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.learner.fetch()
    bench.store.cycles.begin(1, None, {})
    bench.store.cycles.study(1, [1, 2])
    staging = checkpoints.staging(bench.home, 1)
    staging.mkdir()
    (staging / "job.json").write_text('{"cycle": 1, "kind": "learn", "documents": []}')
    bench.restart().recover()
    assert bench.cycle(1).state == "interrupted"
    assert set(bench.states().values()) == {"queued"}
    assert "cycle 1 cannot go on: job.json: " in caplog.text
    assert bench.learn().cycle == 2


def test_a_rollback_while_a_cycle_runs_publishes_nothing(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.script([*fake_study.GOOD[:-1], "save:9", f"wait:{bench.place.folder / 'go'}", "done"])
    seen: list[CycleReport] = []
    runner = threading.Thread(target=lambda: seen.append(bench.learn()))
    runner.start()
    wait_for((checkpoints.staging(bench.home, 2) / "resume").exists, 30, "the measurements")
    checkpoints.roll_back(bench.home)
    (bench.place.folder / "go").touch()
    runner.join()
    assert seen[0].state == "interrupted"
    assert "rolled back" in seen[0].reasons[0].text
    assert checkpoints.current(bench.home) == 0
    assert checkpoints.versions(bench.home) == [1]
    queued = bench.store.documents.in_state("queued")
    assert {bench.states()[d.document.title] for d in queued} == {"queued"}
    assert [d.id for d in queued] == [3, 4]
    assert {d.tries for d in queued} == {0}


def test_a_job_made_from_a_version_rolled_back_is_not_resumed(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.script(["plan", "save:5", "heed"])
    state = checkpoints.staging(bench.home, 2) / "resume" / "state.json"
    stopper = threading.Thread(
        target=lambda: (wait_for(state.exists, 30, "the state"), bench.learner.stopping.set())
    )
    stopper.start()
    assert bench.learner.learn() is None
    stopper.join()
    checkpoints.roll_back(bench.home)
    bench.restart().recover()
    assert bench.cycle(2).state == "interrupted"
    assert not state.exists()
    assert [d.id for d in bench.store.documents.in_state("queued")] == [3, 4]


def request_rollback(home: Path, to: int) -> None:
    """What `python -m autodidact rollback` leaves."""
    checkpoints.roll_back(home, to)
    (home / "inbox" / "rollback-1.json").write_text(json.dumps({"do": "rollback", "to": to}))


def test_what_was_taught_after_the_version_rolled_back_to_is_queued_again(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.learn()
    request_rollback(bench.home, 1)
    report = bench.learn()
    assert (report.cycle, report.parent) == (3, 1)
    assert bench.cycle(3).documents == [3, 4]
    assert set(bench.states().values()) == {"learned"}
    assert list((bench.home / "inbox").iterdir()) == []


def test_a_rollback_that_was_taken_back_teaches_nothing_twice(bench: Bench) -> None:
    bench.learner.fetch()
    bench.learn()
    request_rollback(bench.home, 0)
    (bench.home / "inbox" / "rollback-1.json").rename(bench.home / "inbox" / "rollback-0.json")
    request_rollback(bench.home, 1)
    assert bench.learner.learn() is None
    assert set(bench.states().values()) == {"learned"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"do": "format"}', '{"do": "rollback"}', "1"])
def test_a_request_that_is_not_understood_is_dropped(bench: Bench, text: str) -> None:
    (bench.home / "inbox" / "x.json").write_text(text)
    assert bench.learner.learn() is None
    assert list((bench.home / "inbox").iterdir()) == []


class Killed(BaseException):
    """Nothing of ours catches it."""


def test_a_version_published_before_the_kill_is_recorded_as_published(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(home: Path, version: int) -> None:
        raise Killed

    bench.learner.fetch()
    with monkeypatch.context() as patch:
        patch.setattr(publication, "point", killed)
        with pytest.raises(Killed):
            bench.learner.learn()
    assert checkpoints.current(bench.home) == 0
    bench.restart().recover()
    assert checkpoints.current(bench.home) == 1
    assert set(bench.states().values()) == {"learned"}
    report = bench.cycle(1).report
    assert report.figures.taught.k > 10
    assert "published 000001" in prose.line(report), "the command line shows it"
    assert bench.learner.learn() is None


def test_a_rollback_after_the_kill_is_not_undone_at_the_next_start(bench: Bench) -> None:
    """Killed after the pointer moved and before the ledger was written; then rolled back."""
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.store.cycles.begin(2, 1, {})
    bench.store.cycles.study(2, [3, 4])
    publish(bench.home, 2, 1)
    request_rollback(bench.home, 1)
    bench.restart().recover()
    assert checkpoints.current(bench.home) == 1
    assert [d.id for d in bench.store.documents.in_state("queued")] == [3, 4]


# Short of disk ----------------------------------------------------------------------------------


def test_below_the_low_water_mark_no_cycle_begins(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.learner.fetch()
    monkeypatch.setattr(cycle, "free_bytes", lambda home: 300 * 2**20)
    with pytest.raises(ResourceError) as caught:
        bench.learner.learn()
    assert one_line(caught.value).endswith("need 0.5 GiB, have 0.3")
    assert bench.store.cycles.latest() == []


def test_a_disk_that_fills_up_while_publishing_costs_the_documents_no_try(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.learner.fetch()
    real = os.rename

    def full(source: Any, target: Any) -> None:
        if Path(target).parent.name == "versions":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", full)
    report = bench.learn()
    assert report.state == "interrupted"
    assert report.ok is False
    assert "the disk is full" in report.reasons[0].text
    assert {stored.tries for stored in bench.store.documents.in_state("queued")} == {0}
    assert checkpoints.versions(bench.home) == []
    assert set(bench.states().values()) == {"queued"}
    monkeypatch.undo()
    fake_study.install(bench.place.folder, monkeypatch)
    assert bench.learn().state == "published"


def test_a_disk_that_is_full_after_publishing_teaches_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same learner goes on once there is room: no start in between puts things right."""

    def full(*_: Any) -> None:
        raise ResourceError("learner.db: the disk is full")

    bench.learner.fetch()
    with monkeypatch.context() as patch:
        patch.setattr(bench.store.cycles, "finish", full)
        with pytest.raises(ResourceError):
            bench.learner.learn()
    assert checkpoints.current(bench.home) == 1
    assert bench.store.cycles.running() == [1]
    assert bench.learner.learn() is None
    assert bench.cycle(1).state == "published"
    assert bench.cycle(1).report.probes, "with every answer"
    assert set(bench.states().values()) == {"learned"}


def test_a_disk_that_is_full_while_a_cycle_begins_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise ResourceError("learner.db: the disk is full")

    bench.learner.fetch()
    with monkeypatch.context() as patch:
        patch.setattr(bench.store.probes, "freeze", full)
        with pytest.raises(ResourceError):
            bench.learner.learn()
    assert bench.store.cycles.running() == [1], "begun, without a job"
    assert bench.learn().cycle == 2
    assert bench.cycle(1).state == "interrupted"
    assert {stored.tries for stored in bench.store.documents.in_state("learned")} == {0}
