"""Starting, hearing and ending the study process of a cycle.

The child inherits the learner's lock and ends when its standard input closes, so a killed learner
leaves no trainer behind and no second learner starts beside one. Asked to stop, it has a few
seconds to save its state; then it is killed (what it saved last is enough to go on).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autodidact.errors import TrainingError
from autodidact.settings import PROJECT
from autodidact.types.cycle import Study

STOP_WITHIN_S = 6.0


class Stopped(Exception):
    """The study was asked to stop and did; its job can be started again."""


def run_study(
    job: Path,
    stopping: threading.Event,
    follow: Callable[[dict[str, Any]], None],
    lock_handle: int,
) -> Study:
    """Run a job to its end, passing on each event. Raises Stopped, or TrainingError with a line."""
    errors = job.with_name("study.log")
    with open(errors, "ab") as log_file:
        child = subprocess.Popen(
            [sys.executable, "-m", "autodidact.learning.study", str(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            env=_environment(),
            cwd=job.parent,
            pass_fds=(lock_handle,),
            text=True,
        )
    ended = threading.Event()
    threading.Thread(target=_end_on_stop, args=(child, stopping, ended), daemon=True).start()
    study = Study()
    fault = ""
    try:
        assert child.stdout is not None
        for text in child.stdout:
            event = _event(text)
            if event is None:
                break
            if event["event"] == "planned":
                study.planned = event
            elif event["event"] == "measured":
                study.measured[event["arm"]] = event
                if event["arm"] == "candidate":
                    study.looks.append(event)
            elif event["event"] == "error":
                fault = event["message"]
            elif event["event"] == "done":
                study.done = event
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
    if study.done:
        return study
    if stopping.is_set():
        raise Stopped
    raise TrainingError(
        fault or f"the study process ended with {_exit(code)}: {_last_line(errors)}"
    )


def _event(text: str) -> dict[str, Any] | None:
    """One line of the child; None for one that its end cut off."""
    try:
        event = json.loads(text)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


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
    return large blocks at once, the process stays at the size of its largest step. Waiting OpenMP
    threads sleep instead of spinning, which made steps many times slower beside a busy server."""
    path = os.pathsep.join(p for p in (str(PROJECT), os.environ.get("PYTHONPATH", "")) if p)
    return {
        "MALLOC_MMAP_THRESHOLD_": str(2**20),
        "MALLOC_TRIM_THRESHOLD_": str(2**24),
        "MALLOC_ARENA_MAX": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **os.environ,
        "PYTHONPATH": path,
    }


def _exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"
