"""The cycle's decisions and its ledger, around a study that says what a test tells it to."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from autodidact import checkpoints, cycle, hub, sources
from autodidact.cycle import Learner
from autodidact.errors import ResourceError, SourceError, SourceUnreachable
from autodidact.store.learner import LearnerStore
from autodidact.types import Document
from tests import fake_study
from tests.versions import BASE_SHA, one_line, publish
from tests.workplace import TEXTS, Workplace, prepare, wait_for


class Bench:
    """A home with a learner in it; `restart` is what happens after a kill."""

    def __init__(self, place: Workplace) -> None:
        self.place = place
        self.home = place.home
        self.events: list[dict[str, Any]] = []
        checkpoints.prepare_home(self.home)
        self.restart()

    def restart(self, **sections: Any) -> Learner:
        settings = self.place.settings(**sections)
        self.store = LearnerStore(self.home / "learner.db")
        base = hub.Base("tiny", self.place.folder / "model", "folder", "", BASE_SHA, "")
        self.learner = Learner(
            settings, self.store, sources.build(settings.sources), base, self.events.append, 0
        )
        return self.learner

    def states(self) -> dict[str, str]:
        """Titles and states of all documents, superseded ones left out."""
        states = ("queued", "studying", "learned", "given_up", "unusable")
        return {d.document.title: s for s in states for d in self.store.documents(s)}

    def script(self, *steps: list[str]) -> None:
        fake_study.script(self.place.folder, *steps)

    def cycle(self, number: int) -> dict[str, Any]:
        found = self.store.cycle(number)
        assert found is not None
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "model").mkdir()
    fake_study.install(tmp_path, monkeypatch)
    return Bench(prepare(tmp_path, tmp_path / "model"))


def learn(bench: Bench) -> dict[str, Any]:
    report = bench.learner.learn()
    assert report is not None
    return report


# Fetch ------------------------------------------------------------------------------------------


def test_fetching_queues_what_is_new_and_nothing_twice(bench: Bench) -> None:
    assert bench.learner.fetch() == 4
    assert set(bench.states().values()) == {"queued"}
    assert bench.learner.fetch() == 0
    assert bench.restart().fetch() == 0
    source = bench.store.source("files:notes")
    assert source.documents == 4
    assert source.error == ""
    assert source.last_at is not None


def test_a_text_too_short_is_refused_and_the_others_come(bench: Bench) -> None:
    bench.place.write({"short": ("Short", "Too few words.")})
    assert bench.learner.fetch() == 4


class QueueSource:
    """Yields documents, raises what is no document."""

    name = "queue"

    def __init__(self, *items: Document | Exception) -> None:
        self.items = list(items)
        self.asked: list[str | None] = []

    def documents(self, since: str | None) -> Any:
        self.asked.append(since)
        while self.items:
            item = self.items.pop(0)
            if isinstance(item, Exception):
                raise item
            yield item


def with_source(bench: Bench, source: QueueSource) -> Learner:
    settings = bench.learner.settings
    base = hub.Base("tiny", bench.place.folder, "folder", "", BASE_SHA, "")
    return Learner(settings, bench.store, [source], base, bench.events.append, 0)


def note(number: int, cursor: str) -> Document:
    title, text = list(TEXTS.values())[number]
    return Document("queue", f"note/{number}", title, text, "", "", cursor)


@pytest.mark.parametrize("error", [SourceError("no such page"), SourceUnreachable("no answer")])
def test_a_source_that_fails_is_recorded_and_what_it_gave_before_is_kept(
    bench: Bench, error: SourceError
) -> None:
    source = QueueSource(note(0, "c0"), note(1, "c1"), error)
    learner = with_source(bench, source)
    assert learner.fetch() == 2
    state = bench.store.source("queue")
    assert state.error == str(error)
    assert state.cursor == "c1"
    assert state.next_at is not None
    assert learner.fetch() == 0, "it is not due yet"
    assert len(source.asked) == 1


def test_a_source_goes_on_from_its_cursor(bench: Bench) -> None:
    source = QueueSource(note(0, "c0"))
    with_source(bench, source).fetch()
    source.items.append(note(1, "c1"))
    with_source(bench, source).fetch()
    assert source.asked == [None, "c0"]


def test_fetching_ends_when_the_learner_stops(bench: Bench) -> None:
    learner = with_source(bench, QueueSource(note(0, "c0")))
    learner.stopping.set()
    assert learner.fetch() == 0


# Learn ------------------------------------------------------------------------------------------


def test_with_nothing_queued_there_is_nothing_to_learn(bench: Bench) -> None:
    assert bench.learner.learn() is None
    assert bench.store.cycles() == []


def test_a_cycle_that_learned_is_published(bench: Bench) -> None:
    bench.learner.fetch()
    report = learn(bench)
    assert report["state"] == "published"
    assert report["ok"] is True
    assert checkpoints.current(bench.home) == 1
    assert checkpoints.verify(bench.home, 1, BASE_SHA).weights == b"weights of cycle 1"
    assert set(bench.states().values()) == {"learned"}
    assert bench.cycle(1)["state"] == "published"
    assert bench.cycle(1)["report"] == report
    assert list((bench.home / ".staging").iterdir()) == []
    assert bench.learner.learn() is None, "everything is learned"


def test_the_manifest_tells_the_page_what_was_learned(bench: Bench) -> None:
    bench.learner.fetch()
    learn(bench)
    manifest = checkpoints.read(bench.home, 1).manifest
    assert manifest["document_ids"] == [1, 2, 3, 4]
    assert manifest["base"]["sha256"] == BASE_SHA
    assert manifest["settings"]["rank"] == 8
    report = manifest["report"]
    assert {"cycle", "ok", "version", "parent", "learned", "control", "general", "documents",
            "suggestions", "seconds"} <= report.keys()  # fmt: skip
    assert (report["cycle"], report["version"], report["parent"]) == (1, 1, None)
    assert report["ok"] is True
    assert set(report["learned"]) == {"k", "n", "before"}
    assert report["learned"]["k"] == report["learned"]["n"] > 10
    assert report["learned"]["before"] == report["control"]["k"] == 0
    assert isinstance(report["general"]["pct"], float)
    titles = [title for title, _ in TEXTS.values()]
    assert sorted(d["title"] for d in report["documents"]) == sorted(titles)
    assert 1 <= len(report["suggestions"]) <= 3
    assert set(report["suggestions"][0]) == {"question", "source"}
    assert "probes" not in report, "the whole list is in report.json"
    whole = json.loads((checkpoints.folder(bench.home, 1) / "report.json").read_text())
    assert {p["split"] for p in whole["probes"]} == {"taught", "control"}


def test_suggestions_are_neither_trained_nor_measured(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script([*fake_study.GOOD[:-1], f"wait:{bench.place.folder / 'go'}", "done"])
    runner = threading.Thread(target=bench.learner.learn)
    runner.start()
    path = checkpoints.staging(bench.home, 1) / "job.json"
    wait_for(path.exists, 30, "the job")
    job = json.loads(path.read_text())
    (bench.place.folder / "go").touch()
    runner.join()
    taught = {
        message["content"]
        for offered in job["documents"]
        for example in offered["examples"]
        for message in example["messages"]
    }
    measured = {probe["question"] for probe in job["probes"]}
    suggested = {s["question"] for s in bench.cycle(1)["report"]["suggestions"]}
    assert suggested
    assert not suggested & (taught | measured)


def test_probes_are_frozen_before_the_study_begins(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(["exit:1"])
    learn(bench)
    frozen = bench.store.probes([1, 2, 3, 4])
    assert {probe.document_id for probe in frozen} == {1, 2, 3, 4}
    assert {probe.split for probe in frozen} == {"taught"}


def test_a_cycle_that_learned_nothing_is_rejected_with_reasons(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(fake_study.NOTHING_LEARNED)
    report = learn(bench)
    assert report["state"] == "rejected"
    assert report["ok"] is False
    assert report["reasons"][0].startswith("learned: ")
    assert checkpoints.current(bench.home) == 0
    assert checkpoints.versions(bench.home) == []
    assert bench.cycle(1)["reasons"] == report["reasons"]
    assert set(bench.states().values()) == {"queued"}
    assert {d.tries for d in bench.store.documents("queued")} == {1}


def test_a_document_rejected_three_times_is_given_up(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(*[fake_study.NOTHING_LEARNED] * 3)
    for _ in range(3):
        learn(bench)
    assert set(bench.states().values()) == {"given_up"}
    assert bench.learner.learn() is None


def test_a_study_that_fails_is_recorded_and_costs_no_try(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(["plan", "warn:MemoryError", "exit:1"])
    report = learn(bench)
    assert report["state"] == "failed"
    assert report["reasons"] == ["the study process ended with exit code 1: MemoryError"]
    assert {d.tries for d in bench.store.documents("queued")} == {0}
    assert learn(bench)["state"] == "published"
    assert checkpoints.current(bench.home) == 2


def test_the_next_cycle_builds_on_the_last_and_asks_what_was_taught(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    learn(bench)
    report = learn(bench)
    assert (report["version"], report["parent"]) == (2, 1)
    assert report["kept"]["n"] > 5
    assert checkpoints.read(bench.home, 2).parent == 1
    assert bench.cycle(1)["documents"] == [1, 2]
    assert bench.cycle(2)["documents"] == [3, 4]
    frozen = {probe.id: probe for probe in bench.store.probes([1, 2])}
    kept = {row["probe_id"] for row in bench.store.results(2) if row["split"] == "kept"}
    assert kept == frozen.keys(), "with the very probes that were frozen then"


def test_retention_follows_the_setting(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 1}, keep_versions=2)
    bench.learner.fetch()
    for _ in range(4):
        learn(bench)
    assert checkpoints.versions(bench.home) == [3, 4]


def test_a_document_without_a_fact_is_put_aside(bench: Bench) -> None:
    words = "mumbling and humming go on and on until nobody in the room can follow any longer "
    bench.place.write({"dull": ("Dull", words * 2)})
    bench.learner.fetch()
    learn(bench)
    assert bench.states()["Dull"] == "unusable"
    assert bench.states()["Brack Mill"] == "learned"


def test_without_a_control_folder_the_queue_lends_its_documents(bench: Bench) -> None:
    notes = {
        "control": None,
        "files": [bench.place.folder / "notes"],
        "wikipedia": {"enabled": False},
    }
    bench.restart(sources=notes, training={"documents_per_cycle": 2})
    bench.learner.fetch()
    report = learn(bench)
    assert report["control"]["n"] > 0
    control = {
        r["probe_id"].split("-")[0] for r in bench.store.results(1) if r["split"] == "control"
    }
    assert control == {"3", "4"}


def test_the_settings_of_a_cycle_are_in_the_ledger(bench: Bench) -> None:
    bench.learner.fetch()
    learn(bench)
    assert bench.cycle(1)["settings"] == bench.learner.settings.training.model_dump()


def test_every_report_can_be_read_by_a_browser(bench: Bench) -> None:
    """JSON knows no Infinity: a single probe has no standard error."""
    for path in (bench.place.folder / "notes").glob("*.md"):
        path.unlink()
    text = "Odd Gate is known. " + "Nothing more can be told of it than was told before. " * 3
    bench.place.write({"one": ("Odd Gate", f"Odd Gate has 17 bars. {text}")})
    bench.learner.fetch()
    learn(bench)
    stored = bench.cycle(1)["report"]
    assert stored["learned"]["n"] == 1
    json.dumps(stored, allow_nan=False)


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
    assert bench.store.running() == [1]
    bench.restart().recover()
    assert state.exists()
    report = learn(bench)
    assert (report["cycle"], report["state"]) == (1, "published")
    assert [c for c, _ in fake_study.started(bench.place.folder)] == [1, 1]


def test_a_cycle_whose_job_is_gone_is_closed_and_its_documents_queue_again(bench: Bench) -> None:
    bench.learner.fetch()
    bench.store.begin_cycle(1, None, {})
    bench.store.study(1, [1, 2])
    bench.restart().recover()
    assert bench.cycle(1)["state"] == "interrupted"
    assert set(bench.states().values()) == {"queued"}
    assert learn(bench)["cycle"] == 2


def test_a_rollback_while_a_cycle_runs_publishes_nothing(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    learn(bench)
    bench.script([*fake_study.GOOD[:-1], "save:9", f"wait:{bench.place.folder / 'go'}", "done"])
    seen: list[dict[str, Any]] = []
    runner = threading.Thread(target=lambda: seen.append(learn(bench)))
    runner.start()
    wait_for((checkpoints.staging(bench.home, 2) / "resume").exists, 30, "the measurements")
    checkpoints.roll_back(bench.home)
    (bench.place.folder / "go").touch()
    runner.join()
    assert seen[0]["state"] == "interrupted"
    assert "rolled back" in seen[0]["reasons"][0]
    assert checkpoints.current(bench.home) == 0
    assert checkpoints.versions(bench.home) == [1]
    assert {bench.states()[d.document.title] for d in bench.store.documents("queued")} == {"queued"}
    assert [d.id for d in bench.store.documents("queued")] == [3, 4]
    assert {d.tries for d in bench.store.documents("queued")} == {0}


def test_a_job_made_from_a_version_rolled_back_is_not_resumed(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    learn(bench)
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
    assert bench.cycle(2)["state"] == "interrupted"
    assert not state.exists()
    assert [d.id for d in bench.store.documents("queued")] == [3, 4]


def request_rollback(home: Path, to: int) -> None:
    """What `python -m autodidact rollback` leaves."""
    checkpoints.roll_back(home, to)
    (home / "inbox" / "rollback-1.json").write_text(json.dumps({"do": "rollback", "to": to}))


def test_what_was_taught_after_the_version_rolled_back_to_is_queued_again(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    learn(bench)
    learn(bench)
    request_rollback(bench.home, 1)
    report = learn(bench)
    assert (report["cycle"], report["parent"]) == (3, 1)
    assert bench.cycle(3)["documents"] == [3, 4]
    assert set(bench.states().values()) == {"learned"}
    assert list((bench.home / "inbox").iterdir()) == []


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
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "point", killed)
        bench.learner.learn()
    assert checkpoints.current(bench.home) == 0
    bench.restart().recover()
    assert checkpoints.current(bench.home) == 1
    assert set(bench.states().values()) == {"learned"}
    report = bench.cycle(1)["report"]
    assert report["learned"]["k"] > 10
    assert "published 000001" in cycle.line(report), "the command line shows it"
    assert bench.learner.learn() is None


def test_a_rollback_after_the_kill_is_not_undone_at_the_next_start(bench: Bench) -> None:
    """Killed after the pointer moved and before the ledger was written; then rolled back."""
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    learn(bench)
    bench.store.begin_cycle(2, 1, {})
    bench.store.study(2, [3, 4])
    publish(bench.home, 2, 1)
    request_rollback(bench.home, 1)
    bench.restart().recover()
    assert checkpoints.current(bench.home) == 1
    assert [d.id for d in bench.store.documents("queued")] == [3, 4]


# Short of disk ----------------------------------------------------------------------------------


def test_below_the_low_water_mark_no_cycle_begins(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.learner.fetch()
    monkeypatch.setattr(checkpoints, "free_bytes", lambda home: 300 * 2**20)
    with pytest.raises(ResourceError) as caught:
        bench.learner.learn()
    assert one_line(caught.value).endswith("need 0.5 GiB, have 0.3")
    assert bench.store.cycles() == []


def test_a_disk_that_fills_up_while_publishing_fails_the_cycle(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.learner.fetch()
    real = os.rename

    def full(source: Any, target: Any) -> None:
        if Path(target).parent.name == "versions":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", full)
    report = learn(bench)
    assert report["state"] == "failed"
    assert report["ok"] is False
    assert "the disk is full" in report["reasons"][0]
    assert checkpoints.versions(bench.home) == []
    assert set(bench.states().values()) == {"queued"}
    monkeypatch.undo()
    fake_study.install(bench.place.folder, monkeypatch)
    assert learn(bench)["state"] == "published"


# One line for the terminal ----------------------------------------------------------------------


def test_a_cycle_on_one_line(bench: Bench) -> None:
    bench.learner.fetch()
    shown = cycle.line(learn(bench))
    n = bench.cycle(1)["report"]["learned"]["n"]
    assert shown.startswith(f"cycle 1 · 4 documents · learned {n}/{n} (before 0) · general +0.3 %")
    assert "published 000001" in shown


def test_a_rejected_cycle_on_one_line(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(fake_study.NOTHING_LEARNED)
    shown = cycle.line(learn(bench))
    assert "rejected: learned: margin" in shown
