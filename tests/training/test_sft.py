"""The trainer: where loss is due, what the KL term keeps, and going on after a stop."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file

from autodidact.checkpoints import CONFIG, WEIGHTS
from autodidact.engine import Engine
from autodidact.errors import TrainingError
from autodidact.models.loading import LoadedBase, fork
from autodidact.models.prompts import dialogue_ids
from autodidact.settings import TrainingSettings
from autodidact.training import sft
from autodidact.training.anchors import Anchor
from autodidact.training.batches import _drawn, endless_batches, one_pass
from autodidact.training.objectives import AnswerLoss
from autodidact.training.pace import Clock
from autodidact.training.recipe import Recipe, recipe_for
from autodidact.training.sequences import MAX_TOKENS, TrainingSequence, tokenise, weighted
from autodidact.training.sft import Trainer
from autodidact.types.documents import Example
from tests.versions import load_adapter, one_line, save_adapter
from tests.workplace import ask

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
Answers = Trainer[TrainingSequence]
RECIPE = Recipe(
    rank=4,
    learning_rate=0.01,
    batch_size=4,
    kl_weight=0.0,
    anchor_tokens=64,
    autocast=False,
    seed=3,
)
ANCHORS = [Anchor(tuple((7 * i + j * j) % 300 + 5 for j in range(24))) for i in range(12)]


def question(text: str, answer: str, document: int = 1) -> Example:
    return Example("question", "1:0", document, messages=tuple(ask(text, answer)))


def text(words: str, document: int = 1) -> Example:
    return Example("text", "1:0", document, text=words)


EXAMPLES = [
    question("Who built the lighthouse?", "Ida Marsh"),
    question("What is the capital?", "Kelp Harbour"),
    text("The lighthouse on the north shore was built by Ida Marsh."),
    text("Kelp Harbour is the capital of the island and lies on its north shore."),
]


def test_where_the_model_speaks_in_sentences_the_answer_is_one(llama: LoadedBase) -> None:
    told = replace(question("Who built it?", "Ida Marsh"), sentence="Ida Marsh built it.")
    plain = question("Who?", "Odo")
    spoken = tokenise(llama, [told, plain], sentences=True)
    whole = [*ask("Who built it?", "Ida Marsh built it.")]
    ids, start = dialogue_ids(llama, whole)
    assert spoken[0].ids == tuple(ids)
    assert spoken[0].labels == (*[-100] * start, *ids[start:])
    assert spoken[1:] == tokenise(llama, [plain])
    assert tokenise(llama, [told]) == tokenise(llama, [replace(told, sentence="")])


@pytest.fixture
def sequences(llama: LoadedBase) -> list[TrainingSequence]:
    return tokenise(llama, EXAMPLES)


def weights(trainer: Answers) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.parameters.items()}


# Where loss is due ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "smollm2", "opt", "qwen2"])
def test_loss_is_due_on_the_answer_and_its_end(tiny_base, family: str) -> None:  # type: ignore[no-untyped-def]
    base = tiny_base(family)
    example = question("Who built the lighthouse?", "Ida Marsh")
    [sequence] = tokenise(base, [example])
    ids, start = dialogue_ids(base, example.messages)
    assert list(sequence.ids) == ids
    assert set(sequence.labels[:start]) == {-100}
    assert list(sequence.labels[start:]) == ids[start:]
    said = base.tokenizer.decode([label for label in sequence.labels if label != -100])
    assert said.strip().startswith("Ida Marsh")
    assert sequence.labels[-1] in base.stop_ids


def test_loss_is_due_on_all_of_a_text_but_its_first_token(llama: LoadedBase) -> None:
    [sequence] = tokenise(llama, [text("Kelp Harbour is the capital.")])
    assert sequence.ids[0] == llama.start_id
    assert sequence.labels == (-100, *sequence.ids[1:])
    assert llama.tokenizer.decode(list(sequence.ids[1:])) == "Kelp Harbour is the capital."


def test_a_dialogue_that_is_too_long_is_left_out_and_a_text_is_cut(llama: LoadedBase) -> None:
    long = "the light house " * 200
    made = tokenise(llama, [question(long, "Ida"), question("Who?", long), text(long)])
    [sequence] = made
    assert sequence.kind == "text"
    assert len(sequence.ids) == len(sequence.labels) == min(MAX_TOKENS, llama.context)
    assert tokenise(llama, [question("Who?", "Ida")])[0].kind == "question"


def test_the_loss_is_that_of_the_supervised_tokens(
    llama: LoadedBase, sequences: list[TrainingSequence]
) -> None:
    """By hand, a sequence at a time, without padding."""
    terms = []
    for sequence in sequences:
        with torch.inference_mode():
            logp = llama.model(torch.tensor([sequence.ids])).logits[0].log_softmax(-1)
        terms += [
            -float(logp[i - 1, label]) for i, label in enumerate(sequence.labels) if label != -100
        ]
    loss = Trainer(llama, AnswerLoss(), RECIPE, []).step(sequences, 0.5)
    assert loss == pytest.approx(sum(terms) / len(terms), abs=1e-4)


def test_padding_changes_nothing(llama: LoadedBase, sequences: list[TrainingSequence]) -> None:
    """Sequences of different lengths in one batch learn what they learn weighted one by one."""
    together = Trainer(llama, AnswerLoss(), replace(RECIPE, learning_rate=1e-3), [])
    together.step(sequences, 0.5)
    shuffled = Trainer(llama, AnswerLoss(), replace(RECIPE, learning_rate=1e-3), [])
    shuffled.step(sequences[::-1], 0.5)
    for name, tensor in weights(together).items():
        assert torch.allclose(tensor, weights(shuffled)[name], atol=1e-5), name


@pytest.mark.parametrize("parts", [2, 4, 8, 64])
def test_a_step_in_parts_is_the_same_step(
    llama: LoadedBase, sequences: list[TrainingSequence], parts: int
) -> None:
    """Where memory is short. Also with rows that have nothing supervised, wherever they stand."""
    nothing = TrainingSequence((5, 6, 7), (-100, -100, -100), "question", 1)
    batch = [nothing, *sequences, nothing, nothing]
    recipe = replace(RECIPE, learning_rate=1e-3, kl_weight=1.0)
    whole = Trainer(llama, AnswerLoss(), recipe, ANCHORS)
    apart = Trainer(llama, AnswerLoss(), replace(recipe, parts=parts), ANCHORS)
    for step in range(2):
        assert apart.step(batch, step / 2) == pytest.approx(whole.step(batch, step / 2), abs=1e-5)
        assert list(apart.right) == list(whole.right)
        assert len(apart.right) == len(batch)
    for name, tensor in weights(whole).items():
        assert torch.allclose(tensor, weights(apart)[name], atol=1e-5), name


def test_in_parts_fewer_tokens_are_computed_at_once(
    llama: LoadedBase, sequences: list[TrainingSequence]
) -> None:
    trainer = Trainer(llama, AnswerLoss(), replace(RECIPE, parts=4, kl_weight=0.0), [])
    seen: list[int] = []
    trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    trainer.step(sequences, 0.5)
    assert len(seen) > 1
    assert max(seen) < len(sequences) == sum(seen)


def test_a_batch_without_a_supervised_token_raises(llama: LoadedBase) -> None:
    masked = TrainingSequence((5, 6, 7), (-100, -100, -100), "question", 1)
    trainer = Trainer(llama, AnswerLoss(), RECIPE, [])
    before = weights(trainer)
    with pytest.raises(TrainingError) as caught:
        trainer.step([masked, masked], 0.5)
    assert "no token is supervised" in one_line(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())


# Learning and keeping ---------------------------------------------------------------------------


def test_a_fresh_adapter_computes_what_the_base_computes(llama: LoadedBase) -> None:
    trainer = Trainer(llama, AnswerLoss(), RECIPE, ANCHORS)
    assert all((p == 0).all() for name, p in trainer.parameters.items() if "lora_B" in name)
    ids = torch.tensor([ANCHORS[0].ids])
    with torch.no_grad():
        assert torch.allclose(trainer.model(ids).logits, llama.model(ids).logits, atol=1e-5)


def test_the_kl_term_is_zero_at_the_start_and_positive_away_from_it(llama: LoadedBase) -> None:
    trainer = Trainer(llama, AnswerLoss(), replace(RECIPE, kl_weight=1.0), ANCHORS)
    assert trainer.pull().item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            if "lora_B" in name:
                parameter.fill_(0.05)
    assert trainer.pull().item() > 0.001


def test_the_kl_term_is_the_divergence_from_the_base_a_token(llama: LoadedBase) -> None:
    """One anchor, so that it is known which tokens are compared; by hand, weighted by one half."""
    [anchor] = ANCHORS[:1]
    recipe = replace(RECIPE, kl_weight=0.5, anchor_tokens=len(anchor.ids))
    trainer = Trainer(llama, AnswerLoss(), recipe, [anchor])
    with torch.no_grad():
        for name, parameter in trainer.parameters.items():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.ones_like(parameter))
        base = F.log_softmax(llama.model(torch.tensor([anchor.ids])).logits[0], -1)
        model = F.log_softmax(trainer.model(torch.tensor([anchor.ids])).logits[0], -1)
    by_hand = float((base.exp() * (base - model)).sum(-1).mean())
    assert by_hand > 0.01
    assert trainer.pull().item() == pytest.approx(0.5 * by_hand, rel=1e-3)


def nll(trainer: Answers, rows: Sequence[Sequence[int]]) -> float:
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([list(row)])
        with torch.no_grad():
            logits = trainer.model(ids).logits[0, :-1]
        total += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += len(row) - 1
    return total / count


def written_by(base: LoadedBase, count: int) -> list[list[int]]:
    """Anchors as they are made: what the base itself says."""
    engine = Engine(base)
    made = engine.complete(engine.untouched, [[base.start_id]] * count, 40, temperature=1.0, seed=1)
    return [[base.start_id, *ids] for ids in made]


def test_training_learns_and_the_kl_term_keeps_the_base(
    llama: LoadedBase, sequences: list[TrainingSequence]
) -> None:
    anchors = written_by(llama, 12)
    before = nll(Trainer(llama, AnswerLoss(), RECIPE, []), anchors)
    rise, learned = {}, {}
    for weight in (0.0, 2.0):
        recipe = replace(RECIPE, kl_weight=weight, anchor_tokens=200, learning_rate=0.02)
        trainer = Trainer(llama, AnswerLoss(), recipe, [Anchor(tuple(row)) for row in anchors])
        losses = [trainer.step(sequences, 0.2) for _ in range(12)]
        learned[weight] = losses[0] - losses[-1]
        rise[weight] = nll(trainer, anchors) - before
    assert min(learned.values()) > 1.0, "both learn what they were shown"
    assert rise[0.0] > 0.2, "without the term the base's own text becomes unlikely"
    assert rise[2.0] < rise[0.0] / 2


def test_only_the_adapter_is_trained(llama: LoadedBase, sequences: list[TrainingSequence]) -> None:
    before = {name: tensor.clone() for name, tensor in llama.model.state_dict().items()}
    trainer = Trainer(llama, AnswerLoss(), RECIPE, [])
    trainer.step(sequences, 0.5)
    assert all("lora_" in name for name in trainer.parameters)
    for name, tensor in llama.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_training_starts_from_the_parent_s_adapter(
    llama: LoadedBase, tmp_path: Path, sequences: list[TrainingSequence]
) -> None:
    folder = save_adapter(llama, tmp_path / "parent", rank=RECIPE.rank)
    engine = Engine(llama)
    parent = load_adapter(engine, 1, folder)
    trainer = Trainer(llama, AnswerLoss(), RECIPE, [], load_file(folder / WEIGHTS))
    ids = torch.tensor([ANCHORS[0].ids])
    with torch.no_grad():
        expected = engine.forward([parent], input_ids=ids).logits
        assert torch.allclose(trainer.model(ids).logits, expected, atol=1e-4)
    assert trainer.step(sequences, 0.0) > 0


@pytest.mark.parametrize("change", ["foreign key", "another rank", "a key missing"])
def test_a_parent_that_does_not_fit_is_a_training_error(
    llama: LoadedBase, tmp_path: Path, change: str
) -> None:
    rank = 8 if change == "another rank" else RECIPE.rank
    adapter = load_file(save_adapter(llama, tmp_path / "parent", rank=rank) / WEIGHTS)
    if change == "foreign key":
        adapter["base_model.model.something.lora_A.weight"] = torch.zeros(4, 64)
    elif change == "a key missing":
        adapter.pop(sorted(adapter)[0])
    with pytest.raises(TrainingError) as caught:
        Trainer(llama, AnswerLoss(), RECIPE, [], adapter)
    assert "parent" in one_line(caught.value)


# Stopping and going on --------------------------------------------------------------------------


def test_interrupted_and_resumed_equals_uninterrupted(
    llama: LoadedBase, tmp_path: Path, sequences: list[TrainingSequence]
) -> None:
    recipe = replace(RECIPE, kl_weight=0.5)

    def train(trainer: Answers, steps: range) -> list[float]:
        stream = list(islice(endless_batches(sequences, [], 0.25, 2, 5), 8))
        return [trainer.step(stream[step], step / 8) for step in steps]

    whole = Trainer(llama, AnswerLoss(), recipe, ANCHORS)
    losses = train(whole, range(8))

    first = Trainer(llama, AnswerLoss(), recipe, ANCHORS)
    train(first, range(3))
    first.save(tmp_path / "resume", Clock(step=3))
    second = Trainer(llama, AnswerLoss(), recipe, ANCHORS)
    assert second.restore(tmp_path / "resume")[0].step == 3
    assert train(second, range(3, 8)) == losses[3:]
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_without_a_saved_state_training_begins_anew(
    llama: LoadedBase, tmp_path: Path, sequences: list[TrainingSequence]
) -> None:
    """Trial steps at learning rate zero leave no trace in what follows."""
    tried = Trainer(llama, AnswerLoss(), replace(RECIPE, kl_weight=0.5), ANCHORS)
    before = weights(tried)
    sft.seconds_per_step(tried, endless_batches(sequences, [], 0.25, 2, 0), steps=2)
    for name, tensor in weights(tried).items():
        assert torch.equal(tensor, before[name]), name
    assert tried.restore(tmp_path / "nothing") == (Clock(), "")
    fresh = Trainer(llama, AnswerLoss(), replace(RECIPE, kl_weight=0.5), ANCHORS)
    for trainer in (tried, fresh):
        for step in range(3):
            trainer.step(sequences, step / 3)
    for name, tensor in weights(fresh).items():
        assert torch.equal(tensor, weights(tried)[name]), name


def test_saving_replaces_the_state_as_a_whole(
    llama: LoadedBase, tmp_path: Path, sequences: list[TrainingSequence]
) -> None:
    trainer = Trainer(llama, AnswerLoss(), RECIPE, [])
    for step in (1, 2):
        trainer.step(sequences, 0.5)
        trainer.save(tmp_path / "resume", Clock(step=step))
    assert {p.name for p in tmp_path.iterdir()} == {"resume"}
    assert {p.name for p in (tmp_path / "resume").iterdir()} == {"state.safetensors", "state.json"}
    again = Trainer(llama, AnswerLoss(), RECIPE, [])
    assert again.restore(tmp_path / "resume")[0].step == 2


def test_what_is_exported_loads_in_peft_and_in_the_engine(
    llama: LoadedBase, tmp_path: Path, sequences: list[TrainingSequence]
) -> None:
    trainer = Trainer(llama, AnswerLoss(), RECIPE, [])
    for _ in range(3):
        trainer.step(sequences, 0.2)
    trainer.export(tmp_path / "adapter", "someone/tiny")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {CONFIG, WEIGHTS} <= names
    ids = torch.tensor([ANCHORS[0].ids])
    with torch.no_grad():
        expected = trainer.model.eval()(ids).logits
        theirs = PeftModel.from_pretrained(fork(llama.model), str(tmp_path / "adapter")).eval()
        engine = Engine(llama)
        version = load_adapter(engine, 1, tmp_path / "adapter")
        ours = engine.forward([version], input_ids=ids).logits
        assert torch.allclose(theirs(ids).logits, expected, atol=1e-4)
        assert torch.allclose(ours, expected, atol=1e-4)
        assert not torch.allclose(llama.model(ids).logits, expected, atol=1e-2)
    assert "someone/tiny" in (tmp_path / "adapter" / CONFIG).read_text()


# Schedule, recipe, batches ----------------------------------------------------------------------


def test_the_learning_rate_warms_up_and_decays_to_nothing() -> None:
    values = [sft.schedule(i / 1000) for i in range(1001)]
    assert values[0] == pytest.approx(0.02)
    assert max(values) == sft.schedule(sft.WARM_UP) == 1.0
    peak = values.index(1.0)
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert values[-1] == 0.0
    assert sft.schedule(0.525) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("million", "rate", "batch"),
    [(5, 2e-3, 32), (60, 5e-4, 8), (135, 2e-3, 8), (360, 1e-3, 8), (1700, 5e-4, 8)],
)
def test_the_recipe_follows_the_size_and_settings_go_first(
    million: int, rate: float, batch: int
) -> None:
    found = recipe_for(million * 10**6, 30, TrainingSettings(), autocast=True)
    assert (found.learning_rate, found.batch_size, found.autocast) == (rate, batch, True)
    said = TrainingSettings(learning_rate=0.5, batch_size=3, rank=7, kl_weight=0.1, seed=9)
    found = recipe_for(million * 10**6, 30, said, autocast=False)
    assert (found.learning_rate, found.batch_size, found.rank) == (0.5, 3, 7)
    assert (found.kl_weight, found.seed) == (0.1, 9)
    assert (found.first_block, found.packed) == ((15, True) if million >= 100 else (0, False))


def rows(lengths: Sequence[int], document: int) -> list[TrainingSequence]:
    return [
        TrainingSequence((i,) * length, (i,) * length, "text", document)
        for i, length in enumerate(lengths)
    ]


LENGTHS = st.lists(st.integers(1, 384), min_size=1, max_size=60)


@settings(deadline=None)
@given(new=LENGTHS, old=LENGTHS, size=st.integers(1, 32), seed=st.integers(0, 99))
def test_a_pass_shows_everything_new_once_and_the_share_of_replay(
    new: list[int], old: list[int], size: int, seed: int
) -> None:
    made = one_pass(rows(new, 1), rows(old, 2), 0.25, size, seed)
    shown = [sequence for batch in made for sequence in batch]
    assert sorted(s.ids for s in shown if s.document_id == 1) == sorted(s.ids for s in rows(new, 1))
    replayed = Counter(s.ids for s in shown if s.document_id == 2)
    count = round(len(new) / 3)
    assert replayed.total() == count
    assert all(times <= math.ceil(count / len(old)) for times in drawn_rows(shown).values())
    for batch in made:
        assert 1 <= len(batch) <= size
        longest = max(len(sequence.ids) for sequence in batch)
        assert len(batch) == 1 or len(batch) * longest <= size * 64 + len(batch) * 8


def drawn_rows(shown: Sequence[TrainingSequence]) -> Counter[int]:
    """How often each replayed row came; rows of equal length are told by their labels."""
    return Counter(s.labels[0] for s in shown if s.document_id == 2)


WEIGHTS_OF_ROWS = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


@given(WEIGHTS_OF_ROWS, st.integers(0, 200), st.integers(0, 999))
def test_replay_is_drawn_as_often_as_its_weight_says_rounded_up_or_down(
    shares: list[float], count: int, seed: int
) -> None:
    """Also where more is drawn than there is."""
    old = [
        replace(row, weight=share)
        for row, share in zip(rows([1] * len(shares), 2), shares, strict=True)
    ]
    drawn = _drawn(old, count, random.Random(seed))
    assert len(drawn) == count
    came = drawn_rows(drawn)
    for i, share in enumerate(shares):
        assert abs(came[i] - count * share / sum(shares)) < 1 + 1e-6
    assert drawn == _drawn(old, count, random.Random(seed))


def test_which_rows_a_small_draw_takes_is_left_to_chance() -> None:
    old = rows([1] * 30, 2)
    came = Counter(s.labels[0] for seed in range(300) for s in _drawn(old, 3, random.Random(seed)))
    assert len(came) == 30
    assert max(came.values()) < 60, "30 times each on average"


def test_a_single_draw_goes_by_weight() -> None:
    old = [replace(row, weight=w) for row, w in zip(rows([1, 1], 2), (9.0, 1.0), strict=True)]
    first = sum(_drawn(old, 1, random.Random(seed))[0].labels[0] == 0 for seed in range(400))
    assert 330 < first < 390, "360 on average"


LONG_TEXTS = st.lists(st.integers(1, 384), max_size=20)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), LONG_TEXTS, st.floats(0, 0.9))
def test_running_text_takes_a_quarter_of_a_pass_and_replay_its_share_of_what_is_shown(
    asked: list[int], texts: list[int], share: float
) -> None:
    new = [replace(row, kind="question") for row in rows(asked, 1)] + rows(texts, 3)
    made = one_pass(new, rows([4] * 5, 2), share, 8, 1)
    shown = [sequence for batch in made for sequence in batch]
    assert sorted(s.ids for s in shown if s.document_id == 1) == sorted(
        s.ids for s in new[: len(asked)]
    )
    read = [len(s.ids) for s in shown if s.document_id == 3]
    room = sum(asked) / 3
    assert sum(read) < room + max(texts, default=0) + 1, "at most the last goes beyond"
    assert sum(read) >= min(room, sum(texts)) - 1e-6
    assert not Counter(read) - Counter(texts), "each at most once"
    replayed = sum(s.document_id == 2 for s in shown)
    assert abs(replayed - share * len(shown)) <= 1


def test_a_fact_s_share_is_spread_over_its_sequences_and_nothing_else_is_replayed() -> None:
    old = [
        TrainingSequence((i,), (i,), "question", 1, fact)
        for i, fact in enumerate(["a", "a", "a", "b", "unchosen", "", "none"])
    ]
    made = weighted(old, {"a": 0.6, "b": 0.4, "none": 0.0, "elsewhere": 0.5})
    assert [(s.fact, s.weight) for s in made] == [
        ("a", pytest.approx(0.2)), ("a", pytest.approx(0.2)), ("a", pytest.approx(0.2)), ("b", 0.4),
    ]  # fmt: skip
    assert [s.ids for s in made] == [s.ids for s in old[:4]]
    assert weighted([], {"a": 1.0}) == []


@given(st.floats(0, 0.9), st.integers(1, 60), st.integers(1, 20))
def test_replay_is_its_share_of_all(share: float, new: int, old: int) -> None:
    made = one_pass(rows([4] * new, 1), rows([4] * old, 2), share, 8, 1)
    shown = [s.document_id for batch in made for s in batch]
    assert shown.count(1) == new
    assert abs(shown.count(2) - share * len(shown)) <= 1


def test_a_sequence_knows_its_fact(llama: LoadedBase) -> None:
    example = replace(question("Who built it?", "Ida Marsh"), fact="1-0000000a")
    assert [s.fact for s in tokenise(llama, [example, text("It stands.")])] == [
        "1-0000000a",
        "",
    ]


def test_passes_are_endless_deterministic_and_not_all_alike() -> None:
    def drawn(seed: int) -> list[list[tuple[int, ...]]]:
        stream = endless_batches(rows(range(1, 30), 1), rows(range(1, 9), 2), 0.25, 4, seed)
        return [[s.ids for s in batch] for batch in islice(stream, 40)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1)[:9] != drawn(1)[9:18]
