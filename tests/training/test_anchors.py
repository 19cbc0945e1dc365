"""Anchors: what the base itself writes, sampled once, appended only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodidact.engine import Engine
from autodidact.model import LoadedBase
from autodidact.training import anchors
from autodidact.training.anchors import Anchors, extend

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
EMPTY = Anchors(())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and short ones, so that a test can make them all."""
    for name, value in {"TEXTS": 16, "CHATS": 8, "BATCH": 4, "TEXT_TOKENS": 24}.items():
        monkeypatch.setattr(anchors, name, value)
    monkeypatch.setattr(anchors, "QUESTION_TOKENS", 12)
    monkeypatch.setattr(anchors, "REPLY_TOKENS", 12)


def silent(step: int, of: int) -> None:
    pass


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_what_is_held_out_is_never_trained_on_and_stays_held_out(first: int, more: int) -> None:
    early = Anchors(tuple((i,) for i in range(first)))
    late = Anchors(early.rows + tuple((first + i,) for i in range(more)))
    for each in (early, late):
        assert not set(each.training) & set(each.held_out)
        assert sorted([*each.training, *each.held_out]) == sorted(each.rows)
    assert late.held_out[: len(early.held_out)] == early.held_out
    assert set(early.training) <= set(late.training)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("family", ["llama", "smollm2", "opt", "qwen2"])
def test_anchors_are_sampled_until_there_are_enough(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    base = tiny_base(family)
    told: list[tuple[int, int]] = []
    made = extend(Engine(base), EMPTY, 3600, lambda step, of: told.append((step, of)))
    assert len(made.rows) <= anchors.TEXTS + anchors.CHATS
    assert made.complete == (len(made.rows) == anchors.TEXTS + anchors.CHATS)
    assert len(made.rows) > anchors.BATCH
    assert all(len(row) >= anchors.MIN_TOKENS for row in made.rows)
    assert all(0 <= token < len(base.tokenizer) for row in made.rows for token in row)
    assert any(row[0] == base.start_id for row in made.rows)
    assert told[0] == (0, anchors.TEXTS + anchors.CHATS)
    assert [step for step, _ in told] == sorted(step for step, _ in told)


@pytest.mark.usefixtures("small")
def test_anchors_are_only_ever_appended(llama: LoadedBase) -> None:
    engine = Engine(llama)
    first = extend(engine, EMPTY, 0, silent)
    assert 0 < len(first.rows) <= anchors.BATCH, "at least one batch, whatever the budget"
    assert not first.complete
    second = extend(engine, first, 0, silent)
    assert second.rows[: len(first.rows)] == first.rows
    assert len(second.rows) > len(first.rows)
    assert len(set(second.rows)) == len(second.rows), "not the same ones again"


@pytest.mark.usefixtures("small")
def test_anchors_are_the_same_for_the_same_base(llama: LoadedBase) -> None:
    assert extend(Engine(llama), EMPTY, 0, silent) == extend(Engine(llama), EMPTY, 0, silent)


@pytest.mark.usefixtures("small")
def test_texts_and_chats_alternate_two_to_one(llama: LoadedBase) -> None:
    made = extend(Engine(llama), EMPTY, 3600, silent)
    chats = [row for row in made.rows if "Question:" in llama.tokenizer.decode(row[:8])]
    assert len(made.rows) / 5 < len(chats) < len(made.rows) / 2
    assert all("Answer:" in llama.tokenizer.decode(row) for row in chats)


@pytest.mark.usefixtures("small")
def test_a_complete_set_stays_as_it_is(llama: LoadedBase) -> None:
    rows = tuple((i, i + 1) for i in range(anchors.TEXTS + anchors.CHATS))
    complete = Anchors(rows)
    assert complete.complete
    assert extend(Engine(llama), complete, 0, silent).rows == rows
