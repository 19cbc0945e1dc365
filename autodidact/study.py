"""The study process of one cycle: measure, train, measure. `python -m autodidact.study JOB.json`

A fresh process for every cycle (memory of long training loops grows), started and watched by
`cycle`. It reads the job, writes only into the job's own folder under `.staging`, and says what
happens in JSON lines on standard output. It never publishes and never opens a database. It ends at
once when its standard input closes (the learner died) and, on the line "stop", after saving its
state so that the same job, started again, goes on at the same step.

Time is the plan: the speed of the first steps sets how many of the offered documents are taken and
how many steps are done, so that a slow machine learns less in a cycle, not never.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from autodidact.errors import AutodidactError, CheckpointError, TrainingError
from autodidact.settings import TrainingSettings
from autodidact.types import Example, Message, Probe

SAVE_EVERY_S = 20.0
REPLAY_SHARE = 0.25
ANCHOR_SHARE = 0.10
MEASURE_SHARE = 0.20
MIN_STEPS = 8
FORMS_A_PASS = 7
"""How often one pass shows a fact: four questions, a gap, a restatement, the text."""
MIN_BLOCKS = 16
MARGIN_S = 5.0
"""For saving, loading and publishing the candidate."""


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
    job = json.loads(path.read_text())
    study = _Study(job, path.parent, stop, lambda **event: out.write(json.dumps(event) + "\n"))
    study.training = training
    try:
        study.run()
        code = 0
    except AutodidactError as error:
        study.emit(event="error", message=str(error))
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
        self, job: dict[str, Any], staging: Path, stop: threading.Event, emit: Any
    ) -> None:
        self.job = job
        self.staging = staging
        self.stop = stop
        self.emit = emit
        self.training = threading.Event()
        self.begun = time.monotonic()
        self.budget_s = float(job["cycle_minutes"]) * 60 - float(job["spent_s"])
        self.settings = TrainingSettings(**job["training"])
        self.probes = [
            Probe(**{**p, "distractors": tuple(p["distractors"])}) for p in job["probes"]
        ]

    def run(self) -> None:
        """The main path. Imports of torch wait until here, so that `stop` is heard early."""
        from autodidact import engine as engines
        from autodidact import model
        from autodidact.generators.examine import Examinee
        from autodidact.training import sft

        self.phase("loading")
        base = model.load(
            Path(self.job["base"]["path"]), model.threads_for(self.job["threads"], spare=True)
        )
        self.engine = engines.Engine(base)
        self.emit(event="log", line=base.description)
        parent = self._parent()
        anchors = self._anchors()

        recipe = sft.recipe_for(base.parameters, self.settings, self._autocast_pays())
        adapter = self._parent_tensors()
        if adapter is not None:  # it goes on at its own rank, whatever the setting is by now
            rank = next(t.shape[0] for name, t in adapter.items() if "lora_A" in name)
            recipe = replace(recipe, rank=rank)
        self.trainer = sft.Trainer(base, recipe, anchors.training, adapter)
        self.weaving = sft.weave(base, anchors.training)
        plan = self._plan(sft)
        self.emit(
            event="planned",
            **{k: plan[k] for k in ("documents", "steps", "seconds_per_step")},
        )

        chosen, blocks = self._measured(plan["documents"], anchors.held_out, Examinee)
        self.phase("measuring")
        self._examine("base", Examinee(self.engine, self.engine.untouched), [], blocks)
        begun = time.monotonic()
        self._examine("parent", Examinee(self.engine, parent), chosen, blocks)
        self._give_to_training(plan, time.monotonic() - begun)

        if not (self.staging / "adapter").exists():
            self.training.set()
            if not self._train(plan, sft):
                self.emit(event="stopped")
                return
            self._save_adapter()
            self.training.clear()
        self.phase("measuring")
        self._examine("candidate", Examinee(self.engine, self._candidate()), chosen, blocks)
        exposures = round(plan["steps"] / plan["steps_a_pass"] * FORMS_A_PASS)
        self.emit(event="done", steps=plan["steps"], exposures=exposures)

    # Progress ------------------------------------------------------------------------------

    def phase(self, name: str) -> None:
        self.emit(event="phase", phase=name)

    def elapsed(self) -> float:
        return time.monotonic() - self.begun

    # Before training -----------------------------------------------------------------------

    def _parent(self) -> Any:
        from autodidact.engine import Version

        version: Version = self.engine.untouched
        if self.job["parent"]:
            folder = Path(self.job["parent"]["path"])
            version = self.engine.load(
                self.job["parent"]["version"],
                (folder / "adapter_config.json").read_bytes(),
                (folder / "adapter_model.safetensors").read_bytes(),
            )
        return version

    def _parent_tensors(self) -> dict[str, Any] | None:
        from safetensors.torch import load_file

        if not self.job["parent"]:
            return None
        return load_file(Path(self.job["parent"]["path"]) / "adapter_model.safetensors")

    def _anchors(self) -> Any:
        from autodidact.training import anchors as module

        known = Path(self.job["anchors"])
        rows = json.loads(known.read_text()) if known.exists() else []
        have = module.Anchors(tuple(tuple(row) for row in rows))
        if have.complete:
            return have
        self.phase("preparing")
        share = ANCHOR_SHARE * self.budget_s
        whole = module.extend(
            self.engine, have, share, lambda i, n: self.emit(event="progress", step=i, of=n)
        )
        target = self.staging / "anchors.json"
        target.write_text(json.dumps(whole.rows))
        self.emit(event="anchors", path=str(target))
        return whole

    def _autocast_pays(self) -> bool:
        """Whether bfloat16 products are faster here than those of the base's own dtype; on a
        resumed job, what was found then."""
        import torch

        saved = self.staging / "plan.json"
        if saved.exists():
            return bool(json.loads(saved.read_text())["autocast"])
        base = self.engine.base
        if base.model.dtype != torch.float32:
            return False
        if base.device.type != "cpu":
            return False
        width = int(getattr(base.model.config, "hidden_size", 256))
        a = torch.randn(1024, width)
        b = torch.randn(4 * width, width)
        times = {}
        for dtype in (torch.float32, torch.bfloat16):
            x, y = a.to(dtype), b.to(dtype)
            runs = []
            for _ in range(7):
                begun = time.perf_counter()
                torch.nn.functional.linear(x, y)
                runs.append(time.perf_counter() - begun)
            times[dtype] = min(runs)
        return times[torch.bfloat16] < 0.7 * times[torch.float32]

    def _plan(self, sft: Any) -> dict[str, Any]:
        """Which documents and how many steps fit; on a resumed job, what was planned then."""
        saved = self.staging / "plan.json"
        offered = self.job["documents"]
        tokens = {
            d["id"]: sft.tokenise(self.engine.base, _examples(d["examples"])) for d in offered
        }
        replay = sft.tokenise(self.engine.base, _examples(self.job["replay"]))
        if saved.exists():
            plan: dict[str, Any] = json.loads(saved.read_text())
        else:
            self.phase("planning")
            everything = [s for rows in tokens.values() for s in rows]
            if not everything:
                raise TrainingError("no example of these documents fits the model's context")
            size = self.trainer.recipe.batch_size
            trial = sft.batches(everything, replay, REPLAY_SHARE, size, 0, self.weaving)
            step_s = sft.seconds_per_step(self.trainer, trial)
            train_s = (self.budget_s - self.elapsed()) * (1 - MEASURE_SHARE)
            plan = _fit(self.settings, size, tokens, replay, step_s, train_s, self.weaving)
            if self.job.get("steps"):
                plan["steps"] = plan["most_steps"] = int(self.job["steps"])
            plan["autocast"] = self.trainer.recipe.autocast
            _write_json(saved, plan)
        self._new = [s for i in plan["documents"] for s in tokens[i]]
        self._old = replay
        return plan

    def _measured(
        self, documents: Sequence[int], held_out: Sequence[Sequence[int]], examinee: Any
    ) -> tuple[list[Probe], list[Sequence[int]]]:
        """The probes and blocks that can be measured in the time set aside: all, or a part of each
        split in an order fixed by the probes' ids."""
        saved = self.staging / "measured.json"
        if saved.exists():  # a resumed job compares the same questions as before
            kept = json.loads(saved.read_text())
            ids = {probe.id: probe for probe in self.probes}
            return [ids[i] for i in kept["probes"]], list(held_out[: kept["blocks"]])
        taken = set(documents)
        pools: dict[str, list[Probe]] = {"taught": [], "control": [], "kept": []}
        for probe in self.probes:
            if probe.split != "taught" or probe.document_id in taken:
                pools[probe.split].append(probe)
        limits = {split: min(len(pools[split]), self.job["limits"][split]) for split in pools}
        sample = pools["taught"][:4] or self.probes[:4]
        if not sample:
            raise TrainingError("no probe could be written for these documents")
        if not held_out:
            raise TrainingError("the base model ends every text at once: nothing to measure it on")
        subject = examinee(self.engine, self.engine.untouched)
        begun = time.monotonic()
        _measure(subject, sample)
        each = (time.monotonic() - begun) / len(sample) * 0.6
        begun = time.monotonic()
        subject.nll(held_out[:4])
        each_block = (time.monotonic() - begun) / 4
        share = MEASURE_SHARE * self.budget_s
        fits = int(share * 0.75 / 2 / max(each, 1e-6))
        blocks = max(MIN_BLOCKS, int(share * 0.25 / 3 / max(each_block, 1e-6)))
        wanted = sum(limits.values())
        if fits < wanted:
            least = {split: min(limit, 12) for split, limit in limits.items()}
            limits = {s: max(least[s], limits[s] * fits // wanted) for s in limits}
        chosen = [probe for split in pools for probe in _spread(pools[split], limits[split])]
        blocks = min(blocks, len(held_out))
        _write_json(saved, {"probes": [probe.id for probe in chosen], "blocks": blocks})
        return chosen, list(held_out[:blocks])

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
        self.phase("training")
        size, seed = self.trainer.recipe.batch_size, self.settings.seed
        step = self.trainer.restore(self.staging / "resume")
        early = int(plan["steps"] * sft.QUESTIONS_FIRST)
        asked = [s for s in self._new if s.kind in sft.ASKED]
        first = sft.batches(asked or self._new, self._old, REPLAY_SHARE, size, seed, self.weaving)
        rest = sft.batches(self._new, self._old, REPLAY_SHARE, size, seed + 1, self.weaving)
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
                plan["steps"] = max(MIN_STEPS, step + 1, min(plan["most_steps"], step + left))
            of = plan["steps"]
            self.emit(event="progress", step=step, of=of, loss=loss, eta_s=pace * (of - step))
            if self.stop.is_set() or time.monotonic() - saved > SAVE_EVERY_S:
                self.trainer.save(self.staging / "resume", step)
                _write_json(self.staging / "plan.json", plan)
                saved = time.monotonic()
            if self.stop.is_set():
                return False
        return True

    # After training ------------------------------------------------------------------------

    def _save_adapter(self) -> None:
        """As a whole: once the folder stands, training is over, whatever happens after."""
        self.trainer.export(self.staging / "adapter.new", self.job["base"]["name"])
        os.rename(self.staging / "adapter.new", self.staging / "adapter")

    def _candidate(self) -> Any:
        """The candidate as the server will load it: from the bytes on disk."""
        folder = self.staging / "adapter"
        try:
            return self.engine.load(
                self.job["cycle"],
                (folder / "adapter_config.json").read_bytes(),
                (folder / "adapter_model.safetensors").read_bytes(),
            )
        except CheckpointError as error:
            self.emit(event="unsound", reason=str(error))
            raise TrainingError(f"the trained adapter does not load: {error}") from error

    def _examine(
        self, arm: str, subject: Any, probes: Sequence[Probe], blocks: Sequence[Sequence[int]]
    ) -> None:
        """Measure an arm in pieces; what was measured before a stop is not redone."""
        kept = self.staging / f"measured-{arm}.json"
        if kept.exists():
            result = json.loads(kept.read_text())
        else:
            rows: list[dict[str, Any]] = []
            piece = 48
            for i in range(0, len(probes), piece):
                self.emit(event="progress", step=i, of=len(probes))
                rows += [r.row() for r in _measure(subject, probes[i : i + piece])]
            nll = subject.nll(blocks)
            result = {"rows": rows, "nll": statistics.fmean(nll), "blocks": len(blocks)}
            kept.write_text(json.dumps(result))
        self.emit(event="measured", arm=arm, **result)


def _measure(subject: Any, probes: Sequence[Probe]) -> Any:
    from autodidact.evaluators import recall

    return recall.measure(subject, probes)


def _fit(
    settings: TrainingSettings,
    size: int,
    tokens: dict[int, list[Any]],
    replay: Sequence[Any],
    step_s: float,
    train_s: float,
    weaving: Any = None,
) -> dict[str, Any]:
    """Take as many documents, in order, as can be shown `min_exposures` times in `train_s`.

    At least one is taken.
    """
    from autodidact.training import sft

    possible = max(MIN_STEPS, int(train_s / step_s))
    least, most = settings.min_exposures / FORMS_A_PASS, settings.max_exposures / FORMS_A_PASS
    taken = [i for i in tokens if tokens[i]]
    while True:
        a_pass = len(
            sft.one_pass(
                [s for i in taken for s in tokens[i]], replay, REPLAY_SHARE, size, 0, weaving
            )
        )
        if len(taken) == 1 or possible / a_pass >= least:
            break
        taken.pop()
    steps = max(MIN_STEPS, min(possible, int(most * a_pass)))
    return {
        "documents": taken,
        "steps": steps,
        "most_steps": max(MIN_STEPS, int(most * a_pass)),
        "exposures": round(steps / a_pass * FORMS_A_PASS),
        "steps_a_pass": a_pass,
        "train_s": train_s,
        "trained_s": 0.0,
        "seconds_per_step": step_s,
    }


def _spread(probes: Sequence[Probe], limit: int) -> list[Probe]:
    """`limit` of the probes, taking documents in turn."""
    turns: dict[int, int] = {}
    ranked: list[tuple[int, int, Probe]] = []
    for probe in sorted(probes, key=lambda p: p.id.rpartition("-")[2]):
        turns[probe.document_id] = turns.get(probe.document_id, 0) + 1
        ranked.append((turns[probe.document_id], len(ranked), probe))
    return [probe for _, _, probe in sorted(ranked, key=lambda r: r[:2])[:limit]]


def _write_json(path: Path, value: Any) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(value))
    os.replace(fresh, path)


def _examples(rows: Sequence[dict[str, Any]]) -> list[Example]:
    return [
        Example(
            row["kind"],
            row["chunk_id"],
            row["document_id"],
            tuple(Message(**message) for message in row["messages"]),
            row["text"],
        )
        for row in rows
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
