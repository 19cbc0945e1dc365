"""Starting, hearing and ending a study: how `run_study` copes with every way a child can end."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from autodidact.errors import OutOfMemory, TrainingError
from autodidact.learning import process
from autodidact.learning.process import StudyStop, run_study
from autodidact.learning.study.__main__ import _for_memory
from autodidact.types import wire
from autodidact.types.events import ErrorEvent, StopEvent, StudyEvent, StudyResult, UnsoundEvent
from tests import fake_study
from tests.versions import one_line
from tests.workplace import alive, wait_for


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of one document and one probe, done by the fake."""
    fake_study.install(tmp_path, monkeypatch)
    staging = tmp_path / "staging"
    staging.mkdir()
    path = staging / "job.json"
    path.write_text(
        json.dumps(
            {
                "cycle": 1,
                "kind": "learn",
                "parent": None,
                "lessons": [{"document_id": 7}],
                "probes": [{"id": "7-a", "document_id": 7, "answer": "amber", "split": "taught"}],
            }
        )
    )
    return path


class Conversation:
    """Runs a job and keeps what it said."""

    def __init__(self, job: Path) -> None:
        self.job = job
        self.stopping = threading.Event()
        self.events: list[StudyEvent] = []
        self._lock = os.open(job.parent / "lock", os.O_RDWR | os.O_CREAT)

    def run(self) -> StudyResult:
        try:
            return run_study(self.job, self.stopping, self.events.append, self._lock)
        finally:
            os.close(self._lock)

    def run_and_stop(self, when: Path) -> None:
        """Ask to stop as soon as `when` exists; expects that the study stops."""

        def stop() -> None:
            wait_for(when.exists, 30, str(when))
            self.stopping.set()

        waiter = threading.Thread(target=stop)
        waiter.start()
        with pytest.raises(StudyStop):
            self.run()
        waiter.join()


@pytest.fixture
def conversation(job: Path) -> Conversation:
    return Conversation(job)


def fault(conversation: Conversation) -> str:
    with pytest.raises(TrainingError) as caught:
        conversation.run()
    return one_line(caught.value)


def test_a_study_gives_the_plan_and_what_was_measured(conversation: Conversation) -> None:
    study = conversation.run()
    assert study.plan.documents == (7,)
    assert [m.arm for m in (study.base, study.parent, *study.looks)] == [
        "base", "parent", "candidate",
    ]  # fmt: skip
    assert study.candidate.rows[0].probe_id == "7-a"
    kinds = [event.event for event in conversation.events]
    assert kinds == ["planned", "measured", "measured", "measured", "done"]


def test_every_look_at_the_candidate_is_kept_and_the_last_one_counts(
    tmp_path: Path, conversation: Conversation
) -> None:
    looks = [f"measure:candidate,step={step}" for step in (1.0, 0.5, 0.25)]
    fake_study.script(
        tmp_path, ["plan", "measure:base", "measure:parent", "adapter", *looks, "done"]
    )
    study = conversation.run()
    assert [look.step for look in study.looks] == [1.0, 0.5, 0.25]
    assert study.candidate == study.looks[-1]
    assert study.candidate.step == 0.25
    assert (study.base.arm, study.parent.arm) == ("base", "parent")


def test_an_event_that_nobody_waits_for_is_passed_on(
    tmp_path: Path, conversation: Conversation
) -> None:
    event = UnsoundEvent("keys do not match")
    fake_study.script(tmp_path, [*fake_study.GOOD[:-1], f"say:{wire.to_json(event)}\n", "done"])
    conversation.run()
    assert event in conversation.events


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"event": "progress", "step": 3}, "progress.of"),
        ({"event": "done", "steps": "9"}, "done.steps"),
        ({"event": "log", "line": "x", "more": 1}, "log.more"),
        ({"event": "dance"}, "dance"),
    ],
)
def test_an_event_that_does_not_fit_is_refused_by_its_field(
    tmp_path: Path, conversation: Conversation, said: dict[str, Any], field: str
) -> None:
    fake_study.script(tmp_path, ["plan", f"say:{json.dumps(said)}\n", "heed"])
    line = fault(conversation)
    assert line.startswith("the study process said")
    assert field in line


def test_the_study_runs_with_the_lock_and_a_working_folder_of_its_own(
    tmp_path: Path, job: Path, conversation: Conversation
) -> None:
    fake_study.script(tmp_path, [f"wait:{tmp_path / 'go'}", *fake_study.GOOD])
    runner = threading.Thread(target=conversation.run)
    runner.start()
    [(_, pid)] = wait_for(lambda: fake_study.started(tmp_path), 30, "the child")
    held = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert str(job.parent / "lock") in held
    assert os.readlink(f"/proc/{pid}/cwd") == str(job.parent)
    assert os.getsid(pid) == pid, "a session of its own, and so a priority of its own"
    assert b"--give-way" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    (tmp_path / "go").touch()
    runner.join()


def test_a_fault_that_the_study_reports_is_the_message(
    tmp_path: Path, conversation: Conversation
) -> None:
    event = json.dumps({"event": "error", "message": "the loss is not finite"})
    fake_study.script(tmp_path, ["plan", f"say:{event}\n", "exit:1"])
    assert fault(conversation) == "the loss is not finite"


def test_a_crash_is_told_by_its_last_line(tmp_path: Path, conversation: Conversation) -> None:
    fake_study.script(tmp_path, ["warn:Traceback …", "warn:MemoryError: no", "exit:1"])
    assert fault(conversation) == "the study process ended with exit code 1: MemoryError: no"


def test_a_killed_study_is_told_by_its_signal(tmp_path: Path, conversation: Conversation) -> None:
    fake_study.script(tmp_path, ["plan", "kill"])
    with pytest.raises(OutOfMemory) as caught:
        conversation.run()
    assert one_line(caught.value) == (
        "the study process was killed (signal 9), as the system does where memory runs out"
    )


def test_a_study_that_had_too_little_memory_says_so(
    tmp_path: Path, conversation: Conversation
) -> None:
    event = ErrorEvent("the study ran out of memory (9 GB)", out_of_memory=True)
    fake_study.script(tmp_path, ["plan", f"say:{wire.to_json(event)}\n", "exit:1"])
    with pytest.raises(OutOfMemory, match="the study ran out of memory"):
        conversation.run()


@pytest.mark.parametrize(
    ("error", "it_is"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_what_means_too_little_memory(error: Exception, it_is: bool) -> None:
    assert _for_memory(error) is it_is


def test_a_study_that_ends_well_but_too_early_is_a_fault(
    tmp_path: Path, conversation: Conversation
) -> None:
    fake_study.script(tmp_path, ["plan", "measure:base", "exit:0"])
    assert "exit code 0" in fault(conversation)


def test_a_study_that_had_said_all_counts_however_it_ends(
    tmp_path: Path, conversation: Conversation
) -> None:
    """Taking torch down may fail; by then everything is measured and on disk."""
    fake_study.script(tmp_path, [*fake_study.GOOD, "exit:1"])
    assert conversation.run().done.steps == 9


@pytest.mark.parametrize("said", ['{"event": "progr', "not JSON\n", "[1]\n", '{"step": 1}\n'])
def test_a_line_cut_off_or_garbled_is_a_fault_in_one_line(
    tmp_path: Path, conversation: Conversation, said: str
) -> None:
    fake_study.script(tmp_path, ["plan", f"say:{said}", "kill"])
    assert fault(conversation)
    [(_, pid)] = fake_study.started(tmp_path)
    assert not alive(pid)


def test_a_study_that_was_asked_to_stop_stops(tmp_path: Path, conversation: Conversation) -> None:
    fake_study.script(tmp_path, ["plan", "save:4", "heed"])
    conversation.run_and_stop(conversation.job.parent / "resume" / "state.json")
    assert conversation.events[-1] == StopEvent()


def test_a_study_that_does_not_heed_is_killed(
    tmp_path: Path, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_WITHIN_S", 0.2)
    fake_study.script(tmp_path, ["plan", "save:4", "ignore"])
    conversation.run_and_stop(conversation.job.parent / "resume" / "state.json")
    [(_, pid)] = fake_study.started(tmp_path)
    assert not alive(pid)


def test_a_study_that_finishes_while_it_is_asked_to_stop_counts(
    tmp_path: Path, conversation: Conversation
) -> None:
    fake_study.script(
        tmp_path, [*fake_study.GOOD[:-1], "save:9", f"wait:{tmp_path / 'go'}", "done"]
    )

    def stop() -> None:
        wait_for((conversation.job.parent / "resume" / "state.json").exists, 30, "the end")
        conversation.stopping.set()
        (tmp_path / "go").touch()

    threading.Thread(target=stop).start()
    assert conversation.run().candidate.arm == "candidate"


def test_a_fault_in_following_leaves_no_child_behind(
    tmp_path: Path, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_WITHIN_S", 5.0)
    fake_study.script(tmp_path, ["plan", f"wait:{tmp_path / 'never'}"])

    def follow(event: StudyEvent) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_study(job, threading.Event(), follow, 0)
    [(_, pid)] = fake_study.started(tmp_path)
    assert not alive(pid)


def test_the_study_is_told_not_to_reach_the_hub_and_keeps_our_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("SOMETHING", "ours")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = process._environment()
    assert environment["SOMETHING"] == "ours"
    assert environment["HF_HUB_OFFLINE"] == "0"
    assert environment["PYTHONPATH"].split(os.pathsep)[1:] == ["/elsewhere"]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert process._environment()["HF_HUB_OFFLINE"] == "1"
