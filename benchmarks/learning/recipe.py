"""What a recipe makes of library articles: learned, generalised, lost; and how long it takes.

    python benchmarks/learning/recipe.py --model FILE.gguf
    python benchmarks/learning/recipe.py --model FILE.gguf --articles 10:20 --vary kl=0.5,1,4
    python benchmarks/learning/recipe.py --model FILE.gguf --vary anchors=real,sampled,mixed

Trains, for a fixed number of exposures a fact, on some articles of `library/` with the recipe of
the model's size, varied as asked (one name, several values: rate, rank, first, kl, batch, tokens,
exposures, anchors, packed, sentences), each from the base, and prints a line of JSON each: right
answers on wordings of other facts and on unseen ones, on control documents; replies to held-out
prompts that got worse (`evaluation.mind`), NLL of held-out real texts and (with SHARED_DATA_DIR)
of WikiText-2, in nats a token against the base; seconds and tokens a second. No gate, no replay,
one seed each (`--seeds`). Tune on the first twenty articles, report on the others.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from autodidact.engine import Engine  # noqa: E402
from autodidact.engine.examinee import Examinee  # noqa: E402
from autodidact.evaluation import mind, recall, well_formed  # noqa: E402
from autodidact.lessons.material import material  # noqa: E402
from autodidact.lessons.probes import write_probes, write_unseen_probes  # noqa: E402
from autodidact.models import bases, loading  # noqa: E402
from autodidact.settings import TrainingSettings  # noqa: E402
from autodidact.training import anchor_set, sft  # noqa: E402
from autodidact.training import anchors as anchoring  # noqa: E402
from autodidact.training.objectives import AnswerLoss  # noqa: E402
from autodidact.training.recipe import Recipe, recipe_of  # noqa: E402
from autodidact.training.sampler import Sampler  # noqa: E402
from autodidact.training.sequences import ASKED, tokenise  # noqa: E402
from autodidact.types.documents import Document, Material, Probe  # noqa: E402

NAMES = {"rate": "learning_rate", "first": "first_block", "kl": "kl_weight", "batch": "batch_size",
         "tokens": "anchor_tokens"}  # fmt: skip
WIKITEXT_BLOCKS, BLOCK_TOKENS = 40, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    common(parser)
    parser.add_argument("--vary", default="", help="name=value,value")
    args = parser.parse_args()
    bench = Bench(args)
    name, _, values = args.vary.partition("=")
    for value in values.split(",") if name else [""]:
        for seed in range(args.seeds):
            print(json.dumps(bench.run(name, value, seed)), flush=True)


def common(parser: argparse.ArgumentParser) -> None:
    """What `Bench` asks of the command line."""
    parser.add_argument("--model", required=True)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "recipe-home")
    parser.add_argument("--articles", default="0:10", help="from:to, in the order of their names")
    parser.add_argument("--exposures", type=float, default=16)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--anchor-minutes", type=float, default=5.0)
    parser.add_argument("--list", action="store_true", help="print each prompt answered worse")


class Bench:
    """A base, some articles, and what is measured of a model that was taught them."""

    def __init__(self, args: argparse.Namespace) -> None:
        found_base = bases.resolve(args.model, "", args.home, print)
        self.args, self.path, self.name = args, found_base.path, found_base.name
        self.engine = Engine(loading.load(self.path, args.threads))
        self.base = self.engine.base
        print(self.base.description, flush=True)
        first, last = map(int, args.articles.split(":"))
        library = PROJECT / "library"
        taught = [
            read_article(p, n) for n, p in enumerate(sorted(library.glob("*.md"))[first:last], 1)
        ]
        control = [
            read_article(p, -n) for n, p in enumerate(sorted((library / "control").glob("*.md")), 1)
        ]
        found, others = ([m.findings for m in made] for made in (taught, control))
        self.texts = [
            f"{m.findings.title}\n\n" + "\n\n".join(chunk.text for chunk in m.findings.chunks)
            for m in taught
        ]
        self.taught = [e for m in taught for e in m.examples if e.kind in ASKED]
        self.probes = {
            "taught": write_probes(found, others, "taught"),
            "unseen": write_unseen_probes(found, others),
            "control": write_probes(others, found, "control")[:60],
        }
        self.facts = len({e.fact for e in self.taught})
        self.anchors: dict[str, anchoring.Anchors] = {}
        self.held = [p for p in anchor_set.prompts() if p.held]
        self.wikitext = self._wikitext()
        self.real = self._anchors("real")
        base = Examinee(self.engine, self.engine.untouched)
        self.before = self._chat(base)
        self.nll = self._nll(base)

    def run(self, name: str, value: str, seed: int) -> dict[str, Any]:
        exposures = float(value) if name == "exposures" else self.args.exposures
        recipe = replace(self._recipe(name, value), seed=seed)
        chosen = self._anchors(recipe.anchors)
        trainer = sft.Trainer(self.base, AnswerLoss(), recipe, chosen.training)
        rows = tokenise(self.base, self.taught, sentences=recipe.sentences)
        feed = Sampler(rows, [], 0.0, recipe.batch_size, seed)
        steps = self.steps(exposures, recipe)
        begun, tokens = time.monotonic(), 0
        for step in range(steps):
            batch = feed.next()
            loss = trainer.step(batch, step / steps)
            feed.heard(batch, trainer.right)
            tokens += sum(len(row.ids) for row in batch)
        seconds = time.monotonic() - begun
        with tempfile.TemporaryDirectory() as folder:
            trainer.export(Path(folder), "base")
            version = self.engine.load_folder(1, Path(folder))
        return {
            name or "recipe": value or "as it is",
            "seed": seed,
            "steps": steps,
            "passes": type(trainer.passes).__name__,
            "seconds": round(seconds, 1),
            "tokens_s": round(tokens / seconds),
            "loss": round(loss, 3),
            "known": f"{feed.known}/{self.facts}",
            **self.figures(Examinee(self.engine, version), sentences=recipe.sentences),
        }

    def steps(self, exposures: float, recipe: Recipe) -> int:
        return round(exposures * self.facts / recipe.batch_size)

    def figures(self, subject: Examinee, *, sentences: bool) -> dict[str, Any]:
        """What a model that was taught knows, and what it lost."""
        nll = self._nll(subject)
        return {
            **{
                split: self._right(subject, probes, sentences)
                for split, probes in self.probes.items()
            },
            "worse": self._worse(subject),
            "text": round(nll[0] - self.nll[0], 4),
            "wikitext": round(nll[1] - self.nll[1], 4),
            "wikitext_pct": round(100 * (nll[1] / self.nll[1] - 1), 2) if self.nll[1] else None,
        }

    def _recipe(self, name: str, value: str) -> Recipe:
        recipe = recipe_of(self.base, TrainingSettings(), autocast=False)
        if name in ("", "exposures"):
            return recipe
        field = NAMES.get(name, name)
        kind = type(getattr(recipe, field))
        return replace(recipe, **{field: value == "yes" if kind is bool else kind(value)})

    def _anchors(self, mix: str) -> anchoring.Anchors:
        if mix not in self.anchors:
            made = anchoring.extend(
                self.engine, anchoring.Anchors(), mix, 60 * self.args.anchor_minutes,
                lambda done, of: None, anchor_set.replies(self.name),
            )  # fmt: skip
            self.anchors[mix] = made
        return self.anchors[mix]

    def _right(self, subject: Examinee, probes: list[Probe], sentences: bool) -> str:
        found = recall.measure(subject, probes, sentences=sentences)
        return f"{sum(result.correct for result in found)}/{len(probes)}"

    def _chat(self, subject: Examinee) -> list[well_formed.ChatResult]:
        prompts = dict(self.real.real.prompts)
        return well_formed.measure(subject, [prompts[p.id] for p in self.held])

    def _worse(self, subject: Examinee) -> str:
        taught = mind.telling([p.answer for p in self.probes["taught"]])
        after, count = self._chat(subject), 0
        for prompt, was, now in zip(self.held, self.before, after, strict=True):
            reason = mind.worsening(
                prompt.prompt, prompt.expect, prompt.group, was.reply, now.reply, taught
            )
            count += bool(reason)
            if reason and self.args.list:
                print(f"  {prompt.prompt!r}: {was.reply!r} -> {now.reply!r}: {reason}")
        return f"{count}/{len(self.held)}"

    def _nll(self, subject: Examinee) -> tuple[float, float]:
        parts = [subject.nll(blocks) for blocks in (self.real.real.blocks, self.wikitext)]
        return fmean(parts[0]), fmean(parts[1]) if parts[1] else 0.0

    def _wikitext(self) -> list[list[int]]:
        if "SHARED_DATA_DIR" not in os.environ:
            return []
        path = Path(os.environ["SHARED_DATA_DIR"]) / "data" / "wikitext2" / "valid.txt"
        ids = self.base.tokenizer(
            path.read_text("utf-8")[:400_000], add_special_tokens=False
        ).input_ids
        width = BLOCK_TOKENS - 1
        blocks = [ids[i : i + width] for i in range(0, len(ids) - width, width)]
        return [[self.base.start_id, *block] for block in blocks[:WIKITEXT_BLOCKS]]


def read_article(path: Path, number: int) -> Material:
    title, _, text = path.read_text("utf-8").partition("\n")
    title = title.removeprefix("# ")
    return material(number, Document("files", path.name, title, text.strip(), "", str(number), ""))


if __name__ == "__main__":
    main()
