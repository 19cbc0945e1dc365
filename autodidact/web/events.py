"""What the page is told without asking: `GET /events`, fed by one background task.

The task looks at the generator's status and the learner's row a few times a second, and passes on
what changed. Every reader has a slot for each kind of event: the last value wins, so that a slow
reader gets the newest state and never a backlog. At most four writes a second; a ping every 15 s;
`bye` when the server goes down. The first event, `hello`, is a snapshot of everything.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from autodidact.errors import AutodidactError
from autodidact.reports.prose import spoken
from autodidact.store.ledger import LearnerStore
from autodidact.types.chat import ModelStatus
from autodidact.types.protocols import Generator
from autodidact.types.report import CycleReport, report_of
from autodidact.types.status import OFFLINE, LearnerStatus
from autodidact.web.page import first, words
from autodidact.web.sse import Shutdown, Wakeups, encode

POLL_S = 0.3
FRAME_S = 0.25
PING_S = 15.0
RETRY_MS = 1000
_OFFLINE = LearnerStatus(OFFLINE)
# A change of one of these is news of the learner; a change of anything else is its progress.
_NEWS = ("state", "cycle", "next_at", "queued", "documents")
_SHOWN = (*_NEWS, "phase", "step", "of", "loss", "eta_s", "left_s")

log = logging.getLogger(__name__)


def read_report(home: Path, version: int) -> CycleReport | None:
    """What the manifest of a version tells about its cycle; None without one that makes sense."""
    try:
        path = home / "versions" / f"{version:06d}" / "manifest.json"
        manifest = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return report_of(manifest)


class LearnerView:
    """The learner's own words from `learner.db`, or `offline` when it does not say any."""

    def __init__(self, path: Path) -> None:
        self._store = LearnerStore(path, readonly=True)

    def status(self, now: float) -> LearnerStatus:
        try:
            status = self._store.status.read()
        except (FileNotFoundError, sqlite3.Error, AutodidactError, ValueError):
            return _OFFLINE
        if status is None:
            return _OFFLINE
        return replace(_OFFLINE, verdict=status.verdict) if status.gone(now) else status

    def refused(self, status: LearnerStatus, live: int, now: float) -> dict[str, str] | None:
        """What there is to say of the last cycle if it was not published and none was since."""
        report = status.verdict
        if report is None or report.ok or live > report.cycle:
            return None
        documents = self._store.documents
        try:
            states = documents.states(report.cycle)
            # tries are counted of these, and those of fewer tries come first
            untried = documents.untried() if report.state in ("rejected", "failed") else 0
        except (FileNotFoundError, sqlite3.Error, AutodidactError):
            states, untried = {}, 0
        return words.refused(status, states, untried, now)

    def first_facts(self) -> first.FirstFacts | None:
        """What is studied or comes next; None where there is nothing."""
        try:
            return first.facts(self._store)
        except (FileNotFoundError, sqlite3.Error, AutodidactError):
            return None


@dataclass(frozen=True)
class Snapshot:
    """Everything that the page shows besides conversations."""

    model: ModelStatus
    learner: LearnerStatus
    said: dict[str, Any]
    """The learner's state in words: title, detail, line and share of the progress, and what it
    means if the last cycle was refused."""
    report: CycleReport | None
    lookup: bool = True
    """Whether passages are looked up where a request does not say."""

    @property
    def live(self) -> dict[str, Any]:
        return {"version": self.model.live, "since": self.model.since}

    @property
    def shown(self) -> dict[str, Any]:
        """What the page shows of the learner."""
        return {**{key: getattr(self.learner, key) for key in _SHOWN}, **self.said}

    @property
    def health(self) -> dict[str, Any]:
        model = self.model
        return {
            "state": model.state,
            "name": model.name,
            "context": model.context,
            "fallback": model.fallback,
            "reason": model.reason,
            "rejected": model.rejected,
            "live": model.live,
            "lookup": self.lookup,
            "chip": words.chip(model),
            "notes": words.notes(model),
        }


class Watcher:
    """Takes snapshots and publishes what changed between two of them."""

    def __init__(
        self,
        home: Path,
        generator: Generator,
        workers: Executor,
        lookup: Callable[[ModelStatus], bool] = lambda model: True,
    ) -> None:
        self.hub = Hub()
        self._lookup = lookup
        self._home = home
        self._generator = generator
        self._learner = LearnerView(home / "learner.db")
        self._workers = workers
        self._last: Snapshot | None = None
        self._looked = asyncio.Event()

    def look(self) -> Snapshot:
        """The state of things now. Blocks for a few milliseconds."""
        now = time.time()
        model = self._generator.status()
        status = self._learner.status(now)
        said = {
            **words.learner(status, now),
            "line": words.cycle_line(status),
            "share": round(words.share(status), 3),
            "refused": self._learner.refused(status, model.live or 0, now),
        }
        last = self._last
        if last is not None and last.model.live == model.live and last.report is not None:
            return Snapshot(model, status, said, last.report, self._lookup(model))
        report = read_report(self._home, model.live) if model.live else None
        return Snapshot(model, status, said, report, self._lookup(model))

    def first_facts(self, now: Snapshot) -> first.FirstFacts | None:
        """Some of what is studied, as long as nothing is learned. Blocks for a few milliseconds."""
        return None if now.model.live or now.model.live is None else self._learner.first_facts()

    async def snapshot(self) -> Snapshot:
        return await asyncio.get_running_loop().run_in_executor(self._workers, self.look)

    async def hello(self) -> bytes:
        """The event that every stream begins with: the state that the next changes start from."""
        await self._looked.wait()
        now = self._last
        assert now is not None
        data = {
            "boot": self.hub.boot,
            "live": {**now.live, **words.went_live(now.model.live or 0, 0, now.report)},
            "model": now.health,
            "learner": now.shown,
        }
        return format_sse_event(retry=RETRY_MS) + encode("hello", data)

    async def run(self) -> None:
        """Look and publish until cancelled. One failed look is logged and forgotten."""
        while True:
            try:
                now = await self.snapshot()
            except Exception:
                log.exception("could not look at the learner and the model")
            else:
                if self._last is not None:
                    for event, data in changes(self._last, now):
                        self.hub.publish(event, data)
                self._last = now
                self._looked.set()
            await asyncio.sleep(POLL_S)


def changes(last: Snapshot, now: Snapshot) -> list[tuple[str, dict[str, Any]]]:
    """The events that lead from one snapshot to the next."""
    events: list[tuple[str, dict[str, Any]]] = []
    if last.health != now.health:
        events.append(("health", now.health))
    swapped = now.model.live is not None and last.model.live != now.model.live
    if swapped and last.model.state == "ready":
        events.append(("version", _version(last, now)))
    if now.shown != last.shown:
        news = any(now.shown[key] != last.shown[key] for key in _NEWS)
        events.append(("learner", now.shown) if news else ("progress", now.shown))
    verdict = now.learner.verdict
    if verdict is not None and verdict != last.learner.verdict:
        events.append(("verdict", spoken(verdict)))
    return events


def _version(last: Snapshot, now: Snapshot) -> dict[str, Any]:
    live, previous = now.model.live or 0, last.model.live or 0
    return {
        **now.live,
        "live": live,
        "previous": previous,
        "why": "published" if live > previous else "rolled_back",
        "suggestions": words.suggestions(now.report),
        **words.went_live(live, previous, now.report),
    }


class Hub:
    """Fans events out to readers. Everything happens on the event loop."""

    def __init__(self) -> None:
        self.boot = secrets.token_hex(4)
        self._readers: set[_Listener] = set()
        self._ids = itertools.count(1)

    def publish(self, event: str, data: dict[str, Any]) -> None:
        frame = encode(event, data, f"{self.boot}-{next(self._ids)}")
        for reader in self._readers:
            reader.put(event, frame)

    async def frames(
        self, hello: Callable[[], Awaitable[bytes]], shutdown: Shutdown
    ) -> AsyncGenerator[bytes, None]:
        """One reader's stream: the snapshot, then changes until the reader or the server goes."""
        reader = _Listener()
        self._readers.add(reader)
        try:
            async with Wakeups(shutdown, reader.wake):
                yield await hello()
                while not shutdown.begun:
                    frame = await reader.next()
                    if frame:
                        yield frame
                        await asyncio.sleep(0 if shutdown.begun else FRAME_S)
                yield encode("bye", {"retry_ms": RETRY_MS})
        finally:
            self._readers.discard(reader)


class _Listener:
    def __init__(self) -> None:
        self._waiting: dict[str, bytes] = {}
        self._woken = asyncio.Event()

    def put(self, event: str, frame: bytes) -> None:
        self._waiting.pop(event, None)  # so that the newest also comes last
        self._waiting[event] = frame
        self._woken.set()

    def wake(self) -> None:
        self._woken.set()

    async def next(self) -> bytes:
        """What waits, joined; a ping after a while without anything; b"" when only woken."""
        try:
            await asyncio.wait_for(self._woken.wait(), PING_S)
        except TimeoutError:
            return KEEPALIVE_COMMENT
        self._woken.clear()
        frame = b"".join(self._waiting.values())
        self._waiting.clear()
        return frame
