"""Anchors: what the base itself writes, sampled once, appended only, in part held out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodidact.engine import Engine
from autodidact.models.loading import LoadedBase
from autodidact.models.prompts import prompt_ids
from autodidact.training import anchor_set, anchors
from autodidact.training.anchors import Anchor, Anchors, RealAnchors, extend
from autodidact.types.chat import Message

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
        trained = {anchor.ids for anchor in each.training}
        assert not trained & set(each.blocks)
        assert not {row[:2] for row in trained} & set(each.prompts), "not even with another reply"
        assert len(trained) + len(each.blocks) + len(each.prompts) == len(each.texts + each.chats)
    assert late.blocks[: len(early.blocks)] == early.blocks
    assert late.prompts[: len(early.prompts)] == early.prompts
    assert set(early.training) <= set(late.training), "and what is trained on stays so"


def test_enough_is_held_out_and_most_is_trained_on() -> None:
    whole = numbered(anchors.TEXTS, anchors.CHATS)
    assert whole.complete("sampled")
    assert (len(whole.blocks), len(whole.prompts)) == (200, 300)
    assert len(whole.training) == 5500


def test_a_slow_machine_has_both_to_measure_on_early() -> None:
    few = numbered(64, 64)
    assert not few.complete("sampled")
    assert (len(few.blocks), len(few.prompts)) == (16, 32)


def test_a_chat_is_trained_on_as_a_whole() -> None:
    made = Anchors((), (((2, 0), (3,)), ((2, 1), (4, 5))))
    assert made.training == [Anchor((2, 1, 4, 5))]
    assert made.prompts == [(2, 0)]


# On disk ----------------------------------------------------------------------------------------


@given(st.lists(IDS, max_size=8), st.lists(st.tuples(IDS, IDS), max_size=8))
def test_anchors_come_back_from_json_as_they_were(
    texts: list[tuple[int, ...]], chats: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    real = RealAnchors(tuple(texts), tuple(chats), tuple(texts), (("a", (1, 2)),), 7)
    made = Anchors(tuple(texts), tuple(chats), real)
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
    assert not anchors.read(plain).training


KEYS = ["texts", "chats", "prompt", "reply", "real", "blocks", "prompts", "due", "id"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
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
    made = extend(Engine(base), EMPTY, "sampled", 3600, lambda step, of: told.append((step, of)))
    assert len(made.texts) <= anchors.TEXTS
    assert len(made.chats) <= anchors.CHATS
    assert made.complete("sampled") == (
        len(made.texts) == anchors.TEXTS and len(made.chats) == anchors.CHATS
    )
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
    first = extend(engine, EMPTY, "sampled", 0, silent)
    assert 0 < len(first.texts) <= anchors.BATCH, "at least one batch, whatever the budget"
    assert 0 < len(first.chats) <= anchors.BATCH, "of each"
    assert not first.complete("sampled")
    second = extend(engine, first, "sampled", 0, silent)
    assert second.texts[: len(first.texts)] == first.texts
    assert second.chats[: len(first.chats)] == first.chats
    assert len(second.texts) + len(second.chats) > len(first.texts) + len(first.chats)
    assert len(set(second.texts)) == len(second.texts), "not the same ones again"


@pytest.mark.usefixtures("small")
def test_anchors_are_the_same_for_the_same_base(llama: LoadedBase) -> None:
    assert extend(Engine(llama), EMPTY, "sampled", 0, silent) == extend(
        Engine(llama), EMPTY, "sampled", 0, silent
    )


@pytest.mark.usefixtures("small")
def test_chats_are_chats_and_keep_up_with_the_texts(llama: LoadedBase) -> None:
    made = extend(Engine(llama), EMPTY, "sampled", 3600, silent)
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
    assert extend(Engine(llama), complete, "sampled", 0, silent) == complete


# Our own prompts and texts ------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short replies, so that a test can make them all."""
    monkeypatch.setattr(anchors, "REPLY_TOKENS", 6)


@pytest.mark.usefixtures("few")
def test_real_anchors_are_all_there_at_once_and_replies_follow(smollm2: LoadedBase) -> None:
    engine = Engine(smollm2)
    first = extend(engine, EMPTY, "real", 0, silent)
    trained = [text for text in anchor_set.texts() if not text.held]
    assert len(first.real.texts) == len(trained)
    assert len(first.blocks) == len(anchor_set.texts()) - len(trained)
    assert len(first.prompts) == sum(prompt.held for prompt in anchor_set.prompts())
    assert len(first.real.chats) == anchors.AT_ONCE, "a batch, whatever the budget"
    assert not first.complete("real")
    told: list[tuple[int, int]] = []
    whole = extend(engine, first, "real", 3600, lambda step, of: told.append((step, of)))
    assert whole.complete("real")
    assert not whole.complete("mixed")
    assert not whole.texts, "nothing is sampled"
    assert whole.real.chats[: anchors.AT_ONCE] == first.real.chats
    assert told[0] == (anchors.AT_ONCE, whole.real.due)


@pytest.mark.usefixtures("few")
def test_the_first_replies_are_to_prompts_of_all_kinds(smollm2: LoadedBase) -> None:
    made = extend(Engine(smollm2), EMPTY, "real", 0, silent)
    by_prompt = {
        tuple(prompt_ids(smollm2, [Message("user", p.prompt)])): p.group
        for p in anchor_set.prompts()
    }
    groups = [by_prompt[prompt] for prompt, _ in made.real.chats[:6]]
    assert set(groups) == set(get_args(anchor_set.Group))


def test_shipped_replies_cost_nothing(smollm2: LoadedBase) -> None:
    """A reply that was cut off is not taught to end there."""
    shipped = anchor_set.replies("HuggingFaceTB/SmolLM2-135M-Instruct")
    asked = {p.id: p for p in anchor_set.prompts()}
    assert shipped.keys() == {p.id for p in asked.values() if not p.held}
    engine = Engine(smollm2)
    engine.complete = None  # type: ignore[assignment, method-assign]  # nothing may be written
    made = extend(engine, EMPTY, "real", 3600, silent, shipped)
    assert made.complete("real")
    ended = [reply[-1] in smollm2.stop_ids for _, reply in made.real.chats]
    assert 0 < sum(ended) < len(ended)
    said = {str(smollm2.tokenizer.decode(list(r), skip_special_tokens=True)) for _, r in
            made.real.chats}  # fmt: skip
    assert {reply.reply for reply in shipped.values()} == said
    assert not anchor_set.replies("Qwen/Qwen2.5-0.5B-Instruct"), "another base says other things"


def test_a_persons_prompt_is_not_held_to_the_base_but_its_reply_is() -> None:
    real = RealAnchors(texts=((9, 8),), chats=(((1, 2, 3), (4, 5)),), due=1)
    assert Anchors(real=real).training == [Anchor((1, 2, 3, 4, 5), 3), Anchor((9, 8))]
