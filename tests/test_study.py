"""One study, in this process: plan, measure, train, measure; stopped and gone on with."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from autodidact import examples, study
from autodidact.checkpoints import CONFIG, WEIGHTS
from autodidact.errors import CheckpointError, TrainingError
from autodidact.settings import TrainingSettings
from autodidact.types import Probe
from tests.versions import one_line, save_adapter
from tests.workplace import CONTROL_TEXTS, TEXTS, child_environment, document, ended

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 10


def write_job(folder: Path, model: Path, **more: Any) -> Path:
    """A job as `cycle` writes it: four documents, three of control, the base as parent."""
    taught = [examples.read(i, document(*text)) for i, text in enumerate(TEXTS.values(), start=1)]
    control = [examples.read(-i, document(*t)) for i, t in enumerate(CONTROL_TEXTS.values(), 1)]
    probes = [
        *examples.probes(taught, control, "taught"),
        *examples.probes(control, taught, "control"),
    ]
    training = TrainingSettings(
        rank=4, learning_rate=0.02, batch_size=16, kl_weight=0.1, threads=1
    ).model_dump()
    job = {
        "cycle": 3,
        "cycle_minutes": 0.5,
        "spent_s": 0.0,
        "base": {"name": "tiny", "path": str(model), "sha256": "", "revision": ""},
        "parent": None,
        "anchors": str(folder / "anchors-known.json"),
        "threads": 1,
        "training": training,
        "documents": [
            {"id": r.document_id, "examples": [asdict(e) for e in examples.examples(r)]}
            for r in taught
        ],
        "replay": [],
        "probes": [asdict(p) for p in probes],
        "limits": {"taught": 8, "control": 6, "kept": 4},
        "steps": STEPS,
        **more,
    }
    staging = folder / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    (staging / "job.json").write_text(json.dumps(job))
    return staging / "job.json"


def anchors(folder: Path) -> Path:
    """Enough anchors that none need be sampled."""
    path = folder / "anchors-known.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([[(i + j) % 200 + 5 for j in range(20)] for i in range(2000)]))
    return path


Event = dict[str, Any]


def run(path: Path, stop_at: int = 0) -> list[Event]:
    """The events of a study; with `stop_at` it is asked to stop during that step."""
    events: list[Event] = []
    stop = threading.Event()

    def emit(**event: Any) -> None:
        events.append(event)
        if event.get("step") == stop_at and "loss" in event:
            stop.set()

    # As the process does it: what comes out is what went through JSON.
    study._Study(json.loads(path.read_text()), path.parent, stop, emit).run()
    return [json.loads(json.dumps(event)) for event in events]


def of(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def steps(events: list[Event]) -> list[int]:
    return [event["step"] for event in of(events, "progress") if "loss" in event]


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]
) -> tuple[Path, list[Event]]:
    """A study that nothing disturbed: its staging folder and its events."""
    folder = tmp_path_factory.mktemp("whole")
    anchors(folder)
    path = write_job(folder, tiny_folder("llama"))
    return path.parent, run(path)


def test_a_study_says_what_it_does_in_order(whole: tuple[Path, list[Event]]) -> None:
    _, events = whole
    phases = [event["phase"] for event in of(events, "phase")]
    assert phases == ["loading", "planning", "measuring", "training", "measuring"]
    assert [event["arm"] for event in of(events, "measured")] == ["base", "parent", "candidate"]
    assert events[-1] == {"event": "done", **{k: events[-1][k] for k in ("steps", "exposures")}}
    assert steps(events) == list(range(1, STEPS + 1))
    assert {event["of"] for event in of(events, "progress") if "loss" in event} == {STEPS}


def test_the_base_is_measured_on_text_only_and_the_others_on_the_same_probes(
    whole: tuple[Path, list[Event]],
) -> None:
    base, parent, candidate = of(whole[1], "measured")
    assert base["rows"] == []
    assert base["nll"] == parent["nll"], "the parent is the untouched base"
    assert base["blocks"] == parent["blocks"] == candidate["blocks"] > 0
    ids = [row["probe_id"] for row in parent["rows"]]
    assert ids == [row["probe_id"] for row in candidate["rows"]]
    assert len(ids) == 8 + 6, "as many of each split as the limits say"


def test_training_raises_what_was_taught(whole: tuple[Path, list[Event]]) -> None:
    _, parent, candidate = of(whole[1], "measured")
    job = json.loads((whole[0] / "job.json").read_text())
    taught = {probe["id"] for probe in job["probes"] if probe["split"] == "taught"}
    rises = [
        now["logprob"] - before["logprob"]
        for before, now in zip(parent["rows"], candidate["rows"], strict=True)
        if now["probe_id"] in taught
    ]
    assert sum(rises) / len(rises) > 0.3


def test_the_adapter_that_was_measured_is_what_lies_in_staging(
    whole: tuple[Path, list[Event]], llama: Any
) -> None:
    from autodidact.engine import Engine
    from autodidact.generators.examine import Examinee
    from tests.versions import load_adapter

    folder, events = whole
    engine = Engine(llama)
    version = load_adapter(engine, 3, folder / "adapter")
    job = json.loads((folder / "job.json").read_text())
    probes = {
        p["id"]: Probe(**{**p, "distractors": tuple(p["distractors"])}) for p in job["probes"]
    }
    rows = of(events, "measured")[2]["rows"][:3]
    again = study._measure(Examinee(engine, version), [probes[row["probe_id"]] for row in rows])
    for row, result in zip(rows, again, strict=True):
        assert result.margin == pytest.approx(row["margin"], abs=1e-4)
        assert result.reply == row["reply"]


@pytest.mark.parametrize("stop_at", [1, 4, STEPS - 1])
def test_stopped_and_gone_on_with_equals_undisturbed(
    whole: tuple[Path, list[Event]],
    tmp_path: Path,
    tiny_folder: Callable[[str], Path],
    stop_at: int,
) -> None:
    anchors(tmp_path)
    path = write_job(tmp_path, tiny_folder("llama"))
    first = run(path, stop_at)
    assert first[-1] == {"event": "stopped"}
    assert steps(first) == list(range(1, stop_at + 1))
    assert json.loads((path.parent / "resume" / "state.json").read_text())["step"] == stop_at
    assert not (path.parent / "adapter").exists()
    second = run(path)
    assert steps(second) == list(range(stop_at + 1, STEPS + 1)), "at the very next step"
    assert of(second, "planned")[0]["documents"] == of(first, "planned")[0]["documents"]
    assert of(second, "measured")[1] == of(first, "measured")[1], "not measured again"
    undisturbed = whole[0] / "adapter"
    for file in (WEIGHTS, CONFIG):
        assert (path.parent / "adapter" / file).read_bytes() == (undisturbed / file).read_bytes()


def test_the_plan_of_a_resumed_job_is_the_first_one(
    tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    anchors(tmp_path)
    path = write_job(tmp_path, tiny_folder("llama"))
    run(path, 1)
    plan = json.loads((path.parent / "plan.json").read_text())
    plan["documents"], plan["steps"] = [2], 3
    (path.parent / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "staging" / "measured-parent.json").unlink()
    (tmp_path / "staging" / "measured.json").unlink()
    events = run(path)
    assert of(events, "planned")[0]["documents"] == [2]
    assert steps(events) == [2, 3]
    job = json.loads(path.read_text())
    owners = {p["id"]: p["document_id"] for p in job["probes"] if p["split"] == "taught"}
    asked = {owners.get(row["probe_id"], 2) for row in of(events, "measured")[1]["rows"]}
    assert asked == {2}, "only the planned documents are measured"


def test_a_resumed_job_measures_what_it_measured_before(
    tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    """How much can be measured is a matter of speed, which may come out otherwise the next time."""
    anchors(tmp_path)
    path = write_job(tmp_path, tiny_folder("llama"))
    run(path, 1)
    kept = json.loads((path.parent / "measured.json").read_text())
    fewer = {"probes": kept["probes"][:2], "blocks": 1}
    (path.parent / "measured.json").write_text(json.dumps(fewer))
    candidate = of(run(path), "measured")[-1]
    assert candidate["arm"] == "candidate"
    assert [row["probe_id"] for row in candidate["rows"]] == fewer["probes"]
    assert candidate["blocks"] == 1


@pytest.mark.parametrize("autocast", [False, True])
def test_a_resumed_job_keeps_the_precision_it_began_with(
    tmp_path: Path, tiny_folder: Callable[[str], Path], autocast: bool
) -> None:
    """What is faster is measured, and the measurement may come out otherwise the next time."""
    anchors(tmp_path)
    path = write_job(tmp_path, tiny_folder("llama"), steps=2)
    run(path, 1)
    saved = path.parent / "plan.json"
    plan = json.loads(saved.read_text())
    assert plan["autocast"] in (True, False)
    saved.write_text(json.dumps({**plan, "autocast": autocast}))
    resumed = study._Study(
        json.loads(path.read_text()), path.parent, threading.Event(), lambda **event: None
    )
    resumed.run()
    assert resumed.trainer.recipe.autocast is autocast


def test_trained_to_the_end_it_is_not_trained_again(
    tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    """Cut off while the candidate was measured."""
    anchors(tmp_path)
    path = write_job(tmp_path, tiny_folder("llama"), steps=2)
    first = run(path)
    (path.parent / "measured-candidate.json").unlink()
    again = run(path)
    assert steps(again) == []
    assert of(again, "measured")[2]["rows"] == of(first, "measured")[2]["rows"]


def test_missing_anchors_are_sampled_and_handed_over(
    tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    path = write_job(tmp_path, tiny_folder("llama"), cycle_minutes=0.01, steps=1)
    events = run(path)
    [given] = of(events, "anchors")
    rows = json.loads(Path(given["path"]).read_text())
    assert len(rows) >= 16
    assert Path(given["path"]).parent == path.parent, "it writes into its own folder only"
    assert not (tmp_path / "anchors-known.json").exists()


def test_the_parent_is_the_start_and_the_comparison(
    tmp_path: Path, tiny_folder: Callable[[str], Path], llama: Any
) -> None:
    anchors(tmp_path)
    parent = save_adapter(llama, tmp_path / "versions" / "000002")
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)}, steps=1
    )
    base, before, _ = of(run(path), "measured")
    assert base["nll"] != before["nll"], "the parent is not the base"


def test_the_parent_s_rank_goes_on_when_the_setting_has_changed(
    tmp_path: Path, tiny_folder: Callable[[str], Path], llama: Any
) -> None:
    anchors(tmp_path)
    parent = save_adapter(llama, tmp_path / "versions" / "000002", rank=6)
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)}, steps=1
    )
    run(path)
    assert json.loads((path.parent / "adapter" / CONFIG).read_text())["r"] == 6


def test_a_damaged_parent_ends_the_study_in_one_line(
    tmp_path: Path, tiny_folder: Callable[[str], Path], llama: Any
) -> None:
    anchors(tmp_path)
    parent = save_adapter(llama, tmp_path / "versions" / "000002")
    (parent / WEIGHTS).write_bytes((parent / WEIGHTS).read_bytes()[:100])
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)}, steps=1
    )
    with pytest.raises(CheckpointError) as caught:
        run(path)
    assert "000002" in one_line(caught.value)


def test_documents_without_an_example_that_fits_end_the_study_in_one_line(
    tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    anchors(tmp_path)
    path = write_job(tmp_path, tiny_folder("llama"), documents=[{"id": 1, "examples": []}])
    with pytest.raises(TrainingError, match="no example of these documents fits"):
        run(path)


def test_the_process_ends_when_its_standard_input_closes(
    tmp_path: Path, tiny_folder: Callable[[str], Path]
) -> None:
    """As it does when the learner was killed."""
    path = write_job(tmp_path, tiny_folder("llama"), steps=100_000)
    child = subprocess.Popen(
        [sys.executable, "-m", "autodidact.study", str(path)],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    assert json.loads(child.stdout.readline()) == {"event": "phase", "phase": "loading"}
    code, _ = ended(child)
    assert code == 3


# The plan is made by time -----------------------------------------------------------------------


class Row:
    """As much of a TrainingSequence as the plan looks at."""

    def __init__(self, document: int) -> None:
        self.ids = (1,) * 10
        self.document_id = document


def plan(step_s: float, train_s: float = 60.0, documents: int = 4, **limits: int) -> dict[str, Any]:
    tokens = {i: [Row(i)] * 70 for i in range(1, documents + 1)}
    return study._fit(TrainingSettings(**limits), 10, tokens, [], step_s, train_s)


def test_a_fast_machine_takes_every_document_and_stops_at_enough_exposures() -> None:
    made = plan(0.001, max_exposures=70)
    assert made["documents"] == [1, 2, 3, 4]
    # 280 sequences in batches of 10: 28 steps a pass, 10 passes show a fact 70 times.
    assert made["steps"] == 280
    assert made["exposures"] == 70


def test_a_slow_machine_takes_fewer_documents_to_learn_them_well() -> None:
    # 120 steps are possible. Two documents make 14 steps a pass: 8.6 passes, 60 exposures.
    made = plan(0.5, min_exposures=56)
    assert made["documents"] == [1, 2]
    assert made["steps"] == 120
    assert made["exposures"] == 60


def test_the_slowest_machine_still_learns_one_document() -> None:
    made = plan(1000.0)
    assert made["documents"] == [1]
    assert made["steps"] == study.MIN_STEPS


def test_a_document_without_sequences_is_not_taken() -> None:
    tokens: dict[int, list[Any]] = {1: [], 2: [Row(2)] * 7}
    made = study._fit(TrainingSettings(), 10, tokens, [], 0.001, 60.0)
    assert made["documents"] == [2]


def probe(number: int, document_id: int) -> Probe:
    return Probe(f"{document_id}-{number:08x}", document_id, "", "", ("x",), "", "", "", "taught")


def test_probes_are_taken_from_documents_in_turn() -> None:
    probes = [probe(i, 1) for i in range(10)] + [probe(i, 2) for i in (20, 21)] + [probe(30, 3)]
    assert [p.document_id for p in study._spread(probes, 5)] == [1, 2, 3, 1, 2]
    assert study._spread(probes[::-1], 5) == study._spread(probes, 5)
    assert len(study._spread(probes, 100)) == 13
