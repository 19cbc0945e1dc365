"""Our server against the naive one, a lock around `model.generate`, in one run, alternating.

    python benchmarks/serving.py --out DIR                       a SmolLM2-135M shape
    python benchmarks/serving.py --out DIR --shape starter --quick           a smoke test
    python benchmarks/serving.py --out DIR --parts reload --reloads 1000     memory and reload time
    python benchmarks/serving.py --out DIR --parts learner,engines
    python benchmarks/serving.py --out DIR --parts turns             a conversation that goes on

Parts: `streams` (both servers at 1, 8, 32 and 64 streams; closed: clients come over the ramp, then
send request after request; open: N requests arrive over the ramp and all are awaited), `reload`
(checkpoints published while clients stream), `learner` (our server beside the learner, idle and
training), `turns` (the first token of a second turn, with what the first one has computed and
without) and `engines` (without HTTP: transformers' `generate`, one by one and in fixed batches,
its continuous batching, our batcher).

Both servers get the same requests, the same base with the same rank-64 adapter (published as a
checkpoint), the same number of threads and the same number format; "auto" is decided once, by the
rule of the server. Prompts have exactly 64 tokens and replies exactly 64: the base is a copy with a
stop token that cannot come (benchmarks/load/shapes.py). Everything is measured at the client, over
streaming HTTP, by a process of its own (benchmarks/load/clients.py); its share of a core is
reported. The first token counts from the request; waits that were cut count too. Rounds alternate;
tables show medians and the range.

DIR/serving.json has all cells as they come; a run that was cut off goes on there (with the same
flags; `--parts` may change). DIR/serving.md and DIR/serving.png are written anew after each cell.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from autodidact.home import write_atomic  # noqa: E402
from benchmarks.load import cells, report, shapes  # noqa: E402
from benchmarks.load.servers import Knobs  # noqa: E402

PARTS = ("streams", "reload", "learner", "engines", "turns")
ENGINES = ("generate", "generate8", "generate32", "continuous", "ours")
START_S = {"ours": 12.0, "naive": 12.0}
"""How long a server takes to start, roughly: for the time that is left."""
Todo = tuple[str, float, Callable[[cells.Ground], cells.Cell]]
"""The cell's key, a guess at its seconds, how to measure it."""


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "serving.json"
    state = resumed(path, flags(args))
    work = args.out / "work"
    work.mkdir(exist_ok=True)
    if "resolved_dtype" not in state["settings"]:
        state["settings"]["resolved_dtype"] = resolved(args, work)
    at = ground(args, work, state["settings"]["resolved_dtype"])
    todo = [cell for cell in plan(args) if cell[0] not in state["cells"]]
    clock = Clock(sum(guess for _, guess, _ in todo))
    for key, guess, measure in todo:
        begun = time.monotonic()
        state["cells"][key] = {**measure(at), "at": time.time()}
        write_atomic(path, json.dumps(state, indent=1).encode())
        report.write(args.out, state)
        left = clock.left(guess, time.monotonic() - begun)
        print(f"{key}: {report.line(state['cells'][key])} · {left / 60:.0f} min left", flush=True)
    report.write(args.out, state)
    print((args.out / "serving.md").read_text("utf-8"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default="streams,reload", help=f"of {','.join(PARTS)}")
    parser.add_argument("--shape", choices=["135m", "starter"], default="135m")
    parser.add_argument("--streams", default="1,8,32,64", help="numbers of clients")
    parser.add_argument("--forms", default="closed,open")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ramp", type=float, default=10.0, help="seconds over which clients come")
    parser.add_argument("--seconds", type=float, default=40.0, help="of the steady window")
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--reply", type=int, default=64, help="tokens")
    parser.add_argument("--sampling", choices=["sampled", "greedy"], default="sampled")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--max-concurrent", type=int, default=64, help="setting of our server")
    parser.add_argument("--prefill-tokens", type=int, default=128, help="setting of our server")
    parser.add_argument("--naive-merged", action="store_true", help="fold its adapter in")
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--reload-streams", default="8,32")
    parser.add_argument("--learner-streams", default="1,8")
    parser.add_argument("--engine-requests", default="1,8,32")
    parser.add_argument("--turn-tokens", default="1000", help="of a conversation's first turn")
    parser.add_argument("--conversations", type=int, default=5, help="of the part `turns`, a round")
    parser.add_argument("--with-learner", action="store_true", help="the part `learner` too")
    parser.add_argument("--engines", action="store_true", help="the part `engines` too")
    parser.add_argument("--quick", action="store_true", help="smoke test: tiny numbers of all")
    args = parser.parse_args()
    args.parts = [*args.parts.split(","), *["learner"] * args.with_learner]
    args.parts += ["engines"] * args.engines
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"--parts: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if args.quick:
        args.rounds, args.ramp, args.seconds, args.reloads = 1, 1.0, 3.0, min(args.reloads, 3)
        args.streams, args.reload_streams, args.learner_streams = "1,4", "4", "4"
        args.engine_requests, args.turn_tokens, args.conversations = "1,8", "200", 2
    return args


def flags(args: argparse.Namespace) -> dict[str, Any]:
    """What cells depend on: these must not change within one folder."""
    chosen = ("shape", "ramp", "seconds", "prompt", "reply", "sampling", "threads", "dtype",
              "max_concurrent", "prefill_tokens", "naive_merged", "quick")  # fmt: skip
    return {name: getattr(args, name) for name in chosen}


def resumed(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The state of an earlier run in this folder, or a new one. Exits if its flags were others."""
    if not path.exists():
        return {"settings": given, "machine": report.machine(), "cells": {}}
    state: dict[str, Any] = json.loads(path.read_text("utf-8"))
    for name, value in given.items():
        if state["settings"].get(name) != value:
            before = state["settings"].get(name)
            sys.exit(f"{path}: was measured with {name} {before}, not {value}; take another --out")
    return state


def resolved(args: argparse.Namespace, folder: Path) -> str:
    """The number format of both servers."""
    if args.dtype != "auto":
        return str(args.dtype)
    from autodidact.models import loading

    folder = shapes.make(args.shape, folder / f"model-{args.shape}")
    return str(loading.load(folder, args.threads, dtype="auto").model.dtype).removeprefix("torch.")


def ground(args: argparse.Namespace, folder: Path, dtype: str) -> cells.Ground:
    knobs = Knobs(args.threads, dtype, args.max_concurrent, args.prefill_tokens, args.naive_merged)
    greedy = args.sampling == "greedy"
    work = cells.Work(args.prompt, args.reply, args.ramp, args.seconds, greedy)
    return cells.ground(folder.resolve(), args.shape, knobs, work, 64)


def plan(args: argparse.Namespace) -> Iterator[Todo]:
    """All cells of the asked parts, rounds outermost, the two sides beside each other."""
    for number in range(args.rounds):
        if "streams" in args.parts:
            yield from _streams(args, number)
        if "learner" in args.parts:
            yield from _learner(args, number)
        if "turns" in args.parts:
            yield from _turns(args, number)
        if "engines" in args.parts:
            yield from _engines(args, number)
        if "reload" in args.parts and number == 0:
            for n in _numbers(args.reload_streams):
                key = f"reload/{args.reloads}/{n}"
                guess = START_S["ours"] + args.ramp + 3.0 * args.reloads
                yield key, guess, partial(cells.reloads, n=n, count=args.reloads)


def _streams(args: argparse.Namespace, number: int) -> Iterator[Todo]:
    for form in args.forms.split(","):
        for n in _numbers(args.streams):
            if form == "open" and n == 1:
                continue
            sides = ("naive", "ours") if number % 2 == 0 else ("ours", "naive")
            for side in sides:
                guess = START_S[side] + args.ramp + args.seconds
                key = f"streams/{form}/{n}/{side}/{number}"
                yield key, guess, partial(cells.streams, side=side, form=form, n=n)


def _learner(args: argparse.Namespace, number: int) -> Iterator[Todo]:
    for n in _numbers(args.learner_streams):
        for state in ("idle", "training"):
            guess = START_S["ours"] + 30 + args.ramp + args.seconds
            key = f"learner/{n}/{state}/{number}"
            yield key, guess, partial(cells.beside_the_learner, n=n, state=state)


def _turns(args: argparse.Namespace, number: int) -> Iterator[Todo]:
    for tokens in _numbers(args.turn_tokens):
        for side in ("anew", "kept") if number % 2 == 0 else ("kept", "anew"):
            key = f"turns/{tokens}/{side}/{number}"
            guess = START_S["ours"] + args.conversations * (10.0 + tokens / 100)
            measure = partial(cells.turns, side=side, tokens=tokens, count=args.conversations)
            yield key, guess, measure


def _engines(args: argparse.Namespace, number: int) -> Iterator[Todo]:
    for n in _numbers(args.engine_requests):
        for name in ENGINES:
            batch = int(name.removeprefix("generate") or 1) if name.startswith("generate") else 1
            if n < batch:
                continue  # the same as a smaller batch
            key = f"engines/{n}/{name}/{number}"
            yield key, 10.0 + n / 2, partial(cells.engine, name=name, n=n)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


class Clock:
    """Time left, from guesses and from how far off they have been."""

    def __init__(self, guessed: float) -> None:
        self._ahead, self._done, self._took = guessed, 0.0, 0.0

    def left(self, guess: float, took: float) -> float:
        self._ahead -= guess
        self._done += guess
        self._took += took
        return self._ahead * self._took / self._done


if __name__ == "__main__":
    main()
