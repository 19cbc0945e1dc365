"""What a study needs before it can train: anchors, a trainer, sequences, and the plan.

Time is the plan: the speed of the first steps sets how many of the offered documents are taken and
how many steps are done, so that a slow machine learns less in a cycle, not never. A job that goes
on keeps to the anchors, the precision and the plan that it began with.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from autodidact.engine import Engine
from autodidact.engine.examinee import Examinee
from autodidact.errors import TrainingError
from autodidact.learning.study import planning
from autodidact.learning.study.session import RESUME, Session
from autodidact.lessons import self_written
from autodidact.models import loading
from autodidact.training import anchor_set, sft
from autodidact.training import anchors as anchoring
from autodidact.training.anchors import Anchors
from autodidact.training.batches import endless_batches, one_pass
from autodidact.training.feed import Feed, FixedOrder
from autodidact.training.objectives import AnswerLoss
from autodidact.training.recipe import Recipe, recipe_of
from autodidact.training.sampler import Sampler, batches, replay_share
from autodidact.training.sequences import (
    ASKED,
    TrainingSequence,
    Weave,
    tokenise,
    weave,
    weighted,
)
from autodidact.types import wire
from autodidact.types.cycle import Plan
from autodidact.types.documents import Example
from autodidact.types.events import AnchorsEvent, LogEvent, PlanEvent

ANCHOR_SHARE = 0.10
MEASURE_SHARE = 0.20
WRITING_SHARE = 0.15
PLAN = "plan.json"


@dataclass(frozen=True)
class Preparation:
    """What training needs. `new` are sequences on what is taught, `old` those of replay; where
    nothing is new, all of the store is `new`."""

    trainer: sft.Trainer[TrainingSequence]
    weaving: Weave | None
    new: Sequence[TrainingSequence]
    old: Sequence[TrainingSequence]
    plan: Plan
    seed: int

    def feed(self, plan: Plan) -> Feed[TrainingSequence]:
        """The batches: by a sampler where sequences are packed, else on questions alone for the
        beginning, and then on everything."""
        size, share = self.trainer.recipe.batch_size, plan.replay
        if self.trainer.recipe.packed:
            return Sampler(self.new, self.old, share, size, self.seed)
        asked = [s for s in self.new if s.kind in ASKED] or self.new
        return FixedOrder(
            endless_batches(asked, self.old, share, size, self.seed, self.weaving),
            endless_batches(self.new, self.old, share, size, self.seed + 1, self.weaving),
        )


def anchors(session: Session, engine: Engine) -> Anchors:
    """Those of earlier cycles and what this one adds; a job that goes on keeps to those it began
    with, for what is trained and measured depends on them."""
    target = session.folder / "anchors.json"
    if _anchors_in(target) is None:
        have = _anchors_in(Path(session.job.anchors)) or Anchors()
        mix = recipe_of(engine.base, session.settings, autocast=False).anchors
        if have.complete(mix):
            return have
        session.phase("preparing")
        share = ANCHOR_SHARE * session.budget_s
        shipped = anchor_set.replies(session.job.base.name)
        whole = anchoring.extend(
            engine, have, mix, share, session.progress, shipped, session.worked_s
        )
        session.write(target.name, json.dumps(whole.plain()))
    session.emit(AnchorsEvent(str(target)))
    return _anchors_in(target) or Anchors()


def _anchors_in(path: Path) -> Anchors | None:
    """What a file holds; None without one that makes sense."""
    try:
        found = anchoring.read(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return None
    return found if found.training else None


def parent_tensors(session: Session) -> dict[str, torch.Tensor] | None:
    """The adapter that this cycle trains on; None begins a fresh one."""
    if not session.job.parent or session.job.fresh:
        return None
    return load_file(Path(session.job.parent.path) / "adapter_model.safetensors")


def prepare(session: Session, engine: Engine, anchors: Anchors) -> Preparation:
    """The trainer, what it trains on, and the plan."""
    base, job, settings = engine.base, session.job, session.settings
    adapter = parent_tensors(session)
    trainer = sft.Trainer(
        base, AnswerLoss(), _recipe(session, engine, adapter), anchors.training, adapter
    )
    packed = trainer.recipe.packed
    weaving = None if packed else weave(base, [a.ids for a in anchors.training])
    spoken = trainer.recipe.sentences
    lessons = {x.document_id: tokenise(base, x.examples, sentences=spoken) for x in job.lessons}
    for number, rows in _self_written(session, engine).items():
        lessons[number] += tokenise(base, rows)
    replayed = tokenise(base, job.replay, sentences=spoken)
    if packed:  # what was pretrained reads a text without learning it: only questions pay
        lessons = {i: [s for s in rows if s.kind in ASKED] for i, rows in lessons.items()}
        replayed = [s for s in replayed if s.kind in ASKED]
    old = weighted(replayed, job.shares)
    plan = session.kept(Plan, PLAN)
    if plan is None:
        plan = _plan(session, trainer, weaving, lessons, old)
    new = [s for i in plan.documents for s in lessons[i]]
    if not lessons:
        new, old = old, []
    session.emit(PlanEvent(plan.documents, plan.steps, plan.seconds_per_step, plan.replay))
    return Preparation(trainer, weaving, new, old, plan, settings.seed)


def autocast_pays(engine: Engine) -> bool:
    """Whether bfloat16 products are faster here than those of the base's own dtype."""
    return loading.half_precision_pays(engine.base)


def _recipe(session: Session, engine: Engine, adapter: Mapping[str, torch.Tensor] | None) -> Recipe:
    """The recipe of the base's size. An adapter goes on at its own rank and on its own blocks,
    whatever the setting is by now, and with a KL weight that follows its drift."""
    begun = session.kept(Plan, PLAN)
    if begun is None:  # steps that an earlier plan trained are not of this one
        shutil.rmtree(session.folder / RESUME, ignore_errors=True)
        shutil.rmtree(session.folder / f"{RESUME}.new", ignore_errors=True)
    autocast = begun.autocast if begun else autocast_pays(engine)
    recipe = recipe_of(engine.base, session.settings, autocast=autocast)
    recipe = replace(recipe, parts=session.parts)
    if adapter is None:
        return recipe
    rank = next(t.shape[0] for name, t in adapter.items() if "lora_A" in name)
    first = min(loading.block_of(name) or 0 for name in adapter)
    target = session.settings.drift_target
    weight = planning.kl_weight(recipe.kl_weight, target, session.job.rise)
    session.emit(LogEvent(f"KL weight {weight:.3g}"))
    return replace(recipe, rank=rank, first_block=first, kl_weight=weight)


def _self_written(session: Session, engine: Engine) -> dict[int, list[Example]]:
    """Questions and implications by the base itself, if it is large enough: by document."""
    least = session.settings.self_written_from_billion * 1e9
    if engine.base.parameters < least or not session.job.lessons:
        return {}
    name = "self-written.json"
    made = session.kept(tuple[Example, ...], name)
    if made is None:
        session.phase("preparing")
        chunks = [chunk for lesson in session.job.lessons for chunk in lesson.chunks]
        made = tuple(
            self_written.write(
                Examinee(engine, engine.untouched).complete,
                chunks,
                WRITING_SHARE * session.budget_s,
                lambda done: session.progress(done, len(chunks)),
                session.worked_s,
            )
        )
        session.emit(LogEvent(f"{len(made)} examples written by the model itself"))
        session.write(name, wire.to_json(made))
    found: dict[int, list[Example]] = {}
    for example in made:
        found.setdefault(example.document_id, []).append(example)
    return found


def _plan(
    session: Session,
    trainer: sft.Trainer[TrainingSequence],
    weaving: Weave | None,
    lessons: Mapping[int, Sequence[TrainingSequence]],
    old: Sequence[TrainingSequence],
) -> Plan:
    """Which documents and how many steps fit, by steps that are tried."""
    session.phase("planning")
    job, settings, size = session.job, session.settings, trainer.recipe.batch_size
    everything = [s for rows in lessons.values() for s in rows] if lessons else old
    replayed = old if lessons else []
    if not everything:
        raise TrainingError("no example of these documents fits the model's context")

    recipe = trainer.recipe
    facts = len({s.fact for s in everything}) or 1
    forms = len(everything) / facts if recipe.packed else planning.FORMS_A_PASS

    def rows_of(documents: Sequence[int]) -> list[TrainingSequence]:
        return [s for i in documents for s in lessons[i]] if lessons else list(old)

    def a_pass(documents: Sequence[int], share: float) -> int:
        if recipe.packed:
            return math.ceil(len(rows_of(documents)) / (1 - share) / size)
        return len(one_pass(rows_of(documents), replayed, share, size, 0, weaving))

    most = settings.replay_share if replayed else 0.0
    known = len({s.fact for s in replayed})

    def share_of(documents: Sequence[int]) -> float:
        if not recipe.packed:
            return most
        return replay_share(len({s.fact for s in rows_of(documents)}), known, most)

    if recipe.packed:
        # Two batches in turn: what is computed the first time is kept, as it will be in training,
        # where each question comes a dozen times. Twice each: a tenth of a first cycle went here.
        fresh = batches(Sampler(everything, replayed, share_of(list(lessons)), size, 0))
        trial: Iterator[list[TrainingSequence]] = itertools.cycle(itertools.islice(fresh, 2))
        first, counted = 2, 2
    else:
        trial = endless_batches(everything, replayed, most, size, 0, weaving)
        first, counted = 1, 6
    step_s = sft.seconds_per_step(trainer, trial, counted, session.waiting, session.worked_s, first)
    train_s = session.left_s * (1 - MEASURE_SHARE)
    if job.kind == "forget":
        relearned = planning.relearning_s(recipe, forms, a_pass([], 0.0), step_s)
        train_s = max(train_s, relearned)
    offered = [i for i in lessons if lessons[i]]
    plan = planning.fit(recipe, forms, offered, a_pass, share_of, step_s, train_s)
    if job.steps:
        plan = replace(plan, steps=job.steps, most_steps=job.steps)
    plan = replace(plan, autocast=trainer.recipe.autocast)
    session.keep(PLAN, plan)
    return plan
