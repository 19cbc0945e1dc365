"""A base in floats is rounded once where a CPU replies faster by it, and stays what it is then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autodidact.engine import runtime
from autodidact.errors import BaseMismatch
from autodidact.models import bases, rounding
from autodidact.models.blocks import coded
from autodidact.models.loading import load

pytest_plugins = ["tests.core_fixtures"]
Folder = Callable[[str], Path]


def quiet(line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def a_cpu_and_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "gpu_memory_gb", lambda: (None, ""))
    monkeypatch.setattr(rounding, "LEAST", 0)


@pytest.fixture
def model(tmp_path: Path, tiny_folder: Folder) -> Path:
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def resolved(model: Path, home: Path, rounded: rounding.Rounding = "auto") -> bases.Base:
    return bases.resolve(str(model), "", home, quiet, rounded)


def test_it_is_rounded_once_and_is_the_same_base_ever_after(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    said: list[str] = []
    base = bases.resolve(str(model), "", home, said.append, "auto")
    assert base.path.parent == home / "base-model"
    assert "rounding the weights" in said[0]
    assert "rounded to eight bits" in base.reason
    assert runtime.may_fit(base.path)

    floats, copy = load_file(model / "model.safetensors"), load(base.path, 1).model
    for name, weight in copy.named_parameters():
        if weight.ndim == 2:
            found = coded(weight.numpy())
            assert found is not None, name
            assert found.bits == 8, name
            apart = (weight - floats[name].float()).abs().max()
            assert 0 < apart <= floats[name].abs().max() / 127
        else:
            assert torch.equal(weight, floats[name].float())
    config = json.loads((base.path / "config.json").read_text())
    assert config == json.loads((model / "config.json").read_text())

    said.clear()
    for wanted in ("auto", "none", "8bit"):  # fixed: a later setting changes nothing
        again = bases.resolve(str(model), "", home, said.append, wanted)
        assert (again.path, again.sha256) == (base.path, base.sha256)
    assert not [line for line in said if "rounding" in line]


def test_a_copy_that_vanished_is_made_again(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    base = resolved(model, home)
    shutil.rmtree(base.path)
    again = resolved(model, home, "none")
    assert (again.path, again.sha256) == (base.path, base.sha256)
    assert again.path.is_dir()


def test_the_same_folder_elsewhere_is_the_same_base(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    base = resolved(model, home)
    moved = resolved(model.rename(tmp_path / "moved"), home)
    assert (moved.path, moved.sha256) == (base.path, base.sha256)
    other = Path(shutil.copytree(tmp_path / "moved", tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{{ 'another' }}")
    with pytest.raises(BaseMismatch):
        resolved(other, home)


def test_left_as_it_is(
    model: Path, tmp_path: Path, tiny_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolved(model, tmp_path / "as set", "none").path == model
    opt = tiny_folder("opt")
    assert resolved(opt, tmp_path / "a family without a graph").path == opt
    monkeypatch.setattr(bases, "gpu_memory_gb", lambda: (24.0, ""))
    assert resolved(model, tmp_path / "a GPU").path == model
    monkeypatch.setattr(bases, "gpu_memory_gb", lambda: (None, ""))
    monkeypatch.setattr(rounding, "LEAST", 10**9)
    assert resolved(model, tmp_path / "small").path == model
    monkeypatch.setattr(rounding, "MOST", 10)
    assert resolved(model, tmp_path / "asked for", "8bit").path != model


def test_a_home_from_before_goes_on_with_its_floats(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    resolved(model, home, "none")
    record = json.loads((home / "base.json").read_text())
    del record["rounded"]
    (home / "base.json").write_text(json.dumps(record))
    assert resolved(model, home).path == model
