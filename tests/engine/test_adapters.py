"""LoRA beside the base's linear layers: PEFT's arithmetic, for each row of a batch its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load, save
from torch import nn

from autodidact.checkpoints import CONFIG, WEIGHTS
from autodidact.engine import Engine, Version
from autodidact.engine.adapters import AdaptedLinear, Adapter, Router, adaptable
from autodidact.models.loading import LoadedBase, fork
from tests.tiny_models import FAMILIES
from tests.versions import load_adapter, save_adapter

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
every_family = pytest.mark.parametrize("family", FAMILIES)
PROMPTS = torch.tensor([[9, 40, 41, 60, 7], [300, 12, 80, 80, 5], [33, 34, 35, 36, 37]])


@pytest.fixture
def engine(tiny_base: Callable[[str], LoadedBase], family: str) -> Engine:
    return Engine(tiny_base(family))


def logits(engine: Engine, versions: list[Version], ids: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = engine.forward(versions, input_ids=ids).logits
    return found


@torch.no_grad()
def by_peft(base: LoadedBase, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    wrapped = PeftModel.from_pretrained(fork(base.model), str(folder)).eval()
    found: torch.Tensor = wrapped(ids).logits
    return found


def with_alpha(folder: Path, alpha: int) -> Path:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "lora_alpha": alpha}))
    return folder


@every_family
@pytest.mark.parametrize(("rank", "alpha"), [(4, 4), (8, 2), (2, 7), (1, 1)])
def test_a_version_computes_what_peft_computes(
    engine: Engine, tmp_path: Path, rank: int, alpha: int
) -> None:
    folder = with_alpha(save_adapter(engine.base, tmp_path / "a", seed=3, rank=rank), alpha)
    version = load_adapter(engine, 3, folder)
    ours = logits(engine, [version], PROMPTS)
    theirs = by_peft(engine.base, folder, PROMPTS)
    assert float((ours - theirs).abs().max()) < 1e-5 * float(theirs.abs().max())
    assert not torch.allclose(ours, logits(engine, [engine.untouched], PROMPTS), atol=1e-2)


@every_family
def test_each_row_of_a_batch_takes_its_own_version(engine: Engine, tmp_path: Path) -> None:
    """One token a row, as a running batch computes: in OPT's layers each row is then a token."""
    versions = [engine.untouched] + [
        load_adapter(engine, seed, save_adapter(engine.base, tmp_path / str(seed), seed, rank))
        for seed, rank in ((1, 4), (2, 8), (3, 2))
    ]
    mixed = [versions[i] for i in (1, 0, 3, 1, 2, 0, 3)]
    ids = torch.tensor([[5], [9], [9], [300], [9], [17], [5]])
    together = logits(engine, mixed, ids)
    for row, version in enumerate(mixed):
        alone = logits(engine, [version], ids[row : row + 1])[0]
        assert torch.allclose(together[row], alone, rtol=1e-5, atol=1e-5), row
    assert len({tuple(together[i, 0, :4].tolist()) for i in (1, 2, 4)}) == 3, "they differ"


@every_family
def test_a_pass_leaves_nothing_for_the_next(engine: Engine, tmp_path: Path) -> None:
    version = load_adapter(engine, 1, save_adapter(engine.base, tmp_path / "a"))
    cold = logits(engine, [engine.untouched], PROMPTS)
    logits(engine, [version], PROMPTS)
    assert torch.equal(logits(engine, [engine.untouched], PROMPTS), cold)
    with pytest.raises(Exception, match=r"."):
        engine.forward([version], input_ids=torch.tensor([[10**6]]))
    assert torch.equal(logits(engine, [engine.untouched], PROMPTS), cold)


@every_family
def test_the_base_s_own_module_tree_stays_as_it_was(
    tiny_base: Callable[[str], LoadedBase], family: str, tmp_path: Path
) -> None:
    base = tiny_base(family)
    names = [(name, type(module)) for name, module in base.model.named_modules()]
    tensors = {name: (id(t), t.clone()) for name, t in base.model.state_dict().items()}
    parameters = [id(p) for p in base.model.parameters()]
    with torch.no_grad():
        before = base.model(PROMPTS).logits
    engine = Engine(base)
    version = load_adapter(engine, 1, save_adapter(base, tmp_path / "a"))
    with torch.no_grad():
        assert torch.equal(base.model(PROMPTS).logits, before)
    logits(engine, [version], PROMPTS)
    assert [(name, type(module)) for name, module in base.model.named_modules()] == names
    assert not any(isinstance(module, AdaptedLinear) for module in base.model.modules())
    assert [id(p) for p in base.model.parameters()] == parameters
    for name, tensor in base.model.state_dict().items():
        assert torch.equal(tensor, tensors[name][1]), name
    assert torch.equal(logits(engine, [engine.untouched], PROMPTS), before)


@every_family
def test_the_engine_s_tree_shares_every_tensor_of_the_base(engine: Engine) -> None:
    base = {p.data_ptr() for p in engine.base.model.parameters()}
    assert {p.data_ptr() for p in engine._tree.parameters()} == base
    assert not any(p.requires_grad for p in engine._tree.parameters())
    assert not engine._tree.training


@every_family
def test_adapters_go_on_every_linear_layer_but_the_head(engine: Engine) -> None:
    head = engine.base.model.get_output_embeddings()
    linear = {n for n, m in engine.base.model.named_modules() if isinstance(m, nn.Linear)}
    found = adaptable(engine.base.model)
    assert linear - set(found) == {n for n, m in engine.base.model.named_modules() if m is head}
    assert all(module is not head for module in found.values())


@every_family
def test_a_version_costs_the_bytes_of_its_tensors(engine: Engine, tmp_path: Path) -> None:
    folder = save_adapter(engine.base, tmp_path / "a", rank=8)
    version = load_adapter(engine, 1, folder)
    assert version.adapter is not None
    tensors = load((folder / WEIGHTS).read_bytes())
    assert version.adapter.bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert engine.untouched.adapter is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adapters_in_half_precision_are_taken_in_the_base_s_format(
    llama: LoadedBase, tmp_path: Path, dtype: torch.dtype
) -> None:
    engine = Engine(llama)
    folder = save_adapter(llama, tmp_path / "a")
    half = {k: t.to(dtype) for k, t in load((folder / WEIGHTS).read_bytes()).items()}
    version = engine.load(1, (folder / CONFIG).read_bytes(), save(half))
    whole = {k: t.float() for k, t in half.items()}
    same = engine.load(2, (folder / CONFIG).read_bytes(), save(whole))
    assert torch.equal(logits(engine, [version], PROMPTS), logits(engine, [same], PROMPTS))


def test_a_version_is_known_by_the_hash_of_its_weights(llama: LoadedBase, tmp_path: Path) -> None:
    engine = Engine(llama)
    folder = save_adapter(llama, tmp_path / "a")
    version = load_adapter(engine, 5, folder)
    assert version.number == 5
    assert version.digest == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert (engine.untouched.number, engine.untouched.digest) == (0, "")


def test_few_rows_in_bfloat16_are_computed_as_many_are_up_to_rounding() -> None:
    """They take another way, in float32; several versions in them stay apart."""
    linear = torch.nn.Linear(48, 96, bias=False).to(torch.bfloat16).requires_grad_(False)
    router = Router()
    layer = AdaptedLinear(linear, "layer", router)

    def made(seed: int) -> Adapter:
        drawn = torch.Generator().manual_seed(seed)
        a, b = torch.randn(4, 48, generator=drawn), torch.randn(96, 4, generator=drawn)
        return Adapter({"layer": (a.to(torch.bfloat16), b.to(torch.bfloat16))})

    first, second = made(1), made(2)
    x = torch.randn(8, 1, 48, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    with torch.inference_mode():
        for groups in (
            [(None, first)],
            [(torch.tensor([1]), second)],
            [(torch.tensor([0]), first), (torch.tensor([1]), second)],
        ):
            router.groups = list(groups)
            few = layer(x[:2]).float()
            many = layer(x).float()[:2]
            torch.testing.assert_close(few, many, rtol=0.03, atol=0.1)
            router.groups = []
            assert not torch.allclose(few, layer(x[:2]).float(), atol=0.5)
