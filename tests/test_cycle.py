"""The cycle's decisions and its ledger, around a study that says what a test tells it to."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from autodidact import checkpoints, cycle, hub
from autodidact.cycle import Learner
from autodidact.errors import SourceError, SourceUnreachable
from autodidact.types import Document
from tests import fake_study
from tests.bench import Bench
from tests.versions import BASE_SHA
from tests.workplace import TEXTS, wait_for

pytest_plugins = ["tests.core_fixtures"]

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
    report = bench.learn()
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
    bench.learn()
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
    bench.learn()
    frozen = bench.store.probes([1, 2, 3, 4])
    assert {probe.document_id for probe in frozen} == {1, 2, 3, 4}
    assert {probe.split for probe in frozen} == {"taught"}


def test_a_cycle_that_learned_nothing_is_rejected_with_reasons(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(fake_study.NOTHING_LEARNED)
    report = bench.learn()
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
        bench.learn()
    assert set(bench.states().values()) == {"given_up"}
    assert bench.learner.learn() is None


def test_a_study_that_fails_is_recorded_with_what_it_said(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(["plan", "warn:Traceback …", "warn:MemoryError", "exit:1"])
    report = bench.learn()
    assert report["state"] == "failed"
    assert report["reasons"] == ["the study process ended with exit code 1: MemoryError"]
    assert report["log"] == ["Traceback …", "MemoryError"]
    assert {d.tries for d in bench.store.documents("queued")} == {1}
    assert bench.learn()["state"] == "published"
    assert checkpoints.current(bench.home) == 2


def test_documents_that_make_the_study_fail_are_given_up_in_the_end(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(*[["plan", "exit:1"]] * 3)
    for _ in range(3):
        bench.learn()
    assert set(bench.states().values()) == {"given_up"}


def test_the_next_cycle_builds_on_the_last_and_asks_what_was_taught(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    report = bench.learn()
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
        bench.learn()
    assert checkpoints.versions(bench.home) == [3, 4]


def test_a_document_without_a_fact_is_put_aside(bench: Bench) -> None:
    words = "mumbling and humming go on and on until nobody in the room can follow any longer "
    bench.place.write({"dull": ("Dull", words * 2)})
    bench.learner.fetch()
    bench.learn()
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
    report = bench.learn()
    assert report["control"]["n"] > 0
    control = {
        r["probe_id"].split("-")[0] for r in bench.store.results(1) if r["split"] == "control"
    }
    assert control == {"3", "4"}


def test_the_settings_of_a_cycle_are_in_the_ledger(bench: Bench) -> None:
    bench.learner.fetch()
    bench.learn()
    assert bench.cycle(1)["settings"] == bench.learner.settings.training.model_dump()


def test_every_report_can_be_read_by_a_browser(bench: Bench) -> None:
    """JSON knows no Infinity: a single probe has no standard error."""
    for path in (bench.place.folder / "notes").glob("*.md"):
        path.unlink()
    text = "Odd Gate is known. " + "Nothing more can be told of it than was told before. " * 3
    bench.place.write({"one": ("Odd Gate", f"Odd Gate has 17 bars. {text}")})
    bench.learner.fetch()
    bench.learn()
    stored = bench.cycle(1)["report"]
    assert stored["learned"]["n"] == 1
    json.dumps(stored, allow_nan=False)


# One line for the terminal ----------------------------------------------------------------------


def test_a_cycle_on_one_line(bench: Bench) -> None:
    bench.learner.fetch()
    shown = cycle.line(bench.learn())
    n = bench.cycle(1)["report"]["learned"]["n"]
    assert shown.startswith(f"cycle 1 · 4 documents · learned {n}/{n} (before 0) · general +0.3 %")
    assert "published 000001" in shown


def test_a_rejected_cycle_on_one_line(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(fake_study.NOTHING_LEARNED)
    shown = cycle.line(bench.learn())
    assert "rejected: learned: margin" in shown
