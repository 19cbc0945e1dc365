"""The measurements of the serving benchmark, one function a kind; each gives a cell of the result.

A cell starts the servers it needs and stops them, so that any cell can be measured by itself and an
interrupted run goes on with the next one. `Ground` is what all cells stand on: the model, a home
with one published adapter, prompts.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import requests

from autodidact import checkpoints
from autodidact.home import prepare_home
from autodidact.models import bases
from autodidact.settings import PROJECT
from autodidact.store.ledger import LearnerStore
from benchmarks.load import figures, servers, shapes
from benchmarks.load.servers import Helper, Knobs, Server

RANK, SPREAD = 64, 0.02
ADAPTERS = 4
"""Different ones for the reloads; publishing more versions takes them in turn."""
SETTLE_S = 0.5
LEARNER_S = 600.0
KEPT_MB = 256
"""The default of `server.prefix_cache_mb`."""
FOLLOWING = "And why is that?"
Cell = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """How much is asked of the servers."""

    prompt: int
    reply: int
    ramp_s: float
    seconds: float
    greedy: bool

    def body(self) -> dict[str, Any]:
        return {
            "stream": True,
            "max_length": self.reply,
            "temperature": 0 if self.greedy else 0.7,
            "top_p": 0.9,
            "top_k": 50,
            "retrieval": "off",
        }


@dataclass(frozen=True)
class Ground:
    folder: Path
    model: Path
    prompts: list[str]
    adapter: Path
    """Folder with the configuration and the weights of all adapters, 0.safetensors and so on."""
    knobs: Knobs
    work: Work

    def home(self) -> Path:
        """A fresh home in which version 1 is published."""
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        prepare_home(home)
        base = bases.resolve(str(self.model), "", home, lambda line: None)
        config, weights = self.adapter / checkpoints.CONFIG, self.adapter / "0.safetensors"
        shapes.publish(home, base, 1, config.read_bytes(), weights.read_bytes())
        return home

    @contextlib.contextmanager
    def server(self, side: str) -> Iterator[tuple[Server, Path]]:
        """One of the two servers, serving the base and version 1, with its home."""
        home = self.home()
        if side == "ours":
            with servers.ours(self.folder, self.model, home, self.knobs, 1) as server:
                yield server, home
        else:
            adapter = checkpoints.folder(home, 1)
            with servers.naive(self.folder, self.model, adapter, self.knobs) as server:
                yield server, home

    def load(self, server: Server, form: str, n: int, **changes: Any) -> Helper:
        """A load of `n` clients; `changes` to its plan."""
        ramp = self.work.ramp_s if n > 1 else 0.0
        plan = {
            "address": server.address,
            "form": form,
            "starts": figures.starts(n, ramp),
            "seconds": ramp + self.work.seconds if form == "closed" else 3600.0,
            "prompts": self.prompts,
            "body": self.work.body(),
        }
        return Helper("clients", self.folder, {**plan, **changes})

    def warm(self, server: Server) -> None:
        """Two replies at once that are not counted."""
        self.load(server, "open", 2, starts=[0.0, 0.0]).result()


def ground(folder: Path, shape: str, knobs: Knobs, work: Work, prompts: int) -> Ground:
    """Make (or find, from an earlier run) the model, the prompts and the adapters in `folder`."""
    model = shapes.make(shape, folder / f"model-{shape}")
    adapter = folder / f"adapters-{shape}"
    if not (adapter / checkpoints.CONFIG).exists():
        adapter.mkdir(exist_ok=True)
        made = shapes.Adapters(model, RANK, SPREAD)
        for seed in range(ADAPTERS):
            (adapter / f"{seed}.safetensors").write_bytes(made.weights(seed))
        (adapter / checkpoints.CONFIG).write_bytes(made.config)
    texts = shapes.prompts(model, work.prompt, prompts)
    return Ground(folder, model, texts, adapter, knobs, work)


def streams(at: Ground, side: str, form: str, n: int) -> Cell:
    """One server under N clients, closed or open."""
    with at.server(side) as (server, _):
        at.warm(server)
        return _loaded(at, server, form, n)


def _loaded(at: Ground, server: Server, form: str, n: int) -> Cell:
    cpu, begun = server.cpu_s(), time.monotonic()
    result = at.load(server, form, n).result()
    share = (server.cpu_s() - cpu) / (time.monotonic() - begun)
    ramp = at.work.ramp_s if n > 1 else 0.0
    found = figures.figures(result, form, ramp, at.work.reply)
    return {**found, "server_cpu": share, **servers.memory_mib(server.process.pid)}


def reloads(at: Ground, n: int, count: int) -> Cell:
    """`count` checkpoints published one after another while N clients stream."""
    with at.server("ours") as (server, home):
        at.warm(server)
        load = at.load(server, "closed", n, seconds=None)
        time.sleep(at.work.ramp_s + 2)
        before = servers.memory_mib(server.process.pid)
        plan = {
            "model": str(at.model),
            "home": str(home),
            "address": server.address,
            "pid": server.process.pid,
            "first": 2,
            "count": count,
            "config": str(at.adapter / checkpoints.CONFIG),
            "weights": [str(at.adapter / f"{i}.safetensors") for i in range(ADAPTERS)],
            "keep": 3,
            "settle_s": SETTLE_S,
            "quiet": 100,
        }
        try:
            rows = Helper("publisher", at.folder, plan).result()
        finally:
            load.process.send_signal(signal.SIGTERM)
        return summary_of_reloads(load.result(), rows, before, at.work.reply)


def summary_of_reloads(
    result: figures.Result, rows: list[dict[str, Any]], before: dict[str, float], reply: int
) -> Cell:
    """What the reloads took and what running streams felt of them.

    A version is live when /health or the header of a reply first says so. `stall` is the longest
    gap between two tokens of any stream while a checkpoint was published and loaded, in token
    intervals (medians of all gaps); `quiet` is the same of equally long windows in between.
    """
    seen: dict[int, float] = {}
    for answer in result["replies"]:
        if answer["version"] is not None and answer["times"]:
            at = answer["times"][0]
            seen[answer["version"]] = min(at, seen.get(answer["version"], at))
    live = {
        row["version"]: min(row["live"], seen.get(row["version"], row["live"]))
        for row in rows
        if row["live"] is not None
    }
    between = figures.intervals(result)
    usual = median(later - earlier for earlier, later in between) if between else None
    reloading = [
        (row["publishing"], row["live"] + SETTLE_S) for row in rows if row["live"] is not None
    ]
    found: Cell = {"reloads": len(rows), "live": len(live), "gap_p50": usual}
    windows = {"stall": reloading, "quiet": [row["quiet"] for row in rows if row["quiet"]]}
    for name, spans in windows.items():
        longest = figures.stalls(between, spans)
        found[name] = {
            "n": len(longest),
            "p50_s": figures.percentile(longest, 0.5),
            "p99_s": figures.percentile(longest, 0.99),
            "p50": figures.percentile([gap / usual for gap in longest] if usual else [], 0.5),
            "p99": figures.percentile([gap / usual for gap in longest] if usual else [], 0.99),
        }
    took = [live[row["version"]] - row["published"] for row in rows if row["version"] in live]
    half = len(took) // 2
    memory = {
        f"{kind}_{name}": value
        for kind in ("rss", "pss")
        for name, value in {
            "before": before[kind],
            "after": rows[-1][kind],
            "growth_each": figures.slope([row[kind] for row in rows[len(rows) // 2 :]]),
        }.items()
    }
    failed = figures.faults(result, reply)
    return {
        **found,
        **memory,
        "reload_p50": figures.percentile(took, 0.5),
        "reload_p99": figures.percentile(took, 0.99),
        "reload_first_half": figures.percentile(took[:half], 0.5),
        "reload_second_half": figures.percentile(took[half:], 0.5),
        "replies": sum(1 for answer in result["replies"] if answer["ended"] is not None),
        "failed": len(failed),
        "faults": sorted(set(failed))[:5],
    }


def turns(at: Ground, side: str, tokens: int, count: int) -> Cell:
    """`count` conversations of two turns, one after the other: a question and a reply of so many
    tokens together, then a short question. With what earlier requests have computed ("kept"), or
    without ("anew"). Replies are random tokens here: as text they are made of others, so the reply
    itself is never taken over; those of a trained model mostly are.
    """
    knobs = replace(at.knobs, prefix_cache_mb=KEPT_MB if side == "kept" else 0)
    questions = shapes.prompts(at.model, tokens - at.work.reply, count, seed=1)
    first, second = [], []
    with replace(at, knobs=knobs).server("ours") as (server, _):
        at.warm(server)
        for number, question in enumerate(questions):
            said: list[dict[str, str]] = [{"role": "user", "content": question}]
            waited, reply = _first_token(at, server, said, number)
            first.append(waited)
            said += [
                {"role": "assistant", "content": reply},
                {"role": "user", "content": FOLLOWING},
            ]
            second.append(_first_token(at, server, said, number)[0])
        memory = servers.memory_mib(server.process.pid)
    return {
        "tokens": tokens,
        "conversations": count,
        "first_turn": figures.percentile(first, 0.5),
        "second_turn": figures.percentile(second, 0.5),
        "second_turn_most": max(second),
        **memory,
    }


def _first_token(
    at: Ground, server: Server, messages: list[dict[str, str]], seed: int
) -> tuple[float, str]:
    """Seconds from the request to the first text of a streamed reply, and the whole of it."""
    body = {
        "model": "autodidact",
        "messages": messages,
        "stream": True,
        "max_tokens": at.work.reply,
        "seed": seed,
    }
    begun, waited, text = time.monotonic(), 0.0, ""
    address = f"{server.address}/v1/chat/completions"
    with requests.post(address, json=body, stream=True, timeout=600) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith(b"data: {"):
                continue
            for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                piece = choice["delta"].get("content") or ""
                if piece and not text:
                    waited = time.monotonic() - begun
                text += piece
    if not text:
        raise RuntimeError("a reply without text")
    return waited, text


def beside_the_learner(at: Ground, n: int, state: str) -> Cell:
    """Our server under N clients while a learner is "idle" or "training" on the same cores.

    The learner is the real program on the starter model, in a home of its own: the library that
    comes with the project, or nothing to read. The load begins once it trains.
    """
    folder = at.folder / "learner"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    sources = json.dumps([str(PROJECT / "library")] if state == "training" else [])
    minutes = max(2.0, 6 * (at.work.ramp_s + at.work.seconds) / 60)
    (folder / "learner.toml").write_text(
        f"""
model = {json.dumps(str(shapes.STARTER))}
home = "home"
cycle_minutes = {minutes}
[sources]
files = {sources}
control = {json.dumps(str(PROJECT / "library" / "control"))}
[sources.wikipedia]
enabled = false
""",
        "utf-8",
    )
    program = [str(PROJECT / "web_learner.py"), "--config", str(folder / "learner.toml"), "--plain"]
    program += ["--once"] if state == "training" else []
    with at.server("ours") as (server, _):
        at.warm(server)
        with open(folder / "learner.log", "wb") as log:
            learner = subprocess.Popen(
                [sys.executable, *program],
                env=servers.environment(0),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _await_learner(folder / "home", learner, state)
            found = _loaded(at, server, "closed", n)
            return {**found, "learner_after": _learner(folder / "home")}
        finally:
            servers.stop(learner)


def _await_learner(home: Path, learner: subprocess.Popen[bytes], state: str) -> None:
    deadline = time.monotonic() + LEARNER_S
    while _learner(home) != state:
        if learner.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the learner did not come to be {state}; see its log")
        time.sleep(0.5)


def _learner(home: Path) -> str:
    """What the learner of this home says that it does."""
    if not (home / "learner.db").exists():
        return "starting"
    store = LearnerStore(home / "learner.db", readonly=True)
    try:
        told = store.status.read()
    except sqlite3.Error:  # it is making the file just now
        told = None
    finally:
        store.close()
    return told.state if told is not None else "starting"


def engine(at: Ground, name: str, n: int) -> Cell:
    """One engine in a process of its own, without HTTP."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(at.model)
    plan = {
        "engine": name,
        "requests": n,
        "prompts": [shapes.prompt_ids(tokenizer, text) for text in at.prompts[:n]],
        "reply": at.work.reply,
        "model": str(at.model),
        "adapter": str(checkpoints.folder(at.home(), 1)),
        "threads": at.knobs.threads,
        "dtype": at.knobs.dtype,
        "merged": at.knobs.merged,
        "greedy": at.work.greedy,
        "max_concurrent": max(at.knobs.max_concurrent, n),
        "prefill_tokens": at.knobs.prefill_tokens,
    }
    found: Cell = Helper("engines", at.folder, plan, at.knobs.threads).result()
    return found
