"""Chat beside a study, server and learner each in a session of its own, as in two terminals.

`python benchmarks/beside.py --model MODEL --texts FOLDER`: tokens a second and seconds to the first
token of greedy replies by the base, idle and while a study runs that gives way or does not
(`schedule.gives_way`), in turn. The learner reads FOLDER; give it enough for a long cycle.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

PROJECT = Path(__file__).resolve().parents[1]
QUESTIONS = (
    "Hello, who are you?",
    "What is the capital of France?",
    "Tell me about rivers.",
    "How do birds fly?",
)
TOKENS = 40
SETTLED_S = 35.0
"""After so long a study is past loading and at work."""


def ask(url: str, question: str) -> tuple[float, float]:
    """Tokens a second after the first, and seconds to the first."""
    body = {
        "model": "base", "messages": [{"role": "user", "content": question}],
        "max_tokens": TOKENS, "temperature": 0, "stream": True,
    }  # fmt: skip
    begun, at = time.perf_counter(), []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=300) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            choices = json.loads(line[6:])["choices"]
            if choices and choices[0]["delta"].get("content"):
                at.append(time.perf_counter())
    return (len(at) - 1) / (at[-1] - at[0]), at[0] - begun


def measure(url: str, name: str) -> None:
    speeds, firsts = zip(*(ask(url, question) for question in QUESTIONS), strict=True)
    print(f"{name:<32} {told(speeds, 1)} tokens/s   first after {told(firsts, 2)} s", flush=True)


def told(values: tuple[float, ...], digits: int) -> str:
    """Median (range)."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def program(name: str, variables: dict[str, str], *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, name, *more], cwd=PROJECT, env={**os.environ, **variables},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def end(started: subprocess.Popen[bytes]) -> None:
    started.send_signal(signal.SIGTERM)
    started.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8135)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    url = f"http://127.0.0.1:{args.port}"
    with tempfile.TemporaryDirectory() as home:
        variables = {
            "AUTODIDACT_HOME": home,
            "AUTODIDACT_MODEL": args.model,
            "AUTODIDACT_SERVER__PORT": str(args.port),
            "AUTODIDACT_SOURCES__FILES": json.dumps([str(args.texts.resolve())]),
        }
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
            measure(url, "(warm-up)")
            for _ in range(args.rounds):
                measure(url, "idle")
                for way in ("true", "false"):
                    given = {**variables, "AUTODIDACT_SCHEDULE__GIVES_WAY": way}
                    learner = program("web_learner.py", given, "--plain")
                    try:
                        time.sleep(SETTLED_S)
                        measure(url, f"beside a study, gives_way={way}")
                    finally:
                        end(learner)
        finally:
            end(server)


if __name__ == "__main__":
    main()
