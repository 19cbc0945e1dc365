"""Starting a server, ours or the naive one, waiting until it answers, and watching what it takes.

Each runs as a user starts it, in a process of its own, with nothing of the settings of whoever runs
the benchmark: ours gets a settings file, written into the work folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from autodidact.settings import PROJECT

LOAD = PROJECT / "benchmarks" / "load"
READY_S = 300.0


@dataclass(frozen=True)
class Knobs:
    """What both servers get, and the limits of ours."""

    threads: int
    dtype: str
    max_concurrent: int
    prefill_tokens: int
    merged: bool
    prefix_cache_mb: int = 0
    """0: requests that come again are computed again, as the naive server does."""
    runtime: str = "auto"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    address: str

    def cpu_s(self) -> float:
        """CPU time of the server so far (Linux)."""
        fields = (
            Path(f"/proc/{self.process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def ours(folder: Path, model: Path, home: Path, knobs: Knobs, version: int) -> Iterator[Server]:
    """`server.py` on this home; ready once `version` answers. Its log is `folder`/ours.log."""
    settings = folder / "server.toml"
    settings.write_text(
        f"""
model = {json.dumps(str(model))}
home = {json.dumps(str(home))}
[sources]
files = []
control = ""
[sources.wikipedia]
enabled = false
[server]
threads = {knobs.threads}
dtype = "{knobs.dtype}"
max_concurrent = {knobs.max_concurrent}
max_queue = 512
queue_seconds = 600.0
prefill_tokens = {knobs.prefill_tokens}
prefix_cache_mb = {knobs.prefix_cache_mb}
runtime = "{knobs.runtime}"
""",
        "utf-8",
    )
    program = [str(PROJECT / "server.py"), "--config", str(settings)]
    with running(program, folder / "ours.log", knobs.threads) as server:
        wait(server, lambda health: health.get("version") == version)
        yield server


@contextlib.contextmanager
def naive(folder: Path, model: Path, adapter: Path, knobs: Knobs) -> Iterator[Server]:
    """The naive server. Its log is `folder`/naive.log."""
    program = [str(LOAD / "naive.py"), "--model", str(model), "--adapter", str(adapter)]
    program += ["--threads", str(knobs.threads), "--dtype", knobs.dtype]
    program += ["--merged"] if knobs.merged else []
    with running(program, folder / "naive.log", knobs.threads) as server:
        wait(server, lambda health: health.get("status") == "ok")
        yield server


@contextlib.contextmanager
def running(program: list[str], log: Path, threads: int) -> Iterator[Server]:
    """Python with this program, told a free port by `--port`."""
    port = free_port()
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [sys.executable, *program, "--port", str(port)],
            env=environment(threads),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Server(process, f"http://127.0.0.1:{port}")
    finally:
        stop(process)


def memory_mib(pid: int) -> dict[str, float]:
    """Resident and proportional set size of a process, in MiB (Linux)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
    rows = (row.split() for row in text.splitlines())
    return {row[0][:-1].lower(): int(row[1]) / 1024 for row in rows if row[0] in ("Rss:", "Pss:")}


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def environment(threads: int) -> dict[str, str]:
    """The caller's, without settings of Autodidact and without the network's models; 0 threads
    leave it to the program how many it takes."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith("AUTODIDACT_")}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    limit = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return kept | quiet | limit | {"PYTHONPATH": str(PROJECT)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def health_of(address: str) -> dict[str, Any]:
    """What /health says; {} while there is no answer or the answer is that it is not ready."""
    try:
        with urlopen(address + "/health", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (URLError, OSError, ValueError):
        return {}


def wait(server: Server, ready: Any) -> None:
    """Until what /health says is `ready`. Raises RuntimeError."""
    deadline = time.monotonic() + READY_S
    while not ready(health_of(server.address)):
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}; see its log")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the server was not ready within {READY_S:.0f} s; see its log")
        time.sleep(0.2)


class Helper:
    """A program of this folder (`clients`, `publisher`, `engines`) at work on a plan."""

    def __init__(self, name: str, folder: Path, plan: dict[str, Any], threads: int = 1) -> None:
        self._name = name
        self._result = folder / f"{name}-result.json"
        self._result.unlink(missing_ok=True)
        written = folder / f"{name}-plan.json"
        written.write_text(json.dumps(plan), "utf-8")
        program = [str(LOAD / f"{name}.py"), str(written), str(self._result)]
        self._log = folder / f"{name}.log"
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program],
                env=environment(threads),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def result(self) -> Any:
        """Wait for what it found. Raises RuntimeError, with the end of its log, if it broke."""
        if self.process.wait() != 0:
            lines = self._log.read_text("utf-8", "replace").strip().splitlines()
            raise RuntimeError(f"{self._name}.py broke: {lines[-1] if lines else 'no word'}")
        return json.loads(self._result.read_text("utf-8"))
