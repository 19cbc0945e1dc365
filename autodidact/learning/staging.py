"""A cycle's job in its folder under `.staging`, from which its study can go on after a kill."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from autodidact import checkpoints
from autodidact.errors import Misfit
from autodidact.home import write_atomic
from autodidact.types import wire
from autodidact.types.cycle import Job

log = logging.getLogger(__name__)
JOB = "job.json"


def write_job(home: Path, job: Job) -> None:
    """Into an empty folder."""
    staging = checkpoints.staging(home, job.cycle)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    write_atomic(staging / JOB, wire.to_json(job).encode())


def change_job(home: Path, job: Job) -> None:
    """Write a job anew where its study has begun: what that found out stays."""
    write_atomic(checkpoints.staging(home, job.cycle) / JOB, wire.to_json(job).encode())


def read_job(home: Path, cycle: int) -> Job | None:
    """The job of a cycle if it can (still) be worked on: its parent is what serves now."""
    path = checkpoints.staging(home, cycle) / JOB
    if not path.exists():
        return None
    try:
        job = wire.from_json(Job, path.read_bytes(), path.name)
    except Misfit as error:
        log.warning("cycle %d cannot go on: %s", cycle, error)
        return None
    same = job.parent_version == checkpoints.current(home)
    return job if same and Path(job.base.path).is_dir() else None
