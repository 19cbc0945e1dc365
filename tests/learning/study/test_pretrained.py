"""A study of a model that was pretrained at length: packed, on its upper blocks, held by real
anchors, its everyday replies measured. Here with a tiny model that is taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autodidact.learning.study import preparation
from autodidact.models.loading import block_of
from autodidact.training import anchor_set, recipe
from autodidact.training import anchors as anchoring
from autodidact.training.passes import PackedPasses
from tests.learning.study import test_study as studies

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread", "small", "pretrained")
small = studies.small


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "PRETRAINED_FROM", 0)
    monkeypatch.setattr(anchoring, "REPLY_TOKENS", 8)
    monkeypatch.setattr(preparation, "autocast_pays", lambda engine: False)


def without_anchors(folder: Path, model: Path) -> Path:
    gone = studies.write_job(folder, model, anchors=str(folder / "none.json"), minutes=2)
    job = json.loads(gone.read_text())
    job["limits"] |= {"taught": 4, "unseen": 2, "control": 2}
    gone.write_text(json.dumps(job))
    return gone


def test_the_whole_study(tmp_path: Path, tiny_folder: studies.ModelFolder) -> None:
    path = without_anchors(tmp_path, tiny_folder("smollm2"))
    events = studies.run(path)
    assert events[-1]["event"] == "done"

    [given] = studies.of(events, "anchors")
    made = anchoring.read(json.loads(Path(given["path"]).read_text()))
    assert made.real.texts, "no text was sampled"
    assert not made.texts

    base, looks = studies.arm(events, "base"), studies.arm(events, "candidate")
    own = len(looks["replies"])
    assert own == len(looks["worse"]) == len(base["replies"]) >= 24
    held = [prompt.id for prompt in anchor_set.prompts() if prompt.held]
    assert {name for name, _ in made.real.prompts} == set(held)
    assert not base["worse"], "it is what the others are compared with"
    assert not studies.arm(events, "parent")["worse"], "and here the parent, too"

    tensors = load_file(path.parent / "adapter" / "adapter_model.safetensors")
    assert {block_of(name) for name in tensors} == {1}, "of two blocks the upper one"


def test_stopped_and_gone_on_with_equals_undisturbed(
    tmp_path: Path, tiny_folder: studies.ModelFolder
) -> None:
    """The sampler, too, goes on with what it heard before the stop. Equal but for rounding: hidden
    states that are kept are computed anew, in other company."""
    model = tiny_folder("smollm2")
    whole = without_anchors(tmp_path / "a", model)
    studies.run(whole)
    parts = without_anchors(tmp_path / "b", model)
    assert studies.run(parts, stop_at=5)[-1]["event"] == "stopped"
    studies.run(parts)
    weights = [
        load_file(p.parent / "adapter" / "adapter_model.safetensors") for p in (whole, parts)
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=1e-4), name


def test_it_trains_packed_and_on_questions_alone(
    tmp_path: Path, tiny_folder: studies.ModelFolder
) -> None:
    made = studies.prepared(without_anchors(tmp_path, tiny_folder("smollm2")))
    assert isinstance(made.trainer.passes, PackedPasses)
    assert {row.kind for row in made.new} <= {"question", "cloze", "reversed"}
    assert made.weaving is None
