"""The step between two adapters: linear in ΔW, and the best of its rank where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file

from autodidact.checkpoints import WEIGHTS
from autodidact.engine import Engine
from autodidact.models.loading import LoadedBase, fork
from autodidact.training.blend import blend
from tests.versions import load_adapter, save_adapter

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
LAYER = "base_model.model.layers.0.q_proj"
A, B = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"
Adapter = dict[str, torch.Tensor]
WIDTHS = st.integers(1, 24)
STEPS = st.floats(0, 1)


def adapter(seed: int, out: int, into: int, rank: int, used: int | None = None) -> Adapter:
    """Random factors of which only `used` ranks are not 0."""
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, into, generator=generator)
    up = torch.randn(out, rank, generator=generator)
    if used is not None:
        up[:, used:] = 0
    return {A: down, B: up}


def delta(adapter: Adapter) -> torch.Tensor:
    return adapter[B].double() @ adapter[A].double()


def close(found: torch.Tensor, wanted: torch.Tensor, scale: torch.Tensor) -> bool:
    return bool((found - wanted).norm() <= 2e-5 * (1 + scale.norm()))


@settings(max_examples=60)
@given(st.integers(0, 999), WIDTHS, WIDTHS, st.integers(1, 12))
def test_at_one_it_is_the_child_and_at_zero_the_parent(
    seed: int, out: int, into: int, rank: int
) -> None:
    parent, child = adapter(seed, out, into, rank), adapter(seed + 1, out, into, rank)
    assert close(delta(blend(parent, child, 1.0)), delta(child), delta(child))
    assert close(delta(blend(parent, child, 0.0)), delta(parent), delta(parent))


@settings(max_examples=60)
@given(st.integers(0, 999), WIDTHS, WIDTHS, st.integers(2, 12), STEPS)
def test_where_the_rank_allows_it_is_linear_in_the_change_of_weights(
    seed: int, out: int, into: int, rank: int, step: float
) -> None:
    parent = adapter(seed, out, into, rank, used=rank // 2)
    child = adapter(seed + 1, out, into, rank, used=rank - rank // 2)
    wanted = (1 - step) * delta(parent) + step * delta(child)
    assert close(delta(blend(parent, child, step)), wanted, delta(parent) + delta(child))


@settings(max_examples=60)
@given(st.integers(0, 999), WIDTHS, WIDTHS, st.integers(1, 12), STEPS)
def test_otherwise_it_is_the_best_approximation_of_that_rank(
    seed: int, out: int, into: int, rank: int, step: float
) -> None:
    """Compared with the singular values of the dense sum."""
    parent, child = adapter(seed, out, into, rank), adapter(seed + 1, out, into, rank)
    wanted = (1 - step) * delta(parent) + step * delta(child)
    singular = torch.linalg.svdvals(wanted)
    slack = 1e-4 * (1 + float(singular[0]))
    found = delta(blend(parent, child, step))
    error = float((found - wanted).norm())
    assert error == pytest.approx(float(singular[rank:].norm()), abs=slack)
    kept = torch.linalg.svdvals(found)[:rank]
    assert torch.allclose(kept, singular[: len(kept)], atol=slack)


@given(st.integers(0, 999), WIDTHS, WIDTHS, st.integers(1, 12), STEPS)
def test_on_the_way_from_the_base_it_is_exact(
    seed: int, out: int, into: int, rank: int, step: float
) -> None:
    child = adapter(seed, out, into, rank)
    found = blend(None, child, step)
    assert torch.equal(found[A], child[A])
    assert torch.equal(found[B], step * child[B])
    assert found[A] is not child[A]


@settings(max_examples=60)
@given(st.integers(0, 999), WIDTHS, WIDTHS, st.integers(1, 40), STEPS, st.booleans())
def test_names_shapes_and_types_are_the_child_s(
    seed: int, out: int, into: int, rank: int, step: float, fresh: bool
) -> None:
    """Also of a layer narrower than the rank, as key and value projections may be."""
    parent, child = adapter(seed, out, into, rank), adapter(seed + 1, out, into, rank)
    found = blend(None if fresh else parent, child, step)
    assert {n: (t.shape, t.dtype) for n, t in found.items()} == {
        n: (t.shape, t.dtype) for n, t in child.items()
    }
    assert all(t.is_contiguous() and torch.isfinite(t).all() for t in found.values())


def test_a_child_that_did_not_move_is_its_parent_at_every_step() -> None:
    parent = adapter(1, 12, 10, 4)
    for step in (0.25, 0.5):
        assert close(delta(blend(parent, dict(parent), step)), delta(parent), delta(parent))


def test_the_parent_may_have_another_rank() -> None:
    parent, child = adapter(1, 12, 10, 2), adapter(2, 12, 10, 6)
    wanted = 0.5 * delta(parent) + 0.5 * delta(child)
    found = blend(parent, child, 0.5)
    assert found[A].shape == (6, 10)
    error = float((delta(found) - wanted).norm())
    assert error == pytest.approx(float(torch.linalg.svdvals(wanted)[6:].norm()), abs=1e-4)


@pytest.mark.parametrize("rank", [4, 48])
@pytest.mark.parametrize("family", ["llama", "opt", "qwen2"])
def test_a_blended_adapter_loads_in_the_engine_and_in_peft(
    tiny_base: Callable[[str], LoadedBase], tmp_path: Path, family: str, rank: int
) -> None:
    base = tiny_base(family)
    first = save_adapter(base, tmp_path / "first", seed=1, rank=rank)
    folder = save_adapter(base, tmp_path / "second", seed=2, rank=rank)
    found = blend(load_file(first / WEIGHTS), load_file(folder / WEIGHTS), 0.25)
    save_file(found, folder / WEIGHTS, metadata={"format": "pt"})
    ids = torch.tensor([[5, 40, 31, 77]])
    with torch.no_grad():
        engine = Engine(base)
        ours = engine.forward([load_adapter(engine, 1, folder)], input_ids=ids).logits
        theirs = PeftModel.from_pretrained(fork(base.model), str(folder)).eval()(ids).logits
        plain = base.model(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-3)
    assert not torch.allclose(ours, plain, atol=1e-2)
