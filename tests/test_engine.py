"""Inference against the libraries' own: the same tokens, the same scores, never two versions mixed.

What `Engine.load` refuses is in test_engine_refuses.py.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from autodidact.engine import Engine, Version, _sample
from autodidact.model import LoadedBase, prompt_ids
from autodidact.types import SamplingParams
from tests.tiny_models import FAMILIES
from tests.versions import load_adapter, save_adapter
from tests.workplace import ask

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
every_family = pytest.mark.parametrize("family", FAMILIES)
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=24)
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


def prompts(engine: Engine) -> list[list[int]]:
    return [prompt_ids(engine.base, ask(question)) for question in QUESTIONS]


def streamed(
    engine: Engine, version: Version, prompt: list[int], params: SamplingParams
) -> list[int]:
    return list(engine.stream(version, prompt, params))


# The same as PEFT and transformers --------------------------------------------------------------


@every_family
def test_a_version_computes_what_peft_computes(
    engine: Engine, adapter: Path, adapted: Version, tiny_folder: Callable[[str], Path], family: str
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_folder(family), dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, str(adapter)).eval()
    for prompt in prompts(engine):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            expected = theirs(ids).logits
            untouched = engine.untouched.model(ids).logits
            assert torch.allclose(adapted.model(ids).logits, expected, atol=1e-4)
        assert not torch.allclose(untouched, expected, atol=0.1), "the adapter says otherwise"


@every_family
def test_streaming_batching_and_generate_agree(
    engine: Engine, adapted: Version, family: str
) -> None:
    """Prompts of different lengths: alone, padded on the left, and in transformers' own loop."""
    for version in (engine.untouched, adapted):
        one_by_one = [streamed(engine, version, prompt, GREEDY) for prompt in prompts(engine)]
        together = engine.complete(version, prompts(engine), GREEDY.max_new_tokens)
        assert together == one_by_one
        assert any(one_by_one)
        for prompt, reply in zip(prompts(engine), one_by_one, strict=True):
            ids = torch.tensor([prompt])
            theirs = version.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=GREEDY.max_new_tokens,
                eos_token_id=sorted(engine.base.stop_ids),
                pad_token_id=engine.base.pad_id,
            )[0, len(prompt) :].tolist()
            ended = [i for i, token in enumerate(theirs) if token in engine.base.stop_ids]
            assert reply == theirs[: ended[0] if ended else None]


@every_family
def test_a_score_is_the_mean_log_probability_a_token(engine: Engine, adapted: Version) -> None:
    pairs = [(p, [5, 9, 200, 31][: 1 + i]) for i, p in enumerate(prompts(engine))]
    scores = engine.score(adapted, pairs)
    for (prompt, continuation), score in zip(pairs, scores, strict=True):
        with torch.inference_mode():
            logits = adapted.model(torch.tensor([[*prompt, *continuation]])).logits[0]
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
    batches = list(Engine._by_length(lengths))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= 4096
    assert list(Engine._by_length([])) == []


# Sampling ---------------------------------------------------------------------------------------


@pytest.fixture
def llama_engine(llama: LoadedBase) -> Engine:
    return Engine(llama)


def sampled(engine: Engine, **params: float | int | None) -> list[int]:
    chosen = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 24} | params
    return streamed(engine, engine.untouched, prompts(engine)[0], SamplingParams(**chosen))  # type: ignore[arg-type]


def test_a_seed_reproduces_a_reply(llama_engine: Engine) -> None:
    first = sampled(llama_engine, seed=11)
    assert first == sampled(llama_engine, seed=11)
    assert any(first != sampled(llama_engine, seed=seed) for seed in (12, 13, 14))


def test_a_seed_reproduces_a_reply_beside_others(llama_engine: Engine) -> None:
    alone = sampled(llama_engine, seed=5)
    other = llama_engine.stream(
        llama_engine.untouched, prompts(llama_engine)[1], SamplingParams(seed=9, max_new_tokens=50)
    )
    next(other)
    assert sampled(llama_engine, seed=5) == alone
    next(other)


def test_without_a_seed_replies_differ(llama_engine: Engine) -> None:
    replies = {tuple(sampled(llama_engine, seed=None)) for _ in range(6)}
    assert len(replies) > 1


def test_the_limits_of_sampling_narrow_it_to_the_greedy_token(llama_engine: Engine) -> None:
    greedy = streamed(llama_engine, llama_engine.untouched, prompts(llama_engine)[0], GREEDY)
    assert sampled(llama_engine, top_k=1, seed=1) == greedy
    assert sampled(llama_engine, top_p=1e-6, seed=1) == greedy
    assert sampled(llama_engine, temperature=1e-4, seed=1) == greedy
    assert sampled(llama_engine, top_k=10**6, seed=1) == sampled(llama_engine, seed=1)


LOGITS = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]])


def drawn(**params: float | int) -> Counter[int]:
    generator = torch.Generator().manual_seed(0)
    chosen = {"temperature": 1.0, "top_p": 1.0, "top_k": 0} | params
    rows = LOGITS.expand(4000, -1)
    return Counter(_sample(rows, SamplingParams(**chosen), generator).tolist())  # type: ignore[arg-type]


def test_sampling_follows_the_probabilities() -> None:
    expected = LOGITS[0].softmax(-1).tolist()
    found = drawn()
    for token, probability in enumerate(expected):
        # Four standard errors of a share in 4,000 draws.
        bound = 4 * (probability * (1 - probability) / 4000) ** 0.5
        assert found[token] / 4000 == pytest.approx(probability, abs=bound)


def test_temperature_divides_the_logits() -> None:
    probability = float((LOGITS[0] / 2).softmax(-1)[0])
    bound = 4 * (probability * (1 - probability) / 4000) ** 0.5
    assert drawn(temperature=2.0)[0] / 4000 == pytest.approx(probability, abs=bound)


def test_top_k_and_top_p_leave_only_the_likeliest() -> None:
    assert set(drawn(top_k=2)) == {0, 1}
    # The likeliest two hold .64 + .23 = .87 of the probability.
    assert set(drawn(top_p=0.80)) == {0, 1}
    assert set(drawn(top_p=0.90)) == {0, 1, 2}
    assert set(drawn(temperature=0.0)) == {0}


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
    from dataclasses import replace

    free = Engine(replace(llama, stop_ids=frozenset({-1})))
    prompt = prompts(free)[1]
    whole = streamed(free, free.untouched, prompt, GREEDY)
    assert len(whole) == GREEDY.max_new_tokens
    stop = whole[5]
    first = whole.index(stop)
    stopping = Engine(replace(llama, stop_ids=frozenset({stop})))
    assert streamed(stopping, stopping.untouched, prompt, GREEDY) == whole[:first]
    [completed] = stopping.complete(stopping.untouched, [prompt], GREEDY.max_new_tokens)
    assert completed == whole[:first]


def test_no_reply_is_longer_than_asked(llama_engine: Engine) -> None:
    for length in (0, 1, 5):
        assert len(sampled(llama_engine, max_new_tokens=length, seed=1)) <= length
        for reply in llama_engine.complete(llama_engine.untouched, prompts(llama_engine), length):
            assert len(reply) <= length


def test_closing_the_iterator_ends_the_generation(llama_engine: Engine) -> None:
    steps = []
    model = llama_engine.untouched.model
    hook = model.register_forward_hook(lambda *_: steps.append(1))
    try:
        reply = llama_engine.stream(
            llama_engine.untouched, prompts(llama_engine)[1], SamplingParams(max_new_tokens=200)
        )
        next(reply)
        next(reply)
        reply.close()  # type: ignore[attr-defined]
        assert len(steps) == 2
        assert list(reply) == []
        assert len(steps) == 2
    finally:
        hook.remove()


# Versions side by side --------------------------------------------------------------------------


def test_versions_share_the_tensors_of_the_base(llama: LoadedBase, tmp_path: Path) -> None:
    engine = Engine(llama)
    version = load_adapter(engine, 1, save_adapter(llama, tmp_path / "a"))
    ours = {id(parameter) for parameter in llama.model.parameters()}
    own = [name for name, p in version.model.named_parameters() if id(p) not in ours]
    assert own
    assert all("lora_" in name for name in own)
    assert not any(parameter.requires_grad for parameter in version.model.parameters())
    assert not version.model.training


def test_versions_used_from_many_threads_never_mix(llama: LoadedBase, tmp_path: Path) -> None:
    engine = Engine(llama)
    versions = [engine.untouched] + [
        load_adapter(engine, seed, save_adapter(llama, tmp_path / str(seed), seed))
        for seed in (1, 2)
    ]
    asked = prompts(engine)
    expected = {
        (version.number, i): streamed(engine, version, prompt, GREEDY)
        for version in versions
        for i, prompt in enumerate(asked)
    }
    assert len({tuple(expected[v.number, 1]) for v in versions}) == 3, "they answer differently"
    wrong: list[tuple[int, int]] = []
    begin = threading.Barrier(6)

    def work(number: int) -> None:
        begin.wait()
        for turn in range(8):
            version = versions[(number + turn) % 3]
            i = (number + turn) % len(asked)
            if streamed(engine, version, asked[i], GREEDY) != expected[version.number, i]:
                wrong.append((version.number, i))

    workers = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for worker in workers:
        worker.start()
    late = load_adapter(engine, 9, tmp_path / "1")
    for worker in workers:
        worker.join()
    assert wrong == []
    assert streamed(engine, late, asked[1], GREEDY) == expected[1, 1]


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
