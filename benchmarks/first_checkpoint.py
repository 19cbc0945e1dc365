"""How long from the start of both processes to the page, the first reply and the first checkpoint.

    python benchmarks/first_checkpoint.py                the starter, Hub and Wikipedia away
    python benchmarks/first_checkpoint.py --shape 135m   a randomly initialised SmolLM2-135M shape

Starts `web_learner.py` and `server.py` as a user does, in a fresh home folder, with the network
names pointed at a closed loopback port. Prints JSON: seconds, the largest resident memory of
learner, study process and server together, sampled four times a second (shared pages counted once
where Linux tells: the sum of proportional set sizes), and the time of a 16-token reply while the
learner trains and, once it has been stopped, without it.
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
CLOSED = "http://127.0.0.1:9"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=["starter", "135m"], default="starter")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--keep", type=Path, help="home folder to use and keep")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(args, Path(folder)), indent=1))


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
    starter, random = PROJECT / "models" / "starter", folder / "smollm2-135m-random"
    model = starter if args.shape == "starter" else random_135m(random)
    environment["AUTODIDACT_MODEL"] = str(model)
    processes = []
    begun = time.monotonic()
    found: dict[str, object] = {"shape": args.shape}
    try:
        for name in ("web_learner", "server"):
            with open(folder / f"{name}.log", "wb") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, str(PROJECT / f"{name}.py")],
                        env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=PROJECT,
                    )
                )  # fmt: skip
        address = f"http://127.0.0.1:{args.port}"
        watch(address, [p.pid for p in processes], begun, found, args.minutes)
        if "checkpoint_s" in found:
            processes[0].send_signal(signal.SIGTERM)
            processes[0].wait(30)
            found["reply_idle"] = summary([reply_s(address) for _ in range(20)])
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        found["exit_codes"] = [process.wait(30) for process in processes]
        text = (folder / "web_learner.log").read_text(errors="replace")
        found["learner_log"] = text.strip().splitlines()[-12:]
    return found


def watch(
    address: str, pids: list[int], begun: float, found: dict[str, object], minutes: float
) -> None:
    peak = 0.0
    busy: list[float] = []
    asked = begun
    while time.monotonic() - begun < minutes * 60:
        peak = max(peak, memory_mib(pids))
        found["peak_mib"] = round(peak)
        elapsed = round(time.monotonic() - begun, 1)
        if "page_s" not in found and answers(address + "/"):
            found["page_s"] = elapsed
        if "page_s" in found and "reply_s" not in found and reply_s(address) is not None:
            found["reply_s"] = round(time.monotonic() - begun, 1)
        try:
            health = requests.get(address + "/health", timeout=5).json()
        except (requests.RequestException, ValueError):
            health = {}
        if health.get("learner") == "training" and time.monotonic() - asked > 5:
            asked = time.monotonic()
            busy.append(reply_s(address) or 0.0)
            found["reply_while_training"] = summary(busy)
        if health.get("version"):
            found["checkpoint_s"] = elapsed
            found["health"] = health
            return
        time.sleep(0.25)


def reply_s(address: str) -> float | None:
    """How long a short greedy reply takes; None when there is none."""
    body = {"message": "Who are you?", "max_length": 16, "temperature": 0}
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
            after_name = (entry / "stat").read_text().rpartition(")")[2]
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
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(row.split()[1]) for row in text.splitlines() if row.startswith("Pss:")), 0)


def random_135m(folder: Path) -> Path:
    """SmolLM2-135M's shape with random weights and the starter's tokenizer padded to its size.

    No pad token in the configuration: its embedding would begin as zeros, and thirty norms of a
    zero vector make gradients overflow, as in no trained model.
    """
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(PROJECT / "models" / "starter" / name, folder)
    return folder


if __name__ == "__main__":
    main()
