"""Probes as they were frozen, what was answered to them, what is remembered."""

from __future__ import annotations

from autodidact.store.ledger import LearnerStore
from autodidact.types.documents import LearnedFact
from tests.store.rows import answered, document, probe


def test_a_frozen_probe_is_never_rewritten(store: LearnerStore) -> None:
    store.cycles.begin(1, None, {})
    store.probes.freeze(1, [probe(1), probe(2)])
    store.cycles.begin(2, None, {})
    store.probes.freeze(2, [probe(1, question="Easier?", answer="Other"), probe(3)])
    assert store.probes.of([1]) == [probe(1), probe(2), probe(3)]


def test_freezing_nothing_is_fine(store: LearnerStore) -> None:
    store.cycles.begin(1, None, {})
    store.probes.freeze(1, [])
    assert store.probes.of([1]) == []
    assert store.probes.of([]) == []


def test_probes_are_found_by_their_documents(store: LearnerStore) -> None:
    store.cycles.begin(1, None, {})
    store.probes.freeze(1, [probe(1, 1), probe(2, 2), probe(3, 3)])
    assert [p.document_id for p in store.probes.of([3, 1])] == [1, 3]


def test_a_probe_on_what_was_lent_for_comparison_becomes_one_on_what_is_taught(
    store: LearnerStore,
) -> None:
    store.cycles.begin(1, None, {})
    store.probes.freeze(1, [probe(1, split="control")])
    store.cycles.begin(2, None, {})
    store.probes.freeze(2, [probe(1, question="Easier?")])
    assert store.probes.of([1]) == [probe(1)], "the question stays as it was frozen"
    store.probes.freeze(2, [probe(1, split="control")])
    assert store.probes.of([1]) == [probe(1)]


def test_results_are_recorded_again_after_a_resumed_cycle(store: LearnerStore) -> None:
    store.cycles.begin(1, None, {})
    store.probes.freeze(1, [probe(1)])
    row = {
        "probe_id": probe(1).id,
        "split": "taught",
        "reply": "?",
        "correct": 0,
        "logprob": -2.0,
        "margin": -1.0,
    }
    store.probes.record(1, "parent", [row])
    store.probes.record(1, "candidate", [row])
    store.probes.record(1, "candidate", [{**row, "reply": "Ida", "correct": 1}])
    arms = {r.arm: r.reply for r in store.probes.results(1)}
    assert arms == {"parent": "?", "candidate": "Ida"}
    store.probes.record(1, "base", [])


def test_more_documents_than_a_statement_has_room_for(store: LearnerStore) -> None:
    store.cycles.begin(1, None, {})
    store.probes.freeze(1, [probe(1, 70_000)])
    assert len(store.probes.of(list(range(1, 80_000)))) == 1
    store.documents.add(document(1))
    assert store.documents.forget(list(range(1, 80_000))) == 1


# What is remembered ------------------------------------------------------------------------------


def test_a_fact_is_remembered_as_it_was_learned_and_as_last_published(store: LearnerStore) -> None:
    store.documents.add(document(1))
    assert store.probes.remembered() == []
    answered(store, 1, -0.5, "published")
    answered(store, 2, -0.8, "published")
    answered(store, 3, -4.0, "rejected")
    [known] = store.probes.remembered()
    assert known == LearnedFact(fact=probe(1).id, document_id=1, learned_in=1, then=-0.5, now=-0.8)


def test_what_was_never_measured_is_remembered_without_figures(store: LearnerStore) -> None:
    store.documents.add(document(1))
    store.cycles.begin(1, None, {})
    store.probes.freeze(1, [probe(1), probe(2, split="unseen")])
    store.cycles.study(1, [1])
    store.cycles.finish(1, "published", (), {})
    [known] = store.probes.remembered()
    assert (known.fact, known.then, known.now) == (probe(1).id, None, None)
