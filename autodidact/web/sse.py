"""Server-sent events: a response that always closes its source, and the server's going down.

A source is an async generator of ready frames, which FastAPI's `format_sse_event` writes. It is
closed when the reader leaves, when it ends and when the server goes down; it is for the source to
stop its own work then. Routes do not `yield` to FastAPI's own event streams: those send the status
before the route's first line, and a reply may still be refused then (503, with `Retry-After`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def encode(event: str, data: dict[str, Any], event_id: str = "") -> bytes:
    """A frame; the data is JSON on one line."""
    return format_sse_event(event=event, data_str=json.dumps(data), id=event_id or None)


class EventStream(EventSourceResponse):
    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        headers: dict[str, str] | None = None,
        closed: Callable[[], None] | None = None,
    ) -> None:
        """`closed` is called at the end even if the reader left before the first frame."""
        super().__init__(frames, headers={**HEADERS, **(headers or {})})
        self._frames = frames
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._frames.aclose()
            if self._closed is not None:
                self._closed()


class Shutdown:
    """Says that the server is going down, while uvicorn still waits for open streams to end.

    `begin` may be called from any thread or signal handler, once the loop runs.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self) -> None:
        self._loop = asyncio.get_running_loop()

    def begin(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    @property
    def begun(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()


class Wakeups:
    """Runs a callback when the server goes down; leave the block to be rid of it."""

    def __init__(self, shutdown: Shutdown, callback: Callable[[], None]) -> None:
        self._wait: Callable[[], Coroutine[Any, Any, None]] = shutdown.wait
        self._callback = callback
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        await self._wait()
        self._callback()

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
