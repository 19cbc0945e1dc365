"""What the next cycle does: learn, consolidate or forget, and what its study is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autodidact import checkpoints
from autodidact.commands import forget
from autodidact.learning.agenda import DRIFT_REST, STUCK_AFTER
from tests import fake_study
from tests.bench import Bench
from tests.workplace import CONTROL_TEXTS

pytest_plugins = ["tests.core_fixtures"]

LIMITS = {
    "general_limit": 0.1, "general_step": 0.1, "kept_limit": 0.15, "kept_step": 0.05,
    "chat_limit": 0.05, "chat_step": 0.02,
}  # fmt: skip


def start(bench: Bench, every: int = 25, **gate: float) -> Bench:
    """One document a cycle, ten to learn, consolidation after `every` cycles."""
    for number in range(6):
        name = f"Stand {number}"
        text = (
            f"The {name} is a barn on Gorse Hill {number}. It was built in 17{number}3. "
            f"It has {number + 40} windows. Its keeper is Ada Nul{number}. It is made of slate. "
        )
        bench.place.write({f"stand-{number}": (name, text * 2)})
    training = {"documents_per_cycle": 1, "consolidate_every": every}
    bench.restart(training=training, gate={**LIMITS, **gate})
    bench.learner.fetch()
    return bench


def job(bench: Bench, steps: list[str] | None = None) -> dict[str, Any]:
    """The job of the next cycle, as its study finds it."""
    copy = bench.place.folder / "job-seen"
    bench.script([f"copy:{copy}", *(steps or fake_study.GOOD)])
    bench.learn()
    found: dict[str, Any] = json.loads(copy.read_text())
    return found


def kinds(bench: Bench) -> list[str]:
    return [c.kind for c in reversed(bench.store.cycles.latest())]


# Which kind -------------------------------------------------------------------------------------


def test_a_consolidation_is_due_after_so_many_published_cycles(bench: Bench) -> None:
    start(bench, every=2)
    bench.learn()
    bench.script(fake_study.NOTHING_LEARNED)
    bench.learn()
    bench.learn()
    report = (bench.script(fake_study.BETTER), bench.learn())[1]
    assert kinds(bench) == ["learn", "learn", "learn", "consolidate"], "rejected ones do not count"
    assert (report.state, report.cycle, report.parent) == ("published", 4, 3)
    assert checkpoints.current(bench.home) == 4
    assert bench.cycle(4).documents == []
    assert len(bench.store.documents.in_state("learned")) == 2, "they stay what they were"
    bench.learn()
    assert kinds(bench)[-1] == "learn", "and it is not due again at once"


def test_a_consolidation_that_is_no_better_is_refused_and_rests(bench: Bench) -> None:
    start(bench, every=2)
    bench.learn()
    bench.learn()
    report = bench.learn()
    assert (report.kind, report.state) == ("consolidate", "rejected")
    assert report.reasons[0].line.startswith("consolidation: no better than the running adapter")
    assert report.failed == ("consolidation",)
    assert checkpoints.current(bench.home) == 2
    for _ in range(2):
        bench.learn()
    assert kinds(bench) == ["learn", "learn", "consolidate", "learn", "learn"]
    assert bench.cycle(4).parent == 2
    bench.learn()
    assert kinds(bench)[-1] == "consolidate"


def test_a_consolidation_that_the_gate_refuses_is_not_adopted(bench: Bench) -> None:
    start(bench, every=1)
    bench.learn()
    bench.script(fake_study.candidate(general=-0.005, chat=0.5))
    report = bench.learn()
    assert (report.state, report.failed) == ("rejected", ("chat",))
    assert checkpoints.current(bench.home) == 1


def test_a_consolidation_that_fails_does_not_keep_the_learner_from_learning(bench: Bench) -> None:
    start(bench, every=1)
    bench.learn()
    bench.script(["plan", "exit:1"])
    assert bench.learn().state == "failed"
    bench.learn()
    assert kinds(bench) == ["learn", "consolidate", "learn"]


def test_a_consolidation_is_due_when_the_drift_is_spent(bench: Bench) -> None:
    start(bench)
    drifted = fake_study.candidate(general=0.085)
    for _ in range(DRIFT_REST):
        bench.script(drifted)
        assert bench.learn().kind == "learn"
    report = bench.learn()
    assert (report.kind, report.state) == ("consolidate", "rejected"), "parent: +.01"
    assert bench.learn().kind == "learn"


def test_without_drift_it_goes_on_learning(bench: Bench) -> None:
    start(bench)
    for _ in range(DRIFT_REST + 1):
        assert bench.learn().kind == "learn"


def test_zero_means_never_by_count(bench: Bench) -> None:
    start(bench, every=0)
    for _ in range(4):
        assert bench.learn().kind == "learn"


def test_a_learner_that_is_stuck_at_its_limits_begins_anew(bench: Bench) -> None:
    """The gate refuses again and again for what has worn, not for what is new."""
    start(bench)
    bench.learn()
    for _ in range(STUCK_AFTER):
        bench.script(fake_study.candidate(general=0.5))
        assert bench.learn().kind == "learn"
    assert bench.learn().kind == "consolidate"
    assert bench.learn().kind == "learn", "tried once"


@pytest.mark.parametrize("general", [0.06, 0.085])
def test_only_where_the_drift_is_spent_does_a_consolidation_begin_anew(
    bench: Bench, general: float
) -> None:
    """Nine tenths of the limit, .1 nat; the fake candidate adds .01 to what it is told."""
    start(bench, every=DRIFT_REST)
    for _ in range(DRIFT_REST):
        bench.script(fake_study.candidate(general=general))
        bench.learn()
    found = job(bench)
    assert found["kind"] == "consolidate"
    assert found["fresh"] is (general > 0.08)


def test_forgetting_comes_before_everything_else(bench: Bench) -> None:
    start(bench, every=1)
    bench.learn()
    bench.script(fake_study.BETTER)
    bench.learn()
    bench.learn()
    [first, *_] = [d.id for d in bench.store.documents.in_state("learned")]
    forget.request(bench.home, [first])
    assert bench.learn().kind == "forget"


# The job ----------------------------------------------------------------------------------------


def test_the_job_of_learning_has_new_documents_and_earlier_facts(bench: Bench) -> None:
    start(bench)
    first = job(bench)
    assert first["kind"] == "learn"
    assert first["replay"] == []
    assert first["parent"] is None
    [lesson] = first["lessons"]
    second = job(bench)
    assert {e["document_id"] for e in second["replay"]} == {lesson["document_id"]}
    assert sum(second["shares"].values()) == pytest.approx(1)
    assert {e["fact"] for e in second["replay"]} == set(second["shares"])
    assert set(second["when_learned"]) == set(second["shares"])
    splits = {p["split"] for p in second["probes"]}
    assert splits == {"taught", "unseen", "control", "kept"}
    assert {p["document_id"] for p in second["probes"] if p["split"] == "control"} == {
        -number for number in range(1, len(CONTROL_TEXTS) + 1)
    }


def test_the_job_of_consolidating_has_the_whole_store_and_more_time(bench: Bench) -> None:
    start(bench, every=2)
    bench.learn()
    learn = job(bench)
    found = job(bench, fake_study.BETTER)
    assert found["kind"] == "consolidate"
    assert found["lessons"] == []
    assert {e["document_id"] for e in found["replay"]} == {1, 2}
    assert set(found["shares"].values()) == {1.0}
    assert {p["split"] for p in found["probes"]} == {"kept"}
    assert found["parent"]["version"] == 2
    assert found["fresh"] is False, "the adapter has room left: it goes on"
    factor = bench.learner.settings.training.consolidation_cycles
    assert found["minutes"] == pytest.approx(learn["minutes"] * factor)


def test_no_training_example_asks_as_a_probe_asks(bench: Bench) -> None:
    start(bench)
    bench.learn()
    found = job(bench)
    asked = {(p["question"], p["answer"]) for p in found["probes"] if p["split"] != "control"}
    rows = [e for d in found["lessons"] for e in d["examples"]] + found["replay"]
    trained = {(e["messages"][0]["content"], e["messages"][1]["content"])
               for e in rows if e["messages"]}  # fmt: skip
    assert len(asked) > 5
    assert len(trained) > 20
    assert not asked & trained


def test_what_is_remembered_is_how_it_was_and_how_it_is(bench: Bench) -> None:
    start(bench)
    bench.learn()
    then = {fact.fact: fact.then for fact in bench.store.probes.remembered()}
    bench.script(fake_study.candidate(kept=0.04))
    assert bench.learn().state == "published"
    first = bench.cycle(1).documents
    known = [fact for fact in bench.store.probes.remembered() if fact.document_id in first]
    assert {fact.fact: fact.then for fact in known} == then
    for fact in known:
        assert fact.now == pytest.approx(fact.then - 0.04)
        assert fact.learned_in == 1
    bench.script(fake_study.candidate(kept=2.0))
    assert bench.learn().state == "rejected"
    again = [fact for fact in bench.store.probes.remembered() if fact.document_id in first]
    assert again == known, "what was not published is not how it is"
