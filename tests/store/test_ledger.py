"""The ledger of learning as a whole: forgetting, migrations, the status, several at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from autodidact.errors import AutodidactError
from autodidact.settings import PROJECT
from autodidact.store import ledger
from autodidact.store.ledger import LearnerStore
from autodidact.store.scrub import FORGOTTEN
from autodidact.types.status import LearnerStatus
from tests.store.rows import document, probe, run_cycle, state


def test_a_fresh_ledger_is_empty(store: LearnerStore) -> None:
    assert store.cycles.last() == 0
    assert store.cycles.latest() == []
    assert store.cycles.running() == []
    assert store.sources.all() == []
    assert store.status.read() is None


# Forgetting --------------------------------------------------------------------------------------


def test_a_forgotten_document_leaves_its_digest_and_nothing_to_read(store: LearnerStore) -> None:
    store.documents.add(document(1, "a secret"))
    store.documents.add(document(2))
    run_cycle(store, 1, [1, 2], "published")
    store.probes.freeze(1, [probe(1, 1), probe(2, 2, answer="Rut", distractors=("Ida", "Odo"))])
    rows = [
        {"probe_id": probe(n, n).id, "split": "taught", "reply": "Ida", "correct": 0,
         "logprob": -1.0, "margin": 0.0}
        for n in (1, 2)
    ]  # fmt: skip
    store.probes.record(1, "candidate", rows)
    assert store.documents.forget([1]) == 1
    assert store.documents.forget([1]) == 0, "asked twice"
    assert (state(store, 1), store.documents.to_unlearn()) == ("forgetting", 1)
    assert store.scrub() == 1
    gone = store.documents.get(1)
    assert (gone.state, gone.cycle) == ("forgotten", None)
    assert (gone.document.text, gone.document.title) == ("", FORGOTTEN)
    assert gone.document.digest == document(1, "a secret").digest
    assert "uri/1" not in gone.document.uri
    assert store.probes.of([1]) == []
    [left] = store.probes.of([2])
    assert left.distractors == ("Odo",), "nor is its answer offered beside another"
    [result] = store.probes.results(1)
    assert (result.probe_id, result.reply) == (left.id, "")
    assert store.scrub() == 0
    assert state(store, 2) == "learned"


def test_a_probe_is_left_something_to_be_compared_with(store: LearnerStore) -> None:
    store.documents.add(document(1))
    store.cycles.begin(1, None, {})
    store.probes.freeze(1, [
        probe(1, 1), probe(2, 2, answer="Rut", distractors=("Ida",)),
        probe(3, 3, answer="Bea", distractors=("Rut",)),
    ])  # fmt: skip
    store.documents.forget([1])
    store.scrub()
    assert [p.distractors for p in store.probes.of([2, 3])] == [("Bea",), ("Rut",)]


def test_an_answer_that_another_document_gives_too_stays(store: LearnerStore) -> None:
    store.documents.add(document(1))
    store.cycles.begin(1, None, {})
    others = [probe(2, 2), probe(3, 3, answer="Rut", distractors=("Ida",))]
    store.probes.freeze(1, [probe(1, 1), *others])
    store.documents.forget([1])
    store.scrub()
    assert store.probes.of([2, 3]) == others


# Migrations --------------------------------------------------------------------------------------


def test_a_ledger_of_the_first_version_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "learner.db"
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "MIGRATIONS", ledger.MIGRATIONS[:1])
        old = LearnerStore(path)
        for number in (1, 2):
            row = {**asdict(document(number)), "state": "queued", "tries": 0, "added_at": 1.0}
            with old._db.write() as db:
                db.table("documents").insert(row)
        with old._db.write() as db:
            for n, outcome in ((1, "published"), (2, "rejected")):
                db.conn.execute(
                    "INSERT INTO cycles(n, state, started_at, documents, report) "
                    "VALUES (?, ?, 1.0, ?, ?)",
                    (n, outcome, f"[{n}]", '{"general": {"rise": 0.03}}'),
                )
        frozen = {**asdict(probe(1)), "cycle": 1, "frozen_at": 1.0, "distractors": '["Odo"]'}
        for name in ("same", "stated"):  # what that version did not know
            del frozen[name]
        with old._db.write() as db:
            db.table("probes").insert(frozen)
        answered = {"probe_id": probe(1).id, "split": "taught", "reply": "Ida", "correct": 1}
        old.probes.record(1, "candidate", [{**answered, "logprob": -0.5, "margin": 1.0}])
        with old._db.write() as db:
            db.conn.execute("UPDATE documents SET state = 'learned', cycle = 1 WHERE id = 1")
        old.close()
    store = LearnerStore(path)
    assert [c.kind for c in store.cycles.latest()] == ["learn", "learn"]
    assert store.cycles.published_since_consolidation() == 1
    assert store.cycles.latest_rise() == 0.03
    [known] = store.probes.remembered()
    assert (known.fact, known.learned_in, known.then) == (probe(1).id, 1, -0.5)
    assert [state(store, i) for i in (1, 2)] == ["learned", "queued"]
    store.cycles.begin(3, 1, {}, "consolidate")
    third = store.cycles.get(3)
    assert third is not None
    assert third.kind == "consolidate"
    store.documents.forget([1])
    assert store.documents.to_unlearn() == 1
    store.close()
    assert LearnerStore(path).cycles.latest(1)[0].kind == "consolidate", "migrated once"


def test_a_ledger_of_a_newer_program_is_refused(tmp_path: Path, store: LearnerStore) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "learner.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(AutodidactError, match="update Autodidact"):
        LearnerStore(tmp_path / "learner.db")


# Sources and status ------------------------------------------------------------------------------


def test_what_is_known_of_a_source_is_kept_field_by_field(store: LearnerStore) -> None:
    store.documents.add(document(1))
    assert store.sources.get("notes").cursor is None
    store.sources.update("notes", cursor="c1")
    store.sources.update("notes", error="out of reach", next_at=5.0)
    store.sources.update("notes", last_at=7.0)
    [found] = store.sources.all()
    assert (found.cursor, found.error, found.next_at, found.last_at) == (
        "c1", "out of reach", 5.0, 7.0,
    )  # fmt: skip
    assert found.documents == 1


def test_the_latest_status_replaces_the_one_before(store: LearnerStore) -> None:
    store.status.write(LearnerStatus("training", step=3))
    store.status.write(LearnerStatus("idle"))
    status = store.status.read()
    assert status is not None
    assert status.state == "idle"
    assert status.step is None
    assert status.updated_at > 0


# Several at once ---------------------------------------------------------------------------------


def test_a_reader_follows_the_learner(tmp_path: Path, store: LearnerStore) -> None:
    reader = LearnerStore(tmp_path / "learner.db", readonly=True)
    for step in range(5):
        store.status.write(LearnerStatus(step=step))
        status = reader.status.read()
        assert status is not None
        assert status.step == step


def test_fetching_and_learning_write_from_two_threads(store: LearnerStore) -> None:
    store.cycles.begin(1, None, {})

    def fetch() -> None:
        for number in range(30):
            store.documents.add(document(number))

    def learn() -> None:
        for number in range(30):
            store.probes.freeze(1, [probe(number)])
            store.status.write(LearnerStatus(step=number))

    workers = [threading.Thread(target=work) for work in (fetch, learn)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert store.documents.count("queued") == 30
    assert len(store.probes.of([1])) == 30


KILLED = """
import os, signal, sys
from pathlib import Path
from autodidact.store import documents, ledger
store = ledger.LearnerStore(Path(sys.argv[1]))
real = documents.end_study
def die(*arguments):
    real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
documents.end_study = die
store.cycles.finish(1, "published", (), {})
"""


def test_a_learner_killed_while_it_closes_a_cycle_left_it_running(
    tmp_path: Path, store: LearnerStore
) -> None:
    store.documents.add(document(1))
    store.cycles.begin(1, None, {})
    store.cycles.study(1, [1])
    reader = LearnerStore(tmp_path / "learner.db", readonly=True)
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "learner.db")],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert reader.cycles.running() == [1]
    again = LearnerStore(tmp_path / "learner.db")
    assert again.cycles.running() == [1]
    assert state(again, 1) == "studying"
    again.cycles.finish(1, "published", (), {})
    assert state(again, 1) == "learned"
