"""How long from the start of both processes to the page, the first reply and the first checkpoint.

    python benchmarks/first_checkpoint.py --model auto --chat-every 10 --runs 5
    python benchmarks/first_checkpoint.py --model models/starter

Starts `web_learner.py` and `server.py` as a user does in two terminals, each in a session of its
own, in a fresh home folder, with the network names pointed at a closed loopback port; asks for a
reply of 40 tokens every so many seconds (by default every five, of 16 tokens). Prints a JSON object
a run: seconds to the page, the first reply and the first checkpoint, what the gate said of the
cycle, the largest memory of learner, study process and server together, sampled once a second
(shared pages counted once where Linux tells: the sum of proportional set sizes), and the seconds of
a reply while the learner trains and, once it has been stopped, without it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))
from autodidact.store.ledger import LearnerStore  # noqa: E402

CLOSED = "http://127.0.0.1:9"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="auto", help="as the setting; a path is taken whole")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--chat-every", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--tokens", type=int, default=40, help="of a reply")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--keep", type=Path, help="home folder to use and keep")
    args = parser.parse_args()
    for _ in range(args.runs):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run(args, Path(folder))), flush=True)


def run(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    home = args.keep or folder / "home"
    environment = {
        **os.environ,
        "HF_ENDPOINT": CLOSED,
        "HF_HOME": str(folder / "hub"),
        "AUTODIDACT_HOME": str(home),
        "AUTODIDACT_SERVER__PORT": str(args.port),
        "AUTODIDACT_SOURCES__WIKIPEDIA__ENDPOINT": CLOSED + "/w/api.php",
    }
    model = Path(args.model)
    environment["AUTODIDACT_MODEL"] = str(model.resolve()) if model.exists() else args.model
    processes = []
    begun = time.monotonic()
    found: dict[str, object] = {"model": args.model}
    try:
        for name in ("server", "web_learner"):
            with open(folder / f"{name}.log", "wb") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, str(PROJECT / f"{name}.py")],
                        env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=PROJECT,
                        start_new_session=True,
                    )
                )  # fmt: skip
        address = f"http://127.0.0.1:{args.port}"
        watch(address, [p.pid for p in processes], begun, found, args)
        if "checkpoint_s" in found:
            processes[1].send_signal(signal.SIGTERM)
            processes[1].wait(60)
            found["reply_idle"] = summary([reply_s(address, args.tokens) for _ in range(10)])
            found["idle_mib"] = round(memory_mib([processes[0].pid]))
        found["cycles"] = cycles(home)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        found["exit_codes"] = [process.wait(60) for process in processes]
        text = (folder / "web_learner.log").read_text("utf-8", "replace")
        found["learner_log"] = text.strip().splitlines()
    return found


def cycles(home: Path) -> list[dict[str, object]]:
    """What the gate saw in each cycle."""
    store = LearnerStore(home / "learner.db", readonly=True)
    reports = [row.report for row in reversed(store.cycles.latest()) if row.report]
    store.close()
    return [
        {
            "state": report.state,
            "seconds": report.seconds,
            "documents": len(report.documents),
            "steps": report.steps,
            "exposures": report.exposures,
            "of_the_way": report.step,
            "reasons": [reason.line for reason in report.reasons],
            "rules": [result.text for result in report.rules if result.rule in ("learned", "mind")],
            "figures": {
                name: f"{count.k}/{count.n}"
                for name in ("taught", "unseen", "control", "kept")
                if report.figures and (count := getattr(report.figures, name)).n
            },
            "general_pct": report.figures.general.pct if report.figures else None,
        }
        for report in reports
    ]


def watch(
    address: str, pids: list[int], begun: float, found: dict[str, object], args: argparse.Namespace
) -> None:
    peak = 0.0
    busy: list[float] = []
    asked = begun
    while time.monotonic() - begun < args.minutes * 60:
        held = memory_mib(pids)
        elapsed = round(time.monotonic() - begun, 1)
        if "page_s" not in found and answers(address + "/"):
            found["page_s"] = elapsed
        if "page_s" in found and "reply_s" not in found and reply_s(address, 1) is not None:
            found["reply_s"] = round(time.monotonic() - begun, 1)
        try:
            health = requests.get(address + "/health", timeout=5).json()
        except (requests.RequestException, ValueError):
            health = {}
        if health.get("learner") == "training" and time.monotonic() - asked > args.chat_every:
            asked = time.monotonic()
            busy.append(reply_s(address, args.tokens) or 0.0)
            found["reply_while_training"] = summary(busy)
        if held > peak:
            peak, found["peak_mib"], found["peak_in"] = held, round(held), health.get("learner")
        if health.get("version"):
            found["checkpoint_s"] = elapsed
            found["health"] = health
            return
        time.sleep(1.0 if "reply_s" in found else 0.25)


def reply_s(address: str, tokens: int) -> float | None:
    """How long a short greedy reply takes; None when there is none."""
    body = {"message": "Hello, who are you?", "max_length": tokens, "temperature": 0}
    begun = time.monotonic()
    try:
        ok = requests.post(address + "/chat", json=body, timeout=60).ok
    except requests.RequestException:
        return None
    return time.monotonic() - begun if ok else None


def summary(seconds: list[float | None]) -> dict[str, float]:
    times = sorted(s for s in seconds if s)
    if not times:
        return {"n": 0}
    median, largest = times[len(times) // 2], times[-1]
    return {"n": len(times), "median_s": round(median, 3), "max_s": round(largest, 3)}


def answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.RequestException:
        return False


def memory_mib(pids: list[int]) -> float:
    """Proportional set size of these processes and all their descendants, in MiB (Linux)."""
    return sum(_pss(pid) for pid in _family(pids)) / 1024


def _family(pids: list[int]) -> set[int]:
    family = set(pids)
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (entry / "stat").read_text("utf-8").rpartition(")")[2]
            parents[int(entry.name)] = int(after_name.split()[1])
        except (OSError, IndexError, ValueError):
            continue
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        grown = bool(more)
        family |= more
    return family


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
    except OSError:
        return 0
    return next((int(row.split()[1]) for row in text.splitlines() if row.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
