"""How fast a step of training is, beside the trainer of before, and the share of the machine's
arithmetic that it reaches.

    python benchmarks/learning/step.py --model FILE.gguf

The same questions of library articles, in turn, from a fresh adapter each round:

- `ours`: the recipe of the model's size, as in a cycle: a question is met `--exposures` times, its
  hidden states below the adapter are computed the first time, anchors come once a round;
- `before`: what a cycle did until this recipe: an adapter of rank 64 on all blocks, sequences
  padded, 192 tokens of anchors a step, nothing kept. `--before-steps` of them, since it is slow.

A line of JSON a round: seconds a step (median), tokens of questions a second, and, from a run of
its own under `torch.utils.flop_counter`, the floating point operations of a step; `of_peak` is what
share of a large float32 product's speed, measured in the same process, they amount to.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from autodidact.engine import Engine  # noqa: E402
from autodidact.models import bases, loading  # noqa: E402
from autodidact.settings import TrainingSettings  # noqa: E402
from autodidact.training import anchor_set, sft  # noqa: E402
from autodidact.training import anchors as anchoring  # noqa: E402
from autodidact.training.objectives import AnswerLoss  # noqa: E402
from autodidact.training.recipe import Recipe, recipe_of  # noqa: E402
from autodidact.training.sequences import ASKED, TrainingSequence, tokenise  # noqa: E402
from benchmarks.learning.recipe import read_article  # noqa: E402

SIDE = 2048
COUNTED = 4
"""Steps whose operations are counted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "recipe-home")
    parser.add_argument("--batches", type=int, default=5, help="of different questions")
    parser.add_argument("--exposures", type=int, default=12)
    parser.add_argument("--before-steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    found = bases.resolve(args.model, "", args.home, print)
    base = loading.load(found.path, args.threads)
    engine = Engine(base)
    print(base.description, flush=True)
    ours = recipe_of(base, TrainingSettings(), autocast=False)
    before = replace(ours, first_block=0, rank=64, packed=False, anchor_tokens=192, kl_weight=24.0)
    anchors = anchoring.extend(
        engine, anchoring.Anchors(), ours.anchors, 300, lambda done, of: None,
        anchor_set.replies(found.name),
    ).training  # fmt: skip
    files = sorted((PROJECT / "library").glob("*.md"))
    examples = [e for n, path in enumerate(files, 1) for e in read_article(path, n).examples]
    wanted = args.batches * ours.batch_size
    rows = tokenise(base, [e for e in examples if e.kind in ASKED], sentences=ours.sentences)
    rows = rows[:: max(1, len(rows) // wanted)][:wanted]
    steps = {"ours": args.batches * args.exposures, "before": args.before_steps}
    peak = product_flops()
    for number in range(args.rounds):
        for name, recipe in (("ours", ours), ("before", before)):
            told = measured(base, recipe, anchors, rows, steps[name], peak)
            print(json.dumps({"round": number + 1, "arm": name, **told}), flush=True)


def measured(
    base: loading.LoadedBase,
    recipe: Recipe,
    anchors: Any,
    rows: list[TrainingSequence],
    steps: int,
    peak: float,
) -> dict[str, Any]:
    trainer = sft.Trainer(base, AnswerLoss(), recipe, anchors)
    size = recipe.batch_size
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    seconds, tokens = [], 0
    for step in range(steps):
        batch = batches[step % len(batches)]
        begun = time.perf_counter()
        trainer.step(batch, step / steps)
        seconds.append(time.perf_counter() - begun)
        tokens += sum(len(row.ids) for row in batch)
    with FlopCounterMode(display=False) as counter:
        for step in range(COUNTED):
            trainer.step(batches[step % len(batches)], 1.0)
    operations = counter.get_total_flops() / COUNTED
    return {
        "passes": type(trainer.passes).__name__,
        "steps": steps,
        "step_s": round(median(seconds), 3),
        "all_s": round(sum(seconds), 1),
        "tokens_s": round(tokens / sum(seconds)),
        "gflop_a_step": round(operations / 1e9, 1),
        "of_peak": round(operations / median(seconds) / peak, 3),
        "peak_gflops": round(peak / 1e9),
    }


def product_flops() -> float:
    """Floating point operations a second of a product of two large matrices, the best of ten."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    best = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - begun)
    return float(2 * SIDE**3 / best)


if __name__ == "__main__":
    main()
