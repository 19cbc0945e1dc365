"""What serves is what is judged: a study measures through the graph that a server replies by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from autodidact.engine import Engine, runtime
from autodidact.engine.examinee import Examinee
from autodidact.evaluation import recall
from autodidact.learning.study import course
from autodidact.models import loading
from autodidact.types.cycle import Baseline
from tests.blocks import rounded
from tests.learning.study import test_study as studies

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread", "small")
small = studies.small


@pytest.fixture
def in_blocks(
    tmp_path: Path, tiny_folder: studies.ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A base whose weights are numbers of four bits; so small that speed decides nothing."""
    monkeypatch.setattr(runtime, "FASTER", 0.0)
    folder = tmp_path / "blocks"
    shutil.copytree(tiny_folder("llama"), folder)
    rounded(loading.load(folder, 1).model).save_pretrained(folder)
    return folder


def logged(events: list[studies.Event]) -> str:
    return "\n".join(event["line"] for event in studies.of(events, "log"))


def test_it_measures_through_what_serves(tmp_path: Path, in_blocks: Path) -> None:
    path = studies.write_job(tmp_path, in_blocks, runtime="auto")
    events = studies.run(path)
    assert events[-1]["event"] == "done"
    assert "it is measured by 4-bit weights by onnxruntime" in logged(events)
    looks = studies.of(events, "measured")
    assert {look["runtime"] for look in looks} == {"onnx"}

    base = loading.load(in_blocks, 1)
    passes = runtime.choose(base, "onnx", 1).passes
    server = Engine(base, graph=passes)
    version = server.load_folder(1, path.parent / "adapter")
    asked = [p for p in studies.read_job(path).probes if p.split == "taught"]
    said = {r.probe_id: r for r in recall.measure(Examinee(server, version), asked)}
    told = {row["probe_id"]: row for row in studies.arm(events, "candidate")["rows"]}
    for name in told.keys() & said.keys():
        assert told[name]["logprob"] == pytest.approx(said[name].logprob, abs=0.02)
        assert told[name]["reply"] == said[name].reply
    assert told.keys() & said.keys()


@pytest.mark.parametrize("floats", [True, False])
def test_a_base_in_floats_or_a_server_set_to_torch_is_measured_by_torch(
    tmp_path: Path, in_blocks: Path, tiny_folder: studies.ModelFolder, floats: bool
) -> None:
    model = tiny_folder("llama") if floats else in_blocks
    path = studies.write_job(tmp_path, model, runtime="auto" if floats else "torch")
    events = studies.run(path)
    assert {look["runtime"] for look in studies.of(events, "measured")} == {"torch"}


def test_figures_of_the_other_runtime_are_not_taken_over(tmp_path: Path, in_blocks: Path) -> None:
    """Their difference would count as drift."""
    made_up = Baseline((9.0,) * studies.BLOCKS, (True,) * studies.CHATS)
    taken = {}
    for name in ("torch", "onnx"):
        known = {"base": {**made_up.__dict__, "runtime": name}}
        path = studies.write_job(tmp_path / name, in_blocks, runtime="auto", known=known)
        base = studies.arm(studies.run(path), "base")
        taken[name] = base["general"] == [9.0] * studies.BLOCKS
    assert taken == {"torch": False, "onnx": True}


def test_gone_on_with_by_another_runtime_it_measures_anew(
    tmp_path: Path, in_blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library was installed, or taken away, between two starts."""
    path = studies.write_job(tmp_path, in_blocks, runtime="auto")
    assert studies.run(path, stop_at=4)[-1]["event"] == "stopped"
    monkeypatch.setattr(course, "_graph", lambda session, base, threads: None)
    looks = studies.of(studies.run(path), "measured")
    assert {look["runtime"] for look in looks} == {"torch"}
    assert json.loads((path.parent / "measured-base-1.0.json").read_text())["runtime"] == "torch"
    assert {look["arm"] for look in looks} == {"base", "parent", "candidate"}
