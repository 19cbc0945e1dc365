"""Chat beside a study, server and learner each in a session of its own, as in two terminals.

`python benchmarks/beside.py --model MODEL --texts FOLDER`: greedy replies by the base at each
rhythm, constant chatting and one question a minute: idle, and beside a study that

- `waits`: has the lowest priority and waits while a reply is made (`schedule.gives_way`);
- `yields`: has the lowest priority only (the home's sign of a reply cannot be had);
- `fights`: has neither.

Each cell has a home of its own, in which the study begins anew, and tells tokens a second, the
median and the 99th percentile of the seconds to the first token, and what the study did a minute
in each of its phases: anchors while preparing, questions while measuring, steps while training. The
first row of all is a study that nobody chats beside: what it does more is what the chat costs it.

The learner reads FOLDER; give it enough for a cycle as long as a cell. `--anchors` spares the study
the writing of them. A wait is bounded by the length of a cycle: `--cycle-minutes` of less than a
cell shows what comes after.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from autodidact import replying  # noqa: E402
from autodidact.errors import AutodidactError  # noqa: E402
from autodidact.store.ledger import LearnerStore  # noqa: E402
from autodidact.types.status import LearnerStatus  # noqa: E402
from benchmarks.load.figures import percentile  # noqa: E402

QUESTIONS = (
    "Hello, who are you?",
    "What is the capital of France?",
    "Tell me about rivers.",
    "How do birds fly?",
)
TOKENS = 40
RHYTHMS = {"constant": 0.0, "one a minute": 60.0}
"""Seconds from one question to the next, at least."""
WAYS = ("idle", "waits", "yields", "fights")


@dataclass(frozen=True)
class Reply:
    """Tokens a second after the first (None of a single one), and seconds to the first."""

    speed: float | None
    first_s: float


class Work:
    """What a study does, followed by its status: units a minute of each phase."""

    def __init__(self, read: Callable[[], LearnerStatus | None]) -> None:
        self._read = read
        self._last: LearnerStatus | None = None
        self.done: Counter[str] = Counter()

    def look(self) -> None:
        """Count what was done since the last look. Whatever begins anew begins at nothing."""
        now, last = self._read(), self._last
        if now is None:
            return
        step, before = now.step or 0, (last.step or 0) if last else 0
        if last is None or (last.cycle, last.phase) != (now.cycle, now.phase) or step < before:
            before = 0
        if last is not None and now.phase and step > before:
            self.done[now.phase] += step - before
        self._last = now

    def a_minute(self, seconds: float) -> str:
        told = [f"{count * 60 / seconds:.1f} {phase}" for phase, count in self.done.items()]
        return ", ".join(told) or "nothing"


def ask(url: str, question: str) -> Reply:
    body = {
        "model": "base", "messages": [{"role": "user", "content": question}],
        "max_tokens": TOKENS, "temperature": 0, "stream": True,
    }  # fmt: skip
    begun, at = time.perf_counter(), []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=600) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            choices = json.loads(line[6:])["choices"]
            if choices and choices[0]["delta"].get("content"):
                at.append(time.perf_counter())
    if not at:
        sys.exit(f"no token came as a reply to: {question}")
    speed = (len(at) - 1) / (at[-1] - at[0]) if len(at) > 1 else None
    return Reply(speed, at[0] - begun)


def chat(url: str, every_s: float, seconds: float) -> list[Reply]:
    """Ask for so long; the last reply is waited for."""
    replies: list[Reply] = []
    begun = time.monotonic()
    while (at := time.monotonic()) - begun < seconds:
        replies.append(ask(url, QUESTIONS[len(replies) % len(QUESTIONS)]))
        rest_s = min(at + every_s, begun + seconds) - time.monotonic()
        time.sleep(max(0.0, rest_s))
    return replies


def told(replies: list[Reply]) -> str:
    if not replies:
        return f"{'nobody chats':<58}"
    speeds = [reply.speed for reply in replies if reply.speed is not None]
    firsts = [reply.first_s for reply in replies]
    fast = f"{statistics.median(speeds):.1f} ({min(speeds):.1f}–{max(speeds):.1f})"
    first = f"{percentile(firsts, 0.5):.2f} p50 {percentile(firsts, 0.99):.2f} p99"
    return f"{fast:>18} tokens/s  first {first} s  n={len(replies):<5}"


def program(name: str, variables: dict[str, str], *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, name, *more], cwd=PROJECT, env={**os.environ, **variables},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def end(started: subprocess.Popen[bytes]) -> None:
    started.send_signal(signal.SIGTERM)
    started.wait()


@contextmanager
def serving(url: str, variables: dict[str, str]) -> Iterator[None]:
    server = program("server.py", variables)
    try:
        while True:
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if server.poll() is not None:
                sys.exit("the server ended before it was ready")
            time.sleep(1)
        yield
    finally:
        end(server)


@contextmanager
def studying(home: Path, variables: dict[str, str], seconds: float) -> Iterator[Work]:
    """A study at work for the block, once it is past loading, and what it does."""
    store = LearnerStore(home / "learner.db", readonly=True)

    def read() -> LearnerStatus | None:
        try:
            return store.status.read()
        except (FileNotFoundError, AutodidactError):
            return None

    learner = program("web_learner.py", variables, "--plain")
    over = threading.Event()
    try:
        deadline = time.monotonic() + seconds
        while (now := read()) is None or now.step is None:
            if learner.poll() is not None or time.monotonic() > deadline:
                sys.exit("no study was at work in time; see web_learner.py with the same settings")
            time.sleep(0.5)
        work = Work(read)
        work.look()
        work.done.clear()

        def follow() -> None:
            while not over.wait(0.5):
                work.look()

        following = threading.Thread(target=follow)
        following.start()
        try:
            yield work
        finally:
            over.set()
            following.join()
    finally:
        end(learner)
        store.close()


def cell(args: argparse.Namespace, way: str, rhythm: str | None) -> str:
    """One cell in a home of its own, as a line; without a rhythm nobody asks."""
    url, seconds = f"http://127.0.0.1:{args.port}", args.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if args.anchors:
            shutil.copy(args.anchors, home / "anchors.json")
        if way == "yields":
            (home / replying.FILE).mkdir()
        variables = {
            "AUTODIDACT_HOME": folder,
            "AUTODIDACT_MODEL": args.model,
            "AUTODIDACT_CYCLE_MINUTES": str(args.cycle_minutes),
            "AUTODIDACT_SERVER__PORT": str(args.port),
            "AUTODIDACT_SCHEDULE__GIVES_WAY": str(way != "fights").lower(),
            "AUTODIDACT_SOURCES__FILES": json.dumps([str(args.texts.resolve())]),
            "AUTODIDACT_SOURCES__WIKIPEDIA__ENABLED": "false",
        }
        with serving(url, variables):
            for question in QUESTIONS:  # caches, and the study's start without a reply beside it
                ask(url, question)
            if way == "idle":
                return told(chat(url, RHYTHMS[rhythm or "constant"], seconds))
            with studying(home, variables, args.start_minutes * 60) as work:
                begun = time.monotonic()
                replies: list[Reply] = []
                if rhythm is None:
                    time.sleep(seconds)
                else:
                    replies = chat(url, RHYTHMS[rhythm], seconds)
                lasted = time.monotonic() - begun
            return f"{told(replies)}  a minute: {work.a_minute(lasted)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--anchors", type=Path, help="an anchors.json of this base")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each cell")
    parser.add_argument("--cycle-minutes", type=float, default=20.0)
    parser.add_argument("--start-minutes", type=float, default=10.0, help="until a study works")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--rhythms", nargs="+", choices=RHYTHMS, default=list(RHYTHMS))
    parser.add_argument("--port", type=int, default=8135)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and both programs with it
    if any(way != "idle" for way in args.ways):
        print(f"{'alone':<8}{'':<14}{cell(args, 'waits', None)}", flush=True)
    for rhythm in args.rhythms:
        for way in args.ways:
            print(f"{way:<8}{rhythm:<14}{cell(args, way, rhythm)}", flush=True)


if __name__ == "__main__":
    main()
