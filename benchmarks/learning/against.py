"""Facts taught a minute: our recipe, the usual one, and our adapter in somebody else's trainer.

    python benchmarks/learning/against.py --model FILE.gguf --articles 0:10

On the same articles, each from the untouched base, one after another in one process:

- `ours`: the recipe of the model's size, as `recipe.py` runs it;
- `peft`: the same questions, sentences, rank, blocks, rate, batch and steps through PEFT and
  `transformers.Trainer`: each batch padded, the whole model computed, nothing kept, no pull to the
  base (which makes its steps cheaper);
- `raw`: full fine-tuning on the raw texts, rate 2e-5, one epoch, an article a step: the recipe that
  most self-learning chatbots begin with.

Prints a line of JSON each: seconds of training, right answers (`taught`, `unseen`, `control`),
taught facts that are known a minute of training, and what was lost, as in `recipe.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402
from transformers import Trainer, TrainingArguments  # noqa: E402

from autodidact.engine import Engine  # noqa: E402
from autodidact.engine.examinee import Examinee  # noqa: E402
from autodidact.models import loading  # noqa: E402
from autodidact.settings import TrainingSettings  # noqa: E402
from autodidact.training.recipe import recipe_of  # noqa: E402
from autodidact.training.sequences import TrainingSequence, tokenise  # noqa: E402
from autodidact.types.documents import Example  # noqa: E402
from benchmarks.learning.recipe import Bench, common  # noqa: E402

RATE, ARTICLES_A_STEP = 2e-5, 1


class Rows(Dataset[TrainingSequence]):
    def __init__(self, rows: Sequence[TrainingSequence]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> TrainingSequence:
        return self.rows[number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    common(parser)
    parser.add_argument("--arms", nargs="+", default=["ours", "peft", "raw"])
    args = parser.parse_args()
    bench = Bench(args)
    arms = {"ours": ours, "peft": peft, "raw": raw}
    for seed in range(args.seeds):
        for name in args.arms:
            found = arms[name](bench, seed)
            known = int(str(found["taught"]).partition("/")[0])
            a_minute = round(60 * known / found["seconds"], 1)
            print(json.dumps({"arm": name, **found, "facts_a_minute": a_minute}), flush=True)


def ours(bench: Bench, seed: int) -> dict[str, Any]:
    return bench.run("", "", seed)


def peft(bench: Bench, seed: int) -> dict[str, Any]:
    base = loading.load(bench.path, bench.args.threads)
    recipe = recipe_of(base, TrainingSettings(), autocast=False)
    blocks = range(recipe.first_block, loading.blocks_of(base.model))
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.rank, target_modules=loading.linear_names(base.model),
        layers_to_transform=list(blocks), task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(base.model, config)
    rows = tokenise(base, bench.taught, sentences=recipe.sentences)
    arguments = {
        "learning_rate": recipe.learning_rate,
        "per_device_train_batch_size": recipe.batch_size,
        "max_steps": bench.steps(bench.args.exposures, recipe),
    }
    seconds = trained(model, rows, base.pad_id, seed, arguments)
    merged = replace(base, model=model.merge_and_unload())
    return measured(bench, merged, seconds, sentences=recipe.sentences)


def raw(bench: Bench, seed: int) -> dict[str, Any]:
    base = loading.load(bench.path, bench.args.threads)
    base.model.requires_grad_(True)
    texts = [Example("text", "", n, text=text) for n, text in enumerate(bench.texts)]
    arguments = {
        "learning_rate": RATE,
        "per_device_train_batch_size": ARTICLES_A_STEP,
        "num_train_epochs": 1,
    }
    seconds = trained(base.model, tokenise(base, texts), base.pad_id, seed, arguments)
    base.model.requires_grad_(False)
    sentences = recipe_of(base, TrainingSettings(), autocast=False).sentences
    return measured(bench, base, seconds, sentences=sentences)


def trained(
    model: Any,
    rows: Sequence[TrainingSequence],
    pad: int,
    seed: int,
    arguments: dict[str, Any],
) -> float:
    """Seconds of `transformers.Trainer` on these rows."""

    def collated(some: Sequence[TrainingSequence]) -> dict[str, torch.Tensor]:
        width = max(len(row.ids) for row in some)
        fill = [width - len(row.ids) for row in some]
        named = {
            "input_ids": [[*row.ids, *[pad] * n] for row, n in zip(some, fill, strict=True)],
            "labels": [[*row.labels, *[-100] * n] for row, n in zip(some, fill, strict=True)],
            "attention_mask": [
                [1] * len(row.ids) + [0] * n for row, n in zip(some, fill, strict=True)
            ],
        }
        return {name: torch.tensor(values) for name, values in named.items()}

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                folder, seed=seed, report_to=[], save_strategy="no", disable_tqdm=True,
                logging_strategy="no", remove_unused_columns=False, use_cpu=True, **arguments,
            ),
            train_dataset=Rows(rows),
            data_collator=collated,
        )  # fmt: skip
        begun = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - begun
    model.eval()
    return seconds


def measured(
    bench: Bench, base: loading.LoadedBase, seconds: float, *, sentences: bool
) -> dict[str, Any]:
    engine = Engine(base)
    subject = Examinee(engine, engine.untouched)
    return {"seconds": round(seconds, 1), **bench.figures(subject, sentences=sentences)}


if __name__ == "__main__":
    main()
