"""Make the starter model from nothing: tokenizer, pretraining, chat and reading stage, model card.

    python scripts/pretrain_starter.py train --data ../data --work /tmp/starter
    python scripts/pretrain_starter.py train --data ../data --work W --recipe gpu --device cuda
    python benchmarks/starter.py --models models/starter W/model --out W/figures
    python scripts/pretrain_starter.py card --work W --figures W/figures/starter.json

`train` does what is not done yet: reads the corpora (format: scripts/starter/corpus.py), trains the
tokenizer, writes the rows, trains, and writes WORK/model, which `transformers` loads. Ctrl-C keeps
the state; the same command goes on. The same recipe and seed see the same rows in the same order.
With `--rows-only` it ends before training: WORK can then be taken to another machine, where no
--data is needed. `card` writes WORK/model/README.md from what was recorded and measured.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import typer  # noqa: E402
from rich.console import Console  # noqa: E402

from autodidact.commands.entry import entry_point  # noqa: E402
from autodidact.errors import AutodidactError  # noqa: E402
from autodidact.learning.progress import set_up_logging  # noqa: E402
from scripts.starter.recipe import RECIPES, Recipe  # noqa: E402

log = logging.getLogger("starter")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
SAMPLES = (
    "Hello!",
    "Who are you?",
    "What is the capital of France?",
    "Tell me about the moon.",
    "Passages:\n[1] Old Bridge: The Old Bridge was built in 1731 by Anna Reed. It has nine arches."
    "\n\nQuestion: Who built the Old Bridge?",
    "Passages:\n[1] Old Bridge: The Old Bridge was built in 1731 by Anna Reed. It has nine arches."
    "\n\nQuestion: What is the weight of the great bell?",
)


class StarterError(AutodidactError):
    """Something that the user can put right: what, where, what to do."""


@app.command()
def train(
    work: Annotated[
        Path, typer.Option("--work", help="Folder for rows, state, curve and the model.")
    ],
    data: Annotated[Path | None, typer.Option("--data", help="Folder of the corpora.")] = None,
    recipe: Annotated[str, typer.Option("--recipe", help=" or ".join(RECIPES))] = "cpu",
    tokens: Annotated[int | None, typer.Option("--tokens", help="Positions to train on.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of data order and initial weights.")] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or auto.")] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", help="CPU threads; all by default.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled/--no-compiled", help="Use torch.compile.")
    ] = True,
    rows_only: Annotated[bool, typer.Option("--rows-only", help="End before training.")] = False,
) -> None:
    """Train a starter, or go on with it."""
    set_up_logging("starter", plain=True)
    if recipe not in RECIPES:
        raise StarterError(f"--recipe {recipe}: choose {' or '.join(RECIPES)}")
    chosen = replace(RECIPES[recipe], seed=seed)
    if tokens is not None:
        chosen = replace(chosen, tokens=tokens)
    shortest = max(s.rows * s.length / s.share for s in chosen.stages)
    if chosen.tokens < shortest:
        raise StarterError(
            f"--tokens {chosen.tokens}: at least {shortest:.0f} for one step a stage"
        )
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = _rows(chosen, data, work)
    if not rows_only:
        _train(chosen, work, tokenizer, device, threads, compiled)


def _rows(recipe: Recipe, data: Path | None, work: Path) -> Any:
    """The tokenizer and, in WORK/rows, the rows; made if they are not there yet."""
    from transformers import AutoTokenizer

    from scripts.starter import corpus, rows

    done = work / "rows" / "done.json"
    if done.exists():
        if json.loads(done.read_text("utf-8"))["recipe"] != recipe.digest:
            raise StarterError(
                f"{work}: holds the rows of another recipe; choose another --work, or delete it"
            )
        log.info("rows: as they are in %s", work)
        return AutoTokenizer.from_pretrained(work / "tokenizer")
    if data is None:
        raise StarterError(f"{work}: holds no rows yet; say with --data where the corpora are")
    log.info("reading the corpora")
    found = corpus.load(data)
    for source in found.sources:
        log.info("  %s: %s %s", source.name, f"{source.items:,}", source.what)
    if found.dropped:
        log.info("  kept out, because they are measured with: %s", ", ".join(found.dropped))
    log.info("training the tokenizer")
    tokenizer = rows.train_vocabulary(found, recipe)
    tokenizer.save_pretrained(work / "tokenizer")
    shown = [0.0]

    def progress(stage: str, n: int, of: int) -> None:
        if time.monotonic() - shown[0] > 15:
            shown[0] = time.monotonic()
            log.info("rows: %s %s of %s", stage, f"{n:,}", f"{of:,}")

    rows.write(found, recipe, tokenizer, work / "rows", progress)
    sources = [asdict(source) for source in found.sources]
    done.write_text(json.dumps({"recipe": recipe.digest, "sources": sources}, indent=1), "utf-8")
    return tokenizer


def _train(
    recipe: Recipe, work: Path, tokenizer: Any, device: str, threads: int | None, compiled: bool
) -> None:
    import torch

    from scripts.starter.training import CURVE, Trainer

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise StarterError("--device cuda: torch sees no such device here")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    trainer = Trainer(
        recipe, work / "rows", work, torch.device(device), log.info, compiled=compiled
    )
    parameters = sum(p.numel() for p in trainer.masters.values())
    log.info("%s parameters, %s steps, on %s", f"{parameters:,}", f"{trainer.total:,}", device)
    if trainer.resume():
        log.info("going on at step %s", f"{trainer.state.step:,}")
    else:
        (work / CURVE).unlink(missing_ok=True)
    finished = trainer.run()
    if not finished:
        log.info("interrupted at step %s; the same command goes on", f"{trainer.state.step:,}")
        raise typer.Exit(130)
    trainer.export(work / "model", tokenizer)
    done = json.loads((work / "rows" / "done.json").read_text("utf-8"))
    record = {
        "recipe": asdict(recipe),
        "parameters": parameters,
        "sources": done["sources"],
        "mix": json.loads((work / "rows" / "mix.json").read_text("utf-8")),
        "tokens": trainer.state.tokens,
        "minutes": round(trainer.state.seconds / 60, 1),
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "torch": torch.__version__,
    }
    (work / "training.json").write_text(json.dumps(record, indent=1), "utf-8")
    _plot(work)
    _samples(work)


def _processor() -> str:
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def _plot(work: Path) -> None:
    """WORK/curve.png: nat a token on training rows and on held articles."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from scripts.starter.training import KINDS, curve

    noted = list(curve(work))
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind, colour in zip(KINDS, ("C0", "C7", "C1"), strict=True):
        for at, style in (("training", "-"), ("held", "o")):
            points = [(r["tokens"] / 1e6, r[kind]) for r in noted if r["at"] == at and kind in r]
            if points:
                x, y = zip(*points, strict=True)
                label = kind if at == "training" else f"{kind}, held articles"
                axes.plot(x, y, style, color=colour, label=label, ms=3, lw=1)
    axes.set(xlabel="million tokens", ylabel="nat a token", title="Training of the starter")
    axes.legend()
    figure.savefig(work / "curve.png", dpi=120)
    plt.close(figure)


def _samples(work: Path) -> None:
    from autodidact.engine import Engine
    from autodidact.engine.examinee import Examinee
    from autodidact.models import loading
    from autodidact.types.chat import Message

    engine = Engine(loading.load(work / "model", os.cpu_count() or 1))
    asked = [[Message("user", text)] for text in SAMPLES]
    replies = Examinee(engine, engine.untouched).complete(asked, 64)
    lines = [f"> {a[0].content}\n{r}\n" for a, r in zip(asked, replies, strict=True)]
    (work / "samples.txt").write_text("\n".join(lines), "utf-8")
    for line in lines:
        log.info("%s", line)


@app.command()
def card(
    work: Annotated[Path, typer.Option("--work", help="Folder of a finished training.")],
    figures: Annotated[
        Path, typer.Option("--figures", help="starter.json of benchmarks/starter.py.")
    ],
    note: Annotated[
        str, typer.Option("--note", help="A paragraph under the figures: further runs, say.")
    ] = "",
) -> None:
    """Write the model card."""
    from scripts.starter import card as cards

    try:
        record = json.loads((work / "training.json").read_text("utf-8"))
        measured = json.loads(figures.read_text("utf-8"))
    except FileNotFoundError as error:
        raise StarterError(f"{error.filename}: no such file; run train and the benchmark") from None
    text = cards.write(record, measured, note)
    (work / "model" / "README.md").write_text(text, "utf-8")
    Console().print(f"wrote {work / 'model' / 'README.md'}", highlight=False)


if __name__ == "__main__":
    entry_point(app)
