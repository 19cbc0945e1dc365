"""The main path of a study.

What was trained is measured at full length first. If the gate says that it changed too much, half
and a quarter of the way from the parent are tried. The gate is asked here only to know whether to
look further; the learner decides, on the same figures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from autodidact.errors import SettingError
from autodidact.learning.study import planning
from autodidact.learning.study.session import RESUME, Session
from autodidact.training.pace import Clock
from autodidact.types.cycle import Plan
from autodidact.types.events import DoneEvent, LogEvent, StepEvent, StopEvent

if TYPE_CHECKING:
    from autodidact.engine.graph_passes import GraphPasses
    from autodidact.learning.study.preparation import Preparation
    from autodidact.models.loading import LoadedBase

MARGIN_S = 5.0
"""For saving, loading and publishing the candidate."""
CLOCK = "clock.json"


def study(session: Session) -> None:
    """Work on a job to its end, or to where it is asked to stop."""
    session.phase("loading")
    from autodidact import engine as engines
    from autodidact.learning.study import measuring, preparation, search
    from autodidact.models import loading

    threads = loading.threads_for(session.job.threads, spare=True)
    base = loading.load(Path(session.job.base.path), threads)
    session.emit(LogEvent(base.description))
    loading.require_teachable(base.model)
    graph = _graph(session, base, threads)
    engine = engines.Engine(base, session.waiting, session.parts, graph)
    came_from = session.job.parent
    parent = engine.untouched
    if came_from:
        parent = engine.load_folder(came_from.version, Path(came_from.path))
    session.expected["preparing"] = preparation.ANCHOR_SHARE * session.budget_s
    anchors = preparation.anchors(session, engine)
    session.expected["preparing"] = preparation.WRITING_SHARE * session.budget_s
    ready = preparation.prepare(session, engine, anchors)
    bench = measuring.Bench(session, engine, parent, anchors, ready.plan.documents)

    session.phase("measuring")
    bench.measure_base()
    begun = session.worked_s()
    bench.measure_parent()
    plan = _all_time_left(session, ready.plan, session.worked_s() - begun)

    if not (session.folder / "trained").exists():
        session.training.set()
        if not _train(session, ready, plan):
            session.emit(StopEvent())
            return
        session.training.clear()
        if session.stop.is_set():
            session.emit(StopEvent())
            return
    session.phase("measuring")
    step = search.search(session, engine, bench)
    clock = session.kept(Clock, CLOCK) or Clock()
    session.emit(
        DoneEvent(
            steps=clock.steps,
            exposures=round(clock.steps / plan.steps_a_pass * plan.forms),
            step=step,
            replay=plan.replay,
            first_step_at=clock.began_at,
        )
    )


def _graph(session: Session, base: LoadedBase, threads: int) -> GraphPasses | None:
    """What measures as the server replies: through the very weights and kernels that will serve.
    None is torch."""
    from autodidact.engine import runtime
    from autodidact.models import loading

    job = session.job
    folder = Path(job.base.path)
    if job.runtime == "torch" or not loading.on_cpu() or not runtime.may_fit(folder):
        return None
    files = runtime.graph_folder(Path(job.graphs), job.base.sha256) if job.graphs else None
    try:
        found = runtime.choose(base, job.runtime, threads, files=files, follows=True)
    except SettingError as error:  # the server says so too, and does not reply
        found = runtime.RuntimeChoice(None, threads, str(error))
    by = found.why if found.passes is not None else f"torch: {found.why}"
    session.emit(LogEvent(f"it is measured by {by}"))
    loading.return_memory()
    return found.passes


def _all_time_left(session: Session, plan: Plan, measured_s: float) -> Plan:
    """Training gets what measuring will not need: the candidate takes about as long as its parent
    took. Once a step is saved, the plan stands."""
    if (session.folder / RESUME).exists():
        return plan
    left_s = session.left_s - 1.5 * measured_s - MARGIN_S
    plan = replace(plan, train_s=max(plan.train_s, left_s))
    session.keep("plan.json", plan)
    return plan


def _train(session: Session, ready: Preparation, plan: Plan) -> bool:
    """All the steps, and the adapter on disk; False when asked to stop before the end."""
    from autodidact.training import loop

    session.phase("training")
    saved = (session.folder / RESUME).exists()

    def follow(clock: Clock, recent_s: Sequence[float]) -> None:
        if saved and clock.step == 1:
            session.emit(LogEvent(f"{RESUME} cannot be read: it trains from the beginning"))
        left = clock.steps - clock.step
        eta_s = fmean(recent_s) * left
        loss = clock.losses[-1]
        session.emit(StepEvent(clock.step, clock.steps, loss, eta_s, session.left_s))

    pace = planning.PlanPace(plan)
    clock, ended = loop.train(
        ready.trainer, ready.feed(plan), pace, session.folder / RESUME, follow, session.stop,
        session.waiting, session.worked_s,
    )  # fmt: skip
    if not ended:
        return False
    session.keep(CLOCK, clock)
    # As a whole: once the folder stands, training is over, whatever happens after.
    fresh = session.folder / "trained.new"
    ready.trainer.export(fresh, session.job.base.name)
    os.rename(fresh, session.folder / "trained")
    return True
