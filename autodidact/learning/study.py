"""The study process of one cycle: `python -m autodidact.learning.study JOB.json`

A fresh process for every cycle (memory of long training loops grows), started and watched by
`cycle`. It reads the job, writes only into the job's own folder under `.staging`, and says what
happens in JSON lines on standard output. It never publishes and never opens a database. It ends at
once when its standard input closes (the learner died) and, on the line "stop", after saving its
state so that the same job, started again, goes on at the same step.

Time is the plan: the speed of the first steps sets how many of the offered documents are taken and
how many steps are done, so that a slow machine learns less in a cycle, not never.

What was trained is measured at full length first. If the gate says that it changed too much, half
and a quarter of the way from the parent are tried (`training.blend`). The gate is asked here only
to know whether to look further; the learner decides, on the same figures.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from autodidact.errors import AutodidactError, CheckpointError, TrainingError
from autodidact.learning import planning as plans
from autodidact.settings import TrainingSettings
from autodidact.types import wire
from autodidact.types.cycle import Job, Known
from autodidact.types.documents import Example, Probe

SAVE_EVERY_S = 20.0
ANCHOR_SHARE = 0.10
MEASURE_SHARE = 0.20
WRITING_SHARE = 0.15
MARGIN_S = 5.0
"""For saving, loading and publishing the candidate."""
STEPS = (1.0, 0.5, 0.25)
"""λ: how much of the way from the parent to what was trained; tried in this order."""
PIECE = 48


def main(path: Path) -> NoReturn:
    """Work on a job and end the process. Output stays open to the very end: its end is what the
    learner takes for ours. Tearing torch down in order takes long and serves nothing."""
    code = 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    stop = threading.Event()
    training = threading.Event()
    threading.Thread(target=_watch, args=(stop, training), daemon=True).start()

    def emit(**event: Any) -> None:
        out.write(json.dumps(event) + "\n")

    try:
        job = wire.from_json(Job, path.read_bytes(), path.name)
        _Study(job, path.parent, stop, emit, training).run()
        code = 0
    except AutodidactError as error:
        emit(event="error", message=str(error))
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def _watch(stop: threading.Event, training: threading.Event) -> None:
    """End when told to: after the step that runs if training, at once otherwise (what is worth
    keeping is on disk by then)."""
    for line in sys.stdin:
        if line.strip() == "stop":
            stop.set()
            if not training.is_set():
                os._exit(0)
    os._exit(3)


class _Study:
    def __init__(
        self,
        job: Job,
        staging: Path,
        stop: threading.Event,
        emit: Any,
        training: threading.Event | None = None,
    ) -> None:
        self.job = job
        self.staging = staging
        self.stop = stop
        self.emit = emit
        self.training = training or threading.Event()
        self.begun = time.monotonic()
        self.budget_s = job.minutes * 60 - job.spent_s
        self.settings = TrainingSettings(**job.training)

    def run(self) -> None:
        """The main path. Imports of torch wait until here, so that `stop` is heard early."""
        from autodidact import engine as engines
        from autodidact.models import loading
        from autodidact.training import sft

        self.phase("loading")
        base = loading.load(
            Path(self.job.base.path), loading.threads_for(self.job.threads, spare=True)
        )
        self.engine = engines.Engine(base)
        self.emit(event="log", line=base.description)
        self.arms: dict[str, dict[str, Any]] = {}
        parent = self._parent()
        anchors = self._anchors()
        plan = self._prepare(sft, anchors)
        chosen = self._measured(plan["documents"], anchors)
        self.phase("measuring")
        forgotten = [p for p in chosen if p.split == "forgotten"]
        self._examine("base", self.engine.untouched, forgotten, anchors)
        begun = time.monotonic()
        self._examine("parent", parent, chosen, anchors)
        self._give_to_training(plan, time.monotonic() - begun)

        if not (self.staging / "trained").exists():
            self.training.set()
            if not self._train(plan, sft):
                self.emit(event="stopped")
                return
            self._save_adapter()
            self.training.clear()
            if self.stop.is_set():
                self.emit(event="stopped")
                return
        self.phase("measuring")
        step = self._search(chosen, anchors)
        exposures = round(plan["steps"] / plan["steps_a_pass"] * plans.FORMS_A_PASS)
        self.emit(
            event="done", steps=plan["steps"], exposures=exposures, step=step,
            replay=plan["replay"], first_step_at=plan["first_step_at"],
        )  # fmt: skip

    # Progress ------------------------------------------------------------------------------

    def phase(self, name: str) -> None:
        self.emit(event="phase", phase=name)

    def elapsed(self) -> float:
        return time.monotonic() - self.begun

    # Before training -----------------------------------------------------------------------

    def _parent(self) -> Any:
        if not self.job.parent:
            return self.engine.untouched
        return self._load(self.job.parent.version, Path(self.job.parent.path))

    def _load(self, number: int, folder: Path) -> Any:
        """A version as the server will load it: from the bytes on disk."""
        return self.engine.load(
            number,
            (folder / "adapter_config.json").read_bytes(),
            (folder / "adapter_model.safetensors").read_bytes(),
        )

    def _parent_tensors(self) -> dict[str, Any] | None:
        """The adapter that this cycle trains on; None begins a fresh one."""
        from safetensors.torch import load_file

        if not self.job.parent or self.job.fresh:
            return None
        return load_file(Path(self.job.parent.path) / "adapter_model.safetensors")

    def _anchors(self) -> Any:
        """Those of earlier cycles and what this one adds; a resumed job keeps to those it began
        with, for what is trained and measured depends on them."""
        from autodidact.training import anchors as module

        known = Path(self.job.anchors)
        target = self.staging / "anchors.json"
        if not target.exists():
            have = module.read(json.loads(known.read_text()) if known.exists() else None)
            if have.complete:
                return have
            self.phase("preparing")
            share = ANCHOR_SHARE * self.budget_s
            whole = module.extend(
                self.engine, have, share, lambda i, n: self.emit(event="progress", step=i, of=n)
            )
            _write_json(target, whole.plain())
        self.emit(event="anchors", path=str(target))
        return module.read(json.loads(target.read_text()))

    def _prepare(self, sft: Any, anchors: Any) -> dict[str, Any]:
        """The trainer, what it trains on, and the plan; on a resumed job, the plan made then."""
        from autodidact.training.recipe import recipe_for
        from autodidact.training.sequences import tokenise, weave, weighted

        base = self.engine.base
        recipe = recipe_for(base.parameters, self.settings, self._autocast_pays())
        adapter = self._parent_tensors()
        if adapter is not None:  # it goes on at its own rank, whatever the setting is by now
            rank = next(t.shape[0] for name, t in adapter.items() if "lora_A" in name)
            weight = plans.kl_weight(self.settings, self.job.rise)
            recipe = replace(recipe, rank=rank, kl_weight=weight)
            self.emit(event="log", line=f"KL weight {weight:.0f}")
        self.trainer = sft.Trainer(base, recipe, anchors.training, adapter)
        self.weaving = weave(base, anchors.training)
        tokens = {x.document_id: tokenise(base, x.examples) for x in self.job.lessons}
        for number, rows in self._self_written().items():
            tokens[number] += tokenise(base, rows)
        old = weighted(tokenise(base, self.job.replay), self.job.shares)
        plan = self._plan(sft, tokens, old)
        if tokens:
            self._new, self._old = [s for i in plan["documents"] for s in tokens[i]], old
        else:
            self._new, self._old = old, []
        self.emit(
            event="planned",
            **{k: plan[k] for k in ("documents", "steps", "seconds_per_step", "replay")},
        )
        return plan

    def _self_written(self) -> dict[int, list[Example]]:
        """Questions and implications by the base itself, if it is large enough: by document."""
        least = self.settings.self_written_from_billion * 1e9
        if self.engine.base.parameters < least or not self.job.lessons:
            return {}
        from autodidact.lessons import self_written

        kept = self.staging / "self-written.json"
        if not kept.exists():
            self.phase("preparing")
            chunks = [chunk for lesson in self.job.lessons for chunk in lesson.chunks]
            made = self_written.write(
                self._subject(self.engine.untouched).complete,
                chunks,
                WRITING_SHARE * self.budget_s,
                lambda done: self.emit(event="progress", step=done, of=len(chunks)),
            )
            self.emit(event="log", line=f"{len(made)} examples written by the model itself")
            _write(kept, wire.to_json(made))
        found: dict[int, list[Example]] = {}
        for example in wire.from_json(tuple[Example, ...], kept.read_bytes(), kept.name):
            found.setdefault(example.document_id, []).append(example)
        return found

    def _autocast_pays(self) -> bool:
        """Whether bfloat16 products are faster here than those of the base's own dtype; on a
        resumed job, what was found then."""
        from autodidact.models import loading

        saved = self.staging / "plan.json"
        if saved.exists():
            return bool(json.loads(saved.read_text())["autocast"])
        return loading.half_precision_pays(self.engine.base)

    def _plan(self, sft: Any, tokens: dict[int, list[Any]], old: list[Any]) -> dict[str, Any]:
        """Which documents and how many steps fit."""
        from autodidact.training.batches import endless_batches, one_pass

        saved = self.staging / "plan.json"
        if saved.exists():
            known: dict[str, Any] = json.loads(saved.read_text())
            return known
        self.phase("planning")
        everything = [s for rows in tokens.values() for s in rows] if tokens else old
        if not everything:
            raise TrainingError("no example of these documents fits the model's context")
        size = self.trainer.recipe.batch_size

        def a_pass(documents: Sequence[int], share: float) -> int:
            new = [s for i in documents for s in tokens[i]] if tokens else old
            return len(one_pass(new, old if tokens else [], share, size, 0, self.weaving))

        share = self.settings.replay_share if tokens and old else 0.0
        trial = endless_batches(everything, old if tokens else [], share, size, 0, self.weaving)
        step_s = sft.seconds_per_step(self.trainer, trial)
        train_s = (self.budget_s - self.elapsed()) * (1 - MEASURE_SHARE)
        if self.job.kind == "forget":
            train_s = max(train_s, plans.relearning_s(a_pass([], 0.0), step_s))
        offered = [i for i in tokens if tokens[i]]
        plan = plans.fit(self.settings, offered, a_pass, share, step_s, train_s)
        if self.job.steps:
            plan["steps"] = plan["most_steps"] = self.job.steps
        plan["autocast"] = self.trainer.recipe.autocast
        _write_json(saved, plan)
        return plan

    def _measured(self, documents: Sequence[int], anchors: Any) -> list[Probe]:
        """The probes that can be measured in the time set aside (and how many blocks and chats):
        all, or a part of each split in an order fixed by the probes' ids."""
        saved = self.staging / "measured.json"
        if saved.exists():  # a resumed job compares the same questions as before
            kept = json.loads(saved.read_text())
            self.sizes = {"blocks": kept["blocks"], "chats": kept["chats"]}
            ids = {probe.id: probe for probe in self.job.probes}
            return [ids[i] for i in kept["probes"]]
        pools = plans.pools(self.job.probes, documents)
        sample = [p for pool in pools.values() for p in pool][:4]
        if not sample:
            raise TrainingError("no probe could be written for these documents")
        if not anchors.blocks:
            raise TrainingError("the base model ends every text at once: nothing to measure it on")
        subject = self._subject(self.engine.untouched)
        seconds = {
            "probes": _timed(lambda: _measure(subject, sample), len(sample)) * 0.6,
            "blocks": _timed(lambda: subject.nll(anchors.blocks[:4]), 4),
            "chats": _timed(lambda: _chat(subject, anchors.prompts[:8]), 8) * 0.6,
        }
        known = self.job.known
        arms = 1 + sum(arm not in known for arm in ("base", "parent"))
        limits, blocks, chats = plans.sizes(
            {split: len(pool) for split, pool in pools.items()},
            self.job.limits,
            seconds,
            MEASURE_SHARE * self.budget_s,
            arms,
        )
        chosen = [p for split in pools for p in plans.spread(pools[split], limits[split])]
        self.sizes = {
            "blocks": min(blocks, len(anchors.blocks)),
            "chats": min(chats, len(anchors.prompts)),
        }
        _write_json(saved, {"probes": [probe.id for probe in chosen], **self.sizes})
        return chosen

    def _give_to_training(self, plan: dict[str, Any], measured_s: float) -> None:
        """What measuring will not need: the candidate takes about as long as its parent took."""
        left = self.budget_s - self.elapsed() - 1.5 * measured_s - MARGIN_S
        if not plan["trained_s"]:
            plan["train_s"] = max(plan["train_s"], left)

    # Training ------------------------------------------------------------------------------

    def _train(self, plan: dict[str, Any], sft: Any) -> bool:
        """All the steps; False when asked to stop before the end (the state is then saved).

        How many there are is corrected on the way, up to half-way, by how long they really take.
        """
        from autodidact.training.batches import endless_batches
        from autodidact.training.sequences import ASKED

        self.phase("training")
        plan["first_step_at"] = plan["first_step_at"] or time.time()
        size, seed, share = self.trainer.recipe.batch_size, self.settings.seed, plan["replay"]
        step = self.trainer.restore(self.staging / "resume")
        early = int(plan["steps"] * sft.QUESTIONS_FIRST)
        asked = [s for s in self._new if s.kind in ASKED]
        first = endless_batches(asked or self._new, self._old, share, size, seed, self.weaving)
        rest = endless_batches(self._new, self._old, share, size, seed + 1, self.weaving)
        early = int(plan.setdefault("early", early))
        for done in range(step):
            next(first if done < early else rest)
        recent: list[float] = []
        saved = time.monotonic()
        while step < plan["steps"]:
            begun = time.monotonic()
            loss = self.trainer.step(next(first if step < early else rest), step / plan["steps"])
            step += 1
            recent = [*recent[-39:], time.monotonic() - begun]
            plan["trained_s"] += recent[-1]
            pace = statistics.fmean(recent)
            if len(recent) >= 10 and step <= plan["steps"] / 2:
                left = int((plan["train_s"] - plan["trained_s"]) / pace)
                plan["steps"] = max(plans.MIN_STEPS, step + 1, min(plan["most_steps"], step + left))
            of = plan["steps"]
            self.emit(event="progress", step=step, of=of, loss=loss, eta_s=pace * (of - step))
            if self.stop.is_set() or time.monotonic() - saved > SAVE_EVERY_S:
                self.trainer.save(self.staging / "resume", step)
                _write_json(self.staging / "plan.json", plan)
                saved = time.monotonic()
            if self.stop.is_set():
                return False
        _write_json(self.staging / "plan.json", plan)
        return True

    def _save_adapter(self) -> None:
        """As a whole: once the folder stands, training is over, whatever happens after."""
        self.trainer.export(self.staging / "trained.new", self.job.base.name)
        os.rename(self.staging / "trained.new", self.staging / "trained")

    # After training ------------------------------------------------------------------------

    def _search(self, chosen: Sequence[Probe], anchors: Any) -> float:
        """Measure at full length, then shorter while the gate finds too much changed. The last one
        measured is left as `adapter`; returns its length."""
        for step in STEPS:
            folder = self._at(step)
            try:
                version = self._load(self.job.cycle, folder)
            except CheckpointError as error:
                self.emit(event="unsound", reason=str(error))
                raise TrainingError(f"the trained adapter does not load: {error}") from error
            self._examine("candidate", version, chosen, anchors, step)
            if not self._shorter_may_pass():
                break
        target = self.staging / "adapter"
        if not target.exists():
            shutil.copytree(folder, self.staging / "adapter.new", dirs_exist_ok=True)
            os.rename(self.staging / "adapter.new", target)
        return step

    def _at(self, step: float) -> Path:
        """The adapter this far from its parent, as a folder."""
        from safetensors.torch import load_file, save_file

        from autodidact.training.blend import blend

        trained = self.staging / "trained"
        folder = self.staging / f"step-{step}"
        if step == 1.0 or folder.exists():
            return trained if step == 1.0 else folder
        fresh = self.staging / "step.new"
        shutil.copytree(trained, fresh, dirs_exist_ok=True)
        weights = "adapter_model.safetensors"
        tensors = blend(self._parent_tensors(), load_file(trained / weights), step)
        save_file(tensors, fresh / weights, metadata={"format": "pt"})
        os.rename(fresh, folder)
        return folder

    def _shorter_may_pass(self) -> bool:
        """Whether the gate refused only for what a shorter step can mend. What a fresh adapter does
        not know it will not know half of the way from the base either."""
        from autodidact.evaluation import judge

        verdict = judge.verdict(self.job, self.arms, self.arms["candidate"])
        rules = set(verdict.rules)
        mended = {"general", "chat"} if self.job.fresh else {"general", "kept", "chat"}
        return bool(rules) and rules <= mended

    def _examine(
        self, arm: str, version: Any, probes: Sequence[Probe], anchors: Any, step: float = 1.0
    ) -> None:
        """Measure an arm in pieces; what was measured before a stop is not redone. General text and
        chats of base and parent are known from the cycle that measured them first."""
        kept = self.staging / f"measured-{arm}-{step}.json"
        if kept.exists():
            result = json.loads(kept.read_text())
        else:
            subject = self._subject(version)
            rows: list[dict[str, Any]] = []
            for i in range(0, len(probes), PIECE):
                self.emit(event="progress", step=i, of=len(probes))
                rows += [r.row() for r in _measure(subject, probes[i : i + PIECE])]
            general, chat = self._known(arm)
            blocks = anchors.blocks[len(general) : self.sizes["blocks"]]
            general += subject.nll(blocks) if blocks else []
            prompts = anchors.prompts[len(chat) : self.sizes["chats"]]
            chat += [r.well_formed for r in _chat(subject, prompts)] if prompts else []
            result = {"rows": rows, "general": general, "chat": chat}
            _write_json(kept, result)
        self.arms[arm] = result
        self.emit(event="measured", arm=arm, step=step, **result)

    def _known(self, arm: str) -> tuple[list[float], list[bool]]:
        if arm == "parent" and not self.job.parent:
            base = self.arms["base"]
            return list(base["general"]), list(base["chat"])
        known = self.job.known.get(arm, Known())
        sizes = self.sizes
        return list(known.general[: sizes["blocks"]]), list(known.chat[: sizes["chats"]])

    def _subject(self, version: Any) -> Any:
        from autodidact.engine.examinee import Examinee

        return Examinee(self.engine, version)


def _measure(subject: Any, probes: Sequence[Probe]) -> Any:
    from autodidact.evaluation import recall

    return recall.measure(subject, probes)


def _chat(subject: Any, prompts: Sequence[Sequence[int]]) -> Any:
    from autodidact.evaluation import well_formed

    return well_formed.measure(subject, prompts)


def _timed(work: Callable[[], object], count: int) -> float:
    begun = time.monotonic()
    work()
    return (time.monotonic() - begun) / count


def _write_json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value))


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
