"""What the learner is doing, for the terminal and for the page.

On a terminal a moving bar (rich); elsewhere a log line now and then. For the page the same state
goes to the ledger's status row at most twice a second, and every few seconds while nothing is said,
so that a reader can tell a working learner from a dead one. The times left count down meanwhile,
also during one long pass of a slow machine.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import time
from dataclasses import replace
from typing import Any, Protocol

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from autodidact.errors import ResourceError, StoreBusy
from autodidact.store.ledger import LearnerStore
from autodidact.types.events import (
    DoneEvent,
    Event,
    ForgottenEvent,
    MeasurementEvent,
    Phase,
    PhaseEvent,
    PlanEvent,
    ProgressEvent,
    StepEvent,
    WaitEvent,
)
from autodidact.types.report import CycleReport
from autodidact.types.status import WAITS, LearnerStatus, State

log = logging.getLogger(__name__)
STATUS_EVERY_S = 0.5
LOG_EVERY_S = 15.0
LOG_WAITS_EVERY_S = 300.0
HEARTBEAT_S = 4.0
COUNTDOWN_S = 2.0
"""How often the times left are told while nothing else is."""
BEAT_S = 0.5
STATES: dict[Phase, State] = {
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
NEWS = (PhaseEvent, PlanEvent, MeasurementEvent, DoneEvent, ForgottenEvent, WaitEvent)
"""What is told at once; the rest twice a second."""
NO_PROGRESS: dict[str, Any] = {
    "step": None, "of": None, "loss": None, "eta_s": None, "waits": False,
}  # fmt: skip
NO_TIME: dict[str, Any] = {"left_s": None, "cycle_s": None}


class Hear(Protocol):
    """Whoever is told what happens; `cycle` is the one it happens in."""

    def __call__(self, event: Event, cycle: int | None = None) -> None: ...


class Reporter:
    """Takes the learner's events; any thread may call."""

    def __init__(self, store: LearnerStore, console: Console | None) -> None:
        self._store = store
        self._lock = threading.Lock()
        said = store.status.read()
        self._state = LearnerStatus(verdict=said.verdict if said else None)
        self._phase_ends: float | None = None
        self._cycle_ends: float | None = None
        self._written = 0.0
        self._silent = False
        self._logged = 0.0
        self._wait_logged = -LOG_WAITS_EVERY_S
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if console is not None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[done]}"),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )

    def __call__(self, event: Event, cycle: int | None = None) -> None:
        with self._lock:
            fetching = isinstance(event, PhaseEvent) and event.phase == "fetching"
            if fetching and self._state.state not in RESTING:
                return  # sources are asked beside a cycle too; the cycle is what to show
            self._apply(event, cycle)
            if isinstance(event, PhaseEvent):
                self._begin_bar(event.phase)
            self._show()
            self._write(force=isinstance(event, NEWS))

    def idle(self, queued: int | None = None, next_at: float | None = None) -> None:
        """Nothing runs: so many documents wait, and then it goes on."""
        with self._lock:
            self._end_cycle()
            self._state = replace(
                self._state, state="idle", queued=queued, next_at=next_at, phase=None, **NO_PROGRESS
            )
            self._stop_bar()
            self._write(force=True)

    def verdict(self, report: CycleReport) -> None:
        """A cycle is closed, with this report."""
        with self._lock:
            self._end_cycle()
            self._state = replace(self._state, verdict=replace(report, probes=()))
            self._write(force=True)

    def _beat(self) -> None:
        """Say that the learner lives, while nothing else is said."""
        while not self._ended.wait(BEAT_S):
            with self._lock:
                every_s = COUNTDOWN_S if self._cycle_ends is not None else HEARTBEAT_S - BEAT_S
                if time.monotonic() - self._written > every_s:
                    self._show()
                    self._write(force=True)

    def stopped(self) -> None:
        self._ended.set()
        with self._lock:
            self._state = replace(self._state, state="stopped")
            self._stop_bar()
            self._write(force=True)

    def _apply(self, event: Event, cycle: int | None) -> None:
        state = self._state if cycle is None else replace(self._state, cycle=cycle)
        match event:
            case PhaseEvent(phase):
                state = replace(state, phase=phase, state=STATES[phase], **NO_PROGRESS)
                self._phase_ends = None
            case StepEvent():
                state = replace(state, step=event.step, of=event.of, loss=event.loss)
            case WaitEvent(waits):
                state = replace(state, waits=waits)
            case ProgressEvent():
                state = replace(state, step=event.step, of=event.of)
            case PlanEvent():
                state = replace(state, documents=len(event.documents))
            case ForgottenEvent():  # the verdict shown may speak of it
                state = replace(state, verdict=None)
        if isinstance(event, (PhaseEvent, ProgressEvent, StepEvent)):
            now = time.monotonic()
            if event.eta_s is not None:
                self._phase_ends = now + event.eta_s
            if event.left_s is not None:
                self._cycle_ends = now + event.left_s
                if state.cycle_s is None:
                    state = replace(state, cycle_s=round(max(0.0, event.left_s), 1))
        self._state = state

    def _timed(self) -> LearnerStatus:
        """The state, with the times left as they are now. A phase that takes longer than expected
        has none; a cycle has at least what its phase has."""
        now = time.monotonic()
        eta_s = left_s = None
        if self._phase_ends is not None and self._phase_ends > now:
            eta_s = round(self._phase_ends - now, 1)
        if self._cycle_ends is not None:
            left_s = round(max(self._cycle_ends - now, eta_s or self._cycle_ends - now), 1)
        return replace(self._state, eta_s=eta_s, left_s=left_s)

    def _end_cycle(self) -> None:
        self._phase_ends = self._cycle_ends = None
        self._state = replace(self._state, **NO_TIME)

    def _show(self) -> None:
        """The bar, or now and then a line."""
        state = self._timed()
        parts = [f"loss {state.loss:.2f}"] if state.loss is not None else []
        parts += [f"{_clock(state.eta_s)} left"] if state.eta_s is not None else []
        if state.left_s is not None:
            left = "" if state.eta_s is not None else " left"
            parts.append(f"{_clock(state.left_s)} of the cycle{left}")
        note = WAITS if state.waits else ", ".join(parts)
        done = f"{state.step}/{state.of}" if state.of else ""
        if self._bar is not None:
            if self._task is not None:
                self._bar.update(
                    self._task, completed=state.step or 0, total=state.of, done=done, note=note
                )
        elif state.waits:
            if time.monotonic() - self._wait_logged > LOG_WAITS_EVERY_S:
                self._wait_logged = time.monotonic()
                log.info("%s %s", state.phase, WAITS)
        elif (done or note) and time.monotonic() - self._logged > LOG_EVERY_S:
            self._logged = time.monotonic()
            log.info("%s", " ".join(part for part in (state.phase, done, note) if part))

    def _begin_bar(self, phase: Phase) -> None:
        if self._bar is not None:
            self._stop_bar()
            self._task = self._bar.add_task(phase, total=None, done="", note="")
            self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None

    def _write(self, *, force: bool) -> None:
        now = time.monotonic()
        if force or now - self._written > STATUS_EVERY_S:
            self._written = now
            try:
                self._store.status.write(self._timed())
            except (ResourceError, StoreBusy, sqlite3.Error) as error:
                # Nobody's work ends because it cannot be told: there will be room again.
                if not self._silent:
                    log.warning("the status cannot be written: %s", error)
                self._silent = True
            else:
                self._silent = False


def _clock(seconds: float) -> str:
    """1:58, −0:40."""
    whole = round(abs(seconds))
    return f"{'−' if seconds < 0 and whole else ''}{whole // 60}:{whole % 60:02d}"
