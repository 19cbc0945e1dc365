"""What is asked of each version in a study, and what it answers.

Which probes, how many blocks of general text and how many chats is settled once, by the time set
aside; every version is asked the same. What was measured before a stop is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from autodidact.engine import Engine, Version
from autodidact.engine.examinee import Examinee
from autodidact.errors import TrainingError
from autodidact.evaluation import mind, recall, well_formed
from autodidact.learning.study import planning
from autodidact.learning.study.preparation import MEASURE_SHARE
from autodidact.learning.study.session import Session
from autodidact.training import anchor_set
from autodidact.training.anchors import Anchors, Ids
from autodidact.training.recipe import recipe_of
from autodidact.types.cycle import ArmName, Baseline, MeasuredBy, Measurement, ProbeResult
from autodidact.types.documents import Probe
from autodidact.types.events import MeasurementEvent

TIMED = 8
"""So many probes, half as many chats and a quarter as many blocks tell how long one takes."""
PIECE = 24
"""So many probes, blocks or chats are asked between two words of progress."""
T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """What is measured: probes by id, and how many blocks and chats."""

    probes: tuple[str, ...]
    blocks: int
    chats: int


class Bench:
    """Measures versions on the questions of a job, those on `documents` and on what is not new."""

    def __init__(
        self,
        session: Session,
        engine: Engine,
        parent: Version,
        anchors: Anchors,
        documents: Sequence[int],
    ) -> None:
        self._session = session
        self._engine = engine
        self._parent = parent
        self._anchors = anchors
        self._paces: dict[str, float] = {}
        self._runtime: MeasuredBy = "torch" if engine.graph is None else "onnx"
        self._known = {
            arm: known for arm, known in session.job.known.items() if known.runtime == self._runtime
        }
        self._sentences = recipe_of(engine.base, session.settings, autocast=False).sentences
        name = "measured.json"
        chosen = session.kept(Selection, name)
        if chosen is None:
            chosen = self._select(documents)
            session.keep(name, chosen)
        self.selection = chosen
        ids = {probe.id: probe for probe in session.job.probes}
        self._probes = [ids[i] for i in chosen.probes]

    def measure_base(self) -> None:
        """General text and chats, and what is to be forgotten, which the base never knew."""
        forgotten = [p for p in self._probes if p.split == "forgotten"]
        known = self._known.get("base", Baseline())
        self.base = self._measure("base", self._engine.untouched, forgotten, known)

    def measure_parent(self) -> None:
        """The version that this cycle goes on from. Where it is the base, general text and chats
        are known."""
        job = self._session.job
        known = self._known.get("parent", Baseline())
        if not job.parent:
            known = Baseline(self.base.general, self.base.chat, self.base.replies)
        self.parent = self._measure("parent", self._parent, self._probes, known)

    def measure_candidate(self, version: Version, step: float) -> Measurement:
        return self._measure("candidate", version, self._probes, Baseline(), step)

    def _measure(
        self,
        arm: ArmName,
        version: Version,
        probes: Sequence[Probe],
        known: Baseline,
        step: float = 1.0,
    ) -> Measurement:
        """`known` are figures of the first blocks and chats, which are taken over."""
        name = f"measured-{arm}-{step}.json"
        result = self._session.kept(Measurement, name)
        if result is None or result.runtime != self._runtime:
            subject = Examinee(self._engine, version)
            rows: list[ProbeResult] = []
            general = [*known.general[: self.selection.blocks]]
            blocks = self._anchors.blocks[len(general) : self.selection.blocks]
            chat = [*known.chat[: self.selection.chats]]
            own = self._anchors.real.prompts[: self.selection.chats]
            said = [*known.replies[: len(own)]]
            if len(said) < min(len(chat), len(own)):  # of a version before replies were kept
                chat = []
            prompts = self._anchors.prompts[len(chat) : self.selection.chats]
            ahead = {"probes": len(probes), "blocks": len(blocks), "chats": len(prompts)}
            told = _Progress(self._session, self._paces, ahead)
            for some in told.pieces("probes", probes):
                rows += recall.measure(subject, some, sentences=self._sentences)
            for held_out in told.pieces("blocks", blocks):
                general += subject.nll(held_out)
            for asked in told.pieces("chats", prompts):
                replies = well_formed.measure(subject, asked)
                chat += [reply.well_formed for reply in replies]
                said += [reply.reply for reply in replies][: len(own) - len(said)]
            result = Measurement(
                arm, step, tuple(rows), tuple(general), tuple(chat), tuple(said),
                () if version is self._engine.untouched else self._worse(own, said),
                self._runtime,
            )  # fmt: skip
            self._engine.rest()
            self._session.keep(name, result)
        self._session.emit(
            MeasurementEvent(
                arm,
                step,
                result.rows,
                result.general,
                result.chat,
                result.replies,
                result.worse,
                result.runtime,
            )
        )
        return result

    def _worse(self, own: Sequence[tuple[str, Ids]], said: Sequence[str]) -> tuple[str, ...]:
        """Of each reply to a prompt of our own why it is worse than the base's, or ""."""
        known = {prompt.id: prompt for prompt in anchor_set.prompts()}
        answers = {probe.answer for probe in self._session.job.probes if probe.split != "control"}
        taught = mind.telling(answers)
        reasons = []
        for (name, _), before, now in zip(own, self.base.replies, said, strict=False):
            prompt = known.get(name)  # None: an earlier version of the set had it
            reasons.append(
                mind.worsening(prompt.prompt, prompt.expect, prompt.group, before, now, taught)
                if prompt
                else ""
            )
        return tuple(reasons)

    def _select(self, documents: Sequence[int]) -> Selection:
        """All, or a part of each split in an order fixed by the probes' ids: what can be measured
        in the time set aside, by a few that are timed."""
        job, anchors = self._session.job, self._anchors
        pools = planning.pools(job.probes, documents)
        sample = [p for pool in pools.values() for p in pool][:TIMED]
        if not sample:
            raise TrainingError("no probe could be written for these documents")
        if not anchors.blocks:
            raise TrainingError("the base model ends every text at once: nothing to measure it on")
        subject = Examinee(self._engine, self._engine.untouched)
        seconds = {
            "probes": self._timed(
                lambda: recall.measure(subject, sample, sentences=self._sentences), len(sample)
            )
            * 0.6,
            "blocks": self._timed(lambda: subject.nll(anchors.blocks[: TIMED // 4]), TIMED // 4),
            "chats": self._timed(
                lambda: well_formed.measure(subject, anchors.prompts[: TIMED // 2]), TIMED // 2
            )
            * 0.6,
        }
        self._paces |= seconds
        arms = 1 + sum(arm not in self._known for arm in ("base", "parent"))
        limits, blocks, chats = planning.sizes(
            {split: len(pool) for split, pool in pools.items()},
            job.limits,
            seconds,
            MEASURE_SHARE * self._session.budget_s,
            arms,
        )
        chosen = [p for split in pools for p in planning.spread(pools[split], limits[split])]
        return Selection(
            tuple(probe.id for probe in chosen),
            min(blocks, len(anchors.blocks)),
            min(chats, len(anchors.prompts)),
        )

    def _timed(self, work: Callable[[], object], count: int) -> float:
        begun = self._session.worked_s()
        work()
        return (self._session.worked_s() - begun) / count


class _Progress:
    """Tells how far a version is measured. `paces` are the seconds that one of a kind takes, as far
    as they are known, and are kept up to date; `ahead` is how many are still to be asked."""

    def __init__(self, session: Session, paces: dict[str, float], ahead: dict[str, int]) -> None:
        self._session = session
        self._paces = paces
        self._ahead = ahead
        self._whole = sum(ahead.values())

    def pieces(self, kind: str, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """The items in pieces; each is timed until the next is asked for."""
        for i in range(0, len(items), PIECE):
            done = self._whole - sum(self._ahead.values())
            self._session.progress(done, self._whole, self._eta_s())
            piece = items[i : i + PIECE]
            before_s = self._session.left_s
            yield piece
            self._paces[kind] = (before_s - self._session.left_s) / len(piece)
            self._ahead[kind] -= len(piece)

    def _eta_s(self) -> float | None:
        coming = {kind: n for kind, n in self._ahead.items() if n}
        if not coming.keys() <= self._paces.keys():
            return None
        return sum(n * self._paces[kind] for kind, n in coming.items())
