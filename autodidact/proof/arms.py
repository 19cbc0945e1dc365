"""Training one arm: an adapter on some articles' examples, for so many minutes.

The recipe is the learner's (`training.sft`): the examples that rules make from the text, woven into
conversations, the first tenth of the time questions only, a KL term to the base. Time is the plan:
the schedule follows the seconds trained, so that every arm gets as long and a slow machine does
fewer steps; how many there were is recorded. The naive arm is what is often tried first: raw text
in chunks of 384 tokens, learning rate 2e-5, batches of 8, one pass, the same LoRA, no KL term.

A training that is interrupted goes on from its last saved state, at most twenty seconds back.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from autodidact.engine import Engine, Version
from autodidact.errors import TrainingError
from autodidact.settings import TrainingSettings
from autodidact.training import loop, sft
from autodidact.training.anchors import Anchors
from autodidact.training.batches import endless_batches, one_pass
from autodidact.training.feed import Feed, FixedOrder
from autodidact.training.objectives import AnswerLoss
from autodidact.training.pace import QUESTIONS_FIRST, Clock, Pace
from autodidact.training.recipe import recipe_of
from autodidact.training.sampler import Sampler, replay_share
from autodidact.training.sequences import ASKED, TrainingSequence, tokenise, weave
from autodidact.types.chat import Message
from autodidact.types.documents import Example

MIN_STEPS = 8
FORMS_A_PASS = 7
NAIVE_TOKENS, NAIVE_BATCH, NAIVE_RATE = 384, 8, 2e-5
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrialLesson:
    """What an arm trains on. `minutes` None is one pass (the naive recipe)."""

    new: Sequence[TrainingSequence]
    old: Sequence[TrainingSequence]
    minutes: float | None
    seed: int
    parent: Path | None = None


class School:
    """The base, its anchors and settings, from which every arm is trained afresh."""

    def __init__(self, engine: Engine, settings: TrainingSettings, *, autocast: bool) -> None:
        self.engine = engine
        self.settings = settings
        self.recipe = recipe_of(engine.base, settings, autocast=autocast)
        self.use(Anchors())

    def use(self, anchors: Anchors) -> None:
        """The base's own texts: for the KL term, for weaving, and held out for general NLL."""
        self.anchors = anchors.training
        self.blocks = anchors.blocks
        self.weaving = weave(self.engine.base, [anchor.ids for anchor in self.anchors])

    def sequences(self, examples: Sequence[Example]) -> list[TrainingSequence]:
        return tokenise(self.engine.base, examples)

    def raw_text(self, texts: Sequence[str]) -> list[TrainingSequence]:
        """Whole texts cut every 384 tokens, whatever stands there."""
        base = self.engine.base
        width = min(NAIVE_TOKENS, base.context)
        made = []
        for text in texts:
            ids = base.tokenizer(text, add_special_tokens=False).input_ids
            for begin in range(0, len(ids), width):
                piece = tuple(ids[begin : begin + width])
                if len(piece) > 1:
                    made.append(TrainingSequence(piece, (-100, *piece[1:]), "text", 0))
        return made

    def trainer(self, lesson: TrialLesson) -> sft.Trainer[TrainingSequence]:
        adapter = load_file(lesson.parent / "adapter_model.safetensors") if lesson.parent else None
        recipe = replace(self.recipe, seed=lesson.seed)
        if lesson.minutes is None:
            recipe = replace(
                recipe, learning_rate=NAIVE_RATE, batch_size=NAIVE_BATCH, kl_weight=0.0
            )
        return sft.Trainer(self.engine.base, AnswerLoss(), recipe, self.anchors, adapter)

    def train(self, lesson: TrialLesson, folder: Path, progress: Progress) -> dict[str, Any]:
        """Train into `folder`/adapter; returns steps, seconds, last losses, passes over the new
        examples. Goes on where an earlier call in the same folder was cut off."""
        if not lesson.new:
            raise TrainingError("no example of these documents fits the model's context")
        folder.mkdir(parents=True, exist_ok=True)
        trainer = self.trainer(lesson)
        pace: Pace
        if lesson.minutes is None:
            batches = naive_batches(lesson.new, lesson.seed)
            pace, a_pass = OnePass(len(batches)), len(batches)
            feed: Feed[TrainingSequence] = FixedOrder(iter(()), iter(batches))
        else:
            a_pass = self._a_pass(lesson)
            most = max(MIN_STEPS, int(self.recipe.most / FORMS_A_PASS * a_pass))
            pace = TimePace(lesson.minutes * 60, most)
            feed = FixedOrder(self.stream(lesson, early=True), self.stream(lesson, early=False))
            if self.recipe.packed:
                feed = self._sampler(lesson)

        def follow(clock: Clock, recent_s: Sequence[float]) -> None:
            progress(int(1000 * min(1.0, pace.fraction(clock))), 1000)

        clock, _ = loop.train(trainer, feed, pace, folder / "resume", follow)
        shutil.rmtree(folder / "adapter.new", ignore_errors=True)
        shutil.rmtree(folder / "adapter", ignore_errors=True)
        trainer.export(folder / "adapter.new", "base")
        os.rename(folder / "adapter.new", folder / "adapter")
        shutil.rmtree(folder / "resume", ignore_errors=True)
        last = clock.losses[-20:]
        return {
            "steps": clock.step,
            "train_s": clock.trained_s,
            "loss": sum(last) / max(1, len(last)),
            "passes": clock.step / a_pass,
            "sequences": len(lesson.new),
        }

    def _sampler(self, lesson: TrialLesson) -> Sampler:
        """What the learner does with a model that was pretrained."""
        new, old = ([s for s in rows if s.kind in ASKED] for rows in (lesson.new, lesson.old))
        facts, known = (len({s.fact for s in rows}) for rows in (new, old))
        share = replay_share(facts, known, self.settings.replay_share)
        return Sampler(new or lesson.new, old, share, self.recipe.batch_size, lesson.seed)

    def _a_pass(self, lesson: TrialLesson) -> int:
        """Steps of one pass over the new examples."""
        share, size = self.settings.replay_share, self.recipe.batch_size
        return len(one_pass(lesson.new, lesson.old, share, size, 0, self.weaving))

    def load(self, folder: Path, number: int) -> Version:
        """The trained version as a server would load it: from the bytes on disk."""
        return self.engine.load_folder(number, folder / "adapter")

    def stream(
        self, lesson: TrialLesson, *, early: bool, weave: bool = True
    ) -> Iterator[list[TrainingSequence]]:
        """Endless batches; `early` are those of questions only."""
        new = [row for row in lesson.new if row.kind in ASKED] if early else lesson.new
        return endless_batches(
            new or lesson.new,
            lesson.old,
            self.settings.replay_share,
            self.recipe.batch_size,
            lesson.seed * 2 + (not early),
            self.weaving if weave else None,
        )


@dataclass(frozen=True)
class TimePace:
    """So many seconds of training, `steps` at most and a few steps at least."""

    seconds: float
    steps: int

    def fraction(self, clock: Clock) -> float:
        done = max(clock.trained_s / self.seconds, clock.step / self.steps)
        return min(done, clock.step / MIN_STEPS)

    def early(self, clock: Clock) -> bool:
        return self.fraction(clock) < QUESTIONS_FIRST

    def corrected(self, clock: Clock, recent_s: Sequence[float]) -> int:
        return clock.steps


@dataclass(frozen=True)
class OnePass:
    """Every batch once."""

    steps: int

    def fraction(self, clock: Clock) -> float:
        return clock.step / self.steps

    def early(self, clock: Clock) -> bool:
        return False

    def corrected(self, clock: Clock, recent_s: Sequence[float]) -> int:
        return clock.steps


def naive_batches(rows: Sequence[TrainingSequence], seed: int) -> list[list[TrainingSequence]]:
    """One pass in batches of eight."""
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    return [shuffled[i : i + NAIVE_BATCH] for i in range(0, len(shuffled), NAIVE_BATCH)]


def shuffled_answers(examples: Sequence[Example], *, between: bool, seed: int) -> list[Example]:
    """The questions with answers that belong to other questions: of the same document, or of other
    documents. The negative control: form, frequency and length stay, the facts do not.

    Running text is left out, since it would tell the truth. Examples of one fact get the same wrong
    answer. A document with a single answer, or no other document, keeps nothing.
    """
    asked = [example for example in examples if example.messages]
    answers: dict[int, list[str]] = {}
    for example in asked:
        known = answers.setdefault(example.document_id, [])
        if example.messages[-1].content not in known:
            known.append(example.messages[-1].content)
    everything = [(number, answer) for number in answers for answer in answers[number]]
    made = []
    for example in asked:
        own, right = example.document_id, example.messages[-1].content
        if between:
            pool = [answer for number, answer in everything if number != own and answer != right]
        else:
            pool = [answer for answer in answers[own] if answer != right]
        if not pool:
            continue
        key = f"{seed}\x1f{own}\x1f{example.fact or example.chunk_id}\x1f{right}"
        pick = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % len(pool)
        turns = (*example.messages[:-1], Message("assistant", pool[pick]))
        made.append(replace(example, messages=turns))
    return made
