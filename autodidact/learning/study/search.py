"""How far to go from the parent to what was trained: all of the way, or less where the gate finds
too much changed (`training.blend`)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from autodidact.engine import Engine
from autodidact.errors import CheckpointError, TrainingError
from autodidact.evaluation import judge
from autodidact.learning.study.measuring import Bench
from autodidact.learning.study.preparation import parent_tensors
from autodidact.learning.study.session import Session
from autodidact.training.blend import blend
from autodidact.types.cycle import Measurement
from autodidact.types.events import UnsoundEvent

STEPS = (1.0, 0.5, 0.25)
"""λ: how much of the way from the parent to what was trained; tried in this order."""


def search(session: Session, engine: Engine, bench: Bench) -> float:
    """Measure at full length, then shorter while the gate finds too much changed. The last one
    measured is left as `adapter`; returns its length."""
    for step in STEPS:
        folder = _at(session, step)
        try:
            version = engine.load_folder(session.job.cycle, folder)
        except CheckpointError as error:
            session.emit(UnsoundEvent(str(error)))
            raise TrainingError(f"the trained adapter does not load: {error}") from error
        look = bench.measure_candidate(version, step)
        if not _shorter_may_pass(session, bench, look):
            break
    target = session.folder / "adapter"
    if not target.exists():
        fresh = session.folder / "adapter.new"
        shutil.copytree(folder, fresh, dirs_exist_ok=True)
        os.rename(fresh, target)
    return step


def _at(session: Session, step: float) -> Path:
    """The adapter this far from its parent, as a folder."""
    trained = session.folder / "trained"
    folder = session.folder / f"step-{step}"
    if step == 1.0 or folder.exists():
        return trained if step == 1.0 else folder
    fresh = session.folder / "step.new"
    shutil.copytree(trained, fresh, dirs_exist_ok=True)
    weights = "adapter_model.safetensors"
    tensors = blend(parent_tensors(session), load_file(trained / weights), step)
    save_file(tensors, fresh / weights, metadata={"format": "pt"})
    os.rename(fresh, folder)
    return folder


def _shorter_may_pass(session: Session, bench: Bench, look: Measurement) -> bool:
    """Whether the gate refused only for what a shorter step can mend. What a fresh adapter does
    not know it will not know half of the way from the base either."""
    verdict = judge.verdict(session.job, bench.base, bench.parent, look)
    rules = set(verdict.rules)
    mended = {"general", "chat", "mind"} | (set() if session.job.fresh else {"kept"})
    return bool(rules) and rules <= mended
