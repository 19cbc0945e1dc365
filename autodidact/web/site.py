"""What the routes share: one `Site` for each app, kept on `app.state`.

`workers` does whatever touches the databases: a fixed set of threads, because each thread that
speaks SQL keeps a connection. `replies` has a thread for every reply that may run or wait; a
thread begins when a reply first needs one more, and most of them only wait for their turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from fastapi import Request
from jinja2 import Environment

from autodidact.chat.retrieval import Library
from autodidact.settings import ServerSettings
from autodidact.store.chat import ChatStore
from autodidact.types.protocols import Generator
from autodidact.web.events import Watcher
from autodidact.web.limits import Allowance, Places
from autodidact.web.metrics import Metrics
from autodidact.web.sse import Shutdown

T = TypeVar("T")


@dataclass
class Site:
    settings: ServerSettings
    home: Path
    generator: Generator
    store: ChatStore
    library: Library
    watcher: Watcher
    pages: Environment
    workers: ThreadPoolExecutor
    replies: ThreadPoolExecutor
    places: Places
    allowance: Allowance
    metrics: Metrics
    shutdown: Shutdown = field(default_factory=Shutdown)
    started_at: float = field(default_factory=time.monotonic)
    """By the clock that nobody sets."""

    @property
    def active(self) -> int:
        """Replies that run or wait now."""
        return self.places.taken

    async def run(self, function: Callable[[], T]) -> T:
        """Call something that blocks briefly, on a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, function)


def site_of(request: Request) -> Site:
    return cast(Site, request.app.state.site)
