"""The cycle's decisions and its ledger, around a study that says what a test tells it to."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autodidact import checkpoints, inbox
from autodidact.commands.app import app
from autodidact.errors import BaseUnfit, CheckpointError, SourceError, SourceUnreachable
from autodidact.learning import cycle
from autodidact.learning.cycle import Learner
from autodidact.models import bases
from autodidact.reports import prose
from autodidact.store.passages import PassageIndex
from autodidact.types.cycle import Reason
from autodidact.types.documents import Document
from autodidact.types.report import report_of
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
    source = bench.store.sources.get("files:notes")
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
    base = bases.Base("tiny", bench.place.folder, "folder", "", BASE_SHA, "")
    return Learner(settings, bench.store, [source], base, bench.hear, 0)


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
    state = bench.store.sources.get("queue")
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
    assert bench.store.cycles.latest() == []


def test_a_cycle_that_learned_is_published(bench: Bench) -> None:
    bench.learner.fetch()
    report = bench.learn()
    assert report.state == "published"
    assert report.ok is True
    assert checkpoints.current(bench.home) == 1
    assert checkpoints.verify(bench.home, 1, BASE_SHA).weights == b"weights of cycle 1"
    assert set(bench.states().values()) == {"learned"}
    assert bench.cycle(1).state == "published"
    assert bench.cycle(1).report == report
    assert list((bench.home / ".staging").iterdir()) == []
    assert bench.learner.learn() is None, "everything is learned"


def test_the_manifest_tells_the_page_what_was_learned(bench: Bench) -> None:
    bench.learner.fetch()
    bench.learn()
    manifest = checkpoints.read(bench.home, 1).manifest
    assert manifest["document_ids"] == [1, 2, 3, 4]
    assert manifest["base"]["sha256"] == BASE_SHA
    assert manifest["settings"]["rank"] == 8
    report = report_of(manifest)
    assert (report.cycle, report.state, report.parent) == (1, "published", None)
    assert report.ok is True
    assert report.figures.taught.k == report.figures.taught.n > 10
    assert report.figures.taught.before == report.figures.control.k == 0
    assert isinstance(report.figures.general.pct, float)
    titles = [title for title, _ in TEXTS.values()]
    assert sorted(d.title for d in report.documents) == sorted(titles)
    assert 1 <= len(report.suggestions) <= 3
    assert all(s.question and s.source for s in report.suggestions)
    assert report.probes == (), "the whole list is in report.json"
    whole = json.loads((checkpoints.folder(bench.home, 1) / "report.json").read_text())
    assert {p["split"] for p in whole["probes"]} == {"taught", "unseen", "control"}


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
        for offered in job["lessons"]
        for example in offered["examples"]
        for message in example["messages"]
    }
    measured = {probe["question"] for probe in job["probes"]}
    suggested = {s.question for s in bench.cycle(1).report.suggestions}
    assert suggested
    assert not suggested & (taught | measured)


def test_probes_are_frozen_before_the_study_begins(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(["exit:1"])
    bench.learn()
    frozen = bench.store.probes.of([1, 2, 3, 4])
    assert {probe.document_id for probe in frozen} == {1, 2, 3, 4}
    assert {probe.split for probe in frozen} == {"taught", "unseen"}


def test_a_cycle_that_learned_nothing_is_rejected_with_reasons(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(fake_study.NOTHING_LEARNED)
    report = bench.learn()
    assert report.state == "rejected"
    assert report.ok is False
    assert report.reasons[0].rule == "learned"
    assert checkpoints.current(bench.home) == 0
    assert checkpoints.versions(bench.home) == []
    assert bench.cycle(1).reasons == report.reasons
    assert bench.cycle(1).report == report, "with every answer"
    assert {row.now.correct for row in report.probes} == {0}
    assert report.failed == ("learned",)
    assert set(bench.states().values()) == {"queued"}
    assert {d.tries for d in bench.store.documents.in_state("queued")} == {1}


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
    assert report.state == "failed"
    assert report.reasons == (Reason("", "the study process ended with exit code 1: MemoryError"),)
    assert report.log == ("Traceback …", "MemoryError")
    assert (report.kind, report.failed) == ("learn", ())
    assert {d.tries for d in bench.store.documents.in_state("queued")} == {1}
    assert bench.learn().state == "published"
    assert checkpoints.current(bench.home) == 2


def test_documents_that_make_the_study_fail_are_given_up_in_the_end(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(*[["plan", "exit:1"]] * 3)
    for _ in range(3):
        bench.learn()
    assert set(bench.states().values()) == {"given_up"}


# A study that has too little memory --------------------------------------------------------------

STARVED = ["plan", "kill"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle, "MEMORY_PAUSE_S", 0.0)


def halvings(bench: Bench, seen: Path) -> int:
    return int(json.loads(seen.read_text())["halvings"])


@pytest.mark.usefixtures("at_once")
def test_a_study_that_is_killed_goes_on_with_half_as_much_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    seen = bench.place.folder / "seen"
    bench.learner.fetch()
    bench.script(STARVED, [f"copy:{seen}", *fake_study.GOOD])
    report = bench.learn()
    assert (report.cycle, report.state) == (1, "published")
    assert halvings(bench, seen) == 1
    assert "was killed (signal 9), as the system does where memory runs out" in caplog.text
    assert "it goes on with half as much at once" in caplog.text
    assert {d.tries for d in bench.store.documents.in_state("learned")} == {0}


@pytest.mark.usefixtures("at_once")
def test_documents_of_a_study_without_memory_are_not_given_up(bench: Bench) -> None:
    """Killed at its smallest too, the cycle ends and says why; no try is counted, however often."""
    bench.learner.fetch()
    seen = bench.place.folder / "seen"
    copied = [f"copy:{seen}"]
    bench.script(*[STARVED] * 4, *[copied + STARVED] * 4, copied + fake_study.GOOD)
    for number in range(1, 6):
        report = bench.learn()
        assert (report.cycle, report.state) == (number, "interrupted")
        assert report.starved
        assert "memory: the study process was killed" in report.reasons[0].line
        assert number == 1 or halvings(bench, seen) == 3, "it begins as small as it was"
        assert set(bench.states().values()) == {"queued"}
        assert {d.tries for d in bench.store.documents.in_state("queued")} == {0}
    assert bench.learn().state == "published"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("kind", ["forget", "consolidate"])
def test_relearning_without_memory_fails_and_does_not_go_on_for_ever(
    bench: Bench, kind: str
) -> None:
    """Forgetting ends with the untouched base; a consolidation gives way to what is queued."""
    every = {"consolidate_every": 1} if kind == "consolidate" else {}
    bench.restart(training={"documents_per_cycle": 2, **every})
    bench.learner.fetch()
    bench.learn()
    if kind == "forget":
        inbox.leave(bench.home, inbox.Forget((1,)))
    fake_study.always(bench.place.folder, kind, STARVED)
    found = [bench.learn() for _ in range(3)]
    assert found[0].kind == kind
    assert found[0].state == "failed"
    assert found[0].starved
    if kind == "forget":
        assert checkpoints.current(bench.home) == 0
        assert bench.store.documents.get(1).state == "forgotten"
    else:
        assert found[1].kind == "learn"
        assert found[1].state == "published"


@pytest.mark.usefixtures("at_once")
def test_started_anew_the_learner_begins_with_whole_batches(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    seen = bench.place.folder / "seen"
    copied = [f"copy:{seen}", *fake_study.GOOD]
    bench.script(STARVED, copied, copied)
    bench.learn()
    assert halvings(bench, seen) == 1
    bench.restart(training={"documents_per_cycle": 2})
    bench.learn()
    assert halvings(bench, seen) == 0


def test_asked_to_stop_while_it_waits_for_memory_the_cycle_goes_on_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.learner.fetch()
    bench.script(STARVED, fake_study.GOOD)
    monkeypatch.setattr(cycle, "MEMORY_PAUSE_S", 60.0)
    threading.Timer(0.5, bench.learner.stopping.set).start()
    assert bench.learner.learn() is None
    bench.restart()
    bench.learner.recover()
    assert bench.learn().state == "published"


@pytest.mark.parametrize("how", ["all of them", "one"])
def test_what_was_given_up_says_why_and_may_be_tried_again(bench: Bench, how: str) -> None:
    bench.learner.fetch()
    bench.script(*[["plan", "warn:ZeroDivisionError", "exit:1"]] * 3)
    for _ in range(3):
        bench.learn()
    config = ["--config", str(bench.place.config)]
    told = CliRunner().invoke(app, ["status", *config])
    why = "the study process ended with exit code 1: ZeroDivisionError"
    assert f"4 given up: {why} (again: python -m autodidact retry)" in told.output
    wanted = ["Brack Mill"] if how == "one" else []
    told = CliRunner().invoke(app, ["retry", *wanted, *config])
    assert told.exit_code == 0, told.output
    assert bench.learn().state == "published"
    assert list(bench.states().values()).count("learned") == (1 if how == "one" else 4)
    assert list(bench.states().values()).count("given_up") == (3 if how == "one" else 0)


def test_there_is_nothing_to_try_again(bench: Bench) -> None:
    bench.learner.fetch()
    config = ["--config", str(bench.place.config)]
    told = CliRunner().invoke(app, ["retry", *config])
    assert str(told.exception) == "no document was given up; see: status"
    told = CliRunner().invoke(app, ["retry", "Brack Mill", *config])
    assert str(told.exception) == "no document of these was given up; see: status"


def test_the_next_cycle_builds_on_the_last_and_asks_what_was_taught(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    report = bench.learn()
    assert (report.cycle, report.parent) == (2, 1)
    assert report.figures.kept.n > 5
    assert checkpoints.read(bench.home, 2).parent == 1
    assert bench.cycle(1).documents == [1, 2]
    assert bench.cycle(2).documents == [3, 4]
    frozen = {probe.id: probe for probe in bench.store.probes.of([1, 2]) if probe.split == "taught"}
    kept = {r.probe_id for r in bench.store.probes.results(2) if r.split == "kept"}
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
    assert report.figures.control.n > 0
    control = {
        r.probe_id.split("-")[0] for r in bench.store.probes.results(1) if r.split == "control"
    }
    assert control == {"3", "4"}
    bench.learn()
    asked = {p.document_id for p in bench.store.probes.of([3, 4]) if p.split == "taught"}
    assert asked == {3, 4}, "what was lent for comparison and is taught now is asked about later"
    assert {fact.document_id for fact in bench.store.probes.remembered()} == {1, 2, 3, 4}


def test_the_settings_of_a_cycle_are_in_the_ledger(bench: Bench) -> None:
    bench.learner.fetch()
    bench.learn()
    assert bench.cycle(1).settings == bench.learner.settings.training.model_dump()


def test_every_report_can_be_read_by_a_browser(bench: Bench) -> None:
    """JSON knows no Infinity: a single probe has no standard error."""
    for path in (bench.place.folder / "notes").glob("*.md"):
        path.unlink()
    text = "Odd Gate is known. " + "Nothing more can be told of it than was told before. " * 3
    bench.place.write({"one": ("Odd Gate", f"Odd Gate has 17 bars. {text}")})
    bench.learner.fetch()
    bench.learn()
    stored = bench.cycle(1).report
    assert stored.figures.taught.n == 1
    json.dumps(asdict(stored), allow_nan=False)


# Looks ------------------------------------------------------------------------------------------

LIMITS = {
    "general_limit": 0.1, "general_step": 0.1, "kept_limit": 0.15, "kept_step": 0.05,
    "chat_limit": 0.05, "chat_step": 0.02,
}  # fmt: skip


def looked(*candidates: dict[str, float]) -> list[str]:
    """A study that measures its candidate at several lengths."""
    measures = [step for c in candidates for step in fake_study.candidate(**c) if "candid" in step]
    return [*fake_study.GOOD[:-2], *measures, "done"]


def test_every_look_is_in_the_report_and_the_last_decides(bench: Bench) -> None:
    bench.restart(gate=LIMITS)
    bench.learner.fetch()
    bench.script(looked({"step": 1.0, "general": 0.3}, {"step": 0.5, "general": 0.05}))
    report = bench.learn()
    assert report.state == "published"
    assert report.step == 0.5
    assert [(look.step, look.ok) for look in report.looks] == [(1.0, False), (0.5, True)]
    assert [reason.rule for reason in report.looks[0].reasons] == ["general"] * 2
    assert report.looks[1].figures.general == report.figures.general
    assert report.figures.general.rise == pytest.approx(0.06)
    assert report.failed == report.reasons == ()
    now = {r.probe_id: r for r in bench.store.probes.results(1) if r.arm == "candidate"}
    assert len(now) == len(report.probes), "the last look's answers, once"
    assert checkpoints.read(bench.home, 1).manifest["settings"]["step"] == 0.5


def test_when_every_look_is_refused_the_last_one_says_why(bench: Bench) -> None:
    bench.restart(gate=LIMITS)
    bench.learner.fetch()
    bench.script(looked(*({"step": s, "general": 0.3, "chat": 0.5 + s / 4} for s in (1, 0.5))))
    report = bench.learn()
    assert report.state == "rejected"
    assert report.failed == ("general", "chat")
    assert report.step == 0.5
    assert [look.ok for look in report.looks] == [False, False]
    assert checkpoints.current(bench.home) == 0


def test_a_damaged_parent_ends_the_learner_with_the_way_back(bench: Bench) -> None:
    """No cycle can mend it, so none is tried again and again; its documents are not to blame."""
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    weights = checkpoints.folder(bench.home, 1) / checkpoints.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:5])
    with pytest.raises(CheckpointError, match="python -m autodidact rollback --to N") as caught:
        bench.learner.learn()
    assert "000001" in str(caught.value)
    assert bench.cycle(2).state == "interrupted"
    assert {d.tries for d in bench.store.documents.in_state("queued")} == {0}
    weights.write_bytes(whole)
    assert bench.learn().state == "published"


def test_what_faded_of_earlier_documents_refuses_a_cycle(bench: Bench) -> None:
    bench.restart(gate=LIMITS, training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    bench.script(fake_study.candidate(kept=1.5))
    report = bench.learn()
    assert (report.state, report.failed) == ("rejected", ("kept",))
    assert [r.against for r in report.rules if not r.ok] == ["parent"]
    assert report.figures.kept.k < report.figures.kept.before == report.figures.kept.n
    assert bench.learn().state == "published"


# What is measured once --------------------------------------------------------------------------


def job_of_the_next_cycle(bench: Bench) -> dict[str, Any]:
    """The job as its study finds it."""
    copy = bench.place.folder / "job-seen"
    bench.script([f"copy:{copy}", *fake_study.GOOD])
    bench.learn()
    found: dict[str, Any] = json.loads(copy.read_text())
    return found


def test_general_text_and_chat_are_measured_once_for_base_and_version(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 1})
    bench.learner.fetch()
    assert job_of_the_next_cycle(bench)["known"] == {}
    known = job_of_the_next_cycle(bench)["known"]
    assert set(known) == {"base", "parent"}
    assert known["base"]["general"][0] == 3.0
    assert known["parent"]["general"][0] == pytest.approx(3.01)
    assert len(known["parent"]["chat"]) == 24


def test_a_version_rolled_back_lends_its_measurements_to_no_other(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 1})
    bench.learner.fetch()
    bench.learn()
    bench.learn()
    checkpoints.roll_back(bench.home, 1)
    assert set(job_of_the_next_cycle(bench)["known"]) == {"base"}


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "{}"])
def test_a_file_of_measurements_that_is_damaged_is_measured_again(bench: Bench, text: str) -> None:
    bench.learner.fetch()
    (bench.home / "measured.json").write_text(text)
    assert job_of_the_next_cycle(bench)["known"] == {}


# Passages ---------------------------------------------------------------------------------------


def test_only_what_is_learned_can_be_looked_up(bench: Bench) -> None:
    bench.restart(training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.script(fake_study.NOTHING_LEARNED)
    bench.learn()
    assert not (bench.home / "passages.db").exists()
    bench.learn()
    assert bench.passages() == {d.id for d in bench.store.documents.in_state("learned")}
    assert len(bench.passages()) == 2
    bench.learn()
    assert bench.passages() == {1, 2, 3, 4}
    found = PassageIndex(bench.home / "passages.db", readonly=True).search("Odo Finn", 3)
    assert [hit.title for hit in found] == ["Brack Mill"]


def test_passages_that_were_lost_are_there_again_after_a_start(bench: Bench) -> None:
    bench.learner.fetch()
    bench.learn()
    (bench.home / "passages.db").unlink()
    bench.restart().recover()
    assert bench.passages() == {1, 2, 3, 4}


# One line for the terminal ----------------------------------------------------------------------


@pytest.mark.parametrize("gives_way", [True, False])
def test_whether_a_study_gives_way_is_said_at_its_start(bench: Bench, gives_way: bool) -> None:
    """Also to one that goes on: the job that it was given may be older than the setting."""
    bench.restart(schedule={"gives_way": gives_way})
    bench.learner.fetch()
    go = bench.place.folder / "go"
    bench.script([f"wait:{go}", *fake_study.GOOD])
    learning = threading.Thread(target=bench.learn)
    learning.start()
    [(_, pid)] = wait_for(lambda: fake_study.started(bench.place.folder), 30, "the child")
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    go.touch()
    learning.join()
    told = command[command.index(b"--give-way") + 1] if b"--give-way" in command else None
    assert told == (str(bench.home).encode() if gives_way else None)


def test_a_cycle_on_one_line(bench: Bench) -> None:
    bench.learner.fetch()
    shown = prose.line(bench.learn())
    n = bench.cycle(1).report.figures.taught.n
    assert shown.startswith(f"cycle 1 · 4 documents · learned {n}/{n} (before 0) · general +0.3 %")
    assert "published 000001" in shown


def test_a_rejected_cycle_on_one_line(bench: Bench) -> None:
    bench.learner.fetch()
    bench.script(fake_study.NOTHING_LEARNED)
    shown = prose.line(bench.learn())
    assert "rejected: learned: margin" in shown


# A base that cannot be taught --------------------------------------------------------------------


def test_a_base_that_cannot_be_taught_ends_the_learner_and_blames_no_document(bench: Bench) -> None:
    bench.learner.fetch()
    said = json.dumps({"event": "error", "message": "no linear layers", "base_unfit": True})
    bench.script([f"say:{said}\n", "exit:2"])
    with pytest.raises(BaseUnfit, match="no linear layers"):
        bench.learner.learn()
    assert set(bench.states().values()) == {"queued"}
    closed = bench.store.cycles.get(1)
    assert closed is not None
    assert (closed.state, closed.reasons) == ("interrupted", (Reason("", "no linear layers"),))
