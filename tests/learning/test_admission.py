"""Documents become rows: new ones, those of a home from before, and what changed rules leave."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from autodidact.errors import StoreOutdated
from autodidact.learning import admission
from autodidact.lessons import material as rules
from autodidact.lessons.probes import probe_id
from autodidact.reading import document as reading
from autodidact.store.ledger import LearnerStore
from tests.bench import Bench

pytest_plugins = ["tests.core_fixtures"]
BEFORE = Path(__file__).parents[1] / "store" / "home_before_facts.sql"


def rows(path: Path, table: str) -> list[Any]:
    with sqlite3.connect(path) as db:
        return db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """`learner.db` as the project left it before facts were rows."""
    path = tmp_path / "learner.db"
    with sqlite3.connect(path) as db:
        db.executescript(BEFORE.read_text("utf-8"))
    return path


def never() -> threading.Event:
    return threading.Event()


# A home from before -----------------------------------------------------------------------------


def test_an_upgraded_home_has_lost_nothing(before: Path) -> None:
    kept = {table: rows(before, table) for table in ("probes", "results", "cycles", "sources")}
    texts = [row[:13] for row in rows(before, "documents")]
    store = LearnerStore(before)
    remembered = store.probes.remembered()
    assert len(remembered) > 5
    assert admission.read_waiting(store, never()) == len(texts)
    now = {table: rows(before, table) for table in kept}
    assert now.pop("probes") == [(*row, "") for row in kept.pop("probes")], "no sentences then"
    assert now == kept
    assert [row[:13] for row in rows(before, "documents")] == texts
    assert store.probes.remembered() == remembered


def test_what_an_upgraded_home_has_learned_is_replayed(before: Path) -> None:
    store = LearnerStore(before)
    admission.read_waiting(store, never())
    facts = {known.fact for known in store.probes.remembered()}
    examples = store.material.examples_of(facts)
    assert {example.fact for example in examples} == facts
    probes = {p.id: p.question for p in store.probes.of(store.documents.numbers("learned"))}
    asked = {message.content for e in examples for message in e.messages[:1]}
    assert not asked & set(probes.values()), "the questions that were frozen are still not trained"


def test_an_interrupted_upgrade_goes_on(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = never()
    real = admission.material

    def stop_after(number: int, document: Any) -> Any:
        if number == 2:
            stopping.set()
        return real(number, document)

    with monkeypatch.context() as patch:
        patch.setattr(admission, "material", stop_after)
        store = LearnerStore(before)
        assert admission.read_waiting(store, stopping) == 2
        store.close()
    whole = LearnerStore(before)
    left = whole.material.count_unread()
    assert left == 3
    assert admission.read_waiting(whole, never()) == left
    assert whole.material.findings([1])[0].facts
    assert whole.documents.queue(10) == whole.documents.numbers("queued")


def test_a_reader_says_that_the_home_is_of_an_older_version(before: Path) -> None:
    with pytest.raises(StoreOutdated, match=r"made by an older version .* start web_learner.py"):
        LearnerStore(before, readonly=True).status.read()


# Rules that change ------------------------------------------------------------------------------


def test_what_was_learned_stays_learned_when_the_rules_change(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.restart(training={"documents_per_cycle": 1})
    bench.learner.fetch()
    assert bench.learn().state == "published"
    [learned] = bench.store.documents.numbers("learned")
    facts = {known.fact for known in bench.store.probes.remembered()}
    examples = bench.store.material.examples_of(facts)
    assert {example.fact for example in examples} == facts

    monkeypatch.setattr(rules, "RULES", rules.RULES + 1)
    monkeypatch.setattr(reading.statements, "read", lambda chunk, about: [])
    monkeypatch.setattr(reading.gaps, "read", lambda chunk, about, spared: [])
    bench.learner.fetch()
    assert bench.store.material.examples_of(facts) == examples
    assert {known.fact for known in bench.store.probes.remembered()} == facts
    [found] = bench.store.material.findings([learned])
    assert {probe_id(learned, fact) for fact in found.facts} >= facts
    report = bench.learn()
    assert {p.id for p in report.probes if p.split == "kept"} == facts


def test_new_documents_are_read_while_they_come(bench: Bench) -> None:
    bench.learner.fetch()
    assert bench.store.material.count_unread() == 0
    assert len(bench.store.documents.queue(10)) == 4


def test_a_kill_between_storing_and_reading_is_made_good_at_the_next_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(admission, "read_waiting", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.learner.fetch()
    assert bench.store.documents.queue(10) == []
    bench.restart().recover()
    assert len(bench.store.documents.queue(10)) == 1
    assert bench.store.material.findings(bench.store.documents.queue(1))[0].facts


def test_a_long_reading_says_how_long_it_takes(
    before: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "SAY_EVERY_S", -1.0)
    with caplog.at_level(logging.INFO):
        admission.read_waiting(LearnerStore(before), never())
    assert caplog.messages[1].startswith("reading: 2 documents done, 3 left, about ")
