"""A job that is being worked on: its folder, its time, whom to tell, and when to stop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from autodidact.errors import Misfit
from autodidact.learning.study.waiting import Waiting
from autodidact.settings import TrainingSettings
from autodidact.types import wire
from autodidact.types.cycle import Job
from autodidact.types.events import LogEvent, Phase, PhaseEvent, ProgressEvent, StudyEvent

T = TypeVar("T")
RESUME = "resume"
"""The folder of a training's saved state."""


@dataclass(frozen=True)
class Session:
    """`stop` asks for an end; while `training` is set, it comes after the step that runs. `waiting`
    is called before each step and each pass of a model."""

    job: Job
    folder: Path
    emit: Callable[[StudyEvent], None]
    stop: threading.Event = field(default_factory=threading.Event)
    training: threading.Event = field(default_factory=threading.Event)
    waiting: Waiting = field(default_factory=Waiting)
    expected: dict[Phase, float] = field(default_factory=dict)
    """The seconds set aside for a phase, where that is known before it begins."""

    @property
    def settings(self) -> TrainingSettings:
        return TrainingSettings(**self.job.training)

    @property
    def parts(self) -> int:
        """In how many parts is done what is usually computed at once."""
        return 1 << self.job.halvings

    @property
    def budget_s(self) -> float:
        """The seconds that the job may take, those of earlier starts taken off."""
        return self.job.minutes * 60 - self.job.spent_s

    @property
    def left_s(self) -> float:
        return self.budget_s - self.worked_s()

    def worked_s(self) -> float:
        """The study's clock: the seconds since its start in which it did not wait for the chat."""
        return self.waiting.worked_s

    def phase(self, name: Phase) -> None:
        self.emit(PhaseEvent(name, self.expected.get(name), self.left_s))

    def progress(self, step: int, of: int, eta_s: float | None = None) -> None:
        self.emit(ProgressEvent(step, of, eta_s, self.left_s))

    # What an earlier start of the job found out ---------------------------------------------

    def kept(self, kind: type[T], name: str) -> T | None:
        """What `keep` left under this name; None without it, or where it is damaged or another
        version of this program left it: then a line says so, and it is found out anew."""
        path = self.folder / name
        if not path.exists():
            return None
        try:
            return wire.from_json(kind, path.read_bytes(), name)
        except Misfit as error:
            path.unlink()
            self.emit(LogEvent(f"found out anew: {error}"))
            return None

    def keep(self, name: str, value: object) -> None:
        """Leave a value for the next start of the job."""
        self.write(name, wire.to_json(value))

    def write(self, name: str, text: str) -> None:
        """A file of the folder, as a whole."""
        fresh = self.folder / f"{name}.new"
        fresh.write_text(text, "utf-8")
        os.replace(fresh, self.folder / name)
