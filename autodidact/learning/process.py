"""Starting, hearing and ending the study process of a cycle.

The child inherits the learner's lock and ends when its standard input closes, so a killed learner
leaves no trainer behind and no second learner starts beside one. Asked to stop, it has a few
seconds to save its state; then it is killed (what it saved last is enough to go on).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from autodidact.errors import BaseUnfit, Misfit, OutOfMemory, TrainingError
from autodidact.settings import PROJECT
from autodidact.types import wire
from autodidact.types.cycle import ArmName, Measurement
from autodidact.types.events import (
    DoneEvent,
    ErrorEvent,
    MeasurementEvent,
    PlanEvent,
    ReadEvent,
    StudyEvent,
    StudyResult,
)

STOP_WITHIN_S = 6.0
GIVE_WAY = "--give-way"


class StudyStop(Exception):
    """The study was asked to stop and did; its job can be started again."""


def run_study(
    job: Path,
    stopping: threading.Event,
    follow: Callable[[StudyEvent], None],
    lock_handle: int,
    *,
    chat_first: Path | None = None,
) -> StudyResult:
    """Run a job to its end, passing on each event. With a home in `chat_first` it has the lowest
    priority and waits while a server of that home replies. Raises StudyStop, BaseUnfit,
    TrainingError, and of that OutOfMemory where it had too little, or was killed: whoever kills a
    process of ours that is not us is nearly always the system, for its memory."""
    errors = job.with_name("study.log")
    command = [sys.executable, "-m", "autodidact.learning.study"]
    command += [GIVE_WAY, str(chat_first)] if chat_first else []
    with open(errors, "ab") as log_file:
        child = subprocess.Popen(
            [*command, str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            env=_environment(),
            cwd=job.parent,
            pass_fds=(lock_handle,),
            start_new_session=True,  # its priority is its own (`study.priority`)
            text=True,
            encoding="utf-8",
        )
    ended = threading.Event()
    threading.Thread(target=_end_on_stop, args=(child, stopping, ended), daemon=True).start()
    heard = _Hearing()
    try:
        assert child.stdout is not None
        for text in child.stdout:
            if not text.endswith("\n"):
                break  # cut off by its end
            event = _event(text)
            heard.take(event)
            follow(event)
    finally:
        ended.set()
        if child.stdin is not None:
            child.stdin.close()
        try:
            code = child.wait(timeout=STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
    if result := heard.result():
        return result
    if stopping.is_set():
        raise StudyStop
    if heard.base_unfit:
        raise BaseUnfit(heard.fault)
    if heard.out_of_memory:
        raise OutOfMemory(heard.fault)
    if code == -signal.SIGKILL:
        raise OutOfMemory(
            "the study process was killed (signal 9), as the system does where memory runs out"
        )
    raise TrainingError(
        heard.fault or f"the study process ended with {_exit(code)}: {_last_line(errors)}"
    )


class _Hearing:
    """What a study has said so far."""

    def __init__(self) -> None:
        self.fault = ""
        self.base_unfit = False
        self.out_of_memory = False
        self._plan: PlanEvent | None = None
        self._done: DoneEvent | None = None
        self._arms: dict[ArmName, Measurement] = {}
        self._looks: list[Measurement] = []

    def take(self, event: StudyEvent) -> None:
        match event:
            case PlanEvent():
                self._plan = event
            case MeasurementEvent(arm="candidate"):
                self._looks.append(event)
            case MeasurementEvent():
                self._arms[event.arm] = event
            case DoneEvent():
                self._done = event
            case ErrorEvent():
                self.fault, self.base_unfit = event.message, event.base_unfit
                self.out_of_memory = event.out_of_memory

    def result(self) -> StudyResult | None:
        """None of a study that did not come to its end."""
        if self._plan is None or self._done is None or not self._looks:
            return None
        base, parent = self._arms.get("base"), self._arms.get("parent")
        if base is None or parent is None:
            return None
        return StudyResult(self._plan, self._done, base, parent, tuple(self._looks))


def _event(text: str) -> StudyEvent:
    """One line of the child. Raises TrainingError for what is no event of ours."""
    try:
        event: StudyEvent = wire.from_json(ReadEvent, text, "the study process said")  # type: ignore[arg-type]
    except Misfit as error:
        raise TrainingError(str(error)) from error
    return event


def _end_on_stop(
    child: subprocess.Popen[str], stopping: threading.Event, ended: threading.Event
) -> None:
    while not ended.wait(0.1):
        if not stopping.is_set():
            continue
        try:
            assert child.stdin is not None
            child.stdin.write("stop\n")
            child.stdin.flush()
        except (OSError, ValueError):
            return
        if not ended.wait(STOP_WITHIN_S):
            child.kill()
        return


def _environment() -> dict[str, str]:
    """Ours, with the project importable. glibc keeps freed batches of every size for reuse; told to
    return large blocks at once, the process stays at the size of its largest step. OpenMP threads
    that wait go to sleep soon, since spinning made steps many times slower beside a busy server: at
    once with LLVM's runtime (macOS), with GNU's after a fraction of a millisecond. (Never spinning,
    as `OMP_WAIT_POLICY=PASSIVE` says, made steps of many small products a fifth slower.)"""
    path = os.pathsep.join(p for p in (str(PROJECT), os.environ.get("PYTHONPATH", "")) if p)
    return {
        "MALLOC_MMAP_THRESHOLD_": str(2**20),
        "MALLOC_TRIM_THRESHOLD_": str(2**24),
        "MALLOC_ARENA_MAX": "2",
        "GOMP_SPINCOUNT": "100000",
        "KMP_BLOCKTIME": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **os.environ,
        "PYTHONPATH": path,
    }


def _exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"
