"""Packed passes give the numbers of the plain way, and compute nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM

from autodidact.models.loading import TOLERANCE, LoadedBase
from autodidact.models.prompts import opening_ids, prompt_ids
from autodidact.training import passes
from autodidact.training.anchors import Anchor
from autodidact.training.objectives import AnchorDivergence, AnswerLoss
from autodidact.training.passes import PackedPasses, PaddedPasses, WindowedPasses, passes_for
from autodidact.training.recipe import Recipe
from autodidact.training.sequences import TrainingSequence
from autodidact.training.sft import Trainer
from autodidact.types.chat import Message

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(
    rank=4, learning_rate=0.01, batch_size=4, kl_weight=0.5, anchor_tokens=24, autocast=False,
    seed=3, first_block=1, packed=True,
)  # fmt: skip
ANCHORS = [Anchor(tuple((7 * i + j * j) % 300 + 5 for j in range(24)), 1 + i) for i in range(5)]


def trainer(base: LoadedBase, *, packed: bool, first_block: int = 1) -> Trainer[TrainingSequence]:
    recipe = replace(RECIPE, first_block=first_block)
    made: Trainer[TrainingSequence] = Trainer(base, AnswerLoss(), recipe, ANCHORS)
    if not packed:  # the same batches and anchors, the plain way
        made.passes = PaddedPasses(base, made.model)
    with torch.no_grad():  # an adapter that changes something
        for number, (name, parameter) in enumerate(made.parameters.items()):
            if "lora_B" in name:
                torch.manual_seed(number)
                parameter.normal_(std=0.02)
    return made


def rows(base: LoadedBase) -> list[TrainingSequence]:
    """Questions of different lengths, and a text, which does not begin like a chat."""
    made = []
    for question, answer in (
        ("Who?", "Ann"),
        ("Where is the old mill?", "by the river"),
        ("A", "b"),
    ):
        prompt = prompt_ids(base, [Message("user", question)])
        ids = [*prompt, *base.tokenizer(answer, add_special_tokens=False).input_ids]
        labels = [-100] * len(prompt) + ids[len(prompt) :]
        made.append(TrainingSequence(tuple(ids), tuple(labels), "question", 1))
    text = (base.start_id, *base.tokenizer("The mill is old.", add_special_tokens=False).input_ids)
    made.append(TrainingSequence(text, (-100, *text[1:]), "text", 1))
    return made


@pytest.mark.parametrize("family", ["llama", "smollm2", "qwen2"])
def test_an_adapter_that_goes_on_is_packed_too(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    """From the second cycle on the adapter says something else than the base. Compared with the
    base's, its logits were taken for wrong, and every later cycle went the slow way."""
    base = tiny_base(family)
    made = trainer(base, packed=True)
    prompt = prompt_ids(base, [Message("user", "Who?")])
    wanted = [[len(prompt) - 1]]
    says, was = made.passes.logits([prompt], wanted), made.passes.teacher([prompt], wanted)
    apart = (says - was).abs().max() / was.abs().max()
    assert apart > 5 * TOLERANCE[torch.float32], "it does say something else"
    assert isinstance(passes_for(base, made.model, 1, packed=True), PackedPasses)


@pytest.mark.parametrize("family", ["llama", "smollm2", "qwen2"])
@pytest.mark.parametrize("first_block", [0, 1])
def test_steps_are_equal_to_those_of_the_plain_way(
    tiny_base: Callable[[str], LoadedBase], family: str, first_block: int
) -> None:
    """Losses, what is said right, the KL term, and the weights after three steps."""
    base = tiny_base(family)
    fast, plain = (trainer(base, packed=p, first_block=first_block) for p in (True, False))
    assert isinstance(fast.passes, PackedPasses)
    assert isinstance(plain.passes, PaddedPasses)
    assert fast.pull().item() == pytest.approx(plain.pull().item(), rel=1e-3)
    for step in range(3):
        losses = [each.step(rows(base), step / 3) for each in (fast, plain)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        assert list(fast.right) == list(plain.right)
    assert fast.parameters.keys() == plain.parameters.keys()
    for name, parameter in fast.parameters.items():
        assert torch.allclose(parameter, plain.parameters[name], atol=2e-4), name


def test_questions_and_anchors_of_a_step_are_one_row(
    tiny_base: Callable[[str], LoadedBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is announced is computed beside what is asked for next, once, and is the same."""
    made = trainer(tiny_base("llama"), packed=True)
    passes = made.passes
    assert isinstance(passes, PackedPasses)
    asked, more = ([list(range(5, 30)), list(range(40, 60))], [list(range(70, 90))])
    wanted, also = [[3, 7], [19]], [[0, 5, 9]]
    alone = [passes.logits(asked, wanted), passes.logits(more, also)]
    rows_at_once: list[int] = []
    compute = passes._compute_logits

    def counting(rows: Sequence[Sequence[int]], which: Sequence[Sequence[int]]) -> torch.Tensor:
        rows_at_once.append(len(rows))
        return compute(rows, which)

    monkeypatch.setattr(passes, "_compute_logits", counting)
    passes.beside(more, also)
    together = [passes.logits(asked, wanted), passes.logits(more, also)]
    for one, other in zip(alone, together, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert rows_at_once == [3]
    passes.logits(more, also)
    passes.beside(more, also)
    passes.logits(more, also)  # nothing came before it
    assert rows_at_once == [3, 1, 1]
    rows_at_once.clear()
    batch = rows(made.base)
    made.step(batch, 0.5)
    assert len(rows_at_once) == 1
    assert rows_at_once[0] > len(batch)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), min_size=1, max_size=5), st.data())
def test_logits_are_equal_for_any_mix_of_sequences(
    smollm2: LoadedBase, kinds: list[tuple[bool, int]], data: st.DataObject
) -> None:
    opening = opening_ids(smollm2)
    token = st.integers(5, 300)
    ids = [
        (opening if chat else [smollm2.start_id])
        + data.draw(st.lists(token, min_size=size, max_size=size))
        for chat, size in kinds
    ]
    first = [len(opening) - 1 if chat else 0 for chat, _ in kinds]
    wanted = [range(begin, len(row)) for begin, row in zip(first, ids, strict=True)]
    model = trainer(smollm2, packed=False)
    fast = PackedPasses(smollm2, model.model, 1)
    for ours, right in (
        (fast.logits(ids, wanted), model.passes.logits(ids, wanted)),
        (fast.teacher(ids, wanted), model.passes.teacher(ids, wanted)),
    ):
        assert torch.allclose(ours, right, atol=1e-4)


def test_the_blocks_below_are_computed_once_a_sequence(
    smollm2: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(smollm2, packed=True)
    assert isinstance(made.passes, PackedPasses)
    computed: list[int] = []
    first = made.passes._compute
    monkeypatch.setattr(
        made.passes, "_compute", lambda some: (computed.append(len(some)), first(some))[1]
    )
    for _ in range(3):
        made.step(rows(smollm2), 0.5)
    asked = sum(computed)
    made.step(rows(smollm2)[::-1], 0.5)
    assert sum(computed) <= asked + 1, "an anchor may be new, no row is"


def test_what_is_kept_is_bounded(smollm2: LoadedBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for next to nothing the numbers stay the same."""
    plain = trainer(smollm2, packed=False)
    monkeypatch.setattr(passes, "KEPT_BYTES", 2000)
    fast = trainer(smollm2, packed=True)
    assert isinstance(fast.passes, PackedPasses)
    for step in range(2):
        assert fast.step(rows(smollm2), step / 2) == pytest.approx(
            plain.step(rows(smollm2), step / 2), rel=1e-4
        )
    assert fast.passes._hidden._bytes <= 2000


@pytest.mark.parametrize("family", ["opt", "opt-proj"])
def test_a_decoder_that_does_not_come_apart_goes_the_plain_way(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    """OPT adds its positions to what it is given, so embeddings from half-way would be wrong."""
    base = tiny_base(family)
    made = trainer(base, packed=True)
    assert isinstance(made.passes, PaddedPasses)
    assert made.step(rows(base), 0.5) > 0


def test_rows_beyond_a_sliding_window_go_the_plain_way(smollm2: LoadedBase) -> None:
    config = MistralConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=96, initializer_range=0.15,
    )  # fmt: skip
    torch.manual_seed(1)
    base = replace(smollm2, model=MistralForCausalLM(config).eval().requires_grad_(False))
    model = trainer(base, packed=False).model
    made = passes_for(base, model, 1, packed=True)
    assert isinstance(made, WindowedPasses)
    for length in (20, 96, 97, 150):
        ids = [[(7 * i + n) % 300 + 5 for i in range(length - n)] for n in range(2)]
        wanted = [[len(row) - 1] for row in ids]
        plain = PaddedPasses(base, model)
        for ours, right in (
            (made.logits(ids, wanted), plain.logits(ids, wanted)),
            (made.teacher(ids, wanted), plain.teacher(ids, wanted)),
        ):
            assert torch.allclose(ours, right, atol=1e-4), length
        assert isinstance(made._for(ids), PackedPasses if length <= 96 else PaddedPasses)


def test_packing_that_would_give_other_numbers_is_not_used(
    smollm2: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here by a layout that lets sequences see each other."""
    placing = passes._Layout.placing

    def wrong(self: passes._Layout, device: torch.device) -> dict[str, Any]:
        found = placing(self, device)
        return {**found, "attention_mask": torch.ones_like(found["attention_mask"]).tril()}

    monkeypatch.setattr(passes._Layout, "placing", wrong)
    model = trainer(smollm2, packed=False).model
    assert isinstance(passes_for(smollm2, model, 1, packed=True), PaddedPasses)


def test_an_adapter_on_the_upper_blocks_is_served_as_it_was_trained(
    smollm2: LoadedBase, tmp_path: Any
) -> None:
    from autodidact.engine import Engine

    made = trainer(smollm2, packed=True)
    made.export(tmp_path, "base")
    engine = Engine(smollm2)
    version = engine.load_folder(1, tmp_path)
    row = rows(smollm2)[1].ids
    with torch.no_grad():
        trained = made.model(torch.tensor([row])).logits
    served = engine.forward([version], input_ids=torch.tensor([row])).logits
    assert torch.allclose(trained, served, atol=1e-4)
    untouched = engine.forward([engine.untouched], input_ids=torch.tensor([row])).logits
    assert not torch.allclose(served, untouched, atol=1e-2)


def test_the_opening_is_what_all_chats_share(tiny_base: Callable[[str], LoadedBase]) -> None:
    def share(base: LoadedBase, texts: Sequence[str]) -> bool:
        opening = opening_ids(base)
        asked = [prompt_ids(base, [Message("user", text)]) for text in texts]
        return all(ids[: len(opening)] == opening for ids in asked)

    for family in ("llama", "smollm2", "qwen2", "opt"):
        assert share(tiny_base(family), ["Hello!", "Bye", "When was it built?"])
    assert len(opening_ids(tiny_base("smollm2"))) > 8, "the system turn too"


# Anchors of packed steps ------------------------------------------------------------------------


class _Heard:
    """Notes which sequences were asked for; logits that lead nowhere."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []

    def logits(
        self, rows: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        self.rows += map(tuple, rows)
        return torch.zeros(sum(map(len, wanted)), 3)

    def teacher(self, rows: Sequence[Sequence[int]], wanted: passes.Wanted) -> torch.Tensor:
        return torch.zeros(sum(map(len, wanted)), 3)


def divergence(count: int) -> AnchorDivergence:
    anchors = [Anchor((1, 2, n, n + 1), 2) for n in range(count)]
    return AnchorDivergence(anchors, 1.0, 6, seed=4, packed=True)


def drawn(term: AnchorDivergence, times: int) -> list[tuple[int, ...]]:
    heard = _Heard()
    for _ in range(times):
        term(heard)
    return heard.rows


def test_each_anchor_comes_once_before_any_comes_again() -> None:
    """Two tokens each, six a step: three anchors."""
    rows = drawn(divergence(12), 8)
    rounds = [rows[:12], rows[12:]]
    assert all(len(set(each)) == 12 for each in rounds)
    assert rounds[0] != rounds[1], "in another order"


@pytest.mark.parametrize("before", [0, 1, 4, 5, 9])
def test_a_stopped_training_goes_on_with_the_very_next_anchors(before: int) -> None:
    whole, first, again = (divergence(7) for _ in range(3))
    expected = drawn(whole, before + 6)[3 * before :]
    drawn(first, before)
    drawn(again, 2)  # the steps that were tried before
    again.restore(first.state())
    assert drawn(again, 6) == expected
    again.restore(None)
    assert drawn(again, before + 6)[3 * before :] == expected
