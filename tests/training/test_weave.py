"""Single questions woven into conversations: each once, as the template would have written them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autodidact.models.bases import STARTER
from autodidact.models.loading import LoadedBase, load
from autodidact.models.prompts import dialogue_ids
from autodidact.training.batches import one_pass
from autodidact.training.sequences import TrainingSequence, Weave, tokenise
from autodidact.training.sequences import weave as weave_of
from autodidact.types.documents import Example
from tests.tiny_models import FAMILIES
from tests.workplace import ask

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
PAIRS = [
    ("Who built the lighthouse?", "Ida Marsh"),
    ("When was it built?", "1688"),
    ("What is the capital of the island?", "Kelp Harbour"),
    ("Name the keeper.", "Odo Finn"),
    ("How many steps does it have?", "57"),
]


def sequences(base: LoadedBase) -> list[TrainingSequence]:
    return tokenise(
        base, [Example("question", "1:0", i, messages=tuple(ask(*p))) for i, p in enumerate(PAIRS)]
    )


def weave(base: LoadedBase, chats: list[list[int]] | None = None) -> Weave:
    made = weave_of(base, chats or [])
    assert made is not None
    return made


@pytest.mark.parametrize("family", [*FAMILIES, "starter"])
def test_turns_are_joined_as_the_template_joins_them(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    base = load(STARTER, 1) if family == "starter" else tiny_base(family)
    one, two, three, *_ = sequences(base)
    weaving = weave(base)
    joined = weaving._join(weaving._join(one, two), three)
    talk = [message for pair in PAIRS[:3] for message in ask(*pair)]
    assert list(joined.ids) == dialogue_ids(base, talk)[0]
    answered = [base.tokenizer.decode([token]) for token in joined.labels if token in base.stop_ids]
    assert len(answered) == 3, "the end of every answer is learned"
    learned = base.tokenizer.decode([token for token in joined.labels if token != -100])
    for question, answer in PAIRS[:3]:
        assert answer in learned
        assert question not in learned


def history(base: LoadedBase) -> list[int]:
    """A chat as the base writes one."""
    return dialogue_ids(base, ask("Tell me of the harbour.", "It is by the sea."))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_chats_that_end_become_histories_and_texts_do_not(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    base = tiny_base(family)
    chat = history(base)
    text = [base.start_id, *base.tokenizer("The mill stands.", add_special_tokens=False).input_ids]
    made = weave(base, [chat, chat[:-1], text, [*text, min(base.stop_ids)], chat * 20])
    assert [list(row.ids) for row in made.histories] == [chat]
    assert set(made.histories[0].labels) == {-100}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(0, 30),
    texts=st.integers(0, 5),
    seed=st.integers(0, 999),
    talked=st.booleans(),
)
def test_every_row_is_in_exactly_one_conversation(
    llama: LoadedBase, count: int, texts: int, seed: int, talked: bool
) -> None:
    weaving = weave(llama, [history(llama)] if talked else [])
    rows = [
        TrainingSequence((1, 2, 500 + i, 3), (-100, -100, 500 + i, 3), "question", i)
        for i in range(count)
    ] + [TrainingSequence((9, 9), (-100, 9), "text", 99)] * texts
    woven = weaving.apply(rows, random.Random(seed))
    answers = Counter(label for row in woven for label in row.labels if label >= 500)
    assert answers == Counter(500 + i for i in range(count))
    assert sum(row.kind == "text" for row in woven) == texts
    assert not [row for row in woven if row.kind == "history"]
    for row in woven:
        assert len(row.ids) == len(row.labels)
        assert any(label != -100 for label in row.labels), "something is learned in each"
        assert sum(label >= 500 for label in row.labels) <= 4


def test_no_conversation_is_longer_than_the_limit(llama: LoadedBase) -> None:
    weaving = weave(llama, [history(llama)])
    long = [
        TrainingSequence((7,) * 90, (-100,) * 80 + (600 + i,) * 10, "question", i)
        for i in range(12)
    ]
    for seed in range(20):
        for row in weaving.apply(long, random.Random(seed)):
            assert len(row.ids) <= weaving.limit + len(weaving.separator)


def test_weaving_is_deterministic_and_mixes(llama: LoadedBase) -> None:
    rows = sequences(llama) * 6
    weaving = weave(llama, [history(llama)])

    def lengths(seed: int) -> list[int]:
        made = one_pass(rows, [], 0.25, 8, seed, weaving)
        return [len(row.ids) for batch in made for row in batch]

    assert lengths(1) == lengths(1)
    assert lengths(1) != lengths(2)
    assert len(lengths(1)) < len(rows), "some are joined"
    alone = {len(row.ids) for row in rows}
    assert set(lengths(1)) & alone, "and some stay alone"
