"""The process of a study. It reads its job, and says what happens in JSON lines on standard output.

It ends at once when its standard input closes (the learner died) and, on the line "stop", after
saving its state so that the same job, started again, goes on at the same step.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

from autodidact import replying
from autodidact.errors import AutodidactError, BaseUnfit
from autodidact.learning.process import GIVE_WAY
from autodidact.learning.study import priority
from autodidact.learning.study.course import study
from autodidact.learning.study.session import Session
from autodidact.learning.study.waiting import Waiting
from autodidact.types import wire
from autodidact.types.cycle import Job
from autodidact.types.events import ErrorEvent, StudyEvent


def main(path: Path, chat_first: Path | None) -> NoReturn:
    """Work on a job and end the process, waiting while a server of the home `chat_first` replies.
    Output stays open to the very end: its end is what the learner takes for ours. Tearing torch
    down in order takes long and serves nothing."""
    code = 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    stop, training = threading.Event(), threading.Event()
    threading.Thread(target=_watch, args=(stop, training), daemon=True).start()

    def emit(event: StudyEvent) -> None:
        out.write(wire.to_json(event) + "\n")

    try:
        job = wire.from_json(Job, path.read_bytes(), path.name)
        waiting = Waiting()
        if chat_first:
            replies = functools.partial(replying.anyone, chat_first)
            seconds = job.minutes * 60
            back_s = seconds / 3 if job.first else None
            waiting = Waiting(replies, seconds, stop, emit, back_s)
            waiting.follow()
        study(Session(job, path.parent, emit, stop, training, waiting))
        code = 0
    except AutodidactError as error:
        emit(ErrorEvent(str(error), isinstance(error, BaseUnfit)))
        code = error.exit_code
    except BaseException as error:
        traceback.print_exc()
        if _for_memory(error):
            emit(ErrorEvent(f"the study ran out of memory ({_first_line(error)})", False, True))
    sys.stderr.flush()
    os._exit(code)


def _for_memory(error: BaseException) -> bool:
    """Python's own error, torch's on a GPU, or that of its allocator on a CPU, of no class."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in said


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _watch(stop: threading.Event, training: threading.Event) -> None:
    """End when told to: after the step that runs if training, at once otherwise (what is worth
    keeping is on disk by then)."""
    for line in sys.stdin:
        if line.strip() == "stop":
            stop.set()
            if not training.is_set():
                os._exit(0)
    os._exit(3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(GIVE_WAY, type=Path, metavar="HOME")
    parser.add_argument("job", type=Path)
    asked = parser.parse_args()
    if asked.give_way:
        priority.give_way()
    main(asked.job, asked.give_way)
