"""Weights of 8 and 4 bits: close to the unquantised model, under adapters, or refused in a line.

Most need bitsandbytes, the optional package that computes; what happens without it does not.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from autodidact.engine import Engine, Version
from autodidact.errors import SettingError
from autodidact.models import loading, quantisation
from autodidact.models.loading import LoadedBase, fork, linear_names
from autodidact.models.quantisation import Format
from tests.tiny_models import FAMILIES
from tests.versions import load_adapter, one_line, save_adapter

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread", "on_the_cpu")
Bases = Callable[[str], LoadedBase]
Quantised = Callable[[str, Format], LoadedBase]
every_family = pytest.mark.parametrize("family", FAMILIES)
every_format = pytest.mark.parametrize("form", ["int8", "int4"])
ROUNDING = {"int8": 0.1, "int4": 0.6}
"""Largest relative error of the logits of the tiny models (random weights round worse than learnt
ones, and small logits worse than large)."""


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture(scope="module")
def quantised(tiny_folder: Callable[[str], Path]) -> Quantised:
    """A tiny base with quantised weights, loaded at the first call."""
    pytest.importorskip("bitsandbytes")
    made: dict[tuple[str, Format], LoadedBase] = {}

    def base(family: str, form: Format) -> LoadedBase:
        if (family, form) not in made:
            made[family, form] = loading.load(tiny_folder(family), 1, quantisation=form)
        return made[family, form]

    return base


def ids(base: LoadedBase, rows: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(5, len(base.tokenizer), (rows, 24), generator=generator)


def logits(base: LoadedBase, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = base.model(tokens).logits.float()
    return found


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative error, in the Frobenius norm."""
    return float((found - expected).norm() / expected.norm())


# What it computes -------------------------------------------------------------------------------


@every_family
@every_format
def test_a_quantised_model_says_nearly_what_the_model_says(
    tiny_base: Bases, quantised: Quantised, family: str, form: Format
) -> None:
    expected = logits(tiny_base(family), ids(tiny_base(family)))
    found = logits(quantised(family, form), ids(tiny_base(family)))
    assert torch.isfinite(found).all()
    assert 0 < off(found, expected) < ROUNDING[form], "0: nothing was quantised"


@every_format
def test_bfloat16_and_quantised_weights_go_together(
    tiny_base: Bases, tiny_folder: Callable[[str], Path], quantised: Quantised, form: Format
) -> None:
    assert quantised  # skips without the package
    base = loading.load(tiny_folder("qwen2"), 1, dtype="bfloat16", quantisation=form)
    assert base.model.dtype == torch.bfloat16
    expected = logits(tiny_base("qwen2"), ids(base))
    assert off(logits(base, ids(base)), expected) < ROUNDING[form]


@every_format
def test_a_row_does_not_depend_on_the_rows_beside_it(quantised: Quantised, form: Format) -> None:
    """Else a reply would depend on who else chats. One row with huge inputs is the hard case."""
    base = quantised("llama", form)
    layer = base.model.get_submodule("model.layers.0.mlp.down_proj")
    x = torch.randn(4, layer.in_features, generator=torch.Generator().manual_seed(0))
    beside = x.clone()
    beside[1:] *= 1000
    with torch.inference_mode():
        assert off(layer(beside)[0], layer(x)[0]) < 1e-5
        assert off(layer(x[:1])[0], layer(x)[0]) < 0.01, "alone, up to the order of sums"


@every_format
def test_rows_of_zeros_give_the_bias(quantised: Quantised, form: Format) -> None:
    """Padding can be such a row; its largest magnitude is nothing to divide by."""
    layer = quantised("opt", form).model.get_submodule("model.decoder.layers.0.fc1")
    with torch.inference_mode():
        y = layer(torch.zeros(2, 3, layer.in_features))
    assert torch.equal(y, layer.bias.expand(2, 3, -1))


@pytest.mark.parametrize(("form", "bits"), [("int8", 8), ("int4", 4)])
def test_weights_take_the_room_that_their_bits_need(
    tiny_base: Bases, quantised: Quantised, form: Format, bits: int
) -> None:
    plain = tiny_base("llama")
    base = quantised("llama", form)
    for name, layer in linear_layers(plain).items():
        small = base.model.get_submodule(name).weight
        assert small.nbytes == layer.weight.numel() * bits // 8, name


def linear_layers(base: LoadedBase) -> dict[str, nn.Linear]:
    head = base.model.get_output_embeddings()
    return {
        name: module
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


# What it leaves as it was ------------------------------------------------------------------------


@every_family
@every_format
def test_all_linear_layers_are_quantised_but_the_head(
    tiny_base: Bases, quantised: Quantised, family: str, form: Format
) -> None:
    plain, base = tiny_base(family), quantised(family, form)
    assert linear_layers(base).keys() == linear_layers(plain).keys()
    assert linear_names(base.model) == linear_names(plain.model)
    for name, layer in linear_layers(base).items():
        assert not layer.weight.is_floating_point(), name
        before = linear_layers(plain)[name]
        assert (layer.in_features, layer.out_features) == (
            before.in_features,
            before.out_features,
        )
    assert torch.equal(
        base.model.get_output_embeddings().weight, plain.model.get_output_embeddings().weight
    )
    assert base.parameters == plain.parameters


@every_format
def test_the_base_of_the_learner_is_not_touched(
    tiny_folder: Callable[[str], Path], quantised: Quantised, form: Format
) -> None:
    """It loads the same folder, in a process of its own and in float32."""
    assert quantised
    learner = loading.load(tiny_folder("smollm2"), 1)
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    files = {p.name: p.read_bytes() for p in tiny_folder("smollm2").iterdir()}
    loading.load(tiny_folder("smollm2"), 1, quantisation=form)
    assert {p.name: p.read_bytes() for p in tiny_folder("smollm2").iterdir()} == files
    for name, tensor in learner.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for name, tensor in loading.load(tiny_folder("smollm2"), 1).model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@every_format
def test_a_fork_shares_the_quantised_weights(quantised: Quantised, form: Format) -> None:
    base = quantised("opt", form)
    forked = fork(base.model)
    theirs = dict(forked.named_parameters()) | dict(forked.named_buffers())
    ours = dict(base.model.named_parameters()) | dict(base.model.named_buffers())
    assert theirs.keys() == ours.keys()
    assert [name for name in ours if ours[name] is not theirs[name]] == []
    with torch.inference_mode():
        assert torch.equal(forked(ids(base)).logits.float(), logits(base, ids(base)))


# Adapters on top --------------------------------------------------------------------------------


def adapted(engine: Engine, version: Version, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = engine.forward([version] * len(tokens), input_ids=tokens).logits
    return found.float()


@every_family
@every_format
def test_an_adapter_does_to_a_quantised_model_what_it_does_to_the_model(
    tiny_base: Bases, quantised: Quantised, tmp_path: Path, family: str, form: Format
) -> None:
    plain, base = tiny_base(family), quantised(family, form)
    folder = save_adapter(plain, tmp_path / "adapter")
    tokens = ids(plain)
    learnt = adapted(engine := Engine(plain), load_adapter(engine, 1, folder), tokens)
    found = adapted(engine := Engine(base), load_adapter(engine, 1, folder), tokens)
    assert torch.isfinite(found).all()
    away = off(learnt, logits(plain, tokens))
    assert off(found, logits(base, tokens)) > 0.5 * away, "it has its effect"
    assert off(found, learnt) < 0.6 * away, "and the right one"


# What it refuses, and what it says ---------------------------------------------------------------


@every_format
def test_the_log_says_which_weights_are_served(quantised: Quantised, form: Format) -> None:
    assert f"{form} weights by bitsandbytes" in quantised("llama", form).description


@every_format
def test_without_the_package_the_setting_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: Format
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(SettingError) as caught:
        loading.load(tmp_path / "nothing there", 1, quantisation=form)
    line = one_line(caught.value)
    assert line.startswith(f"server.quantisation: {form} needs bitsandbytes")
    assert 'set "none"' in line
    assert caught.value.exit_code == 2


def stand_in(monkeypatch: pytest.MonkeyPatch, **functional: object) -> None:
    """A package of that name whose functions are these."""
    package = types.ModuleType("bitsandbytes")
    package.functional = types.SimpleNamespace(**functional)  # type: ignore[attr-defined]
    package.__spec__ = types.SimpleNamespace(name="bitsandbytes")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setattr(quantisation, "version", lambda _: "0.1")


def test_a_machine_that_the_package_does_not_support_is_named_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[[str], Path]
) -> None:
    def fails(_: torch.Tensor) -> None:
        raise NotImplementedError("no kernel for this device\nand a long story")

    stand_in(monkeypatch, int8_vectorwise_quant=fails)
    with pytest.raises(SettingError) as caught:
        loading.load(tiny_folder("llama"), 1, quantisation="int8")
    line = one_line(caught.value)
    assert "bitsandbytes 0.1 cannot do int8 on this cpu" in line
    assert "no kernel for this device" in line


def test_kernels_that_compute_something_else_are_not_served(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[[str], Path]
) -> None:
    """A wrong product is no error of its own: each layer is tried against the one it replaces."""

    def rounded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        largest = x.abs().amax(1).float()
        return (127 * x / largest[:, None]).round().to(torch.int8), largest, None

    def wrong(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return -(a.int() @ b.int().t())

    stand_in(monkeypatch, int8_vectorwise_quant=rounded, int8_linear_matmul=wrong)
    with pytest.raises(SettingError) as caught:
        loading.load(tiny_folder("llama"), 1, quantisation="int8")
    assert "its results are off by 200%" in one_line(caught.value)


def test_a_package_that_cannot_be_loaded_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "bitsandbytes").mkdir()
    (tmp_path / "bitsandbytes" / "__init__.py").write_text(
        "raise OSError('libcudart.so: cannot open shared object file')"
    )
    for name in [n for n in sys.modules if n.partition(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingError) as caught:
        loading.load(tiny_folder("llama"), 1, quantisation="int4")
    line = one_line(caught.value)
    assert "cannot be loaded (libcudart.so" in line
    assert line.startswith("server.quantisation: int4")
