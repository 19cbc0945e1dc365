"""What bfloat16, 8-bit and 4-bit weights cost and give: step time, memory, and how replies change.

    python benchmarks/quantised.py --out DIR              one thread, about two minutes
    python benchmarks/quantised.py --out DIR --threads 4 --rounds 20

Speed and memory: a randomly initialised SmolLM2-135M shape, loaded in each format as the server
loads it (`loading.load`; no HTTP, no batcher, no adapters). A step gives each of `rows` sequences
with 128 tokens in the cache its next token; a prompt is 256 tokens of one request. Rounds go
through all formats in turn, so that other work on the machine meets all alike; tables show medians
relative to float32's of the same round. With one thread its own CPU time counts, with more the
wall clock.

Quality: models/starter on WikiText-2's validation text (with SHARED_DATA_DIR, else on the project's
own library/), 16 blocks of 256 tokens: the rise of the negative log-likelihood a token (± standard
error over blocks) and how often the likeliest next token stays the same. Weights of larger models
round with less harm.

DIR/quantised.json has every figure, DIR/quantised.md the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import torch  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from transformers import DynamicCache  # noqa: E402

from autodidact.errors import SettingError  # noqa: E402
from autodidact.models import loading  # noqa: E402
from autodidact.models.loading import LoadedBase  # noqa: E402
from benchmarks.load.shapes import random_135m  # noqa: E402

STARTER = PROJECT / "models" / "starter"
FORMATS = tuple(product(("float32", "bfloat16"), ("none", "int8", "int4")))
ROWS = (1, 8, 32)
CACHED, PROMPT = 128, 256
BLOCKS, BLOCK = 16, 256
Bases = Mapping[str, LoadedBase]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}",
        "threads": args.threads,
        "rounds": args.rounds,
        "refused": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        bases = load(random_135m(Path(folder)), args.threads, found)
        found["formats"] = {name: {"megabytes": megabytes(base)} for name, base in bases.items()}
        found["seconds"] = seconds(bases, args.rounds)
    del bases
    found["text"], blocks = text_blocks()
    for name, row in quality(load(STARTER, args.threads, found), blocks).items():
        found["formats"][name] |= row
    (args.out / "quantised.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    table = markdown(found)
    (args.out / "quantised.md").write_text(table, "utf-8")
    print(table)


def load(folder: Path, threads: int, found: dict[str, Any]) -> dict[str, LoadedBase]:
    """The base in every format that this machine supports; the reasons of others go to `found`."""
    bases = {}
    for dtype, quantisation in FORMATS:
        name = f"{dtype} {quantisation}"
        try:
            bases[name] = loading.load(folder, threads, dtype=dtype, quantisation=quantisation)
        except SettingError as error:
            found["refused"][name] = str(error)
    return bases


def megabytes(base: LoadedBase) -> float:
    """Memory of all weights with their scales, tied ones once, in MB (10⁶ bytes)."""
    tensors = {id(t): t for t in (*base.model.parameters(), *base.model.buffers())}
    total = sum(t.nbytes for t in tensors.values())
    for tensor in tensors.values():
        state = getattr(tensor, "quant_state", None)  # where bitsandbytes keeps int4's scales
        total += state.absmax.nbytes if state is not None else 0
    return round(total / 1e6, 1)


# Speed ------------------------------------------------------------------------------------------


@torch.inference_mode()
def seconds(bases: Bases, rounds: int) -> dict[str, dict[str, list[float]]]:
    """By task and format: the time of each round; the first, to warm up, is dropped."""
    tasks: dict[str, Callable[[LoadedBase], float]] = {
        f"step, {rows} rows": partial(step_s, rows) for rows in ROWS
    }
    tasks["prompt"] = prompt_s
    times: dict[str, dict[str, list[float]]] = {}
    for name, task in tasks.items():
        times[name] = {form: [] for form in bases}
        for number in range(rounds + 1):
            for form, base in bases.items():
                took = task(base)
                if number:
                    times[name][form].append(took)
    return times


def clock() -> float:
    """Seconds: of this thread's work where it does all of it, else of the wall."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def step_s(rows: int, base: LoadedBase) -> float:
    """The time of a step: `rows` sequences get their next token. The best of three."""
    config = base.model.config
    shape = (rows, config.num_key_value_heads, CACHED, config.head_dim)
    cache = DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        cache.update(*torch.randn(2, *shape, dtype=base.model.dtype), layer)
    tokens = torch.full((rows, 1), 100)
    return min(_step_s(base, tokens, cache) for _ in range(3))


def _step_s(base: LoadedBase, tokens: torch.Tensor, cache: DynamicCache) -> float:
    begun = clock()
    base.model(tokens, past_key_values=cache, use_cache=True)
    took = clock() - begun
    cache.crop(-1)
    return took


def prompt_s(base: LoadedBase) -> float:
    """The time of a prompt, with the logits of its last token only."""
    tokens = torch.full((1, PROMPT), 100)
    begun = clock()
    base.model(tokens, logits_to_keep=1)
    return clock() - begun


# Quality ----------------------------------------------------------------------------------------


def text_blocks() -> tuple[str, list[list[int]]]:
    """The name of the text and its first blocks, in the starter's tokens."""
    shared = os.environ.get("SHARED_DATA_DIR")
    if shared:
        name = "WikiText-2, validation"
        text = (Path(shared) / "data" / "wikitext2" / "valid.txt").read_text("utf-8")[:80_000]
    else:
        name = "library/"
        text = "\n".join(p.read_text("utf-8") for p in sorted((PROJECT / "library").glob("*.md")))
    tokenizer = loading.load(STARTER, 1).tokenizer
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return name, [ids[i * BLOCK : (i + 1) * BLOCK] for i in range(BLOCKS)]


@torch.inference_mode()
def quality(bases: Bases, blocks: list[list[int]]) -> dict[str, dict[str, float]]:
    """Each format against the first, float32 without quantisation."""
    tokens = torch.tensor(blocks)
    expected: torch.Tensor | None = None
    found = {}
    for name, base in bases.items():
        logits = torch.cat([base.model(row[None]).logits.float() for row in tokens])[:, :-1]
        expected = logits if expected is None else expected
        rises = (nll(logits, tokens) - nll(expected, tokens)).tolist()
        same = logits.argmax(-1) == expected.argmax(-1)
        found[name] = {
            "nll": float(nll(logits, tokens).mean()),
            "nll_rise": fmean(rises),
            "nll_rise_se": stdev(rises) / len(rises) ** 0.5,
            "same_token": float(same.float().mean()),
            "tokens": same.numel(),
        }
    return found


def nll(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(blocks,) of the mean negative log-likelihood a token, in nats."""
    losses = cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return losses.mean(1)


# Table ------------------------------------------------------------------------------------------


def markdown(found: Mapping[str, Any]) -> str:
    tasks = found["seconds"]
    first = next(iter(found["formats"]))
    told = f"{found['machine']}, {found['threads']} thread(s), {found['rounds']} rounds"
    heads = ["weights", *tasks, "MB", "NLL rise", "same token"]
    rows = [heads, ["---"] * len(heads)]
    for name, row in found["formats"].items():
        cells = [_time(tasks[task][name], tasks[task][first]) for task in tasks]
        rise = f"{row['nll_rise']:+.4f} ± {row['nll_rise_se']:.4f}"
        rows.append([name, *cells, f"{row['megabytes']:.0f}", rise, f"{row['same_token']:.1%}"])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"- {name}: {why}" for name, why in found["refused"].items()]
    about = (
        "Times: median, and in brackets × float32 of the same round (below 1 is faster). "
        f"NLL and tokens: the starter on {found['text']}, {row['tokens']} tokens."
    )
    return "\n".join(["# Number formats", "", told, "", about, "", *lines, "", *notes]) + "\n"


def _time(times: list[float], reference: list[float]) -> str:
    ratio = median(t / r for t, r in zip(times, reference, strict=True))
    return f"{1000 * median(times):.0f} ms ({ratio:.2f})"


if __name__ == "__main__":
    main()
