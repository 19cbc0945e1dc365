"""Offline batches against the libraries' own: the same tokens, the same scores, no version mixed.

What `Engine.load` refuses is in test_refusals.py; adapters, caches, sampling and requests
that come and go are in tests/engine.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from autodidact.engine import Engine, Version, offline
from autodidact.models.loading import LoadedBase, fork
from autodidact.models.prompts import prompt_ids
from tests.tiny_models import FAMILIES
from tests.versions import load_adapter, save_adapter
from tests.workplace import ask

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
every_family = pytest.mark.parametrize("family", FAMILIES)
LENGTH = 24
QUESTIONS = (
    "Who?",
    "What is the capital of the island beside the northern harbour?",
    "When was the lighthouse on the north shore built, and by whom, and why?",
    "Say it.",
)


@pytest.fixture
def engine(tiny_base: Callable[[str], LoadedBase], family: str) -> Engine:
    return Engine(tiny_base(family))


@pytest.fixture
def adapter(engine: Engine, tmp_path: Path) -> Path:
    return save_adapter(engine.base, tmp_path / "adapter")


@pytest.fixture
def adapted(engine: Engine, adapter: Path) -> Version:
    return load_adapter(engine, 7, adapter)


@pytest.fixture
def by_peft(engine: Engine, adapter: Path) -> PreTrainedModel:
    """The same version, in PEFT's own modules over the base's tensors."""
    wrapped = PeftModel.from_pretrained(fork(engine.base.model), str(adapter)).eval()
    found = wrapped.get_base_model()
    assert isinstance(found, PreTrainedModel)
    return found


@pytest.fixture
def llama_engine(llama: LoadedBase) -> Engine:
    return Engine(llama)


def prompts(engine: Engine) -> list[list[int]]:
    return [prompt_ids(engine.base, ask(question)) for question in QUESTIONS]


# The same as transformers -----------------------------------------------------------------------


@every_family
def test_completions_and_generate_agree(
    engine: Engine, adapted: Version, by_peft: PreTrainedModel
) -> None:
    """Prompts of different lengths: alone, padded on the left, and in transformers' own loop."""
    for version, model in ((engine.untouched, engine.base.model), (adapted, by_peft)):
        together = engine.complete(version, prompts(engine), LENGTH)
        one_by_one = [engine.complete(version, [prompt], LENGTH)[0] for prompt in prompts(engine)]
        assert together == one_by_one
        assert any(one_by_one)
        for prompt, reply in zip(prompts(engine), one_by_one, strict=True):
            ids = torch.tensor([prompt])
            theirs = model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=LENGTH,
                eos_token_id=sorted(engine.base.stop_ids),
                pad_token_id=engine.base.pad_id,
            )[0, len(prompt) :].tolist()
            ended = [i for i, token in enumerate(theirs) if token in engine.base.stop_ids]
            assert reply == theirs[: ended[0] if ended else None]


@every_family
def test_a_score_is_the_mean_log_probability_a_token(
    engine: Engine, adapted: Version, by_peft: PreTrainedModel
) -> None:
    pairs = [(p, [5, 9, 200, 31][: 1 + i]) for i, p in enumerate(prompts(engine))]
    scores = engine.score(adapted, pairs)
    for (prompt, continuation), score in zip(pairs, scores, strict=True):
        with torch.inference_mode():
            logits = by_peft(torch.tensor([[*prompt, *continuation]])).logits[0]
        logp = logits.log_softmax(-1)
        by_hand = [float(logp[len(prompt) + i - 1, token]) for i, token in enumerate(continuation)]
        assert score == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-4)


def test_scores_keep_the_order_of_what_was_asked(tiny_base: Callable[[str], LoadedBase]) -> None:
    engine = Engine(tiny_base("llama"))
    pairs = [([3, 4] * (1 + i % 7), [10 + i]) for i in range(40)]
    together = engine.score(engine.untouched, pairs)
    alone = [engine.score(engine.untouched, [pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-4)


def test_batches_hold_no_more_tokens_than_allowed() -> None:
    lengths = [5, 400, 3, 90, 2000, 90, 1, 5000]
    batches = list(offline.by_length(lengths))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= 4096
    assert list(offline.by_length([])) == []


def test_the_logits_of_a_scored_batch_are_bounded_and_change_nothing(
    tiny_base: Callable[[str], LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny_base("llama"))
    pairs = [([3, 4] * (1 + i % 7), [10 + i, 11]) for i in range(40)]
    together = engine.score(engine.untouched, pairs)
    vocabulary = engine.base.model.get_output_embeddings().weight.shape[0]
    most = 20
    monkeypatch.setattr(offline, "LOGIT_BYTES", most * 4 * vocabulary)
    sizes: list[int] = []
    asked_of: Any = engine._offline
    score, shared = asked_of._score, asked_of._score_shared

    def scored(version: Version, some: Any) -> list[float]:
        sizes.append(len(some) * max(len(p) + len(c) for p, c in some))
        return score(version, some)

    def scored_shared(version: Version, asked: Any, owners: Any, some: Any) -> list[float]:
        sizes.append(len(some) * max(map(len, some)))
        return shared(version, asked, owners, some)

    monkeypatch.setattr(asked_of, "_score", scored)
    monkeypatch.setattr(asked_of, "_score_shared", scored_shared)
    assert engine.score(engine.untouched, pairs) == pytest.approx(together, abs=1e-4)
    assert len(sizes) > 1
    assert max(sizes) <= most


def test_completions_are_greedy_unless_a_temperature_is_given(llama_engine: Engine) -> None:
    asked = prompts(llama_engine) * 3
    greedy = llama_engine.complete(llama_engine.untouched, asked, 12)
    assert greedy == llama_engine.complete(llama_engine.untouched, asked, 12, seed=5)
    first = llama_engine.complete(llama_engine.untouched, asked, 12, temperature=1.0, seed=5)
    assert first == llama_engine.complete(
        llama_engine.untouched, asked, 12, temperature=1.0, seed=5
    )
    assert first != greedy
    assert first != llama_engine.complete(
        llama_engine.untouched, asked, 12, temperature=1.0, seed=6
    )


# Ending -----------------------------------------------------------------------------------------


def test_a_stop_token_ends_a_reply_and_is_left_out(llama: LoadedBase) -> None:
    free = Engine(replace(llama, stop_ids=frozenset({-1})))
    prompt = prompts(free)[1]
    [whole] = free.complete(free.untouched, [prompt], LENGTH)
    assert len(whole) == LENGTH
    stop = whole[5]
    stopping = Engine(replace(llama, stop_ids=frozenset({stop})))
    [completed] = stopping.complete(stopping.untouched, [prompt], LENGTH)
    assert completed == whole[: whole.index(stop)]


def test_no_reply_is_longer_than_asked(llama_engine: Engine) -> None:
    for length in (0, 1, 5):
        for reply in llama_engine.complete(llama_engine.untouched, prompts(llama_engine), length):
            assert len(reply) <= length


# Versions side by side --------------------------------------------------------------------------


def test_versions_used_from_many_threads_never_mix(llama: LoadedBase, tmp_path: Path) -> None:
    engine = Engine(llama)
    versions = [engine.untouched] + [
        load_adapter(engine, seed, save_adapter(llama, tmp_path / str(seed), seed))
        for seed in (1, 2)
    ]
    asked = prompts(engine)

    def reply(version: Version, i: int) -> list[int]:
        return engine.complete(version, [asked[i]], LENGTH)[0]

    expected = {(v.number, i): reply(v, i) for v in versions for i in range(len(asked))}
    assert len({tuple(expected[v.number, 1]) for v in versions}) == 3, "they answer differently"
    wrong: list[tuple[int, int]] = []
    begin = threading.Barrier(6)

    def work(number: int) -> None:
        begin.wait()
        for turn in range(8):
            version = versions[(number + turn) % 3]
            i = (number + turn) % len(asked)
            if reply(version, i) != expected[version.number, i]:
                wrong.append((version.number, i))

    workers = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for worker in workers:
        worker.start()
    late = load_adapter(engine, 9, tmp_path / "1")
    for worker in workers:
        worker.join()
    assert wrong == []
    assert reply(late, 1) == expected[1, 1]


@every_family
def test_answers_that_share_a_question_score_as_if_asked_alone(engine: Engine) -> None:
    """The prompt is computed once for all of them; lengths, order and neighbours do not matter."""
    order = random.Random(7)
    pairs = []
    for length in (3, 9, 30, 30, 57):
        prompt = [order.randrange(20, 200) for _ in range(length)]
        for size in (1, 4, 2, 7):
            pairs.append((prompt, [order.randrange(20, 200) for _ in range(size)]))
    order.shuffle(pairs)
    together = engine.score(engine.untouched, pairs)
    alone = [engine.score(engine.untouched, [pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-4)
