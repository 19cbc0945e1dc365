"""Every attention pattern that is served says what `transformers` says, within windows and beyond
them; what the passes of a batch cannot do exactly is refused by name."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, PreTrainedModel

from autodidact.engine import Engine, exactness
from autodidact.engine.batcher import Batcher
from autodidact.engine.exactness import require_exact
from autodidact.errors import BaseUnfit
from autodidact.models.attention import attention_of, longest
from autodidact.models.loading import LoadedBase
from autodidact.types.chat import SamplingParams
from tests.families import SERVED, SHAPE, WINDOW, made
from tests.tiny_models import CONTEXT

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH = 24
UNTRIED = {
    "stablelm": ("stablelm", {}),
    "olmo2": ("olmo2", {}),
    "starcoder2, a window": ("starcoder2", {"sliding_window": WINDOW}),
    "mpt": ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT}),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neo": (
        "gpt_neo",
        {
            "num_heads": 4,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": WINDOW,
        },
    ),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
}


@pytest.fixture
def base(tiny_base: Callable[[str], LoadedBase]) -> LoadedBase:
    return tiny_base("llama")


def prompts() -> list[list[int]]:
    """Within the window, across it while they are answered, far beyond it."""
    dice = random.Random(5)
    return [[dice.randrange(20, 400) for _ in range(n)] for n in (3, 20, 31, 32, 33, 60, 150)]


def theirs(model: PreTrainedModel, prompt: Sequence[int]) -> list[int]:
    """The greedy reply, by whole passes without a cache."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(LENGTH):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


def ours(engine: Engine) -> list[list[int]]:
    """All in one batch; long prompts in parts."""
    batcher = Batcher(engine, prefill_tokens=16)
    params = SamplingParams(temperature=0.0, max_new_tokens=LENGTH)
    tickets = [batcher.submit(engine.untouched, prompt, params) for prompt in prompts()]
    batcher.start()
    try:
        return [list(ticket) for ticket in tickets]
    finally:
        batcher.close()


@pytest.mark.parametrize("family", SERVED)
def test_a_batch_says_what_the_model_says(family: str, base: LoadedBase) -> None:
    engine = Engine(made(*SERVED[family], base))
    expected = [theirs(engine.base.model, prompt) for prompt in prompts()]
    assert len({tuple(reply) for reply in expected}) > 3
    assert ours(engine) == expected
    assert engine.complete(engine.untouched, prompts(), LENGTH) == expected


@pytest.mark.parametrize("family", SERVED)
def test_scores_are_the_model_s(family: str, base: LoadedBase) -> None:
    """Alone, padded, and two continuations of one prompt."""
    engine = Engine(made(*SERVED[family], base))
    pairs = [(prompt, [7, 90, 31, 200][:n]) for n, prompt in enumerate(prompts()[:4], start=1)]
    pairs += [(prompt, more) for prompt in prompts()[4:] for more in ([5, 9], [200, 31, 44])]
    for (prompt, more), score in zip(pairs, engine.score(engine.untouched, pairs), strict=True):
        with torch.inference_mode():
            logits = engine.base.model(input_ids=torch.tensor([[*prompt, *more]])).logits[0]
        each = logits.log_softmax(-1)[len(prompt) - 1 :, :]
        by_hand = [float(each[i, token]) for i, token in enumerate(more)]
        assert score == pytest.approx(sum(by_hand) / len(by_hand), abs=2e-4)


@pytest.mark.parametrize("family", SERVED)
def test_what_is_said_to_have_been_tried_is_tried_here(
    family: str, base: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, given = SERVED[family]
    assert kind in exactness.TRIED
    monkeypatch.setattr(exactness, "TRIED", frozenset())
    require_exact(Engine(made(kind, given, base)))


def test_nothing_else_is() -> None:
    assert {kind for kind, _ in SERVED.values()} == exactness.TRIED


@pytest.mark.parametrize("family", UNTRIED)
def test_another_family_is_compared_as_it_is_loaded(
    family: str, base: LoadedBase, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(made(*UNTRIED[family], base))
    with caplog.at_level(logging.INFO):
        require_exact(engine)
    assert "was not tried yet" in caplog.text
    assert ours(engine) == [theirs(engine.base.model, prompt) for prompt in prompts()]


@pytest.mark.parametrize("family", REFUSED)
def test_what_would_be_served_wrong_is_refused_by_name(family: str, base: LoadedBase) -> None:
    with pytest.raises(BaseUnfit, match=f"^{family}: replies that share a batch would not be"):
        require_exact(Engine(made(*REFUSED[family], base)))


@pytest.mark.parametrize(
    ("kind", "given", "layers"),
    [
        ("mamba", {"num_hidden_layers": 2}, "linear_attention"),
        ("qwen3_next", {}, "linear_attention"),
        ("llama4_text", {}, "chunked_attention"),
    ],
)
def test_layers_that_keep_no_keys_are_refused_by_name(
    kind: str, given: dict[str, Any], layers: str
) -> None:
    with pytest.raises(BaseUnfit, match=f"^{kind}: its layers of the kind .*{layers}"):
        attention_of(CONFIG_MAPPING[kind](**given), torch.float32)


def test_beyond_the_length_of_its_training_longrope_is_not_served() -> None:
    factors = [1.0] * 8
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": factors,
        "long_factor": [4.0] * 8,
    }
    trained = {"original_max_position_embeddings": 128}
    config = CONFIG_MAPPING["phi3"](**{**SHAPE, **trained, "rope_parameters": rope})
    assert longest(config, 1024) == 128
    assert longest(CONFIG_MAPPING["phi3"](**SHAPE), 1024) == CONTEXT
