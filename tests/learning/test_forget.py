"""Forgetting: nothing of it is left, nothing brings it back, and the rest is learned anew."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from autodidact import checkpoints
from autodidact.checkpoints import retention
from autodidact.commands import forget
from autodidact.commands.forget import request
from autodidact.errors import AutodidactError, ResourceError
from autodidact.evaluation import exam
from autodidact.learning.staging import read_job
from autodidact.settings import PROJECT
from autodidact.store.ledger import LearnerStore
from autodidact.store.scrub import FORGOTTEN
from autodidact.types import wire
from autodidact.types.cycle import Job, JobBase
from autodidact.types.events import DoneEvent, StudyEvent
from autodidact.types.status import LearnerStatus
from tests import fake_study, jobs
from tests.bench import Bench

pytest_plugins = ["tests.core_fixtures"]

REFUSED = fake_study.candidate(general=200.0)
SECRETS = ("Brack Mill", "Odo Finn", "Nora Silk", "crimson", "brack-mill", "Gorse Hill")


def cycles(bench: Bench) -> list[tuple[str, str]]:
    """(kind, state) of all cycles, the oldest first."""
    return [(c.kind, c.state) for c in reversed(bench.store.cycles.latest())]


def written(bench: Bench, *skip: str) -> dict[str, str]:
    """What the files of the home hold, as text."""
    return {
        str(path.relative_to(bench.home)): path.read_bytes().decode(errors="replace")
        for path in bench.home.rglob("*")
        if path.is_file() and path.name not in skip
    }


def found_in(bench: Bench, *secrets: str) -> list[tuple[str, str]]:
    """(file, secret): where in the home something forgotten can still be read."""
    bench.store.close()
    return [(f, s) for f, text in written(bench).items() for s in secrets if s in text]


# The learner's side ------------------------------------------------------------------------------


def test_what_was_learned_is_forgotten_by_learning_the_rest_anew(learned: Bench) -> None:
    checkpoints.pin(learned.home, 1)
    request(learned.home, [1])
    report = learned.learn()
    assert (report.kind, report.state, report.cycle) == ("forget", "published", 3)
    assert checkpoints.versions(learned.home) == [3], "older versions know it, pinned or not"
    assert checkpoints.serving(learned.home) == 3, "and the pin goes with them"
    assert checkpoints.current(learned.home) == 3
    assert checkpoints.read(learned.home, 3).manifest["forgets"] == [1]
    assert learned.store.documents.get(1).state == "forgotten"
    assert learned.store.documents.get(1).document.title == FORGOTTEN
    assert [d.id for d in learned.store.documents.in_state("learned")] == [2, 3, 4]
    assert learned.passages() == {2, 3, 4}
    assert learned.store.probes.of([1]) == []
    results = [r for n in (1, 2, 3) for r in learned.store.probes.results(n)]
    assert not [r for r in results if r.probe_id[0] == "1"]
    assert learned.learner.learn() is None
    assert found_in(learned, *SECRETS) == []


def test_the_report_says_that_it_is_gone_and_not_what_it_was(learned: Bench) -> None:
    request(learned.home, [1])
    report = learned.learn()
    gone = report.forgotten
    assert gone.n > 3
    assert gone.parent.k == gone.n
    assert gone.candidate == gone.base
    assert gone.base.k == 0
    assert {row.split for row in report.probes} == {"kept"}
    assert report.figures.kept.n == report.figures.kept.before > 10
    assert report.figures.margin


def test_it_is_trained_from_the_base_without_what_is_forgotten(learned: Bench) -> None:
    request(learned.home, [1])
    copy = learned.place.folder / "job-seen"
    learned.script([f"copy:{copy}", *fake_study.GOOD])
    learned.learn()
    text = copy.read_text()
    job = json.loads(text)
    assert job["lessons"] == []
    assert {e["document_id"] for e in job["replay"]} == {2, 3, 4}
    assert {p["split"] for p in job["probes"] if p["document_id"] == 1} == {"forgotten"}
    trained = json.dumps([job["replay"], job["shares"]])
    assert not any(secret in trained for secret in SECRETS)


def test_a_source_brings_nothing_back(learned: Bench) -> None:
    request(learned.home, [1])
    assert learned.learner.fetch() == 0
    learned.learn()
    assert learned.learner.fetch() == 0
    title, text = "Brack Mill", "The Brack Mill is a windmill. Its keeper is Ann Holt. " * 5
    learned.place.write({"brack-mill": (title, text)})
    assert learned.learner.fetch() == 0, "nor another text at the same address"
    learned.place.write({"new-mill": (title, text)})
    assert learned.learner.fetch() == 1, "another address is another document"


def test_it_cannot_be_looked_up_from_the_moment_the_learner_acts(learned: Bench) -> None:
    request(learned.home, [1])
    learned.script(["plan", "exit:1"])
    assert learned.learn().state == "failed"
    assert learned.passages() == {2, 3, 4}
    assert learned.store.documents.get(1).state == "forgetting"
    assert checkpoints.current(learned.home) == 2
    assert learned.learn().state == "published"
    assert learned.store.documents.get(1).state == "forgotten"


def test_reports_of_the_time_before_are_scrubbed(learned: Bench) -> None:
    before = learned.cycle(1).report
    assert any(p.document_id == 1 for p in before.probes)
    learned.store.status.write(LearnerStatus("idle", verdict=before))
    request(learned.home, [1])
    learned.learn()
    after = learned.cycle(1).report
    titles = {d.id: (d.title, d.uri) for d in after.documents}
    assert titles[1] == (FORGOTTEN, "")
    assert titles[2][0] == "Sable House"
    assert {p.document_id for p in after.probes} == {-3, -2, -1, 2}
    assert after.figures == before.figures, "figures stay"
    assert [s.source for s in after.suggestions] == [titles[2][1]]
    assert "Brack" not in str(learned.store.status.read())


def test_a_suggestion_of_the_exam_goes_with_its_document(bench: Bench) -> None:
    """What the library's exam asks of a document names it, too."""
    texts = {}
    for name in ("anneck-light", "great-hobb"):
        title, _, text = (PROJECT / "library" / f"{name}.md").read_text().partition("\n")
        texts[name] = (title.removeprefix("# "), text.strip())
    bench.place.write(texts, "library")
    files = [str(bench.place.folder / "library")]
    bench.restart(sources={"files": files})
    bench.learner.fetch()
    bench.learn()
    asked = {question.question for question in exam.bundled()}
    before = bench.cycle(1).report.suggestions
    assert [s.source for s in before] == ["library/anneck-light.md", "library/great-hobb.md"]
    assert {s.question for s in before} <= asked
    request(bench.home, [1])
    bench.learn()
    assert bench.cycle(1).report.suggestions == before[1:]
    assert found_in(bench, "Anneck", "anneck-light") == []


def test_when_the_rest_cannot_be_relearned_the_base_serves(learned: Bench) -> None:
    checkpoints.pin(learned.home, 1)
    learned.script(REFUSED)
    request(learned.home, [1])
    report = learned.learn()
    assert (report.kind, report.state) == ("forget", "rejected")
    assert checkpoints.current(learned.home) == checkpoints.serving(learned.home) == 0
    assert checkpoints.versions(learned.home) == []
    assert [d.id for d in learned.store.documents.in_state("queued")] == [2, 3, 4]
    assert learned.passages() == set()
    assert found_in(learned, *SECRETS) == []
    assert learned.learn().parent is None
    assert learned.learn().state == "published"
    assert learned.passages() == {2, 3, 4}
    assert cycles(learned)[2:] == [("forget", "rejected"), *[("learn", "published")] * 2]


def test_when_relearning_fails_three_times_the_base_serves(learned: Bench) -> None:
    learned.script(*[["plan", "exit:1"]] * 3)
    request(learned.home, [1])
    for at in range(3):
        assert checkpoints.current(learned.home) == 2, f"try {at + 1}"
        assert learned.learn().state == "failed"
    assert checkpoints.current(learned.home) == 0
    assert learned.store.documents.get(1).state == "forgotten"
    assert [d.id for d in learned.store.documents.in_state("queued")] == [2, 3, 4]


def test_what_was_never_learned_is_forgotten_at_once(learned: Bench) -> None:
    learned.place.write({"odd": ("Odd Gate", "Odd Gate has 17 bars. It was built in 1702. " * 6)})
    learned.learner.fetch()
    request(learned.home, [5])
    assert learned.learner.learn() is None
    assert learned.store.documents.get(5).state == "forgotten"
    assert len(cycles(learned)) == 2
    assert checkpoints.versions(learned.home) == [1, 2]
    assert found_in(learned, "Odd Gate") == []


def test_what_was_learned_only_at_the_second_try_is_learned_all_the_same(bench: Bench) -> None:
    """Its probes were frozen in a cycle that was rejected."""
    bench.learner.fetch()
    bench.script(fake_study.NOTHING_LEARNED)
    bench.learn()
    bench.learn()
    request(bench.home, [1])
    assert bench.learn().kind == "forget"


def test_what_lent_itself_for_comparison_was_not_learned(bench: Bench) -> None:
    notes = {"control": None, "files": [bench.place.folder / "notes"],
             "wikipedia": {"enabled": False}}  # fmt: skip
    bench.restart(sources=notes, training={"documents_per_cycle": 2})
    bench.learner.fetch()
    bench.learn()
    assert bench.store.probes.of([3])
    request(bench.home, [3])
    assert bench.learn().kind == "learn"
    assert bench.store.documents.get(3).state == "forgotten"


def test_a_text_that_was_replaced_is_known_to_the_weights(learned: Bench) -> None:
    text = "The Brack Mill is a windmill on Gorse Hill. It was built in 1999. It has 3 sails. " * 2
    learned.place.write({"brack-mill": ("Brack Mill", text)})
    learned.learner.fetch()
    assert learned.store.documents.get(1).state == "superseded"
    request(learned.home, [d.id for d in learned.store.documents.matching("Brack Mill")])
    assert learned.learn().kind == "forget"
    assert learned.store.documents.count("forgotten") == 2


def test_forgetting_everything_leaves_the_untouched_base(learned: Bench) -> None:
    request(learned.home, [1, 2, 3, 4])
    assert learned.learner.learn() is None
    assert checkpoints.current(learned.home) == 0
    assert checkpoints.versions(learned.home) == []
    assert learned.store.documents.count("forgotten") == 4
    assert learned.passages() == set()
    assert len(cycles(learned)) == 2
    names = ("Tolk Bridge", "Wend Tower", "Sable House", "violet", "Jane Orrin")
    assert found_in(learned, *SECRETS, *names) == []


def test_two_requests_are_one_relearning(learned: Bench) -> None:
    request(learned.home, [1])
    request(learned.home, [3, 3, 99])
    assert learned.learn().kind == "forget"
    assert learned.learner.learn() is None
    assert learned.store.documents.count("forgotten") == 2
    assert checkpoints.read(learned.home, 3).manifest["forgets"] == [1, 3]


def test_forgetting_something_more_later_relearns_again(learned: Bench) -> None:
    for document in (1, 3):
        request(learned.home, [document])
        learned.learn()
    assert checkpoints.versions(learned.home) == [4]
    assert checkpoints.read(learned.home, 4).parent == 3
    assert [d.id for d in learned.store.documents.in_state("learned")] == [2, 4]


def test_what_is_being_studied_is_not_learned_to_its_end(bench: Bench) -> None:
    bench.learner.fetch()
    bench.store.cycles.begin(1, None, {})
    bench.store.cycles.study(1, [1, 2])
    staging = checkpoints.staging(bench.home, 1)
    staging.mkdir()
    base = JobBase("tiny", str(bench.place.folder), "", "")
    (staging / "job.json").write_text(wire.to_json(jobs.job(base=base)))
    assert read_job(bench.home, 1) is not None, "it could go on"
    request(bench.home, [1])
    assert bench.learn().cycle == 2
    assert bench.cycle(1).state == "interrupted"
    assert bench.cycle(2).documents == [2, 3, 4]
    assert bench.store.documents.get(1).state == "forgotten"


def test_the_next_cycle_goes_on_from_what_was_relearned(learned: Bench) -> None:
    request(learned.home, [1])
    learned.learn()
    text = "Odd Gate is a gate. Odd Gate has 17 bars. It was built in 1702. It is made of tin. " * 2
    learned.place.write({"odd": ("Odd Gate", text)})
    learned.learner.fetch()
    report = learned.learn()
    assert (report.kind, report.parent, report.state) == ("learn", 3, "published")
    kept = {row.document_id for row in report.probes if row.split == "kept"}
    assert kept == {2, 3, 4}


# Beside other things ----------------------------------------------------------------------------


def roll_back(bench: Bench, to: int) -> None:
    """What `python -m autodidact rollback` does, the pin included."""
    checkpoints.roll_back(bench.home, to)
    (bench.home / "inbox" / f"rollback-{to}.json").write_text(
        json.dumps({"do": "rollback", "to": to})
    )


def test_a_rollback_before_the_relearning_leaves_less_to_relearn(learned: Bench) -> None:
    request(learned.home, [1])
    roll_back(learned, 1)
    report = learned.learn()
    assert (report.kind, report.parent) == ("forget", 1)
    assert {row.document_id for row in report.probes} == {2}
    assert checkpoints.versions(learned.home) == [3]
    assert learned.learn().kind == "learn"
    assert learned.passages() == {2, 3, 4}


def test_a_rollback_to_the_base_forgets_at_once(learned: Bench) -> None:
    request(learned.home, [1])
    learned.script(["plan", "exit:1"])
    learned.learn()
    roll_back(learned, 0)
    report = learned.learn()
    assert (report.kind, report.parent) == ("learn", None)
    assert learned.store.documents.get(1).state == "forgotten"
    assert learned.learn().state == "published"
    assert checkpoints.versions(learned.home) == [4, 5]


def test_a_rollback_while_the_rest_is_relearned_begins_anew(
    learned: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    request(learned.home, [1])
    real = learned.learner._follow

    def follow(job: Job, event: StudyEvent) -> None:
        real(job, event)
        if isinstance(event, DoneEvent) and job.cycle == 3:
            roll_back(learned, 1)

    monkeypatch.setattr(learned.learner, "_follow", follow)
    assert learned.learn().state == "interrupted"
    assert checkpoints.current(learned.home) == 1
    report = learned.learn()
    assert (report.kind, report.state, report.parent) == ("forget", "published", 1)
    assert checkpoints.versions(learned.home) == [4]


def at_discard(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Something happens just before older versions are deleted, once."""
    real = checkpoints.discard

    def discard(home: Path, gone: Any) -> list[int]:
        monkeypatch.setattr(checkpoints, "discard", real)
        act()
        return real(home, gone)

    monkeypatch.setattr(checkpoints, "discard", discard)


def test_a_rollback_to_what_knows_it_is_no_way_back(
    learned: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the publication and the end of the older versions."""
    request(learned.home, [1])
    at_discard(monkeypatch, lambda: roll_back(learned, 2))
    with pytest.raises(ResourceError, match="000002: in use"):
        learned.learner.learn()
    report = learned.learn()
    assert (report.kind, report.parent) == ("forget", 2)
    assert checkpoints.versions(learned.home) == [report.cycle]
    assert learned.store.documents.get(1).state == "forgotten"


def test_a_version_that_is_being_read_goes_the_next_time(
    learned: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = retention._delete
    held = {1}
    monkeypatch.setattr(
        retention,
        "_delete",
        lambda home, version, spared: version not in held and real(home, version, spared),
    )
    request(learned.home, [1])
    with pytest.raises(ResourceError, match="000001: in use, cannot be deleted yet"):
        learned.learner.learn()
    assert learned.store.documents.get(1).state == "forgetting", "not said before it is true"
    assert cycles(learned)[-1] == ("forget", "published")
    learned.restart().recover()
    assert checkpoints.versions(learned.home) == [1, 3]
    held.clear()
    assert learned.learner.learn() is None, "the rest is not learned a second time"
    assert checkpoints.versions(learned.home) == [3]
    assert learned.store.documents.get(1).state == "forgotten"


# The command -------------------------------------------------------------------------------------


def command(bench: Bench, *arguments: str, said: str = "") -> Any:
    app = typer.Typer()
    app.command()(forget.forget)
    config = ["--config", str(bench.place.config)]
    return CliRunner().invoke(app, [*arguments, *config], input=said)


def wishes(bench: Bench) -> list[Any]:
    return [json.loads(p.read_text()) for p in sorted((bench.home / "inbox").iterdir())]


@pytest.mark.parametrize("what", ["1", "notes/brack-mill.md", "Brack Mill"])
def test_a_document_is_named_by_id_address_or_title(learned: Bench, what: str) -> None:
    done = command(learned, what, "--yes")
    assert done.exit_code == 0, done.output
    assert "1  Brack Mill  (learned)\n1 document\n" in done.output
    assert "1 document will be forgotten." in done.output
    for told in ("before its next cycle", "base", "older versions", "Conversations are not touched",
                 "python web_learner.py --once"):  # fmt: skip
        assert told in " ".join(done.output.split())
    assert wishes(learned) == [{"do": "forget", "documents": [1]}]
    assert learned.learn().kind == "forget"


def test_a_source_means_all_its_documents(learned: Bench) -> None:
    done = command(learned, "files:notes", said="y\n")
    assert done.exit_code == 0, done.output
    assert "Forget for good?" in done.output
    assert wishes(learned) == [{"do": "forget", "documents": [1, 2, 3, 4]}]


def test_without_a_yes_nothing_is_asked_of_the_learner(learned: Bench) -> None:
    for said in ("n\n", "\n", ""):
        assert command(learned, "1", said=said).exit_code == 1
    assert wishes(learned) == []


def test_what_matches_nothing_is_answered_with_the_nearest_titles(learned: Bench) -> None:
    done = command(learned, "brak mil", "--yes")
    assert isinstance(done.exception, AutodidactError)
    assert done.exception.exit_code == 1
    line = str(done.exception)
    assert line.startswith("brak mil: no such document or source; nearest: Brack Mill, ")
    assert "\n" not in line
    assert wishes(learned) == []


def test_what_is_forgotten_already_matches_nothing(learned: Bench) -> None:
    request(learned.home, [1])
    learned.learn()
    for what in ("1", "Brack Mill", FORGOTTEN, "notes/brack-mill.md"):
        with pytest.raises(AutodidactError, match="no such document"):
            forget.find(learned.store, what)


def test_before_anything_ran_there_is_nothing_to_forget(bench: Bench) -> None:
    (bench.home / "learner.db").unlink()
    done = command(bench, "1", "--yes")
    assert "no learner has run here yet" in str(done.exception)


def test_many_documents_are_counted_and_ten_are_named(bench: Bench) -> None:
    found = []
    for number in range(25):
        bench.store.documents.add(documented(number))
    found = bench.store.documents.in_state("queued")
    lines = forget.listing(found).splitlines()
    assert len(lines) == 12
    assert lines[0] == "  1  Title 0  (queued)"
    assert lines[-2:] == ["  … and 15 more", "25 documents"]
    assert len(forget.listing(found[:10]).splitlines()) == 11


def documented(number: int) -> Any:
    from autodidact.types.documents import Document

    return Document("s", f"u/{number}", f"Title {number}", f"text {number}", "", f"{number}", "")


@given(st.lists(st.text(), max_size=8), st.text())
def test_the_nearest_titles_are_titles(titles: list[str], what: str) -> None:
    near = forget.nearest(titles, what)
    assert len(near) == min(3, len(set(titles)))
    assert set(near) <= set(titles)
    if what.split() and what in titles:
        assert " ".join(near[0].casefold().split()) == " ".join(what.casefold().split()) or any(
            what.casefold() in title.casefold() for title in near
        )


def test_requests_are_whole_files(home: Path) -> None:
    path = request(home, [3, 1])
    assert json.loads(path.read_text()) == {"do": "forget", "documents": [3, 1]}
    assert path.parent == home / "inbox"
    assert path.match("forget-*.json")
    assert list(path.parent.iterdir()) == [path]


def test_the_ledger_keeps_no_deleted_row_in_free_pages(tmp_path: Path) -> None:
    store = LearnerStore(tmp_path / "learner.db")
    for number in range(40):
        store.documents.add(documented(number))
    with sqlite3.connect(tmp_path / "learner.db") as db:
        db.execute("UPDATE documents SET text = 'the old secret' || hex(zeroblob(9000))")
        db.execute("UPDATE documents SET text = 'short'")
    db.close()
    store.documents.forget(list(range(1, 41)))
    assert store.scrub() == 40
    store.close()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"the old secret" not in left
    assert b"Title 7" not in left
