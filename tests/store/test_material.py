"""Facts, examples and chunks as rows; counts that cost nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact.lessons.material import RULES, material
from autodidact.store.ledger import LearnerStore
from autodidact.types.documents import Document
from tests.workplace import TEXTS

STATES = ("queued", "unusable", "superseded", "control")


def document(number: int, text: str = "", source: str = "files:notes") -> Document:
    title, usual = list(TEXTS.values())[number % len(TEXTS)]
    return Document(source, f"{number}.md", title, text or usual, "", f"{number} {text}", "")


def admitted(store: LearnerStore, number: int, text: str = "") -> None:
    assert store.documents.add(document(number, text), RULES)
    [fresh] = store.material.unread(10)
    assert store.material.admit(fresh, material(fresh, store.documents.get(fresh).document))


def test_what_was_found_comes_back_as_it_was(store: LearnerStore) -> None:
    for number in range(4):
        admitted(store, number)
    for number in range(1, 5):
        made = material(number, store.documents.get(number).document)
        assert made.findings.facts
        assert store.material.findings([number]) == [made.findings]
        assert store.material.examples([number]) == {number: list(made.examples)}
    assert [f.document_id for f in store.material.findings([3, 1])] == [3, 1]


def test_a_document_is_read_once(store: LearnerStore) -> None:
    admitted(store, 0)
    assert store.material.unread(10) == []
    assert not store.material.is_unread(1)
    assert not store.material.admit(1, material(1, document(1)))
    assert store.material.findings([1])[0].title == document(0).title


def test_one_without_facts_is_put_aside(store: LearnerStore) -> None:
    admitted(store, 0, "Nothing is said here about anything at all, and nobody says it.")
    assert store.documents.count("unusable") == 1
    assert store.documents.queue(10) == []


def test_an_unread_document_is_not_offered(store: LearnerStore) -> None:
    store.documents.add(document(0), RULES)
    assert store.documents.count("queued") == 1
    assert store.documents.queue(10) == []


def test_new_rules_reach_a_text_that_no_cycle_has_asked_about(store: LearnerStore) -> None:
    admitted(store, 0)
    assert not store.documents.add(document(0), RULES), "the same rules: nothing to do"
    assert store.documents.add(document(0), RULES + 1)
    assert store.material.unread(10) == [1]
    assert store.material.findings([1])[0].facts == ()


def test_what_a_cycle_has_asked_about_stays_as_it_is(store: LearnerStore) -> None:
    from autodidact.lessons.probes import write_probes

    admitted(store, 0)
    admitted(store, 1)
    both = store.material.findings([1, 2])
    store.cycles.begin(1, None, {})
    store.probes.freeze(1, write_probes(both[:1], both[1:], "taught"))
    assert not store.documents.add(document(0), RULES + 1)
    assert store.material.findings([1, 2]) == both


def test_a_control_document_has_a_number_of_its_own_and_is_never_offered(
    store: LearnerStore,
) -> None:
    assert store.documents.control(document(0, source="files:control")) == -1
    assert store.documents.control(document(1, source="files:control")) == -2
    assert store.documents.control(document(0, source="files:control")) == -1
    admitted_number = store.documents.add(document(2), RULES)
    assert admitted_number
    assert store.documents.control(document(2, source="files:control")) is None, "it may be taught"
    assert store.documents.count("queued") == 1
    assert store.documents.titles() == [document(2).title]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(STATES)), max_size=20), st.data())
def test_counts_are_those_of_the_rows(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("counts") / "learner.db"
    store = LearnerStore(path)
    with sqlite3.connect(path) as db:
        for number, (source, _) in enumerate(moves):
            store.documents.add(document(number, source=source))
        for number, (_, state) in enumerate(moves, start=1):
            db.execute("UPDATE documents SET state = ? WHERE id = ?", (state, number))
        gone = data.draw(st.integers(0, len(moves)))
        db.execute("DELETE FROM documents WHERE id <= ?", (gone,))
    left = moves[gone:]
    counts = [store.documents.count(s) for s in STATES]
    assert counts == [[s for _, s in left].count(s) for s in STATES]
    assert store.sources.get("a").documents == sum(o == "a" and s != "control" for o, s in left)


def test_an_idle_look_costs_the_same_however_many_wait(tmp_path: Path) -> None:
    """In steps of SQLite's virtual machine, which no busy machine changes."""

    def steps(waiting: int) -> int:
        store = LearnerStore(tmp_path / f"{waiting}.db")
        db = store._db.read().conn
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO documents (source, uri, title, text, digest, state, tries, rules) "
            "VALUES ('files', ?, 't', 'x', ?, 'queued', 0, 1)",
            [(str(n), str(n)) for n in range(waiting)],
        )
        db.execute("COMMIT")
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        db.set_progress_handler(step, 1)
        assert store.documents.queue(1) == [1]
        assert store.documents.count("queued") == waiting
        assert store.material.unread(1) == []
        assert not store.probes.any_remembered()
        db.set_progress_handler(None, 0)
        return count

    assert steps(10) == steps(5000)
