"""Does the gate keep its word? Updates that must pass and updates that must not, many of each.

    python benchmarks/learning/calibrate.py --out DIR                    a tiny model, minutes
    python benchmarks/learning/calibrate.py --out DIR --model models/starter --arms neutral
    python benchmarks/learning/calibrate.py --out DIR --arms true --documents 3 6 12
    python benchmarks/learning/calibrate.py --out DIR --model FOLDER --threads 2 \
        --arms true,between,within,placebo --documents 3 6 12 --shuffled-documents 6 \
        --steps-a-document 10

From one parent that has learned some documents of the synthetic world, trained again and again with
another seed and other documents, each measured and gated as a cycle is (all but neutral and
sabotage by *learned* alone, which is what they are about):

- neutral: no documents, replay only; must pass *general*, *kept* and *chat*;
- true: documents as they are (how often real learning passes *learned*: the gate's power);
- between: answers shuffled between documents, among those that answer the same question;
- within: answers shuffled within each document, among those of the same kind;
- placebo: trained on other documents than the probes ask about;
- aa: labels taught and control permuted over the documents of stored scores (of `true`);
- sabotage: documents as they are, learning rate × 100; must never pass.

Shuffled, placebo and aa must fail *learned*: at most 1.7 % pass by chance at the gate's bound (its
three looks share 5 %). Of *learned* it is also told how often its margins passed and how often its
exact answers, each by itself; aa permutes margins and answers together. Each update is one JSON
line in DIR/updates.jsonl; a rerun goes on where it stopped. A base of 4- or 8-bit weights is
measured as a study measures it, by the graph. The tiny model (about a million
parameters) is trained on the spot on other documents of the world and questions about them, so that
it answers in the form and knows none of the facts.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from autodidact import curation  # noqa: E402
from autodidact.engine import Engine, Version, runtime  # noqa: E402
from autodidact.engine.examinee import Examinee  # noqa: E402
from autodidact.evaluation import gate, recall, well_formed  # noqa: E402
from autodidact.evaluation.statistics import wilson  # noqa: E402
from autodidact.lessons import examples  # noqa: E402
from autodidact.lessons.probes import write_probes  # noqa: E402
from autodidact.models import loading  # noqa: E402
from autodidact.reading.document import read_document  # noqa: E402
from autodidact.settings import GateSettings, TrainingSettings  # noqa: E402
from autodidact.training import anchors as anchoring  # noqa: E402
from autodidact.training import sft  # noqa: E402
from autodidact.training.batches import endless_batches  # noqa: E402
from autodidact.training.objectives import AnswerLoss  # noqa: E402
from autodidact.training.recipe import recipe_of  # noqa: E402
from autodidact.training.sequences import TrainingSequence, tokenise, weave  # noqa: E402
from autodidact.types.cycle import ProbeResult  # noqa: E402
from autodidact.types.documents import (  # noqa: E402
    Document,
    Example,
    Fact,
    Findings,
    Probe,
    Split,
)
from benchmarks.learning.world import World  # noqa: E402

ARMS = ("neutral", "true", "between", "within", "placebo", "sabotage")
MARGINS = ("control", "document")
WITHOUT_TEXT = ("question", "cloze", "reversed", "restatement")
PRETRAINING_SEED, PARENT_SEED, UPDATE_SEED = 9001, 9002, 10_000
PARENT_DOCUMENTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument(
        "--documents", type=int, nargs="+", default=[8], help="taught, and as many control"
    )
    parser.add_argument(
        "--shuffled-documents",
        type=int,
        nargs="+",
        help="of all arms but true",
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument(
        "--steps-a-document", type=int, help="as a cycle does, instead of --steps for all"
    )
    parser.add_argument("--anchors-minutes", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    log = args.out / "updates.jsonl"
    done = (
        [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []
    )
    seen = {(row["arm"], row["documents"], row["number"]) for row in done}
    planned = [
        (arm, documents, number)
        for number in range(args.n)
        for arm in args.arms.split(",")
        for documents in (
            args.documents if arm == "true" else args.shuffled_documents or args.documents
        )
    ]
    todo = [update for update in planned if update not in seen]
    begun = time.monotonic()
    for count, (arm, documents, number) in enumerate(todo):
        row = bench.update(arm, documents, number)
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        done.append(row)
        left = (time.monotonic() - begun) / (count + 1) * (len(todo) - count - 1)
        print(
            f"{arm} of {documents}, {number}: {row['summary']} · {left / 60:.0f} min left",
            flush=True,
        )
    summary = summarise(done, args.permutations)
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1), "utf-8")
    print(json.dumps(summary, indent=1))


class Bench:
    """The base, its parent adapter and everything that is measured once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        folder = Path(args.model)
        if args.model == "tiny":
            folder = args.out / "tiny"
            if not (folder / "config.json").exists():
                pretrain_tiny(folder)
        self.base = loading.load(folder, args.threads)
        graph = None
        if runtime.may_fit(folder):
            found = runtime.choose(self.base, "auto", args.threads)
            graph = found.passes
            print(f"measured by {found.why}", flush=True)
        self.engine = Engine(self.base, graph=graph)
        self.settings = TrainingSettings()
        self.sentences = recipe_of(self.base, self.settings, autocast=False).sentences
        self.limits = gate.Limits(
            **{k: v for k, v in GateSettings().model_dump().items() if k in FIELDS}
        )
        self.anchors = self._anchors()
        self.weaving = weave(self.base, [anchor.ids for anchor in self.anchors.training])
        self.learned = readings(PARENT_SEED, PARENT_DOCUMENTS, 1)
        self.kept = [replace(p, split="kept") for p in write_probes(self.learned, [], "taught")]
        self.replay = self._rows(self.learned)
        self.parent_folder = args.out / "parent"
        if not self.parent_folder.exists():
            trainer = self._trainer(None, 0)
            stream = endless_batches(
                self.replay, [], 0.0, trainer.recipe.batch_size, 0, self.weaving
            )
            for step in range(6 * args.steps):
                trainer.step(next(stream), step / (6 * args.steps))
            trainer.export(self.parent_folder, "base")
        self.parent = self._load(self.parent_folder)
        self.base_arm = self._arm(self.engine.untouched, [])
        self.parent_arm = self._arm(self.parent, self.kept)
        self.when_learned = {i: r.logprob for i, r in self.parent_arm.probes.items()}

    def update(self, arm: str, n: int, number: int) -> dict[str, Any]:
        """Train one update from the parent, measure it, gate it."""
        begun = time.monotonic()
        first = UPDATE_SEED + 7 * number
        taught, control, other = (readings(first + k, n, 1000 * (k + 1)) for k in range(3))
        rows = {
            "neutral": lambda: self.replay,
            "true": lambda: self._rows(taught),
            "sabotage": lambda: self._rows(taught),
            "between": lambda: self._rows(shuffled_between(taught, number)),
            "within": lambda: self._rows(shuffled_within(taught, number)),
            "placebo": lambda: self._rows(other),
        }[arm]()
        if not rows:  # of few documents no two may answer the same question
            return {"arm": arm, "documents": n, "number": number, "empty": True,
                    "summary": "nothing to shuffle, left out"}  # fmt: skip
        trainer = self._trainer(load_file(self.parent_folder / "adapter_model.safetensors"), number)
        if arm == "sabotage":
            rate = trainer.recipe.learning_rate * 100
            trainer.recipe = replace(trainer.recipe, learning_rate=rate)
        old = [] if arm == "neutral" else self.replay
        share = 0.0 if arm == "neutral" else self.settings.replay_share
        size = trainer.recipe.batch_size
        stream = endless_batches(rows, old, share, size, number, self.weaving)
        try:
            each = self.args.steps_a_document
            steps = each * n if each else self.args.steps
            for step in range(steps):
                trainer.step(next(stream), step / steps)
            folder = self.args.out / "candidate"
            shutil.rmtree(folder, ignore_errors=True)
            trainer.export(folder, "base")
            version = self._load(folder)
        except Exception as error:  # what a cycle records as failed, and publishes nothing
            return {"arm": arm, "documents": n, "number": number, "ok": False,
                    "failed": ["sound"], "rules": [], "probes": [],
                    "summary": f"failed: {error}"}  # fmt: skip
        asked: list[Probe] = []
        if arm != "neutral":
            asked = [*write_probes(taught, [], "taught")]
            asked += write_probes(control, [], "control")
        whole = arm in ("neutral", "sabotage")  # the others are about *learned* alone
        probes = [*self.kept, *asked] if whole else asked
        base, parent = (self.base_arm, self.parent_arm) if whole else (NOTHING, NOTHING)
        parent = replace(parent, probes={**parent.probes, **self._recall(self.parent, asked)})
        candidate = (
            self._arm(version, probes) if whole else gate.Arm(self._recall(version, probes), (), ())
        )
        learn = arm != "neutral"
        verdict = gate.decide(
            probes, base, parent, candidate, self.limits, self.when_learned, learn=learn
        )
        failed = [reason.rule for reason in verdict.reasons]
        counts = verdict.figures.taught
        return {
            "arm": arm, "documents": n, "number": number, "ok": verdict.ok, "failed": failed,
            "rules": [asdict(result) for result in verdict.results], "taught": asdict(counts),
            "probes": [
                {"probe": asdict(p), "before": asdict(parent.probes[p.id]),
                 "now": asdict(candidate.probes[p.id])}
                for p in asked
            ],
            "seconds": round(time.monotonic() - begun, 1),
            "summary": f"{'passes' if verdict.ok else 'fails ' + ', '.join(failed)}"
                       f" ({counts.k}/{counts.n} exact)",
        }  # fmt: skip

    def _anchors(self) -> anchoring.Anchors:
        path = self.args.out / "anchors.json"
        if path.exists():
            return anchoring.read(json.loads(path.read_text("utf-8")))
        budget = 60 * self.args.anchors_minutes
        mix = recipe_of(self.base, self.settings, autocast=False).anchors
        made = anchoring.extend(self.engine, anchoring.Anchors(), mix, budget, lambda i, n: None)
        path.write_text(json.dumps(made.plain()), "utf-8")
        return made

    def _rows(self, taught: Sequence[Findings]) -> list[TrainingSequence]:
        made = [e for reading in taught for e in examples.examples(reading)]
        asked = [e for e in made if e.kind in WITHOUT_TEXT]
        return tokenise(self.base, asked, sentences=self.sentences)

    def _trainer(
        self, adapter: dict[str, torch.Tensor] | None, seed: int
    ) -> sft.Trainer[TrainingSequence]:
        recipe = replace(recipe_of(self.base, self.settings, autocast=False), seed=seed)
        return sft.Trainer(self.base, AnswerLoss(), recipe, self.anchors.training, adapter)

    def _load(self, folder: Path) -> Version:
        config = (folder / "adapter_config.json").read_bytes()
        return self.engine.load(1, config, (folder / "adapter_model.safetensors").read_bytes())

    def _recall(self, version: Version, probes: Sequence[Probe]) -> dict[str, ProbeResult]:
        subject = Examinee(self.engine, version)
        found = recall.measure(subject, probes, sentences=self.sentences) if probes else ()
        return {r.probe_id: r for r in found}

    def _arm(self, version: Version, probes: Sequence[Probe]) -> gate.Arm:
        subject = Examinee(self.engine, version)
        replies = well_formed.measure(subject, self.anchors.prompts)
        return gate.Arm(
            self._recall(version, probes),
            subject.nll(self.anchors.blocks),
            [reply.well_formed for reply in replies],
        )


NOTHING = gate.Arm({}, (), ())
FIELDS = ("general_limit", "general_step", "kept_limit", "kept_step", "chat_limit", "chat_step")


def readings(seed: int, count: int, first_id: int) -> list[Findings]:
    """Documents of the world as the learner reads them, with ids from `first_id`."""
    found = []
    for i, made in enumerate(World(seed).documents(count)):
        document = Document("world", made.title, made.title, made.text, "", "", str(i))
        curated = curation.curate(document)
        assert isinstance(curated, Document)
        found.append(read_document(first_id + i, curated))
    return found


def shuffled_between(taught: Sequence[Findings], seed: int) -> list[Findings]:
    """Every answer given to the same question about another document; facts whose question no other
    document answers are dropped."""
    groups: dict[str, list[Fact]] = {}
    for reading in taught:
        for fact in reading.facts:
            groups.setdefault(fact.relation, []).append(fact)
    return _answers_moved(taught, groups.values(), seed)


def shuffled_within(taught: Sequence[Findings], seed: int) -> list[Findings]:
    """Every answer given to another question of the same kind about the same document."""
    groups: dict[tuple[int, str], list[Fact]] = {}
    for reading in taught:
        for fact in reading.facts:
            groups.setdefault((reading.document_id, fact.kind), []).append(fact)
    return _answers_moved(taught, groups.values(), seed)


def _answers_moved(taught: Sequence[Findings], groups: Any, seed: int) -> list[Findings]:
    order = random.Random(seed)
    moved: dict[Fact, str] = {}
    for facts in groups:
        if len(facts) > 1:
            turned = order.sample(facts, len(facts))
            for fact, other in zip(turned, [*turned[1:], turned[0]], strict=True):
                moved[fact] = other.answer
    return [
        replace(
            reading,
            facts=tuple(
                replace(
                    fact,
                    answer=moved[fact],
                    restatements=tuple(
                        r.replace(fact.answer, moved[fact]) for r in fact.restatements
                    ),
                )
                for fact in reading.facts
                if fact in moved
            ),
        )
        for reading in taught
    ]


def summarise(rows: Sequence[dict[str, Any]], permutations: int) -> dict[str, Any]:
    """Pass rates with 95 % Wilson intervals, without updates that had nothing to train."""
    found: dict[str, Any] = {}
    rows = [row for row in rows if not row.get("empty")]
    for arm, documents in sorted({(row["arm"], row["documents"]) for row in rows}):
        mine = [row for row in rows if (row["arm"], row["documents"]) == (arm, documents)]
        watched = ("general", "kept", "chat") if arm == "neutral" else ("learned",)
        passed = {"passes the gate": rate([row["ok"] for row in mine])}
        learns = {} if arm == "neutral" else by_evidence(mine)
        found[f"{arm}, {documents} documents"] = {
            **(passed if arm in ("neutral", "sabotage") else {}),
            **{
                rule: rate([rule not in row["failed"] and bool(row["rules"]) for row in mine])
                for rule in watched
            },
            **learns,
        }
    true = [row for row in rows if row["arm"] == "true"]
    if true:
        found["aa"] = {"learned": rate(list(permuted(true, permutations)))}
    return found


def by_evidence(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """How often margins passed and how often exact answers, whatever the other said, and the share
    of exact answers."""
    tests = [
        {rule["against"]: rule["ok"] for rule in row["rules"] if rule["rule"] == "learned"}
        for row in rows
    ]
    asked = [row["taught"] for row in rows if "taught" in row]
    k, n = (sum(count[key] for count in asked) for key in ("k", "n"))
    return {
        "by margin": rate([all(t.get(a, a != "control") for a in MARGINS) for t in tests]),
        "by exact answers": rate([t.get("exact", False) for t in tests]),
        "answers that are exact": f"{k}/{n}",
    }


def permuted(rows: Sequence[dict[str, Any]], count: int) -> Iterator[bool]:
    """Whether *learned* passes with the labels of the documents permuted."""
    limits = gate.Limits(1, 1, 1, 1, 1, 1)
    for number in range(count):
        row = rows[number % len(rows)]
        order = random.Random(number)
        asked = [
            (Probe(**p["probe"]), ProbeResult(**p["before"]), ProbeResult(**p["now"]))
            for p in row["probes"]
        ]
        documents = sorted({probe.document_id for probe, _, _ in asked})
        taught = set(order.sample(documents, len(documents) // 2))
        probes, before, after = [], {}, {}
        for probe, then, now in asked:
            split: Split = "taught" if probe.document_id in taught else "control"
            probes.append(replace(probe, split=split))
            before[probe.id], after[probe.id] = then, now
        verdict = gate.decide(
            probes, NOTHING, gate.Arm(before, (), ()), gate.Arm(after, (), ()), limits
        )
        yield "learned" not in verdict.rules


def rate(passed: Sequence[bool]) -> str:
    low, high = wilson(sum(passed), len(passed), 0.95)
    return f"{sum(passed)}/{len(passed)} = {sum(passed) / len(passed):.1%} ({low:.1%}–{high:.1%})"


def pretrain_tiny(folder: Path, minutes: float = 2.0) -> None:
    """About a million parameters, trained from nothing on the world's forms."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    starter = PROJECT / "models" / "starter"
    tokenizer = AutoTokenizer.from_pretrained(starter)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=352, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=0, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    net = LlamaForCausalLM(config)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    base = loading.load(folder, torch.get_num_threads())
    rows: list[Example] = []
    for reading in readings(PRETRAINING_SEED, 400, 1):
        rows += examples.examples(reading)
    sequences = tokenise(base, rows)
    base.model.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(base.model.parameters(), lr=2e-3, weight_decay=0.01)
    stream = endless_batches(sequences, [], 0.0, 32, 0, None)
    begun = time.monotonic()
    while (spent := time.monotonic() - begun) < 60 * minutes:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * sft.schedule(spent / (60 * minutes))
        batch = next(stream)
        width = max(len(s.ids) for s in batch)
        ids = torch.tensor([[*s.ids, *[0] * (width - len(s.ids))] for s in batch])
        labels = torch.tensor([[*s.ids, *[-100] * (width - len(s.ids))] for s in batch])
        loss = base.model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(base.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    print(f"tiny model: {base.parameters / 1e6:.1f}M parameters, loss {loss.item():.2f}")
    base.model.save_pretrained(folder)


if __name__ == "__main__":
    main()
