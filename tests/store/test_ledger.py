"""The ledger of learning: a document's life, frozen probes, cycles, rollbacks, the status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from autodidact.errors import AutodidactError
from autodidact.settings import PROJECT
from autodidact.store import ledger
from autodidact.store.ledger import MAX_TRIES, LearnerStore
from autodidact.store.scrub import FORGOTTEN
from autodidact.types.cycle import Reason, reasons_from_json
from autodidact.types.documents import Document, Findings, Material, Probe


@pytest.fixture
def store(tmp_path: Path) -> LearnerStore:
    return LearnerStore(tmp_path / "learner.db")


def document(number: int, text: str = "", source: str = "notes") -> Document:
    text = text or f"text {number}"
    return Document(source, f"uri/{number}", f"Title {number}", text, "CC0", f"digest {text}", "c")


def probe(number: int, document_id: int = 1, **changes: object) -> Probe:
    made = Probe(
        f"{document_id}-{number:08x}",
        document_id,
        "Who?",
        "Ida",
        ("Odo", "Zoë"),
        "name",
        "by built",
        "by/3",
        "taught",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def state(store: LearnerStore, document_id: int) -> str:
    return store.document(document_id).state


def run_cycle(store: LearnerStore, n: int, documents: list[int], outcome: str) -> None:
    store.begin_cycle(n, n - 1 or None, {"rank": 4})
    store.study(n, documents)
    store.finish_cycle(n, outcome, (Reason("", "because"),), {"cycle": n})  # type: ignore[arg-type]


# A document's life ------------------------------------------------------------------------------


def test_a_document_comes_back_as_it_was_added(store: LearnerStore) -> None:
    assert store.add(document(1, "Ünïcödé\n\nand lines"))
    [stored] = store.documents("queued")
    assert stored.document == document(1, "Ünïcödé\n\nand lines")
    assert (stored.id, stored.state, stored.tries, stored.cycle) == (1, "queued", 0, None)


def test_a_text_is_queued_once(store: LearnerStore) -> None:
    assert store.add(document(1))
    assert not store.add(document(1))
    assert not store.add(document(2, "text 1")), "the same text at another address"
    assert store.count("queued") == 1


def test_a_newer_text_supersedes_the_older(store: LearnerStore) -> None:
    store.add(document(1, "old"))
    store.add(document(2, "other"))
    store.add(document(1, "new", source="elsewhere"))
    assert [state(store, i) for i in (1, 2, 3)] == ["queued", "queued", "queued"]
    store.add(document(1, "newer"))
    assert [state(store, i) for i in (1, 2, 3, 4)] == ["superseded", "queued", "queued", "queued"]


@pytest.mark.parametrize("outcome", ["learned", "unusable"])
def test_a_newer_text_supersedes_what_was_learned_or_put_aside(
    store: LearnerStore, outcome: str
) -> None:
    store.add(document(1, "old"))
    if outcome == "learned":
        run_cycle(store, 1, [1], "published")
    else:
        store.material.admit(1, Material(1, Findings(1, "old", (), ()), ()))
    assert state(store, 1) == outcome
    store.add(document(1, "new"))
    assert [state(store, i) for i in (1, 2)] == ["superseded", "queued"]


def test_a_newer_text_does_not_disturb_a_cycle_that_studies_the_older(store: LearnerStore) -> None:
    store.add(document(1, "old"))
    store.begin_cycle(1, None, {})
    store.study(1, [1])
    store.add(document(1, "new"))
    assert state(store, 1) == "studying"
    store.finish_cycle(1, "published", (), {})
    assert [state(store, i) for i in (1, 2)] == ["learned", "queued"]


def test_a_published_cycle_has_learned_its_documents(store: LearnerStore) -> None:
    for number in (1, 2, 3):
        store.add(document(number))
    store.begin_cycle(1, None, {})
    store.study(1, [1, 2])
    assert [state(store, i) for i in (1, 2, 3)] == ["studying", "studying", "queued"]
    store.finish_cycle(1, "published", (), {})
    assert [state(store, i) for i in (1, 2, 3)] == ["learned", "learned", "queued"]
    assert store.document(1).cycle == 1


def test_a_cycle_that_was_interrupted_costs_no_try(store: LearnerStore) -> None:
    store.add(document(1))
    for n in range(1, MAX_TRIES + 3):
        run_cycle(store, n, [1], "interrupted")
        assert state(store, 1) == "queued"
    assert store.document(1).tries == 0
    assert store.document(1).cycle is None


@pytest.mark.parametrize("outcome", ["rejected", "failed"])
def test_a_document_that_came_to_nothing_too_often_is_given_up(
    store: LearnerStore, outcome: str
) -> None:
    store.add(document(1))
    states = []
    for n in range(1, MAX_TRIES + 1):
        run_cycle(store, n, [1], outcome)
        states.append((state(store, 1), store.document(1).tries))
    assert states == [("queued", 1), ("queued", 2), ("given_up", 3)]


def test_documents_tried_least_come_first(store: LearnerStore) -> None:
    for number in (1, 2, 3):
        store.add(document(number))
    run_cycle(store, 1, [1], "rejected")
    assert [d.id for d in store.documents("queued")] == [2, 3, 1]
    assert [d.id for d in store.documents("queued", 2)] == [2, 3]


def test_finishing_a_cycle_moves_only_its_own_documents(store: LearnerStore) -> None:
    for number in (1, 2):
        store.add(document(number))
    store.begin_cycle(1, None, {})
    store.study(1, [1])
    store.begin_cycle(2, None, {})
    store.study(2, [2])
    store.finish_cycle(1, "published", (), {})
    assert [state(store, i) for i in (1, 2)] == ["learned", "studying"]


def test_a_rollback_queues_what_was_learned_after_it(store: LearnerStore) -> None:
    for number in range(1, 5):
        store.add(document(number))
    for n in (1, 2, 3):
        run_cycle(store, n, [n], "published")
    run_cycle(store, 4, [4], "rejected")
    assert store.requeue_after(1) == 2
    assert [state(store, i) for i in (1, 2, 3, 4)] == ["learned", "queued", "queued", "queued"]
    assert store.requeue_after(1) == 0
    assert store.requeue_after(0) == 1
    assert store.count("learned") == 0


# Cycles and probes ------------------------------------------------------------------------------


def test_cycles_are_told_newest_first_with_their_reports(store: LearnerStore) -> None:
    for n in (1, 2):
        store.add(document(n))
        run_cycle(store, n, [n], "published" if n == 1 else "rejected")
    store.begin_cycle(3, 1, {"rank": 8})
    assert [cycle["n"] for cycle in store.cycles()] == [3, 2, 1]
    assert [cycle["n"] for cycle in store.cycles(1)] == [3]
    second = store.cycle(2)
    assert second is not None
    assert (second["state"], second["parent"], second["documents"]) == ("rejected", 1, [2])
    assert (second["reasons"], second["report"]) == ((Reason("", "because"),), {"cycle": 2})
    assert second["settings"] == {"rank": 4}
    assert second["ended_at"] >= second["started_at"]
    running = store.cycle(3)
    assert running is not None
    assert (running["report"], running["reasons"], running["ended_at"]) == ({}, (), None)
    assert store.running() == [3]
    assert store.last_cycle() == 3
    assert store.cycle(4) is None


def test_a_fresh_ledger_is_empty(store: LearnerStore) -> None:
    assert store.last_cycle() == 0
    assert store.cycles() == []
    assert store.running() == []
    assert store.sources() == []
    assert store.status() is None


def test_a_frozen_probe_is_never_rewritten(store: LearnerStore) -> None:
    store.begin_cycle(1, None, {})
    store.freeze(1, [probe(1), probe(2)])
    store.begin_cycle(2, None, {})
    store.freeze(2, [probe(1, question="Easier?", answer="Other"), probe(3)])
    assert store.probes([1]) == [probe(1), probe(2), probe(3)]


def test_freezing_nothing_is_fine(store: LearnerStore) -> None:
    store.begin_cycle(1, None, {})
    store.freeze(1, [])
    assert store.probes([1]) == []
    assert store.probes([]) == []


def test_probes_are_found_by_their_documents(store: LearnerStore) -> None:
    store.begin_cycle(1, None, {})
    store.freeze(1, [probe(1, 1), probe(2, 2), probe(3, 3)])
    assert [p.document_id for p in store.probes([3, 1])] == [1, 3]


def test_results_are_recorded_again_after_a_resumed_cycle(store: LearnerStore) -> None:
    store.begin_cycle(1, None, {})
    store.freeze(1, [probe(1)])
    row = {
        "probe_id": probe(1).id,
        "split": "taught",
        "reply": "?",
        "correct": 0,
        "logprob": -2.0,
        "margin": -1.0,
    }
    store.record(1, "parent", [row])
    store.record(1, "candidate", [row])
    store.record(1, "candidate", [{**row, "reply": "Ida", "correct": 1}])
    arms = {r["arm"]: r["reply"] for r in store.results(1)}
    assert arms == {"parent": "?", "candidate": "Ida"}
    store.record(1, "base", [])


def test_a_probe_on_what_was_lent_for_comparison_becomes_one_on_what_is_taught(
    store: LearnerStore,
) -> None:
    store.begin_cycle(1, None, {})
    store.freeze(1, [probe(1, split="control")])
    store.begin_cycle(2, None, {})
    store.freeze(2, [probe(1, question="Easier?")])
    assert store.probes([1]) == [probe(1)], "the question stays as it was frozen"
    store.freeze(2, [probe(1, split="control")])
    assert store.probes([1]) == [probe(1)]


def test_more_documents_than_a_statement_has_room_for(store: LearnerStore) -> None:
    store.begin_cycle(1, None, {})
    store.freeze(1, [probe(1, 70_000)])
    assert len(store.probes(list(range(1, 80_000)))) == 1
    store.add(document(1))
    assert store.forget(list(range(1, 80_000))) == 1


# What is remembered, and when to begin anew -----------------------------------------------------


def answered(
    store: LearnerStore, n: int, logprob: float, outcome: str, kind: str = "learn"
) -> None:
    """A cycle that measured probe 1 of document 1, taught in cycle 1."""
    store.begin_cycle(n, n - 1 or None, {}, kind)
    store.freeze(n, [probe(1)])
    store.study(n, [1] if n == 1 else [])
    row = {"probe_id": probe(1).id, "split": "taught" if n == 1 else "kept", "reply": "?",
           "correct": 0, "margin": 0.0}  # fmt: skip
    store.record(n, "parent", [{**row, "logprob": -9.0}])
    store.record(n, "candidate", [{**row, "logprob": logprob}])
    store.finish_cycle(n, outcome, (), {"general": {"rise": n / 100}})  # type: ignore[arg-type]


def test_a_fact_is_remembered_as_it_was_learned_and_as_last_published(store: LearnerStore) -> None:
    store.add(document(1))
    assert store.remembered() == []
    answered(store, 1, -0.5, "published")
    answered(store, 2, -0.8, "published")
    answered(store, 3, -4.0, "rejected")
    [row] = store.remembered()
    assert row == {
        "fact": probe(1).id, "document_id": 1, "learned_in": 1, "then": -0.5, "now": -0.8,
    }  # fmt: skip


def test_what_was_never_measured_is_remembered_without_figures(store: LearnerStore) -> None:
    store.add(document(1))
    store.begin_cycle(1, None, {})
    store.freeze(1, [probe(1), probe(2, split="unseen")])
    store.study(1, [1])
    store.finish_cycle(1, "published", (), {})
    [row] = store.remembered()
    assert (row["fact"], row["then"], row["now"]) == (probe(1).id, None, None)


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
    store: LearnerStore, cycles: list[tuple[str, str]], since: int
) -> None:
    for n, (kind, outcome) in enumerate(cycles, start=1):
        store.begin_cycle(n, None, {}, kind)
        store.finish_cycle(n, outcome, (), {})  # type: ignore[arg-type]
    assert store.published_since_consolidation() == since


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
    store: LearnerStore, cycles: list[tuple[str, str, str]], count: int
) -> None:
    for n, (kind, outcome, reason) in enumerate(cycles, start=1):
        store.begin_cycle(n, None, {}, kind)
        reasons = reasons_from_json([reason])  # as versions before wrote them
        store.finish_cycle(n, outcome, reasons, {})  # type: ignore[arg-type]
    assert store.refused_in_a_row() == count


def test_the_rise_in_general_text_is_that_of_the_latest_published_cycle(
    store: LearnerStore,
) -> None:
    assert store.latest_rise() is None
    store.add(document(1))
    for n, outcome in enumerate(("published", "published", "rejected"), start=1):
        answered(store, n, -1.0, outcome)
    assert store.latest_rise() == 0.02
    for n, report in ((4, {}), (5, {"general": {"rise": None}})):
        store.begin_cycle(n, None, {})
        store.finish_cycle(n, "published", (), report)
        assert store.latest_rise() is None


# Forgetting -------------------------------------------------------------------------------------


def test_a_forgotten_document_leaves_its_digest_and_nothing_to_read(store: LearnerStore) -> None:
    store.add(document(1, "a secret"))
    store.add(document(2))
    run_cycle(store, 1, [1, 2], "published")
    store.freeze(1, [probe(1, 1), probe(2, 2, answer="Rut", distractors=("Ida", "Odo"))])
    rows = [
        {"probe_id": probe(n, n).id, "split": "taught", "reply": "Ida", "correct": 0,
         "logprob": -1.0, "margin": 0.0}
        for n in (1, 2)
    ]  # fmt: skip
    store.record(1, "candidate", rows)
    assert store.forget([1]) == 1
    assert store.forget([1]) == 0, "asked twice"
    assert (state(store, 1), store.to_unlearn()) == ("forgetting", 1)
    assert store.scrub() == 1
    gone = store.document(1)
    assert (gone.state, gone.cycle) == ("forgotten", None)
    assert (gone.document.text, gone.document.title) == ("", FORGOTTEN)
    assert gone.document.digest == document(1, "a secret").digest
    assert "uri/1" not in gone.document.uri
    assert store.probes([1]) == []
    [left] = store.probes([2])
    assert left.distractors == ("Odo",), "nor is its answer offered beside another"
    [result] = store.results(1)
    assert (result["probe_id"], result["reply"]) == (left.id, "")
    assert store.scrub() == 0
    assert state(store, 2) == "learned"


def test_a_probe_is_left_something_to_be_compared_with(store: LearnerStore) -> None:
    store.add(document(1))
    store.begin_cycle(1, None, {})
    store.freeze(1, [
        probe(1, 1), probe(2, 2, answer="Rut", distractors=("Ida",)),
        probe(3, 3, answer="Bea", distractors=("Rut",)),
    ])  # fmt: skip
    store.forget([1])
    store.scrub()
    assert [p.distractors for p in store.probes([2, 3])] == [("Bea",), ("Rut",)]


def test_an_answer_that_another_document_gives_too_stays(store: LearnerStore) -> None:
    store.add(document(1))
    store.begin_cycle(1, None, {})
    others = [probe(2, 2), probe(3, 3, answer="Rut", distractors=("Ida",))]
    store.freeze(1, [probe(1, 1), *others])
    store.forget([1])
    store.scrub()
    assert store.probes([2, 3]) == others


@pytest.mark.parametrize("when", ["forgetting", "forgotten"])
def test_no_source_brings_back_what_is_forgotten(store: LearnerStore, when: str) -> None:
    store.add(document(1, "old"))
    store.forget([1])
    if when == "forgotten":
        store.scrub()
    assert state(store, 1) == when
    assert not store.add(document(1, "old"))
    assert not store.add(document(2, "old")), "the same text at another address"
    assert not store.add(document(1, "new")), "another text at the same address"
    assert store.add(document(1, "new", source="elsewhere"))
    assert store.count(when) == 1


def test_only_what_a_published_cycle_taught_must_be_unlearned(store: LearnerStore) -> None:
    for number in (1, 2, 3):
        store.add(document(number))
    run_cycle(store, 1, [1, 2], "rejected")
    run_cycle(store, 2, [2], "published")
    store.forget([1, 3])
    assert store.to_unlearn() == 0
    store.forget([2])
    assert store.to_unlearn() == 1


def test_a_rollback_does_not_queue_what_is_to_be_forgotten(store: LearnerStore) -> None:
    for number in (1, 2):
        store.add(document(number))
    run_cycle(store, 1, [1, 2], "published")
    store.forget([1])
    assert store.requeue_after(0) == 1
    assert [state(store, i) for i in (1, 2)] == ["forgetting", "queued"]


def test_documents_are_found_as_people_name_them(store: LearnerStore) -> None:
    for number in (1, 2):
        store.add(document(number))
    store.add(document(3, source="elsewhere"))

    def found(what: str) -> list[int]:
        return [stored.id for stored in store.matching(what)]

    assert found("2") == found("uri/2") == found("Title 2") == [2]
    assert found("notes") == [1, 2]
    assert found("nothing") == found("") == found("9" * 40) == found("²") == []
    assert store.titles() == ["Title 1", "Title 2", "Title 3"]
    store.forget([2])
    assert found("2") == [2], "still to be forgotten"
    store.scrub()
    assert found("2") == found(FORGOTTEN) == []
    assert store.titles() == ["Title 1", "Title 3"]


# Migrations -------------------------------------------------------------------------------------


def test_a_ledger_of_the_first_version_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "learner.db"
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "MIGRATIONS", ledger.MIGRATIONS[:1])
        old = LearnerStore(path)
        for number in (1, 2):
            old.add(document(number))
        with old._db.write() as db:
            for n, outcome in ((1, "published"), (2, "rejected")):
                db.conn.execute(
                    "INSERT INTO cycles(n, state, started_at, documents, report) "
                    "VALUES (?, ?, 1.0, ?, ?)",
                    (n, outcome, f"[{n}]", '{"general": {"rise": 0.03}}'),
                )
        frozen = {**asdict(probe(1)), "cycle": 1, "frozen_at": 1.0, "distractors": '["Odo"]'}
        del frozen["same"]  # what that version did not know
        with old._db.write() as db:
            db.table("probes").insert(frozen)
        row = {"probe_id": probe(1).id, "split": "taught", "reply": "Ida", "correct": 1}
        old.record(1, "candidate", [{**row, "logprob": -0.5, "margin": 1.0}])
        with old._db.write() as db:
            db.conn.execute("UPDATE documents SET state = 'learned', cycle = 1 WHERE id = 1")
        old.close()
    store = LearnerStore(path)
    assert [c["kind"] for c in store.cycles()] == ["learn", "learn"]
    assert store.published_since_consolidation() == 1
    assert store.latest_rise() == 0.03
    [row] = store.remembered()
    assert (row["fact"], row["learned_in"], row["then"]) == (probe(1).id, 1, -0.5)
    assert [state(store, i) for i in (1, 2)] == ["learned", "queued"]
    store.begin_cycle(3, 1, {}, "consolidate")
    third = store.cycle(3)
    assert third is not None
    assert third["kind"] == "consolidate"
    store.forget([1])
    assert store.to_unlearn() == 1
    store.close()
    assert LearnerStore(path).cycles(1)[0]["kind"] == "consolidate", "migrated once"


# Sources and status -----------------------------------------------------------------------------


def test_what_is_known_of_a_source_is_kept_field_by_field(store: LearnerStore) -> None:
    store.add(document(1))
    assert store.source("notes").cursor is None
    store.set_source("notes", cursor="c1")
    store.set_source("notes", error="out of reach", next_at=5.0)
    store.set_source("notes", last_at=7.0)
    [found] = store.sources()
    assert (found.cursor, found.error, found.next_at, found.last_at) == (
        "c1", "out of reach", 5.0, 7.0,
    )  # fmt: skip
    assert found.documents == 1


def test_the_latest_status_replaces_the_one_before(store: LearnerStore) -> None:
    store.set_status({"state": "training", "step": 3})
    store.set_status({"state": "idle"})
    status = store.status()
    assert status is not None
    assert status["state"] == "idle"
    assert "step" not in status
    assert status["updated_at"] > 0


# Several at once --------------------------------------------------------------------------------


def test_a_reader_follows_the_learner(tmp_path: Path, store: LearnerStore) -> None:
    reader = LearnerStore(tmp_path / "learner.db", readonly=True)
    for step in range(5):
        store.set_status({"step": step})
        status = reader.status()
        assert status is not None
        assert status["step"] == step


def test_fetching_and_learning_write_from_two_threads(store: LearnerStore) -> None:
    store.begin_cycle(1, None, {})

    def fetch() -> None:
        for number in range(30):
            store.add(document(number))

    def learn() -> None:
        for number in range(30):
            store.freeze(1, [probe(number)])
            store.set_status({"step": number})

    workers = [threading.Thread(target=work) for work in (fetch, learn)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert store.count("queued") == 30
    assert len(store.probes([1])) == 30


KILLED = """
import os, signal, sys
from pathlib import Path
from autodidact.store import ledger
store = ledger.LearnerStore(Path(sys.argv[1]))
real = ledger._move_documents
def die(*arguments):
    real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
ledger._move_documents = die
store.finish_cycle(1, "published", (), {})
"""


def test_a_learner_killed_while_it_closes_a_cycle_left_it_running(
    tmp_path: Path, store: LearnerStore
) -> None:
    store.add(document(1))
    store.begin_cycle(1, None, {})
    store.study(1, [1])
    reader = LearnerStore(tmp_path / "learner.db", readonly=True)
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "learner.db")],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert reader.running() == [1]
    again = LearnerStore(tmp_path / "learner.db")
    assert again.running() == [1]
    assert state(again, 1) == "studying"
    again.finish_cycle(1, "published", (), {})
    assert state(again, 1) == "learned"


def test_a_ledger_of_a_newer_program_is_refused(tmp_path: Path, store: LearnerStore) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "learner.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(AutodidactError, match="update Autodidact"):
        LearnerStore(tmp_path / "learner.db")


def test_a_text_that_comes_back_after_a_change_is_queued_again(store: LearnerStore) -> None:
    first = document(1, "first")
    assert store.add(first)
    assert store.add(replace(first, text="changed", digest="changed"))
    assert store.add(first)
    assert [d.document.digest for d in store.documents("queued")] == [first.digest]
