"""One study, in this process: plan, measure, train, measure, look again; stopped and gone on with.

How much is measured follows from speed; here there are so few blocks, chats and probes that they
are always all measured, so that runs can be compared figure by figure.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from autodidact import replying
from autodidact.checkpoints import CONFIG, WEIGHTS
from autodidact.engine import Engine
from autodidact.engine.examinee import Examinee
from autodidact.errors import BaseUnfit, CheckpointError, TrainingError
from autodidact.evaluation import recall, well_formed
from autodidact.learning.process import GIVE_WAY
from autodidact.learning.study import course, planning, preparation
from autodidact.learning.study.preparation import Preparation
from autodidact.learning.study.session import Session
from autodidact.learning.study.waiting import MOST_WAIT_S, Waiting
from autodidact.lessons import examples, self_written
from autodidact.lessons.probes import write_probes, write_unseen_probes
from autodidact.models import loading
from autodidact.models.loading import LoadedBase
from autodidact.reading.document import read_document
from autodidact.settings import TrainingSettings
from autodidact.training import anchors as anchoring
from autodidact.types import wire
from autodidact.types.chat import Message
from autodidact.types.cycle import Job
from autodidact.types.documents import Example, Findings, Probe
from autodidact.types.events import MeasurementEvent, StudyEvent, UnsoundEvent, WaitEvent
from tests.test_replying import server
from tests.tiny_models import tiny
from tests.versions import load_adapter, one_line, save_adapter
from tests.workplace import CONTROL_TEXTS, TEXTS, child_environment, document, ended

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 10
BLOCKS, CHATS = 16, 24
FAR = 1e6
LIMITS = {
    "general_limit": FAR, "general_step": FAR, "kept_limit": FAR, "kept_step": FAR,
    "chat_limit": 1.0, "chat_step": 1.0,
}  # fmt: skip
STRICT = {**LIMITS, "general_limit": -FAR}
"""General text would have to become far likelier: no step is short enough."""
SAMPLED: dict[str, Any] = {}
"""Anchors of the tiny llama, sampled once."""
Event = dict[str, Any]
ModelFolder = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def small(llama: LoadedBase) -> Iterator[None]:
    """As many anchors as fill the least that is measured, and one precision on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchoring, "TEXTS", 4 * BLOCKS)
        patch.setattr(anchoring, "CHATS", 2 * CHATS)
        patch.setattr(anchoring, "TEXT_TOKENS", 32)
        patch.setattr(anchoring, "REPLY_TOKENS", 24)
        patch.setattr(anchoring, "BATCH", 32)
        patch.setattr(preparation, "autocast_pays", lambda engine: False)
        none = anchoring.Anchors()
        made = anchoring.extend(Engine(llama), none, "sampled", 3600, lambda step, of: None)
        assert made.complete("sampled")
        SAMPLED.update(made.plain())
        yield


def readings() -> tuple[list[Findings], list[Findings]]:
    """What is taught, and what is not."""
    return (
        [read_document(i, document(*text)) for i, text in enumerate(TEXTS.values(), start=1)],
        [read_document(-i, document(*text)) for i, text in enumerate(CONTROL_TEXTS.values(), 1)],
    )


def rows(of: list[Findings]) -> list[dict[str, Any]]:
    return [asdict(example) for reading in of for example in examples.examples(reading)]


def lesson(of: Findings) -> dict[str, Any]:
    chunks = [asdict(chunk) for chunk in of.chunks]
    return {"document_id": of.document_id, "chunks": chunks, "examples": rows([of])}


def read_job(path: Path) -> Job:
    return wire.from_json(Job, path.read_bytes(), path.name)


def write_job(folder: Path, model: Path, **more: Any) -> Path:
    """A job as `agenda` writes it: four documents, three of control, the base as parent."""
    taught, control = readings()
    probes = [
        *write_probes(taught, control, "taught"),
        *write_unseen_probes(taught, control),
        *write_probes(control, taught, "control"),
    ]
    training = TrainingSettings(
        rank=4, learning_rate=0.02, batch_size=16, kl_weight=0.1, threads=1
    ).model_dump()
    job = {
        "cycle": 3,
        "kind": "learn",
        "fresh": False,
        "rise": 0.0,
        "minutes": 2.0,
        "spent_s": 0.0,
        "frozen_at": 0.0,
        "base": {"name": "tiny", "path": str(model), "sha256": "", "revision": ""},
        "parent": None,
        "anchors": str(anchors(folder)),
        "threads": 1,
        "training": training,
        "gate": LIMITS,
        "lessons": [lesson(r) for r in taught],
        "forgets": [],
        "replay": [],
        "shares": {},
        "probes": [asdict(p) for p in probes],
        "when_learned": {},
        "limits": {"taught": 8, "unseen": 4, "control": 6, "kept": 4, "forgotten": 4},
        "known": {},
        "steps": STEPS,
        **more,
    }
    staging = folder / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    (staging / "job.json").write_text(json.dumps(job))
    return staging / "job.json"


def learnable(**gate: float) -> dict[str, Any]:
    """A job that is sure to learn: its distractors look like no answer, so that even a model which
    learned the form alone tells them apart."""
    taught, control = readings()
    probes = write_probes(taught, control, "taught")
    return {
        "probes": [asdict(replace(p, distractors=("Zqx vvj kkw",))) for p in probes],
        "limits": {"taught": 40},
        "gate": LIMITS | gate,
        "steps": 2 * STEPS,
    }


def relearning(kind: str = "consolidate") -> dict[str, Any]:
    """A job that trains a fresh adapter on the store, as after too much drift: the first two
    documents, without the third, which a job of kind "forget" is to forget."""
    learned, (third, *_) = readings()[0][:2], readings()[0][2:]
    asked = write_probes(learned, [third], "kept")
    if kind == "forget":
        gone = write_probes([third], learned, "taught")
        asked += [replace(p, split="forgotten") for p in gone]
    replay = [row for row in rows(learned) if row["fact"]]
    return {
        "kind": kind,
        "fresh": True,
        "rise": 0.0,
        "lessons": [],
        "replay": replay,
        "shares": {row["fact"]: 1.0 for row in replay},
        "probes": [asdict(p) for p in asked],
    }


def anchors(folder: Path) -> Path:
    """Enough anchors that none need be sampled."""
    path = folder / "anchors-known.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(SAMPLED))
    return path


class Killed(BaseException):
    """The process ends here and says no more."""


def run(
    path: Path, stop_at: int = 0, kill: Callable[[Event], bool] = lambda event: False
) -> list[Event]:
    """The events of a study; with `stop_at` it is asked to stop during that step. Of one that is
    killed at an event, what it said until then."""
    events: list[Event] = []
    stop = threading.Event()

    def emit(event: StudyEvent) -> None:
        # As the process does it: what comes out is what went through JSON.
        events.append(json.loads(wire.to_json(event)))
        if events[-1].get("step") == stop_at and "loss" in events[-1]:
            stop.set()
        if kill(events[-1]):
            raise Killed

    with contextlib.suppress(Killed):
        course.study(Session(read_job(path), path.parent, emit, stop))
    return events


def silent(path: Path) -> Session:
    """A job at work that no one hears."""
    return Session(read_job(path), path.parent, lambda event: None)


def prepared(path: Path) -> Preparation:
    """What a job trains with."""
    session = silent(path)
    engine = Engine(loading.load(Path(session.job.base.path), 1))
    return preparation.prepare(session, engine, preparation.anchors(session, engine))


def of(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def steps(events: list[Event]) -> list[int]:
    return [event["step"] for event in of(events, "step")]


def measured(events: list[Event]) -> list[tuple[str, float]]:
    return [(event["arm"], event["step"]) for event in of(events, "measured")]


def arm(events: list[Event], name: str) -> Event:
    """What was measured last of an arm."""
    return [event for event in of(events, "measured") if event["arm"] == name][-1]


def changes(events: list[Event]) -> list[float]:
    """How much general text changed since the parent, at each look."""
    before = arm(events, "parent")["general"]
    looks = [event["general"] for event in of(events, "measured")[2:]]
    return [sum(abs(b - a) for a, b in zip(before, now, strict=True)) for now in looks]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def lasting(event: Event) -> Event:
    """What it says but when."""
    times = ("first_step_at", "seconds_per_step", "eta_s", "left_s")
    return {k: v for k, v in event.items() if k not in times}


Whole = tuple[Path, list[Event]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_folder: ModelFolder) -> Whole:
    """A study that nothing disturbed: its staging folder and its events."""
    path = write_job(tmp_path_factory.mktemp("whole"), tiny_folder("llama"))
    return path.parent, run(path)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, tiny_folder: ModelFolder) -> Whole:
    """The same with a gate that every candidate fails, on general text alone."""
    folder = tmp_path_factory.mktemp("searched")
    path = write_job(folder, tiny_folder("llama"), **learnable(general_limit=-FAR))
    return path.parent, run(path)


# The main path ----------------------------------------------------------------------------------


def test_a_study_says_what_it_does_in_order(whole: Whole) -> None:
    _, events = whole
    phases = [event["phase"] for event in of(events, "phase")]
    assert phases == ["loading", "planning", "measuring", "training", "measuring"]
    assert measured(events) == [("base", 1.0), ("parent", 1.0), ("candidate", 1.0)]
    kinds = [e["event"] for e in events if e["event"] in ("planned", "measured", "done")]
    assert kinds == ["planned", "measured", "measured", "measured", "done"]
    assert events[-1]["event"] == "done"
    assert events[-1]["steps"] == STEPS
    assert events[-1]["step"] == 1.0
    assert events[-1]["replay"] == 0.0
    assert events[-1]["exposures"] > 0
    assert steps(events) == list(range(1, STEPS + 1))
    assert {event["of"] for event in of(events, "step")} == {STEPS}
    planned = lasting(of(events, "planned")[0])
    assert planned == {
        "event": "planned", "documents": [1, 2, 3, 4], "steps": STEPS, "replay": 0.0,
    }  # fmt: skip


def test_it_says_how_much_is_left_at_every_turn(whole: Whole) -> None:
    _, events = whole
    told = [e for e in events if e["event"] in ("phase", "progress", "step")]
    left = [event["left_s"] for event in told]
    assert left == sorted(left, reverse=True)
    assert left[0] > left[-1]
    arms: list[list[Event]] = [[]]
    for event in events:
        if event["event"] == "progress":
            arms[-1].append(event)
        elif event["event"] == "measured":
            arms.append([])
    base, _, candidate, *rest = arms
    assert rest == [[]]
    assert (base[0]["step"], base[0]["of"]) == (0, BLOCKS + CHATS)
    asked = len(arm(events, "candidate")["rows"])
    whole_of_it = asked + BLOCKS + CHATS
    done = [e["step"] for e in candidate]
    assert {0, asked, asked + BLOCKS} <= set(done), "a word before each kind of question"
    assert done == sorted(done)
    assert {e["of"] for e in candidate} == {whole_of_it}
    assert all(e["eta_s"] > 0 for e in candidate)


def test_every_arm_is_measured_on_the_same_and_the_base_on_no_question(whole: Whole) -> None:
    base, parent, candidate = of(whole[1], "measured")
    assert base["rows"] == []
    for each in (base, parent, candidate):
        assert len(each["general"]) == BLOCKS
        assert len(each["chat"]) == CHATS
        assert all(isinstance(value, float) for value in each["general"])
        assert all(isinstance(value, bool) for value in each["chat"])
    ids = [row["probe_id"] for row in parent["rows"]]
    assert ids == [row["probe_id"] for row in candidate["rows"]]
    job = json.loads((whole[0] / "job.json").read_text())
    splits = {probe["id"]: probe["split"] for probe in job["probes"]}
    asked = [splits[i] for i in ids]
    assert [asked.count(s) for s in ("taught", "unseen", "control")] == [8, 4, 6], "by the limits"
    assert parent["general"] != candidate["general"]


def test_with_the_base_as_parent_its_general_text_and_chats_are_measured_once(whole: Whole) -> None:
    base, parent = of(whole[1], "measured")[:2]
    assert base["general"] == parent["general"]
    assert base["chat"] == parent["chat"]


def test_training_raises_what_was_taught(whole: Whole) -> None:
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
    whole: Whole, llama: LoadedBase
) -> None:
    folder, events = whole
    engine = Engine(llama)
    subject = Examinee(engine, load_adapter(engine, 3, folder / "adapter"))
    job = json.loads((folder / "job.json").read_text())
    probes = {
        p["id"]: Probe(**{**p, "distractors": tuple(p["distractors"])}) for p in job["probes"]
    }
    found = arm(events, "candidate")
    again = recall.measure(subject, [probes[row["probe_id"]] for row in found["rows"][:3]])
    for row, result in zip(found["rows"], again, strict=False):
        assert result.margin == pytest.approx(row["margin"], abs=1e-4)
        assert result.reply == row["reply"]
    held_out = anchoring.read(json.loads(Path(job["anchors"]).read_text()))
    assert subject.nll(held_out.blocks) == pytest.approx(found["general"], abs=1e-4)
    assert [r.well_formed for r in well_formed.measure(subject, held_out.prompts)] == found["chat"]


# How far to go ----------------------------------------------------------------------------------


def test_one_look_is_enough_if_the_gate_passes(whole: Whole) -> None:
    folder, events = whole
    assert measured(events)[2:] == [("candidate", 1.0)]
    assert files(folder / "adapter") == files(folder / "trained")


def test_refused_for_general_text_it_looks_at_half_and_a_quarter_of_the_way(
    searched: Whole,
) -> None:
    folder, events = searched
    looks = [("candidate", 1.0), ("candidate", 0.5), ("candidate", 0.25)]
    assert measured(events) == [("base", 1.0), ("parent", 1.0), *looks]
    assert events[-1]["step"] == 0.25
    assert files(folder / "adapter") == files(folder / "step-0.25"), "the last look, byte for byte"
    assert files(folder / "trained") != files(folder / "adapter")
    assert not list(folder.glob("*.new"))


def test_a_shorter_step_changes_less(searched: Whole) -> None:
    """From the base, of which it is exactly that part."""
    folder, events = searched
    trained = load_file(folder / "trained" / WEIGHTS)
    for step in (0.5, 0.25):
        shorter = load_file(folder / f"step-{step}" / WEIGHTS)
        for name, tensor in trained.items():
            scale = step if "lora_B" in name else 1.0
            assert torch.equal(shorter[name], scale * tensor), name
    lengths = changes(events)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[2] > 0


def test_a_shorter_step_from_a_parent_stays_at_the_parent_s_rank(
    tmp_path: Path, tiny_folder: ModelFolder, whole: Whole
) -> None:
    parent = whole[0] / "adapter"
    job = json.loads((whole[0] / "job.json").read_text())
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)},
        **learnable(general_limit=-FAR)
        | {"training": {**job["training"], "rank": 8}, "steps": 6 * STEPS},
    )  # fmt: skip
    events = run(path)
    assert measured(events)[-1] == ("candidate", 0.25)
    assert json.loads((path.parent / "adapter" / CONFIG).read_text())["r"] == 4
    before, trained, quarter = (
        load_file(folder / WEIGHTS)
        for folder in (parent, path.parent / "trained", path.parent / "adapter")
    )
    for name in (n for n in before if "lora_A" in n):
        up = name.replace("lora_A", "lora_B")
        first, last, found = (a[up] @ a[name] for a in (before, trained, quarter))
        wanted = 0.75 * first + 0.25 * last
        best = torch.linalg.svdvals(wanted)[4:].norm()
        assert float((found - wanted).norm()) == pytest.approx(float(best), abs=1e-4)
    near = changes(events)
    assert near[2] < near[0]


@pytest.mark.parametrize("gate", [LIMITS, STRICT], ids=["learned", "learned and general"])
def test_what_was_not_learned_is_not_sought_nearer_the_parent(
    tmp_path: Path, tiny_folder: ModelFolder, gate: dict[str, float]
) -> None:
    """One probe of one document can never show that it was learned."""
    taught, control = readings()
    probes = [asdict(p) for p in write_probes(taught, control, "taught")[:1]]
    path = write_job(tmp_path, tiny_folder("llama"), probes=probes, gate=gate, steps=2)
    events = run(path)
    assert measured(events)[2:] == [("candidate", 1.0)]
    assert events[-1]["step"] == 1.0
    assert files(path.parent / "adapter") == files(path.parent / "trained")


def test_a_step_that_passes_ends_the_search(
    tmp_path: Path, tiny_folder: ModelFolder, searched: Whole
) -> None:
    """With a limit between what the whole step changes and what half of it does."""
    from autodidact.evaluation import judge

    folder, events = searched
    job = json.loads((folder / "job.json").read_text())
    base, parent, *looks = [
        wire.from_json(MeasurementEvent, json.dumps(event), "event")
        for event in of(events, "measured")
    ]
    rises = [
        judge.verdict(read_job(folder / "job.json"), base, parent, look).results for look in looks
    ]
    upper = [
        next(r.upper for r in rules if (r.rule, r.against) == ("general", "base"))
        for rules in rises
    ]
    assert upper[0] > upper[1]
    target = tmp_path / "staging"
    shutil.copytree(folder, target)
    shutil.rmtree(target / "adapter")
    job["gate"] = {**LIMITS, "general_limit": (upper[0] + upper[1]) / 2}
    (target / "job.json").write_text(json.dumps(job))
    again = run(target / "job.json")
    assert measured(again)[2:] == [("candidate", 1.0), ("candidate", 0.5)]
    assert again[-1]["step"] == 0.5
    assert files(target / "adapter") == files(folder / "step-0.5")


def test_a_trained_adapter_that_does_not_load_is_a_fault_of_its_own(
    tmp_path: Path, tiny_folder: ModelFolder, whole: Whole
) -> None:
    target = tmp_path / "staging"
    shutil.copytree(whole[0], target)
    (target / "measured-candidate-1.0.json").unlink()
    weights = target / "trained" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    events: list[StudyEvent] = []
    with pytest.raises(TrainingError, match="the trained adapter does not load") as caught:
        course.study(Session(read_job(target / "job.json"), target, events.append))
    assert one_line(caught.value)
    assert any(isinstance(event, UnsoundEvent) for event in events)


# Stopped and gone on with -----------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [1, 4, STEPS])
def test_stopped_and_gone_on_with_equals_undisturbed(
    whole: Whole, tmp_path: Path, tiny_folder: ModelFolder, stop_at: int
) -> None:
    path = write_job(tmp_path, tiny_folder("llama"))
    first = run(path, stop_at)
    assert first[-1] == {"event": "stopped"}
    assert steps(first) == list(range(1, stop_at + 1))
    assert (
        json.loads((path.parent / "resume" / "state.json").read_text())["clock"]["step"] == stop_at
    )
    assert not (path.parent / "adapter").exists()
    second = run(path)
    assert steps(second) == list(range(stop_at + 1, STEPS + 1)), "at the very next step"
    assert of(second, "planned") == of(first, "planned")
    assert of(second, "measured") == of(whole[1], "measured")
    assert files(path.parent / "adapter") == files(whole[0] / "adapter")
    assert second[-1]["first_step_at"] <= whole[1][-1]["first_step_at"] + 3600


def is_look(step: float) -> Callable[[Event], bool]:
    return lambda event: event.get("arm") == "candidate" and event["step"] == step


def test_killed_at_every_phase_it_ends_as_if_undisturbed(
    searched: Whole, tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    """In the middle of the search too; half-made folders that a kill leaves change nothing."""
    path = write_job(tmp_path, tiny_folder("llama"), **learnable(general_limit=-FAR))
    ends: list[Callable[[Event], bool]] = [
        lambda event: event.get("phase") == "loading",
        lambda event: event.get("phase") == "planning",
        lambda event: event["event"] == "planned",
        lambda event: event.get("arm") == "base",
        lambda event: event.get("arm") == "parent",
        lambda event: "loss" in event and event["step"] == 3,
        is_look(1.0),
        is_look(0.5),
        is_look(0.25),
    ]
    for kill in ends:
        assert run(path, kill=kill)[-1]["event"] != "done"
        for name in ("trained.new", "step.new", "adapter.new"):
            (path.parent / name).mkdir(exist_ok=True)
            (path.parent / name / WEIGHTS).write_bytes(b"half")
    last = run(path)
    assert steps(last) == [], "it was trained already"
    assert of(last, "measured") == of(searched[1], "measured")
    assert lasting(last[-1]) == lasting(searched[1][-1])
    assert files(path.parent / "adapter") == files(searched[0] / "adapter")


def test_killed_while_training_it_goes_on_from_what_was_saved_last(
    whole: Whole, tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    path = write_job(tmp_path, tiny_folder("llama"))
    run(path, stop_at=3)
    run(path, kill=lambda event: "loss" in event and event["step"] == 6)
    last = run(path)
    assert steps(last) == list(range(4, STEPS + 1))
    assert files(path.parent / "adapter") == files(whole[0] / "adapter")
    assert of(last, "measured") == of(whole[1], "measured")


def test_nothing_is_measured_twice(
    searched: Whole, tmp_path: Path, tiny_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "staging"
    shutil.copytree(searched[0], target)
    (target / "measured-candidate-0.25.json").unlink()
    shutil.rmtree(target / "adapter")
    versions: list[int] = []
    measure = recall.measure

    def counting(subject: Any, probes: Any, **more: Any) -> Any:
        versions.append(subject._version.number)
        return measure(subject, probes, **more)

    monkeypatch.setattr(recall, "measure", counting)
    again = run(target / "job.json")
    assert of(again, "measured") == of(searched[1], "measured")
    assert set(versions) == {3}, "the last look alone"
    assert files(target / "adapter") == files(searched[0] / "adapter")


def test_the_plan_of_a_resumed_job_is_the_first_one(
    tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    path = write_job(tmp_path, tiny_folder("llama"))
    run(path, 1)
    plan = json.loads((path.parent / "plan.json").read_text())
    plan["documents"], plan["steps"] = [2], 3
    (path.parent / "plan.json").write_text(json.dumps(plan))
    state = json.loads((path.parent / "resume" / "state.json").read_text())
    state["clock"]["steps"] = 3
    (path.parent / "resume" / "state.json").write_text(json.dumps(state))
    (path.parent / "measured-parent-1.0.json").unlink()
    (path.parent / "measured.json").unlink()
    events = run(path)
    assert of(events, "planned")[0]["documents"] == [2]
    assert steps(events) == [2, 3]
    job = json.loads(path.read_text())
    new = ("taught", "unseen")
    owners = {p["id"]: p["document_id"] for p in job["probes"] if p["split"] in new}
    asked = {owners.get(row["probe_id"], 2) for row in arm(events, "parent")["rows"]}
    assert asked == {2}, "only the planned documents are measured"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("plan.json", "plan.json"),
        ("measured.json", "measured.json"),
        ("measured-parent-1.0.json", "measured-parent-1.0.json"),
        ("resume/state.safetensors", "resume cannot be read"),
        ("anchors.json", ""),
    ],
)
def test_what_was_damaged_is_found_out_anew_and_told(
    whole: Whole, tmp_path: Path, tiny_folder: ModelFolder, file: str, says: str
) -> None:
    path = write_job(tmp_path, tiny_folder("llama"))
    (path.parent / "anchors.json").write_bytes((tmp_path / "anchors-known.json").read_bytes())
    run(path, 3)
    (path.parent / file).write_text("{")
    events = run(path)
    assert any(says in event["line"] for event in of(events, "log"))
    assert events[-1]["event"] == "done"
    if file in ("plan.json", "resume/state.safetensors"):
        assert steps(events)[0] == 1, "what another plan trained is not of this one"
    if file != "plan.json":
        assert files(path.parent / "adapter") == files(whole[0] / "adapter")


def test_a_resumed_job_measures_what_it_measured_before(
    tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    """How much can be measured is a matter of speed, which may come out otherwise the next time."""
    path = write_job(tmp_path, tiny_folder("llama"))
    run(path, 1)
    kept = json.loads((path.parent / "measured.json").read_text())
    assert (kept["blocks"], kept["chats"]) == (BLOCKS, CHATS)
    fewer = {"probes": kept["probes"][:2], "blocks": 1, "chats": 3}
    (path.parent / "measured.json").write_text(json.dumps(fewer))
    candidate = arm(run(path), "candidate")
    assert [row["probe_id"] for row in candidate["rows"]] == fewer["probes"]
    assert (len(candidate["general"]), len(candidate["chat"])) == (1, 3)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_resumed_job_keeps_the_precision_it_began_with(
    tmp_path: Path, tiny_folder: ModelFolder, autocast: bool
) -> None:
    """What is faster is measured, and the measurement may come out otherwise the next time."""
    path = write_job(tmp_path, tiny_folder("llama"), steps=2)
    run(path, 1)
    saved = path.parent / "plan.json"
    plan = json.loads(saved.read_text())
    assert plan["autocast"] in (True, False)
    saved.write_text(json.dumps({**plan, "autocast": autocast}))
    assert prepared(path).trainer.recipe.autocast is autocast
    assert run(path)[-1]["event"] == "done"


# Anchors and what is known of base and parent ---------------------------------------------------


def test_missing_anchors_are_sampled_and_handed_over(
    tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    path = write_job(tmp_path, tiny_folder("llama"), minutes=0.001, steps=1)
    (tmp_path / "anchors-known.json").unlink()
    events = run(path)
    [given] = of(events, "anchors")
    made = anchoring.read(json.loads(Path(given["path"]).read_text()))
    assert made.blocks
    assert made.prompts
    assert Path(given["path"]).parent == path.parent, "it writes into its own folder only"
    assert not (tmp_path / "anchors-known.json").exists()


def test_a_resumed_job_keeps_to_the_anchors_it_began_with(
    tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    """The learner has taken over what was sampled first; more would change what is trained."""
    path = write_job(tmp_path, tiny_folder("llama"), minutes=0.001, steps=2)
    known = tmp_path / "anchors-known.json"
    some = json.loads(known.read_text())
    known.write_text(json.dumps({"texts": some["texts"][:8], "chats": some["chats"][:8]}))
    first = run(path, 1)
    [given] = of(first, "anchors")
    shutil.copy(given["path"], known)
    begun = known.read_bytes()
    assert not anchoring.read(json.loads(begun)).complete("sampled")
    second = run(path)
    assert [Path(e["path"]).read_bytes() for e in of(second, "anchors")] == [begun]
    assert of(second, "measured")[:2] == of(first, "measured")


def test_what_is_known_of_base_and_parent_is_taken_over_and_added_to(
    tmp_path: Path, tiny_folder: ModelFolder, llama: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known figures are marked, so that measuring again would show."""
    parent = save_adapter(llama, tmp_path / "versions" / "000002")
    known = {
        "base": {"general": [7.0] * 5, "chat": [True, False] * 100},
        "parent": {"general": [8.0] * (BLOCKS + 9), "chat": [True]},
    }
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)}, steps=1,
        known=known,
    )  # fmt: skip
    measured_blocks: list[tuple[int, int]] = []
    nll = Examinee.nll

    def counting(self: Any, blocks: Any) -> list[float]:
        measured_blocks.append((self._version.number, len(blocks)))
        return nll(self, blocks)

    monkeypatch.setattr(Examinee, "nll", counting)
    base, before, candidate = of(run(path), "measured")
    assert measured_blocks == [(0, 2), (0, BLOCKS - 5), (3, BLOCKS)], "2 of them to time it"
    assert base["general"][:5] == [7.0] * 5
    assert len(base["general"]) == BLOCKS
    held_out = anchoring.read(json.loads((tmp_path / "anchors-known.json").read_text()))
    engine = Engine(llama)
    rest = nll(Examinee(engine, engine.untouched), held_out.blocks[5:])
    assert base["general"][5:] == pytest.approx(rest, abs=1e-4), "each block at its place"
    assert base["chat"] == [True, False] * (CHATS // 2)
    assert before["general"] == [8.0] * BLOCKS
    assert len(before["chat"]) == CHATS
    assert before["chat"][0] is True
    assert len(candidate["general"]) == BLOCKS


def test_the_parent_is_the_start_and_the_comparison(
    tmp_path: Path, tiny_folder: ModelFolder, llama: LoadedBase
) -> None:
    parent = save_adapter(llama, tmp_path / "versions" / "000002")
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)}, steps=1
    )
    base, before, _ = of(run(path), "measured")
    assert base["general"] != before["general"], "the parent is not the base"
    started, now = load_file(parent / WEIGHTS), load_file(path.parent / "trained" / WEIGHTS)
    assert max(float((now[n] - started[n]).abs().max()) for n in started) < 0.03, "one step away"


def test_a_consolidation_with_room_left_goes_on_from_the_parent(
    tmp_path: Path, tiny_folder: ModelFolder, llama: LoadedBase
) -> None:
    parent = save_adapter(llama, tmp_path / "versions" / "000002")
    more = {**relearning(), "fresh": False, "steps": 1}
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)}, **more
    )
    run(path)
    started, now = load_file(parent / WEIGHTS), load_file(path.parent / "trained" / WEIGHTS)
    assert max(float((now[n] - started[n]).abs().max()) for n in started) < 0.03, "one step away"


def test_the_parent_s_rank_goes_on_when_the_setting_has_changed(
    tmp_path: Path, tiny_folder: ModelFolder, llama: LoadedBase
) -> None:
    parent = save_adapter(llama, tmp_path / "versions" / "000002", rank=6)
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)}, steps=1
    )
    run(path)
    assert json.loads((path.parent / "adapter" / CONFIG).read_text())["r"] == 6


def test_a_damaged_parent_ends_the_study_in_one_line(
    tmp_path: Path, tiny_folder: ModelFolder, llama: LoadedBase
) -> None:
    parent = save_adapter(llama, tmp_path / "versions" / "000002")
    (parent / WEIGHTS).write_bytes((parent / WEIGHTS).read_bytes()[:100])
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)}, steps=1
    )
    with pytest.raises(CheckpointError) as caught:
        run(path)
    assert "000002" in one_line(caught.value)


# Replay, consolidation, forgetting --------------------------------------------------------------


def test_replay_is_mixed_in_by_its_shares(tmp_path: Path, tiny_folder: ModelFolder) -> None:
    """Two new documents; of the other two, learned earlier, the facts of one alone are due."""
    new, old = readings()[0][:2], readings()[0][2:]
    replay = rows(old)
    due = {row["fact"] for row in replay if row["document_id"] == 3 and row["fact"]}
    path = write_job(
        tmp_path, tiny_folder("llama"), steps=2, replay=replay,
        lessons=[lesson(r) for r in new],
        shares={fact: 1 / len(due) for fact in due},
    )  # fmt: skip
    ready = prepared(path)
    assert {s.document_id for s in ready.new} == {1, 2}
    assert {s.fact for s in ready.old} == due
    assert sum(s.weight for s in ready.old) == pytest.approx(1)
    assert run(path)[-1]["event"] == "done"
    plan = json.loads((path.parent / "plan.json").read_text())
    assert 0.25 <= plan["replay"] <= 0.9


@pytest.mark.parametrize("kind", ["consolidate", "forget"])
def test_relearning_trains_a_fresh_adapter_on_the_store(
    tmp_path: Path, tiny_folder: ModelFolder, llama: LoadedBase, kind: str
) -> None:
    parent = save_adapter(llama, tmp_path / "versions" / "000002", rank=6)
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)},
        **relearning(kind),
    )  # fmt: skip
    events = run(path)
    assert events[-1]["event"] == "done"
    assert steps(events) == list(range(1, STEPS + 1))
    assert of(events, "planned")[0]["documents"] == []
    assert of(events, "planned")[0]["replay"] == 0.0, "nothing else to replay"
    assert json.loads((path.parent / "adapter" / CONFIG).read_text())["r"] == 4, "by the setting"
    job = json.loads(path.read_text())
    splits = {p["id"]: p["split"] for p in job["probes"]}
    asked = {
        name: {splits[row["probe_id"]] for row in arm(events, name)["rows"]}
        for name in ("base", "parent", "candidate")
    }
    every = {"kept"} if kind == "consolidate" else {"kept", "forgotten"}
    assert asked == {"base": every - {"kept"}, "parent": every, "candidate": every}
    kept = [row["probe_id"] for row in arm(events, "candidate")["rows"]]
    assert [splits[i] for i in kept].count("kept") == 4
    assert arm(events, "base")["general"] != arm(events, "parent")["general"]


def test_relearning_looks_nearer_the_base_not_the_parent(
    tmp_path: Path, tiny_folder: ModelFolder, llama: LoadedBase
) -> None:
    """Its adapter is a fresh one: half of the way is half of it."""
    parent = save_adapter(llama, tmp_path / "versions" / "000002")
    path = write_job(
        tmp_path, tiny_folder("llama"), parent={"version": 2, "path": str(parent)}, gate=STRICT,
        **relearning(),
    )  # fmt: skip
    assert run(path)[-1]["step"] == 0.25
    trained = load_file(path.parent / "trained" / WEIGHTS)
    for name, tensor in load_file(path.parent / "adapter" / WEIGHTS).items():
        scale = 0.25 if "lora_B" in name else 1.0
        assert torch.equal(tensor, scale * trained[name])


def test_relearning_stopped_and_gone_on_with_equals_undisturbed(
    tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    paths = [
        write_job(tmp_path / name, tiny_folder("llama"), **relearning("forget"))
        for name in ("once", "twice")
    ]
    once = run(paths[0])
    run(paths[1], 4)
    twice = run(paths[1])
    assert of(once, "measured") == of(twice, "measured")
    assert files(paths[0].parent / "adapter") == files(paths[1].parent / "adapter")


# Time and faults --------------------------------------------------------------------------------


def test_a_model_that_is_large_enough_writes_examples_of_its_own(
    tmp_path: Path, tiny_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `self_written_from_billion` up; what it wrote is trained on, and not written again when
    the job goes on. What is kept of it is the business of tests/lessons/test_self_written.py."""
    written: list[int] = []

    def write(
        complete: Any, chunks: Any, budget_s: float, progress: Any, clock: Any
    ) -> list[Example]:
        assert complete([[Message("user", "Write.")]], 4), "it is given a model that writes"
        written.append(len(chunks))
        asked = (Message("user", "Who keeps it now?"), Message("assistant", "Odo Finn"))
        return [Example("question", c.id, c.document_id, asked) for c in chunks]

    monkeypatch.setattr(self_written, "write", write)
    taught, _ = readings()
    lessons = [lesson(r) for r in taught]
    training = TrainingSettings(
        rank=4, learning_rate=0.02, batch_size=16, threads=1, self_written_from_billion=1e-6
    ).model_dump()
    path = write_job(tmp_path, tiny_folder("llama"), lessons=lessons, training=training)
    lines = [event["line"] for event in of(run(path, stop_at=2), "log")]
    assert f"{len(lessons)} examples written by the model itself" in lines
    run(path)
    assert written == [len(lessons)], "written once, by chunk"

    plain = write_job(tmp_path / "small", tiny_folder("llama"), lessons=lessons)
    run(plain)
    assert len(written) == 1, "a small model writes nothing"


def test_the_job_says_how_many_minutes_there_are(tmp_path: Path, tiny_folder: ModelFolder) -> None:
    """Twice the time, twice the steps that are planned for."""
    budgets = {}
    for minutes in (1.0, 2.0):
        path = write_job(
            tmp_path / str(minutes), tiny_folder("llama"), minutes=minutes, spent_s=6.0
        )
        budgets[minutes] = silent(path).budget_s
    assert budgets == {1.0: 54.0, 2.0: 114.0}


@pytest.mark.parametrize("spent_s", [0.0, 1000.0])
def test_without_a_number_of_steps_time_sets_it(
    tmp_path: Path, tiny_folder: ModelFolder, spent_s: float
) -> None:
    """Also where all of it is spent before: the least that is worth doing is done."""
    path = write_job(tmp_path, tiny_folder("llama"), minutes=0.02, spent_s=spent_s, steps=0)
    events = run(path)
    count = events[-1]["steps"]
    assert steps(events) == list(range(1, count + 1))
    assert count >= planning.MIN_STEPS
    assert of(events, "planned")[0]["documents"][:1] == [1]
    if spent_s:
        assert count == planning.MIN_STEPS


@pytest.mark.parametrize(
    "empty",
    [
        {"lessons": [{"document_id": 1, "chunks": [], "examples": []}]},
        {"lessons": [], "kind": "consolidate"},
    ],
)
def test_a_job_without_an_example_that_fits_ends_in_one_line(
    tmp_path: Path, tiny_folder: ModelFolder, empty: dict[str, Any]
) -> None:
    path = write_job(tmp_path, tiny_folder("llama"), **empty)
    with pytest.raises(TrainingError, match="no example of these documents fits") as caught:
        run(path)
    assert one_line(caught.value)


def test_a_job_without_a_probe_ends_in_one_line(tmp_path: Path, tiny_folder: ModelFolder) -> None:
    path = write_job(tmp_path, tiny_folder("llama"), probes=[])
    with pytest.raises(TrainingError, match="no probe") as caught:
        run(path)
    assert one_line(caught.value)


def test_whether_half_precision_pays_is_measured(
    tmp_path: Path, tiny_folder: ModelFolder, llama: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert preparation.autocast_pays(Engine(llama)) in (True, False)


def started(path: Path, *options: str, alone: bool = False) -> subprocess.Popen[str]:
    """The process of a study. `alone` in its session, where it has the lowest priority of all, it
    may get nowhere beside other work."""
    return subprocess.Popen(
        [sys.executable, "-m", "autodidact.learning.study", *options, str(path)],
        env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, start_new_session=alone,
    )  # fmt: skip


def heard(child: subprocess.Popen[str], kind: str) -> Event:
    """The next event of a kind that it says."""
    assert child.stdout is not None
    for line in child.stdout:
        event: Event = json.loads(line)
        if event["event"] == kind:
            return event
    raise AssertionError(f"it ended without saying {kind}")


def test_it_asks_for_the_chat_before_every_step_and_every_pass(
    tmp_path: Path, tiny_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, asked = [], []
    forward = Engine.forward

    def counted(engine: Engine, *versions: Any, **inputs: Any) -> Any:
        passes.append(1)
        return forward(engine, *versions, **inputs)

    monkeypatch.setattr(Engine, "forward", counted)

    def replying() -> bool:
        asked.append(1)
        return False

    path = write_job(tmp_path, tiny_folder("llama"))
    waiting = Waiting(replying, 60)
    course.study(Session(read_job(path), path.parent, lambda event: None, waiting=waiting))
    tried = 7
    assert len(asked) == len(passes) + STEPS + tried
    assert len(passes) > 50


def test_stopped_while_it_waits_between_steps_it_goes_on_there(
    tmp_path: Path, tiny_folder: ModelFolder, whole: Whole
) -> None:
    path = write_job(tmp_path, tiny_folder("llama"))
    events: list[Event] = []
    stop = threading.Event()

    def emit(event: StudyEvent) -> None:
        events.append(json.loads(wire.to_json(event)))
        if event == WaitEvent(True):
            stop.set()

    waiting = Waiting(lambda: steps(events)[-1:] == [4], 60, stop, emit)
    course.study(Session(read_job(path), path.parent, emit, stop, waiting=waiting))
    assert steps(events) == [1, 2, 3, 4]
    assert events[-1]["event"] == "stopped"
    assert [event["waits"] for event in of(events, "wait")] == [True, False]
    rest = run(path)
    assert steps(rest) == list(range(5, STEPS + 1))
    assert arm(rest, "candidate") == arm(whole[1], "candidate")


def test_it_waits_for_a_reply_and_goes_on_when_its_server_is_killed(
    tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    path = write_job(tmp_path, tiny_folder("llama"))
    events: list[Event] = []
    with server(tmp_path) as chat:

        def emit(event: StudyEvent) -> None:
            events.append(json.loads(wire.to_json(event)))
            if event == WaitEvent(True):
                chat.kill()

        replies = functools.partial(replying.anyone, tmp_path)
        waiting = Waiting(replies, 60, None, emit)
        course.study(Session(read_job(path), path.parent, emit, waiting=waiting))
    assert [event["waits"] for event in of(events, "wait")] == [True, False]
    assert events[-1]["event"] == "done"
    assert steps(events) == list(range(1, STEPS + 1))


def test_a_process_that_waits_ends_when_it_is_told_to(
    tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    with server(tmp_path):
        child = started(write_job(tmp_path, tiny_folder("llama")), GIVE_WAY, str(tmp_path))
        heard(child, "wait")
        assert child.stdin is not None
        child.stdin.write("stop\n")
        child.stdin.flush()
        assert ended(child, MOST_WAIT_S / 2)[0] == 0


def test_a_process_that_is_not_to_give_way_waits_for_nobody(
    tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    with server(tmp_path):
        child = started(write_job(tmp_path, tiny_folder("llama")))
        assert child.stdout is not None
        kinds = [json.loads(line)["event"] for line in child.stdout]
    assert ended(child)[0] == 0
    assert kinds[-1] == "done"
    assert "wait" not in kinds


@pytest.mark.parametrize("gives_way", [True, False])
def test_the_process_gives_way_to_everything_else(
    tmp_path: Path, tiny_folder: ModelFolder, gives_way: bool
) -> None:
    """Its niceness, and that of its session's scheduling group, where the kernel has such."""
    path = write_job(tmp_path, tiny_folder("llama"), steps=100_000)
    child = started(path, *([GIVE_WAY, str(tmp_path)] if gives_way else []), alone=True)
    heard(child, "phase")
    group = Path(f"/proc/{child.pid}/autogroup")
    kept = group.read_text().split()[-1] if group.exists() else str(19 * gives_way)
    niceness = os.getpriority(os.PRIO_PROCESS, child.pid)
    disk, ours = psutil.Process(child.pid).ionice(), psutil.Process().ionice()
    ended(child)
    assert disk.ioclass == (psutil.IOPRIO_CLASS_IDLE if gives_way else ours.ioclass)
    assert kept == str(19 * gives_way)
    assert niceness == (19 if gives_way else os.getpriority(os.PRIO_PROCESS, 0))


def test_the_process_ends_when_its_standard_input_closes(
    tmp_path: Path, tiny_folder: ModelFolder
) -> None:
    """As it does when the learner was killed."""
    path = write_job(tmp_path, tiny_folder("llama"), steps=100_000)
    child = subprocess.Popen(
        [sys.executable, "-m", "autodidact.learning.study", str(path)],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["phase"] == "loading"
    code, _ = ended(child)
    assert code == 3


def test_a_base_without_linear_layers_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    """GPT-2's weights are in `Conv1D`, which no adapter of ours goes on."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny(tmp_path / "llama", "llama"))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = tmp_path / "gpt2"
    GPT2LMHeadModel(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    path = write_job(tmp_path / "job", model)
    with pytest.raises(BaseUnfit, match="GPT2LMHeadModel has no linear layers") as refused:
        run(path)
    assert one_line(refused.value)
    assert not (path.parent / "plan.json").exists()
