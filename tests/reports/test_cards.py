"""The report card and the retention matrix: what they say of a cycle, and what they never say."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.home import prepare_home
from autodidact.reports import archive, cards
from autodidact.reports.prose import bounds, card_text, limit, plain, share, signed
from autodidact.reports.retention import fold, retention, retention_text
from autodidact.store.cycles import StoredCycle
from autodidact.store.ledger import LearnerStore
from autodidact.types.cycle import CycleState, Reason
from autodidact.types.report import CycleReport, report_from_json
from autodidact.types.status import LearnerStatus
from tests import versions
from tests.ledgers import (
    FROZEN_AT,
    add_document,
    asked,
    full_report,
    rejected_report,
    rule,
    run_cycle,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LearnerStore]:
    store = LearnerStore(tmp_path / "learner.db")
    yield store
    store.close()


def card(home: Path, store: LearnerStore, n: int) -> dict[str, Any]:
    made = archive.read_card(home, store, n)
    assert made is not None
    json.dumps(made, allow_nan=False)
    return made


def published(home: Path, store: LearnerStore, **more: Any) -> dict[str, Any]:
    document = add_document(store, "anneck")
    run_cycle(store, 1, [document], report=full_report(document, **more))
    return card(home, store, 1)


# The card ---------------------------------------------------------------------------------------


def test_the_verdict_says_what_was_proved(tmp_path: Path, store: LearnerStore) -> None:
    made = published(tmp_path, store)
    assert made["verdict"] == (
        "Published. It passes 2 of 3 new questions, 0 before. "
        "It kept what it knew and stayed close to the base."
    )
    assert (made["claim"], made["ok"], made["failed"]) == ("learned", True, [])


def test_the_measures_each_with_what_decided(tmp_path: Path, store: LearnerStore) -> None:
    measures = {m["measure"]: m for m in published(tmp_path, store)["measures"]}
    assert list(measures) == ["learned", "kept", "general", "chat", "mind"]
    learned = measures["learned"]
    assert (learned["before"], learned["now"], learned["n"], learned["ok"]) == ("0", "2", 3, True)
    [test] = learned["tests"]
    assert (test["value"], test["lower"], test["upper"], test["limit"]) == (1.92, 1.31, 2.55, 0.0)
    assert [test["against"] for test in measures["general"]["tests"]] == ["base", "parent"]
    assert measures["general"]["now"] == "+1.5\u00a0%"
    assert (measures["chat"]["before"], measures["chat"]["now"]) == ("292", "291")


MARGIN = {"value": 0.9, "lower": -0.2, "upper": 2.0, "limit": 0.0}
EXACT = {"value": 0.7, "lower": None, "upper": None, "limit": 0.0083, "unit": "share", "n": 21}


@pytest.mark.parametrize(
    ("margin", "exact", "order", "ok", "decided"),
    [
        ((False, True), (True, False), ["exact", "control"], True,
         "Decided by exact answers; the margin alone does not show it."),
        ((True, False), (False, True), ["control", "exact"], True,
         "Decided by the margin; exact answers alone do not show it."),
        ((True, False), (True, False), ["control", "exact"], True,
         "The margin and exact answers both show it."),
        ((False, False), (False, False), ["control", "exact"], False,
         "Neither the margin nor exact answers show it."),
        ((False, False), (True, False), ["control", "exact"], False,
         "Exact answers alone would show it, but a margin did not rise."),
    ],
)  # fmt: skip
def test_it_is_told_in_a_line_which_evidence_of_learning_decided(
    tmp_path: Path,
    store: LearnerStore,
    margin: tuple[bool, bool],
    exact: tuple[bool, bool],
    order: list[str],
    ok: bool,
    decided: str,
) -> None:
    rules = [
        rule("learned", "control", margin[0], excused=margin[1], **MARGIN),
        rule("learned", "exact", exact[0], excused=exact[1], p=0.0004, **EXACT),
    ]
    made = published(tmp_path, store, rules=rules)
    learned = made["measures"][0]
    assert [test["against"] for test in learned["tests"]] == order
    assert (learned["ok"], learned["decided"]) == (ok, decided)
    text = card_text(made)
    assert decided in text
    assert "+70.0 points newly exact answers, against controls; p 0.0004; p at most 0.0083" in text
    assert text.count("FAILED") == [margin, exact].count((False, False))


def test_an_old_report_knows_of_one_kind_of_evidence(tmp_path: Path, store: LearnerStore) -> None:
    made = published(tmp_path, store)
    [test] = made["measures"][0]["tests"]
    assert (test["p"], test["excused"], made["measures"][0]["decided"]) == (None, False, "")


def test_questions_stand_with_their_document_and_both_answers(
    tmp_path: Path, store: LearnerStore
) -> None:
    [document] = published(tmp_path, store)["documents"]
    assert (document["title"], document["k"], document["n"], document["before"]) == (
        "Anneck Light", 2, 3, 0,
    )  # fmt: skip
    assert document["margin"] == pytest.approx(5 / 3)
    assert document["unseen"] == {"k": 1, "n": 2, "before": 0}
    first = document["probes"][0]
    assert (first["question"], first["answer"]) == ("What is lamp?", "the lamp")
    assert (first["before"]["reply"], first["now"]["reply"]) == ("wrong", "right")
    assert (first["before"]["correct"], first["now"]["correct"]) == (False, True)
    assert first["change"] == 2.5


def test_wordings_controls_and_what_turned_stand_apart(tmp_path: Path, store: LearnerStore) -> None:
    made = published(tmp_path, store)
    seen, unseen = made["wordings"]["seen"], made["wordings"]["unseen"]
    assert (seen["k"], seen["n"], unseen["k"], unseen["n"]) == (2, 3, 1, 2)
    # Wilson for 1 of 2, z 1.96: (p + z²/2n ± z√(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    assert (unseen["lower"], unseen["upper"]) == pytest.approx((0.0945, 0.9055), abs=1e-4)
    assert made["control"]["probes"][0]["id"] == "bridge"
    assert made["control"]["margin"] == 0
    assert [p["id"] for p in made["kept"]["lost"]] == ["bell"]
    assert [p["id"] for p in made["kept"]["regained"]] == ["toll"]
    assert (made["kept"]["k"], made["kept"]["n"], made["kept"]["before"]) == (2, 3, 2)


def test_the_questions_were_frozen_before_the_first_step(
    tmp_path: Path, store: LearnerStore
) -> None:
    how = published(tmp_path, store)["how"]
    assert how["frozen_at"] == FROZEN_AT < how["first_step_at"]
    assert how["base"]["sha256"] == "b" * 64
    assert how["settings"] == {"rank": 8}


def test_the_hash_of_the_weights_comes_from_the_manifest(
    tmp_path: Path, store: LearnerStore
) -> None:
    assert published(tmp_path, store)["how"]["weights_sha256"] == ""
    prepare_home(tmp_path)
    versions.publish(tmp_path, 1, None)
    assert len(card(tmp_path, store, 1)["how"]["weights_sha256"]) == 64


def test_every_step_size_that_was_tried_is_told(tmp_path: Path, store: LearnerStore) -> None:
    made = published(tmp_path, store)
    assert made["lambda"] == 0.5
    assert [(look["lambda"], look["ok"]) for look in made["looks"]] == [(1.0, False), (0.5, True)]
    assert "λ 1 failed, λ 0.5 passed" in card_text(made)


def test_a_rejected_cycle_says_why_and_claims_nothing(tmp_path: Path, store: LearnerStore) -> None:
    document = add_document(store, "anneck")
    run_cycle(store, 2, [document], "rejected", rejected_report(document))
    made = card(tmp_path, store, 2)
    assert made["claim"] == "queued"
    assert made["failed"] == ["general"]
    assert made["verdict"].startswith("Not published: it drifted too far from the base.")
    assert "Checkpoint 1 goes on answering." in made["verdict"]
    assert "learned" not in made["verdict"].lower()
    general = next(m for m in made["measures"] if m["measure"] == "general")
    assert [test["ok"] for test in general["tests"]] == [False, True]
    assert general["ok"] is False
    assert "FAILED" in card_text(made)


def test_a_rolled_back_cycle_is_learned_no_more(tmp_path: Path, store: LearnerStore) -> None:
    assert published(tmp_path, store)["claim"] == "learned"
    store.documents.requeue_after(0)
    made = card(tmp_path, store, 1)
    assert (made["claim"], made["withdrawn"]) == ("queued", True)
    assert "rolled back" in made["verdict"]
    assert retention(store)["cycles"] == []


@pytest.mark.parametrize(
    ("state", "claim"),
    [("preparing", "read"), ("training", "studying"), ("measuring", "measuring")],
)
def test_a_running_cycle_is_on_its_way_up_the_ladder(
    tmp_path: Path, store: LearnerStore, state: str, claim: str
) -> None:
    store.cycles.begin(1, None, {})
    store.status.write(LearnerStatus(state, cycle=1))
    made = card(tmp_path, store, 1)
    assert made["claim"] == claim
    assert "learned" not in made["verdict"]
    store.status.write(LearnerStatus(state, cycle=9))
    assert card(tmp_path, store, 1)["claim"] == "read"


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_a_cycle_that_was_not_judged_has_a_card(
    tmp_path: Path, store: LearnerStore, state: Any
) -> None:
    run_cycle(store, 1, [add_document(store, "anneck")], state)
    made = card(tmp_path, store, 1)
    assert "+0.140 nat" in made["verdict"]
    assert made["measures"][0]["ok"] is None
    assert "not measured" in card_text(made)


def test_a_cycle_that_taught_nothing_new_speaks_of_what_it_kept(
    tmp_path: Path, store: LearnerStore
) -> None:
    made = published(tmp_path, store, kind="consolidate", learned=None)
    assert "2 of 3 earlier questions pass, 2 before" in made["verdict"]
    assert "new questions" not in made["verdict"]


def test_what_was_to_be_forgotten_is_counted_and_not_repeated(
    tmp_path: Path, store: LearnerStore
) -> None:
    arms = {arm: {"k": k, "margin": 0.5} for arm, k in
            (("base", 0), ("parent", 4), ("candidate", 1))}  # fmt: skip
    made = published(tmp_path, store, kind="forget", forgotten={"n": 5, **arms})
    assert made["forgotten"] == {"k": 1, "n": 5, "before": 4, "base": 0}
    assert "to be forgotten: 1 of 5 pass, 0 of the base" in card_text(made)


def test_figures_that_are_no_numbers_become_none(tmp_path: Path, store: LearnerStore) -> None:
    probe = asked("lamp", "taught", 1, False, True)
    probe["now"]["margin"] = math.nan
    probe["now"]["logprob"] = -math.inf
    made = published(tmp_path, store, probes=[probe])
    assert made["documents"][0]["probes"][0]["now"]["margin"] is None
    assert made["documents"][0]["probes"][0]["now"]["logprob"] is None


def test_what_the_model_says_cannot_steer_the_terminal(tmp_path: Path, store: LearnerStore) -> None:
    probe = asked("lamp", "taught", 1, False, True, question="Who\n\x1b[2J\u202ecba?")
    text = card_text(published(tmp_path, store, probes=[probe]))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "Who  [2J cba?" in text


MAY_LACK = (
    "figures",
    "rules",
    "looks",
    "probes",
    "documents",
    "base",
    "forgotten",
    "step",
    "steps",
)
ENDED: tuple[CycleState, ...] = ("published", "rejected", "failed")


@given(st.sets(st.sampled_from(MAY_LACK)), st.sampled_from(ENDED))
def test_whatever_a_report_lacks_there_is_a_card(lacking: set[str], state: CycleState) -> None:
    whole = report_from_json({"cycle": 1, "state": state, **full_report(3)}, "the report")
    nothing = CycleReport(1, state, 0)
    told = replace(whole, **{name: getattr(nothing, name) for name in lacking})
    made = cards.card(
        StoredCycle(
            n=1,
            state=state,
            kind="learn",
            parent=None,
            started_at=0.0,
            ended_at=None,
            documents=[3],
            reasons=(Reason("", "a"),),
            report=told,
            settings={},
        )
    )
    assert made["verdict"]
    assert card_text(made)


# Words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.917, "nat", "+1.92 nat"), (-0.0042, "nat", "−0.004 nat"),
        (-0.1234, "share", "−12.3 points"), (0.0, "", "0.000"), (None, "nat", ""),
    ],
)  # fmt: skip
def test_changes_have_the_digits_they_deserve(value: float | None, unit: str, text: str) -> None:
    assert signed(value, unit) == text


def test_limits_say_their_side() -> None:
    assert limit({"rule": "learned", "limit": 0.0, "unit": "nat"}) == "above 0"
    assert limit({"rule": "kept", "limit": 0.15, "unit": "nat"}) == "at most 0.15"
    assert limit({"rule": "chat", "limit": 0.05, "unit": "share"}) == "at most 5 points"


def test_bounds_say_which_sides_there_are() -> None:
    assert bounds({"lower": 1.31, "upper": 2.55, "unit": "nat"}) == "+1.31 to +2.55"
    assert bounds({"lower": -0.013, "upper": 0.019, "unit": "share"}) == "−1.3 to +1.9 points"
    assert bounds({"lower": 0.7, "upper": None, "unit": "nat"}) == "at least +0.70"
    assert bounds({"lower": None, "upper": None, "unit": "nat"}) == ""


def test_a_share_of_nothing_is_no_number() -> None:
    assert share({"k": 0, "n": 0, "lower": None, "upper": None}) == "none asked"


@given(st.text())
def test_plain_text_is_one_printable_line(text: str) -> None:
    assert plain(text).isprintable()
    assert len(plain(text)) == len(text)


# Retention --------------------------------------------------------------------------------------


def test_the_matrix_counts_what_each_cycle_still_knows(store: LearnerStore) -> None:
    one, two, three = (add_document(store, name) for name in ("one", "two", "three"))
    run_cycle(store, 1, [one], results={"taught": {one: (4, 5)}, "control": {-1: (0, 3)}})
    run_cycle(store, 2, [two], "rejected", results={"taught": {two: (5, 5)}, "kept": {one: (0, 5)}})
    run_cycle(store, 3, [two], results={"taught": {two: (3, 5)}, "kept": {one: (2, 5)}})
    run_cycle(
        store, 4, [three], results={"taught": {three: (1, 2)}, "unseen": {three: (2, 2)},
                                    "kept": {one: (1, 4), two: (2, 4)}}
    )  # fmt: skip
    found = retention(store)
    assert found["cycles"] == [1, 3, 4]
    rows = {row["title"]: row for row in found["documents"]}
    assert list(rows) == ["one", "two", "three"]
    assert [row["learned_in"] for row in rows.values()] == [1, 3, 4]
    assert rows["one"]["cells"] == {1: {"k": 4, "n": 5}, 3: {"k": 2, "n": 5}, 4: {"k": 1, "n": 4}}
    assert rows["three"]["cells"] == {4: {"k": 1, "n": 2}}, "other wordings are counted apart"
    assert (found["overall"][4]["k"], found["overall"][4]["n"]) == (3, 8)
    assert found["overall"][4]["lower"] < 3 / 8 < found["overall"][4]["upper"]
    assert found["overall"][1] == {"k": 0, "n": 0, "lower": None, "upper": None}
    text = retention_text(found, 80)
    assert "80   40   25" in text
    assert "cycle 4: 3 of 8 earlier questions pass" in text


def test_an_empty_ledger_has_an_empty_matrix(store: LearnerStore) -> None:
    assert retention(store) == {"cycles": [], "documents": [], "overall": {}}
    assert retention_text(retention(store)) == "nothing is published yet"


def matrix(cycles: int, documents: int) -> dict[str, Any]:
    """Each document taught in one cycle, then asked one question in each later cycle."""
    rows = []
    for number in range(documents):
        taught = 1 + number * cycles // documents
        cells = {n: {"k": n % 2, "n": 1} for n in range(taught, cycles + 1)}
        rows.append({"id": number, "title": f"D{number}", "learned_in": taught, "cells": cells})
    overall = {n: {"k": 1, "n": 2, "lower": 0.1, "upper": 0.9} for n in range(1, cycles + 1)}
    return {"cycles": list(range(1, cycles + 1)), "documents": rows, "overall": overall}


def test_older_cycles_are_pooled_in_tens() -> None:
    labels = [column["label"] for column in fold(matrix(58, 3), 40, 40)["columns"]]
    assert labels[:3] == ["1–10", "11–20", "21"]
    assert labels[-1] == "58"


def test_many_documents_are_pooled_by_the_cycle_that_taught_them() -> None:
    rows = fold(matrix(10, 60), 40, 40)["rows"]
    assert [row["label"] for row in rows][:2] == ["Cycle 1: 6 documents", "Cycle 2: 6 documents"]
    assert rows[0]["cells"][0] == {"k": 6, "n": 6}


@given(st.integers(1, 700), st.integers(1, 90), st.integers(4, 40), st.integers(4, 40))
def test_folding_loses_no_answer_and_fits(
    cycles: int, documents: int, rows: int, columns: int
) -> None:
    whole = matrix(cycles, documents)
    small = fold(whole, rows, columns)
    assert len(small["rows"]) <= rows
    assert len(small["columns"]) <= columns
    assert all(len(row["cells"]) == len(small["columns"]) for row in small["rows"])
    for key in ("k", "n"):
        before = sum(c[key] for row in whole["documents"] for c in row["cells"].values())
        after = sum(cell[key] for row in small["rows"] for cell in row["cells"] if cell)
        assert after == before
    assert small["columns"][-1]["cycle"] == cycles
