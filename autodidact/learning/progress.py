"""What the learner is doing, for the terminal and for the page.

On a terminal a moving bar (rich); elsewhere a log line now and then. For the page the same state
goes to the ledger's status row at most twice a second, and every few seconds while nothing changes,
so that a reader can tell a working learner from a dead one.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from autodidact.reports.build import spoken
from autodidact.store.ledger import LearnerStore

log = logging.getLogger(__name__)
STATUS_EVERY_S = 0.5
LOG_EVERY_S = 15.0
HEARTBEAT_S = 4.0
STATES = {
    "fetching": "fetching",
    "loading": "preparing",
    "preparing": "preparing",
    "planning": "preparing",
    "training": "training",
    "measuring": "measuring",
    "publishing": "publishing",
}


def set_up_logging(name: str, *, plain: bool) -> Console | None:
    """Log lines to standard output: through rich on a terminal (the console is returned, bars
    share it), plain ones with a time elsewhere."""
    quiet = ("httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub", "apscheduler",
             "urllib3", "transformers", "trafilatura", "filelock")  # fmt: skip
    for noisy in quiet:
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if plain or not sys.stdout.isatty():
        handler: logging.Handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        console = None
    else:
        console = Console()
        handler = RichHandler(console=console, show_path=False, show_level=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    return console


RESTING = ("idle", "fetching")


class Reporter:
    """Takes the learner's events; any thread may call."""

    def __init__(self, store: LearnerStore, console: Console | None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {"state": "idle", "verdict": None}
        self._written = 0.0
        self._logged = 0.0
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if console is not None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )

    def __call__(self, event: dict[str, Any]) -> None:
        with self._lock:
            if event.get("phase") == "fetching" and self._state["state"] not in RESTING:
                return  # sources are asked beside a cycle too; the cycle is what to show
            if event.get("event") == "forgotten":  # the verdict shown may speak of it
                self._state["verdict"] = None
            self._apply(event)
            self._show(event)
            told = ("planned", "measured", "done", "forgotten")
            changed = "phase" in event or event.get("event") in told
            self._write(force=changed)

    def idle(self, **more: Any) -> None:
        """Nothing runs: `queued`, `next_at` and the like; `verdict` the last cycle's report."""
        with self._lock:
            for key in ("step", "of", "loss", "eta_s", "phase"):
                self._state.pop(key, None)
            self._state |= {"state": "idle", **more}
            self._stop_bar()
            self._write(force=True)

    def verdict(self, report: dict[str, Any]) -> None:
        with self._lock:
            self._state["verdict"] = spoken(report)
            self._write(force=True)

    def _beat(self) -> None:
        """Say that the learner lives, while nothing else is said."""
        while not self._ended.wait(HEARTBEAT_S):
            with self._lock:
                if time.monotonic() - self._written > HEARTBEAT_S:
                    self._write(force=True)

    def stopped(self) -> None:
        self._ended.set()
        with self._lock:
            self._state["state"] = "stopped"
            self._stop_bar()
            self._write(force=True)

    def _apply(self, event: dict[str, Any]) -> None:
        if "phase" in event:
            for key in ("step", "of", "loss", "eta_s"):
                self._state.pop(key, None)
            self._state["phase"] = event["phase"]
            self._state["state"] = STATES.get(event["phase"], event["phase"])
        for key in ("cycle", "step", "of", "loss", "eta_s"):
            if key in event:
                self._state[key] = event[key]
        if event.get("event") == "planned":
            self._state["documents"] = len(event["documents"])
        elif "documents" in event:
            self._state["documents"] = event["documents"]

    def _show(self, event: dict[str, Any]) -> None:
        phase, step, of = (self._state.get(key) for key in ("phase", "step", "of"))
        note = ""
        if self._state.get("loss") is not None:
            left = int(self._state.get("eta_s") or 0)
            note = f"loss {self._state['loss']:.2f}, {left // 60}:{left % 60:02d} left"
        if self._bar is not None:
            if "phase" in event:
                self._stop_bar()
                self._task = self._bar.add_task(f"{phase}", total=None, note="")
                self._bar.start()
            if self._task is not None and of:
                self._bar.update(self._task, completed=step or 0, total=of, note=note)
        elif of and time.monotonic() - self._logged > LOG_EVERY_S:
            self._logged = time.monotonic()
            log.info("%s %s/%s %s", phase, step, of, note)

    def _stop_bar(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None

    def _write(self, *, force: bool) -> None:
        now = time.monotonic()
        if force or now - self._written > STATUS_EVERY_S:
            self._written = now
            self._store.status.write(self._state)
