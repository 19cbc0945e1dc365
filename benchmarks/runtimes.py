"""One GGUF file, served by llama.cpp, by our graph in ONNX Runtime and by our torch, in one run.

    pip install xllamacpp          a prebuilt llama.cpp with its HTTP server (MIT)
    python benchmarks/runtimes.py --gguf FILE --out DIR
    python benchmarks/runtimes.py --gguf FILE --out DIR --quality TEXT.txt

Sides: `llama.cpp`; `torch` and `graph`, our server with `server.runtime` set so, on the bare base;
`adapter`, the graph with a random adapter of `--rank` on the upper half of the blocks; `mixed`,
half of the requests on one such version and half on another. Every side is a server of its own,
with the same file, threads, prompts and lengths, asked over streaming HTTP in OpenAI's form: n
clients send request after request. Nothing is reused from one request to the next on any side.
Rounds alternate; a row shows the median of the rounds and their range. Tokens are counted by the
servers' own `usage`. A side that is not installed is left out and said to be.

`--quality` is no race: what rounding activations costs on a text. The negative log-likelihood of
blocks of 256 tokens by the base's float32 module and by the graph (mean difference, 95 % by a
bootstrap over blocks), and how often both find the same token likeliest.

DIR/runtimes.json has every cell; a run that was cut off goes on there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from autodidact import checkpoints  # noqa: E402
from autodidact.home import prepare_home, write_atomic  # noqa: E402
from autodidact.models import bases  # noqa: E402
from benchmarks.load import figures, report, servers, shapes  # noqa: E402
from benchmarks.load.clients import chunks, head  # noqa: E402
from benchmarks.load.servers import Knobs  # noqa: E402

SIDES = ("llama.cpp", "graph", "adapter", "mixed", "torch")
REPEATS = {1: 6, 8: 3, 32: 2}
"""Requests that each client sends one after another."""
SUBJECTS = (
    "a lighthouse",
    "an old clock",
    "the sea in winter",
    "two brothers",
    "a long train ride",
)
LLAMA = """
import sys, time
import xllamacpp
file, threads, parallel, context = sys.argv[1], *map(int, sys.argv[2:5])
port = int(sys.argv[-1])
asked = xllamacpp.CommonParams()
asked.model.path = file
asked.n_ctx, asked.n_parallel, asked.port = context, parallel, port
asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(asked)
print(server.listening_address, flush=True)
time.sleep(10**6)
"""
Cell = dict[str, Any]


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "runtimes.json"
    cells: dict[str, Cell] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    sides = [side for side in args.sides.split(",") if there(side)]
    for number in range(args.rounds):
        order = sides if number % 2 == 0 else sides[::-1]
        for side in order:
            wanted = [n for n in args.streams if f"{side}/{n}/{number}" not in cells]
            if not wanted:
                continue
            with served(args, side) as (address, models):
                asyncio.run(load(args, address, models, side, 2, 1))  # warm
                for n in wanted:
                    repeat = REPEATS.get(n, 2)
                    cell = asyncio.run(load(args, address, models, side, n, repeat))
                    cells[f"{side}/{n}/{number}"] = cell
                    write_atomic(path, json.dumps(cells, indent=1).encode())
                    print(f"{side}, {n} streams: {cell}", flush=True)
    print(f"{report.machine()}, {args.threads} threads\n\n{table(cells)}")
    if args.quality:
        print(json.dumps(quality(args), indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reply", type=int, default=64, help="tokens at most")
    parser.add_argument("--words", type=int, default=40, help="of a prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--quality", type=Path, metavar="TEXT")
    parser.add_argument("--blocks", type=int, default=60)
    return parser.parse_args()


def there(side: str) -> bool:
    if side != "llama.cpp":
        return True
    import importlib.util

    found = importlib.util.find_spec("xllamacpp") is not None
    if not found:
        print("llama.cpp is left out: pip install xllamacpp", flush=True)
    return found


@contextlib.contextmanager
def served(args: argparse.Namespace, side: str) -> Iterator[tuple[str, list[str]]]:
    """The address of a side's server, and the models that requests ask for in turn."""
    if side == "llama.cpp":
        most = max(args.streams)
        context = most * (4 * args.words + args.reply + 128)
        program = ["-c", LLAMA, *map(str, (args.gguf, args.threads, most, context))]
        with servers.running(program, args.out / "llama.log", args.threads) as server:
            servers.wait(server, lambda health: health.get("status") == "ok")
            yield server.address, ["default"]
        return
    home = args.out / f"home-{side}"
    models = ["base"]
    if side in ("adapter", "mixed"):
        models = ["autodidact@1", "autodidact@2"][: 1 if side == "adapter" else 2]
    prepare_home(home)
    base = bases.resolve(str(args.gguf.resolve()), "", home, print)
    for version in range(1, len(models) + 1):
        if models != ["base"] and version not in checkpoints.versions(home):
            blocks = json.loads((base.path / "config.json").read_text("utf-8"))["num_hidden_layers"]
            upper = list(range(blocks // 2, blocks))
            made = shapes.Adapters(base.path, args.rank, 0.01, upper)
            shapes.publish(home, base, version, made.config, made.weights(version))
    runtime = "torch" if side == "torch" else "onnx"
    knobs = Knobs(args.threads, "auto", 64, 128, merged=False, runtime=runtime)
    newest = 0 if models == ["base"] else len(models)
    file = args.gguf.resolve()
    with servers.ours(args.out.resolve(), file, home.resolve(), knobs, newest) as server:
        yield server.address, models


@dataclass
class Answer:
    first_s: float = 0.0
    tokens: int = 0


async def load(
    args: argparse.Namespace, address: str, models: list[str], side: str, n: int, repeat: int
) -> Cell:
    """`n` clients that send `repeat` requests each, one after another."""
    answers: list[Answer] = []

    async def client(number: int) -> None:
        for turn in range(repeat):
            dice = random.Random(1000 * number + turn)
            answers.append(await ask(args, address, models[number % len(models)], side, dice))

    begun = time.monotonic()
    await asyncio.gather(*(client(number) for number in range(n)))
    took = time.monotonic() - begun
    return {
        "tokens_s": round(sum(a.tokens for a in answers) / took, 1),
        "first_p50": round(figures.percentile([a.first_s for a in answers], 0.5) or 0, 3),
        "first_p99": round(figures.percentile([a.first_s for a in answers], 0.99) or 0, 3),
        "requests": len(answers),
        "tokens": sum(a.tokens for a in answers),
    }


async def ask(
    args: argparse.Namespace, address: str, model: str, side: str, dice: random.Random
) -> Answer:
    """One request; different from all others after its first words."""
    words = [str(dice.randrange(1000)) for _ in range(args.words // 2)]
    text = f"Write a long story about {dice.choice(SUBJECTS)} and these numbers: {' '.join(words)}"
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": args.reply,
        "temperature": 0.7,
        "seed": dice.randrange(10**6),
    }
    if side == "llama.cpp":
        body["cache_prompt"] = False
    data = json.dumps(body).encode()
    host, port = address.removeprefix("http://").split(":")
    answer, begun = Answer(), time.monotonic()
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        told = ["POST /v1/chat/completions HTTP/1.1", f"Host: {host}:{port}",
                "Content-Type: application/json", f"Content-Length: {len(data)}",
                "Connection: close", "", ""]  # fmt: skip
        writer.write("\r\n".join(told).encode() + data)
        status, headers = await head(reader)
        rest = b""
        async for piece in chunks(reader, headers):
            if status != 200:
                raise RuntimeError(f"{side}: status {status}: {piece[:300]!r}")
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line.removeprefix(b"data: "))
                said = any(c["delta"].get("content") for c in event.get("choices") or [])
                if said and not answer.first_s:
                    answer.first_s = time.monotonic() - begun
                if event.get("usage"):
                    answer.tokens = int(event["usage"]["completion_tokens"])
    finally:
        writer.close()
    return answer


def table(cells: dict[str, Cell]) -> str:
    rows = ["| streams | side | tokens/s | × llama.cpp | first token p50 s | × llama.cpp |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    found: dict[tuple[int, str], list[Cell]] = {}
    for key, cell in cells.items():
        side, n, _ = key.split("/")
        found.setdefault((int(n), side), []).append(cell)
    for n, side in sorted(found, key=lambda key: (key[0], SIDES.index(key[1]))):
        columns = []
        for name, digits in (("tokens_s", 1), ("first_p50", 3)):
            here = figures.spread(cell[name] for cell in found[n, side])
            theirs = figures.spread(cell[name] for cell in found.get((n, "llama.cpp"), ()))
            ratio = f"{here['median'] / theirs['median']:.2f}" if theirs["median"] else ""
            columns.append(
                f"{here['median']:.{digits}f} ({here['low']:.{digits}f}–{here['high']:.{digits}f})"
            )
            columns.append(ratio)
        rows.append(f"| {n} | {side} | {' | '.join(columns)} |")
    return "\n".join(rows)


def quality(args: argparse.Namespace) -> dict[str, Any]:
    """What rounding costs on a text."""
    import numpy as np
    import torch

    from autodidact.engine import graph
    from autodidact.engine.cache import SlotCache
    from autodidact.engine.graph_passes import GraphPasses
    from autodidact.models import loading

    home = args.out / "home-graph"
    prepare_home(home)
    found = bases.resolve(str(args.gguf.resolve()), "", home, print)
    base = loading.load(found.path, args.threads)
    passes = GraphPasses(graph.build(base.model, base.context), args.threads)
    ids = base.tokenizer(args.quality.read_text("utf-8"), add_special_tokens=False).input_ids
    step = max(256, len(ids) // args.blocks)
    blocks = [ids[at : at + 256] for at in range(0, len(ids) - 256, step)][: args.blocks]
    rises, exact, alike, apart = [], [], [], []
    for block in blocks:
        with torch.inference_mode():
            theirs = base.model(torch.tensor([block]), use_cache=False).logits[0].log_softmax(-1)
        ours = passes.prompt(None, SlotCache(), block, 0, range(len(block))).log_softmax(-1)
        target = torch.tensor(block[1:])[:, None]
        nll = [-float(one[:-1].gather(-1, target).mean()) for one in (theirs, ours)]
        exact.append(nll[0])
        rises.append(nll[1] - nll[0])
        alike.append(float((theirs.argmax(-1) == ours.argmax(-1)).float().mean()))
        apart.append(float((theirs.exp() * (theirs - ours)).sum(-1).mean()))
    dice = np.random.default_rng(0)
    means = np.mean(np.array(rises)[dice.integers(len(rises), size=(2000, len(rises)))], axis=1)
    return {
        "blocks": len(blocks),
        "nll_float32": round(float(np.mean(exact)), 4),
        "rise": round(float(np.mean(rises)), 5),
        "rise_95": [round(float(q), 5) for q in np.quantile(means, (0.025, 0.975))],
        "divergence": round(float(np.mean(apart)), 5),
        "likeliest_the_same": round(float(np.mean(alike)), 4),
    }


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
