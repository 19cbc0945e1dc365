"""The graph says what the module says; only activations are rounded where that is wanted."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from autodidact.engine import Engine, Version, graph, runtime
from autodidact.engine.batcher import Batcher
from autodidact.engine.cache import SlotCache
from autodidact.engine.graph import Unfit
from autodidact.engine.graph_passes import GraphPasses
from autodidact.errors import CheckpointError, SettingError
from autodidact.models.loading import LoadedBase
from autodidact.types.chat import SamplingParams
from tests.blocks import in_blocks, rounded
from tests.families import SERVED, WINDOW, made
from tests.tiny_models import CONTEXT
from tests.versions import load_adapter, save_adapter

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
FORMS = [("Q4_1", "Q8_0"), ("Q4_0", "Q8_0"), ("Q8_0", "Q8_0"), ("Q4_1", "Q4_1")]
EXACT = 1
"""Accuracy in which activations are not rounded."""


def passes(base: LoadedBase, accuracy: int = EXACT) -> GraphPasses:
    return GraphPasses(graph.build(base.model, base.context, accuracy=accuracy), 1)


def endless(base: LoadedBase) -> LoadedBase:
    return replace(base, stop_ids=frozenset({-1}))


def prompts() -> list[list[int]]:
    dice = random.Random(5)
    return [[dice.randrange(20, 400) for _ in range(n)] for n in (3, 20, 31, 33, 60, 150)]


def replies(
    engine: Engine, asked: list[tuple[Version, list[int]]], **options: int
) -> list[list[int]]:
    """All in one batch, prompts in parts."""
    batcher = Batcher(engine, prefill_tokens=16, **options)  # type: ignore[arg-type]
    params = SamplingParams(temperature=0.0, max_new_tokens=20)
    tickets = [batcher.submit(version, prompt, params) for version, prompt in asked]
    batcher.start()
    try:
        return [list(ticket) for ticket in tickets]
    finally:
        batcher.close()


@pytest.fixture
def base(tiny_base: Callable[[str], LoadedBase]) -> LoadedBase:
    return in_blocks(endless(tiny_base("llama")))


def versions(base: LoadedBase, folder: Path) -> list[Path]:
    return [save_adapter(base, folder / str(seed), seed) for seed in (1, 2)]


def same(base: LoadedBase, folder: Path) -> None:
    """Replies of the base and two versions, all in one batch, are torch's letter by letter."""
    plain, fast = Engine(base), Engine(base, graph=passes(base))
    found = []
    for engine in (plain, fast):
        loaded = [load_adapter(engine, i + 1, f) for i, f in enumerate(versions(base, folder))]
        asked = [(v, p) for p in prompts() for v in (engine.untouched, *loaded)]
        found.append(replies(engine, asked))
    assert found[0] == found[1]
    assert len({tuple(reply) for reply in found[0]}) > 12


@pytest.mark.parametrize("family", ["llama", "smollm2", "qwen2"])
def test_a_batch_of_versions_says_what_torch_says(
    tiny_base: Callable[[str], LoadedBase], family: str, tmp_path: Path
) -> None:
    same(in_blocks(endless(tiny_base(family))), tmp_path)


@pytest.mark.parametrize(("form", "head"), FORMS)
def test_in_every_form_that_a_file_has(
    tiny_base: Callable[[str], LoadedBase], form: str, head: str, tmp_path: Path
) -> None:
    same(in_blocks(endless(tiny_base("llama")), form, head), tmp_path)


@pytest.mark.parametrize("family", ["mistral, a window", "qwen2, windows above"])
def test_a_window_counts_where_the_context_is_longer(
    tiny_base: Callable[[str], LoadedBase], family: str, tmp_path: Path
) -> None:
    """ONNX Runtime's attention counts windows otherwise than `transformers`."""
    base = in_blocks(endless(made(*SERVED[family], tiny_base("llama"))))
    with pytest.raises(Unfit, match=f"see {WINDOW} positions only"):
        graph.build(base.model, base.context)
    graph.build(base.model, WINDOW)


def test_mistral_without_a_window(tiny_base: Callable[[str], LoadedBase], tmp_path: Path) -> None:
    base = made("mistral", {"sliding_window": None}, tiny_base("llama"))
    same(in_blocks(endless(base)), tmp_path)


def test_what_earlier_requests_computed_is_taken_over_in_whole_parts(base: LoadedBase) -> None:
    engine = Engine(base, graph=passes(base, accuracy=4))
    asked = [(engine.untouched, prompts()[-1][:n]) for n in (150, 140, 150, 100)]
    without = [replies(engine, [one])[0] for one in asked]
    batcher = Batcher(engine, prefill_tokens=16, prefix_bytes=10_000_000)
    batcher.start()
    try:
        params = SamplingParams(temperature=0.0, max_new_tokens=20)
        found = [list(batcher.submit(version, prompt, params)) for version, prompt in asked]
        assert batcher.reused == 128 + 144 + 96
    finally:
        batcher.close()
    assert found == without, "to the bit, though activations are rounded"


def test_rounded_activations_are_near(base: LoadedBase) -> None:
    rounding = passes(base, accuracy=4)
    exact = passes(base)
    prompt = prompts()[-1]
    logits = [one.prompt(None, SlotCache(), prompt, 0)[0] for one in (exact, rounding)]
    shares = [one.softmax(-1) for one in logits]
    assert not torch.equal(*logits)
    assert 0 < float((shares[0] * (shares[0] / shares[1]).log()).sum()) < 0.05


def test_a_version_that_comes_after_another_is_not_taken_for_it(
    base: LoadedBase, tmp_path: Path
) -> None:
    """Versions come and go; a new one may lie where an old one lay."""
    folders = versions(base, tmp_path)
    engine = Engine(base, graph=passes(base))
    plain = Engine(base)
    expected = [
        replies(plain, [(load_adapter(plain, 1, folder), prompts()[1])])[0] for folder in folders
    ]
    for turn in range(6):
        version = load_adapter(engine, turn + 1, folders[turn % 2])
        assert replies(engine, [(version, prompts()[1])]) == [expected[turn % 2]]
        del version
        gc.collect()


def test_a_version_that_gives_no_finite_answer_is_refused(base: LoadedBase, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_adapter(base, tmp_path)
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * 1e30 for name, tensor in load_file(file).items()}, file)
    engine = Engine(base, graph=passes(base))
    with pytest.raises(CheckpointError, match="no finite answer"):
        load_adapter(engine, 1, folder)


def test_the_base_s_own_weights_are_not_looked_at(base: LoadedBase) -> None:
    fast = passes(base)
    expected = replies(Engine(base), [(Version(0), prompt) for prompt in prompts()])
    alone = replace(base, model=rounded(base.model))
    alone.model.to("meta")
    engine = Engine(alone, graph=fast)
    assert replies(engine, [(engine.untouched, prompt) for prompt in prompts()]) == expected


# What has no graph --------------------------------------------------------------------------------


def floats(model: PreTrainedModel) -> None:
    model.model.layers[1].mlp.down_proj.weight.data += 1e-4


def biased(model: PreTrainedModel) -> None:
    model.config.attention_bias = True


def stretched(model: PreTrainedModel) -> None:
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}


def relu(model: PreTrainedModel) -> None:
    model.config.hidden_act = "relu"


@pytest.mark.parametrize("change", [floats, biased, stretched, relu])
def test_what_the_graph_would_not_say_is_refused(
    base: LoadedBase, change: Callable[[PreTrainedModel], None]
) -> None:
    change(base.model)
    with pytest.raises(Unfit):
        graph.build(base.model, CONTEXT)


@pytest.mark.parametrize("family", ["opt", "opt-proj"])
def test_another_family_is_refused_by_name(
    tiny_base: Callable[[str], LoadedBase], family: str
) -> None:
    with pytest.raises(Unfit, match="opt is not among"):
        graph.build(tiny_base(family).model, CONTEXT)


# The choice ---------------------------------------------------------------------------------------


def test_a_folder_tells_whether_a_closer_look_is_worth_it(
    base: LoadedBase, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    base.model.save_pretrained(tmp_path / "blocks")
    assert runtime.may_fit(tmp_path / "blocks")
    assert not runtime.may_fit(tiny_folder("llama")), "floats"
    assert not runtime.may_fit(tiny_folder("opt"))
    assert not runtime.may_fit(tmp_path / "nowhere")
    (tmp_path / "blocks" / "model.safetensors").write_bytes(b"damaged")
    assert not runtime.may_fit(tmp_path / "blocks")


def test_as_set_and_by_what_is_faster(base: LoadedBase, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime.choose(base, "torch", 1) == runtime.RuntimeChoice(None, 0, "as set")
    for torch_s, graph_s, taken in ((1.0, 0.2, True), (1.0, 0.9, False)):
        times = iter([graph_s, torch_s] * 2)
        monkeypatch.setattr(runtime, "_fastest", lambda work, times=times: next(times))
        found = runtime.choose(base, "auto", 1)
        assert (found.passes is not None) == taken
        assert ("5.0 × as fast" in found.why) if taken else ("only 1.1 ×" in found.why)
        assert runtime.choose(base, "onnx", 1).passes is not None


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [({1: 1.0, 2: 0.6, 4: 0.58}, 2), ({1: 1.0, 2: 0.95, 4: 0.94}, 1), ({1: 4, 2: 2, 4: 1}, 4)],
)
def test_threads_are_as_few_as_are_about_as_fast(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], taken: int
) -> None:
    monkeypatch.setattr(runtime, "threads_for", lambda setting, spare: setting or 4)
    used: list[int] = []
    monkeypatch.setattr(runtime, "use_threads", used.append)
    monkeypatch.setattr(runtime, "_fastest", lambda work: seconds[used[-1]])
    found = runtime.by_torch(base, 0, "why not")
    told = f"torch, {taken} thread{'s' * (taken > 1)}: why not"
    assert found == runtime.RuntimeChoice(None, taken, told)
    assert used == [1, 2, 4]
    assert runtime.by_torch(base, 3).threads == 3
    assert used == [1, 2, 4], "what is set is not measured"
    large = runtime.SMALL_MODEL
    assert runtime.thread_counts(0, large) == [2, 4]
    monkeypatch.setattr(runtime, "threads_for", lambda setting, spare: 1)
    assert runtime.thread_counts(0, large) == [1]


def test_a_choice_that_is_known_is_not_measured_again(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = runtime.choose(base, "onnx", 1)
    where = runtime.measured_on("abc", "onnx", 1)
    runtime.keep(tmp_path, where, found)
    kept = runtime.known(tmp_path, where)
    assert kept is not None
    assert runtime.known(tmp_path, runtime.measured_on("another base", "onnx", 1)) is None
    assert (kept.runtime, kept.threads, kept.why) == ("onnx", 1, found.why)
    assert where != runtime.measured_on("abc", "auto", 1)
    monkeypatch.setattr(runtime, "_fastest", lambda work: pytest.fail("it is known"))
    again = runtime.choose(base, "onnx", 1, kept)
    assert again.passes is not None
    assert (again.threads, again.why) == (1, found.why)


def test_a_graph_that_says_something_else_is_not_taken(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that is wrong on this machine."""
    real = graph.build

    def wrong(*given: object, **more: object) -> graph.Graph:
        found = real(*given, **more)  # type: ignore[arg-type]
        found.weights["norm"][:] = np.roll(found.weights["norm"], 1) * 3
        return found

    monkeypatch.setattr(graph, "build", wrong)
    assert "nat from the model's" in runtime.choose(base, "auto", 1).why
    with pytest.raises(SettingError, match=r"server\.runtime: its replies would be"):
        runtime.choose(base, "onnx", 1)


def test_a_library_that_cannot_run_it_here_leaves_it_to_torch(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: GraphPasses, *given: object) -> torch.Tensor:
        raise RuntimeError("no kernel\nand more")

    monkeypatch.setattr(GraphPasses, "prompt", broken)
    found = runtime.choose(base, "auto", 1)
    assert (found.passes, found.why) == (
        None, "onnxruntime cannot run it here (no kernel)",
    )  # fmt: skip


def test_what_is_asked_for_and_cannot_be_had_is_said(
    tiny_base: Callable[[str], LoadedBase],
) -> None:
    with pytest.raises(SettingError, match=r"server\.runtime: opt is not among"):
        runtime.choose(tiny_base("opt"), "onnx", 1)
    found = runtime.choose(tiny_base("llama"), "auto", 1)
    assert found.passes is None
    assert "not in blocks" in found.why
