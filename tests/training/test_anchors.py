"""Anchors: what the base itself writes, sampled once, appended only, in part held out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.engine import Engine
from autodidact.models.loading import LoadedBase
from autodidact.training import anchors
from autodidact.training.anchors import Anchors, extend

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
EMPTY = Anchors()
IDS = st.lists(st.integers(0, 500), max_size=6).map(tuple)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and short ones, so that a test can make them all."""
    for name, value in {"TEXTS": 16, "CHATS": 8, "BATCH": 4, "TEXT_TOKENS": 24}.items():
        monkeypatch.setattr(anchors, name, value)
    monkeypatch.setattr(anchors, "QUESTION_TOKENS", 12)
    monkeypatch.setattr(anchors, "REPLY_TOKENS", 12)


def silent(step: int, of: int) -> None:
    pass


def numbered(texts: int, chats: int) -> Anchors:
    """Rows that can be told apart: texts (1, n), chats with prompt (2, n) and reply (3,)."""
    return Anchors(tuple((1, n) for n in range(texts)), tuple(((2, n), (3,)) for n in range(chats)))


# What is held out -------------------------------------------------------------------------------

COUNT = st.integers(0, 1200)


@given(COUNT, COUNT, COUNT, COUNT)
def test_what_is_held_out_is_never_trained_on_and_stays_held_out(
    texts: int, chats: int, more_texts: int, more_chats: int
) -> None:
    early = numbered(texts, chats)
    late = numbered(texts + more_texts, chats + more_chats)
    for each in (early, late):
        trained = set(each.training)
        assert not trained & set(each.blocks)
        assert not {row[:2] for row in trained} & set(each.prompts), "not even with another reply"
        assert len(trained) + len(each.blocks) + len(each.prompts) == len(each.texts + each.chats)
    assert late.blocks[: len(early.blocks)] == early.blocks
    assert late.prompts[: len(early.prompts)] == early.prompts
    assert set(early.training) <= set(late.training), "and what is trained on stays so"


def test_enough_is_held_out_and_most_is_trained_on() -> None:
    whole = numbered(anchors.TEXTS, anchors.CHATS)
    assert whole.complete
    assert (len(whole.blocks), len(whole.prompts)) == (200, 300)
    assert len(whole.training) == 5500


def test_a_slow_machine_has_both_to_measure_on_early() -> None:
    few = numbered(64, 64)
    assert not few.complete
    assert (len(few.blocks), len(few.prompts)) == (16, 32)


def test_a_chat_is_trained_on_as_a_whole() -> None:
    made = Anchors((), (((2, 0), (3,)), ((2, 1), (4, 5))))
    assert made.training == [(2, 1, 4, 5)]
    assert made.prompts == [(2, 0)]


# On disk ----------------------------------------------------------------------------------------


@given(st.lists(IDS, max_size=8), st.lists(st.tuples(IDS, IDS), max_size=8))
def test_anchors_come_back_from_json_as_they_were(
    texts: list[tuple[int, ...]], chats: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    made = Anchors(tuple(texts), tuple(chats))
    assert anchors.read(json.loads(json.dumps(made.plain()))) == made


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [[1, 2, 3], [4, 5]],
        [],
        {},
        {"texts": [[1, 2]]},
        {"texts": [[1, 2]], "chats": [[1, 2]]},
        {"texts": [[1, 2]], "chats": [{"prompt": [1]}]},
        {"texts": [1, 2], "chats": []},
        {"texts": [["a"]], "chats": []},
        {"texts": [[None]], "chats": []},
        {"texts": [[float("inf")]], "chats": []},
        "texts",
        7,
    ],
)
def test_what_is_not_in_this_form_counts_as_none(plain: Any) -> None:
    """The plain list is how they were kept before chats were told from texts."""
    assert anchors.read(plain) == EMPTY
    assert not anchors.read(plain).complete


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["texts", "chats", "prompt", "reply"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_content_of_the_file_is_an_error(plain: Any) -> None:
    made = anchors.read(plain)
    assert anchors.read(made.plain()) == made


# Sampling ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("family", ["llama", "smollm2", "opt", "qwen2"])
def test_anchors_are_sampled_until_there_are_enough(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    base = tiny_base(family)
    told: list[tuple[int, int]] = []
    made = extend(Engine(base), EMPTY, 3600, lambda step, of: told.append((step, of)))
    assert len(made.texts) <= anchors.TEXTS
    assert len(made.chats) <= anchors.CHATS
    assert made.complete == (len(made.texts) == anchors.TEXTS and len(made.chats) == anchors.CHATS)
    assert len(made.texts) > anchors.BATCH
    assert len(made.chats) >= anchors.BATCH
    whole = [*made.texts, *((*prompt, *reply) for prompt, reply in made.chats)]
    assert all(len(row) >= anchors.MIN_TOKENS for row in whole)
    assert all(0 <= token < len(base.tokenizer) for row in whole for token in row)
    assert all(row[0] == base.start_id for row in made.texts)
    assert told[0] == (0, anchors.TEXTS + anchors.CHATS)
    assert [step for step, _ in told] == sorted(step for step, _ in told)


@pytest.mark.usefixtures("small")
def test_anchors_are_only_ever_appended(llama: LoadedBase) -> None:
    engine = Engine(llama)
    first = extend(engine, EMPTY, 0, silent)
    assert 0 < len(first.texts) <= anchors.BATCH, "at least one batch, whatever the budget"
    assert 0 < len(first.chats) <= anchors.BATCH, "of each"
    assert not first.complete
    second = extend(engine, first, 0, silent)
    assert second.texts[: len(first.texts)] == first.texts
    assert second.chats[: len(first.chats)] == first.chats
    assert len(second.texts) + len(second.chats) > len(first.texts) + len(first.chats)
    assert len(set(second.texts)) == len(second.texts), "not the same ones again"


@pytest.mark.usefixtures("small")
def test_anchors_are_the_same_for_the_same_base(llama: LoadedBase) -> None:
    assert extend(Engine(llama), EMPTY, 0, silent) == extend(Engine(llama), EMPTY, 0, silent)


@pytest.mark.usefixtures("small")
def test_chats_are_chats_and_keep_up_with_the_texts(llama: LoadedBase) -> None:
    made = extend(Engine(llama), EMPTY, 3600, silent)
    assert len(made.chats) / len(made.texts) == pytest.approx(0.5, abs=0.3)
    for prompt, reply in made.chats:
        asked = str(llama.tokenizer.decode(list(prompt)))
        assert "Question:" in asked
        assert asked.rstrip().endswith("Answer:")
        assert len(reply) <= anchors.REPLY_TOKENS
        assert (reply[-1] in llama.stop_ids) == (len(reply) < anchors.REPLY_TOKENS) or (
            len(reply) == anchors.REPLY_TOKENS
        )


@pytest.mark.usefixtures("small")
def test_a_complete_set_is_not_sampled_again(llama: LoadedBase) -> None:
    complete = numbered(anchors.TEXTS, anchors.CHATS)
    assert extend(Engine(llama), complete, 0, silent) == complete
