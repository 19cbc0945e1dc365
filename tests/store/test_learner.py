"""The ledger of learning: a document's life, frozen probes, cycles, rollbacks, the status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from autodidact.errors import AutodidactError
from autodidact.settings import PROJECT
from autodidact.store.learner import MAX_TRIES, LearnerStore
from autodidact.types import Document, Probe


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
    store.finish_cycle(n, outcome, ("because",), {"cycle": n})  # type: ignore[arg-type]


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
        store.set_unusable(1, "no rule finds a fact in it")
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
    assert (second["reasons"], second["report"]) == (["because"], {"cycle": 2})
    assert second["settings"] == {"rank": 4}
    assert second["ended_at"] >= second["started_at"]
    running = store.cycle(3)
    assert running is not None
    assert (running["report"], running["reasons"], running["ended_at"]) == ({}, [], None)
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
from autodidact.store import learner
store = learner.LearnerStore(Path(sys.argv[1]))
real = learner._move_documents
def die(*arguments):
    real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
learner._move_documents = die
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
