"""A document's life: queued, studied, learned or given up, taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autodidact.store.documents import MAX_TRIES
from autodidact.store.ledger import LearnerStore
from autodidact.store.scrub import FORGOTTEN
from autodidact.types.cycle import CycleState
from autodidact.types.documents import Findings, Material
from tests.store.rows import document, run_cycle, state


def test_a_document_comes_back_as_it_was_added(store: LearnerStore) -> None:
    assert store.documents.add(document(1, "Ünïcödé\n\nand lines"))
    [stored] = store.documents.in_state("queued")
    assert stored.document == document(1, "Ünïcödé\n\nand lines")
    assert (stored.id, stored.state, stored.tries, stored.cycle) == (1, "queued", 0, None)


def test_a_text_is_queued_once(store: LearnerStore) -> None:
    assert store.documents.add(document(1))
    assert not store.documents.add(document(1))
    assert not store.documents.add(document(2, "text 1")), "the same text at another address"
    assert store.documents.count("queued") == 1


def test_a_newer_text_supersedes_the_older(store: LearnerStore) -> None:
    store.documents.add(document(1, "old"))
    store.documents.add(document(2, "other"))
    store.documents.add(document(1, "new", source="elsewhere"))
    assert [state(store, i) for i in (1, 2, 3)] == ["queued", "queued", "queued"]
    store.documents.add(document(1, "newer"))
    assert [state(store, i) for i in (1, 2, 3, 4)] == ["superseded", "queued", "queued", "queued"]


@pytest.mark.parametrize("outcome", ["learned", "unusable"])
def test_a_newer_text_supersedes_what_was_learned_or_put_aside(
    store: LearnerStore, outcome: str
) -> None:
    store.documents.add(document(1, "old"))
    if outcome == "learned":
        run_cycle(store, 1, [1], "published")
    else:
        store.material.admit(1, Material(1, Findings(1, "old", (), ()), ()))
    assert state(store, 1) == outcome
    store.documents.add(document(1, "new"))
    assert [state(store, i) for i in (1, 2)] == ["superseded", "queued"]


def test_a_newer_text_does_not_disturb_a_cycle_that_studies_the_older(store: LearnerStore) -> None:
    store.documents.add(document(1, "old"))
    store.cycles.begin(1, None, {})
    store.cycles.study(1, [1])
    store.documents.add(document(1, "new"))
    assert state(store, 1) == "studying"
    store.cycles.finish(1, "published", (), {})
    assert [state(store, i) for i in (1, 2)] == ["learned", "queued"]


def test_a_text_that_comes_back_after_a_change_is_queued_again(store: LearnerStore) -> None:
    first = document(1, "first")
    assert store.documents.add(first)
    assert store.documents.add(replace(first, text="changed", digest="changed"))
    assert store.documents.add(first)
    assert [d.document.digest for d in store.documents.in_state("queued")] == [first.digest]


def test_a_published_cycle_has_learned_its_documents(store: LearnerStore) -> None:
    for number in (1, 2, 3):
        store.documents.add(document(number))
    store.cycles.begin(1, None, {})
    store.cycles.study(1, [1, 2])
    assert [state(store, i) for i in (1, 2, 3)] == ["studying", "studying", "queued"]
    store.cycles.finish(1, "published", (), {})
    assert [state(store, i) for i in (1, 2, 3)] == ["learned", "learned", "queued"]
    assert store.documents.get(1).cycle == 1


def test_a_cycle_that_was_interrupted_costs_no_try(store: LearnerStore) -> None:
    store.documents.add(document(1))
    for n in range(1, MAX_TRIES + 3):
        run_cycle(store, n, [1], "interrupted")
        assert state(store, 1) == "queued"
    assert store.documents.get(1).tries == 0
    assert store.documents.get(1).cycle is None


@pytest.mark.parametrize("outcome", ["rejected", "failed"])
def test_a_document_that_came_to_nothing_too_often_is_given_up(
    store: LearnerStore, outcome: CycleState
) -> None:
    store.documents.add(document(1))
    states = []
    for n in range(1, MAX_TRIES + 1):
        run_cycle(store, n, [1], outcome)
        states.append((state(store, 1), store.documents.get(1).tries))
    assert states == [("queued", 1), ("queued", 2), ("given_up", 3)]


def test_documents_tried_least_come_first(store: LearnerStore) -> None:
    for number in (1, 2, 3):
        store.documents.add(document(number))
    run_cycle(store, 1, [1], "rejected")
    assert [d.id for d in store.documents.in_state("queued")] == [2, 3, 1]
    assert [d.id for d in store.documents.in_state("queued", 2)] == [2, 3]


def test_finishing_a_cycle_moves_only_its_own_documents(store: LearnerStore) -> None:
    for number in (1, 2):
        store.documents.add(document(number))
    store.cycles.begin(1, None, {})
    store.cycles.study(1, [1])
    store.cycles.begin(2, None, {})
    store.cycles.study(2, [2])
    store.cycles.finish(1, "published", (), {})
    assert [state(store, i) for i in (1, 2)] == ["learned", "studying"]


def test_documents_are_found_as_people_name_them(store: LearnerStore) -> None:
    for number in (1, 2):
        store.documents.add(document(number))
    store.documents.add(document(3, source="elsewhere"))

    def found(what: str) -> list[int]:
        return [stored.id for stored in store.documents.matching(what)]

    assert found("2") == found("uri/2") == found("Title 2") == [2]
    assert found("notes") == [1, 2]
    assert found("nothing") == found("") == found("9" * 40) == found("²") == []
    assert store.documents.titles() == ["Title 1", "Title 2", "Title 3"]
    store.documents.forget([2])
    assert found("2") == [2], "still to be forgotten"
    store.scrub()
    assert found("2") == found(FORGOTTEN) == []
    assert store.documents.titles() == ["Title 1", "Title 3"]


# Taking back -------------------------------------------------------------------------------------


def test_a_rollback_queues_what_was_learned_after_it(store: LearnerStore) -> None:
    for number in range(1, 5):
        store.documents.add(document(number))
    for n in (1, 2, 3):
        run_cycle(store, n, [n], "published")
    run_cycle(store, 4, [4], "rejected")
    assert store.documents.requeue_after(1) == 2
    assert [state(store, i) for i in (1, 2, 3, 4)] == ["learned", "queued", "queued", "queued"]
    assert store.documents.requeue_after(1) == 0
    assert store.documents.requeue_after(0) == 1
    assert store.documents.count("learned") == 0


def test_a_rollback_does_not_queue_what_is_to_be_forgotten(store: LearnerStore) -> None:
    for number in (1, 2):
        store.documents.add(document(number))
    run_cycle(store, 1, [1, 2], "published")
    store.documents.forget([1])
    assert store.documents.requeue_after(0) == 1
    assert [state(store, i) for i in (1, 2)] == ["forgetting", "queued"]


@pytest.mark.parametrize("when", ["forgetting", "forgotten"])
def test_no_source_brings_back_what_is_forgotten(store: LearnerStore, when: str) -> None:
    store.documents.add(document(1, "old"))
    store.documents.forget([1])
    if when == "forgotten":
        store.scrub()
    assert state(store, 1) == when
    assert not store.documents.add(document(1, "old"))
    assert not store.documents.add(document(2, "old")), "the same text at another address"
    assert not store.documents.add(document(1, "new")), "another text at the same address"
    assert store.documents.add(document(1, "new", source="elsewhere"))
    assert store.documents.count(when) == 1


def test_only_what_a_published_cycle_taught_must_be_unlearned(store: LearnerStore) -> None:
    for number in (1, 2, 3):
        store.documents.add(document(number))
    run_cycle(store, 1, [1, 2], "rejected")
    run_cycle(store, 2, [2], "published")
    store.documents.forget([1, 3])
    assert store.documents.to_unlearn() == 0
    store.documents.forget([2])
    assert store.documents.to_unlearn() == 1
