"""Replies on their way from the threads that make them to the event loop that sends them.

Each stream of deltas runs on a thread of `site.replies`, from its first delta to its last, and
takes one of the site's places until then. When the reader leaves, the thread closes its stream at
the next delta, or sooner where it can be cancelled; when the server goes down, a reply has
`REPLY_GRACE_S` to end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from fastapi import HTTPException, Request

from autodidact.errors import Busy, GeneratorError
from autodidact.types.chat import AcceptedRequest, Delta
from autodidact.web.site import Site
from autodidact.web.sse import Wakeups

REPLY_GRACE_S = 3.0
"""How long a reply may still go on when the server is told to stop."""
CLIENT_LEFT = 499
"""The status of an answer that no one reads any more (nginx's)."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class GoingDown(GeneratorError):
    status = 503


VERSION_HEADER = "X-Model-Version"


def version_header(prepared: AcceptedRequest) -> dict[str, str]:
    """`X-Model-Version`, where who answers has versions."""
    return {} if prepared.version is None else {VERSION_HEADER: str(prepared.version)}


def take_places(site: Site, count: int) -> None:
    """Take all or none. Raises Busy when there are not that many."""
    for taken in range(count):
        try:
            site.places.take()
        except Busy:
            free_places(site, taken)
            raise


def free_places(site: Site, count: int) -> None:
    for _ in range(count):
        site.places.free()


class Streams:
    """Streams of deltas that belong together, merged in the order in which deltas come.

    Needs a place of the site for each stream, taken already; gives it back when its thread ends.
    `cancels` are called, from the event loop, to stop the streams sooner than at their next deltas.
    Raises GoingDown, and begins none, when the server is going down.
    """

    def __init__(
        self,
        site: Site,
        sources: Sequence[Callable[[], Iterator[Delta]]],
        cancels: Sequence[Callable[[], None]] = (),
    ) -> None:
        if site.shutdown.begun:
            raise GoingDown("the server is shutting down", retry_after_s=5)
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Delta | Exception | None]] = asyncio.Queue()
        self._stop = threading.Event()
        self._cancels = cancels
        self._count = len(sources)
        for index, source in enumerate(sources):
            site.replies.submit(self._work, index, source)

    def stop(self) -> None:
        """Close each stream at its next delta at the latest, if it has not ended."""
        self._stop.set()
        for cancel in self._cancels:
            cancel()

    async def deltas(self) -> AsyncGenerator[tuple[int, Delta], None]:
        """(number of the stream, delta), until all have ended; raises what ended one of them.
        May be read once. Stops the streams when it is closed."""
        going_down = (0, GoingDown("the server is shutting down", retry_after_s=5))

        def end_soon() -> None:
            self._loop.call_later(REPLY_GRACE_S, self._queue.put_nowait, going_down)

        left = self._count
        try:
            async with Wakeups(self._site.shutdown, end_soon):
                while left:
                    index, item = await self._queue.get()
                    if isinstance(item, Exception):
                        raise item
                    if item is None:
                        left -= 1
                    else:
                        yield index, item
        finally:
            self.stop()

    def _work(self, index: int, source: Callable[[], Iterator[Delta]]) -> None:
        end: Exception | None = None
        first_at: float | None = None
        try:
            deltas = source()
            for delta in deltas:
                first_at = first_at or time.monotonic()
                if self._stop.is_set():
                    break
                self._tell(self._queue.put_nowait, (index, delta))
            close = getattr(deltas, "close", None)
            if close is not None:
                close()
        except Exception as error:
            if not isinstance(error, GeneratorError):
                log.exception("a reply failed")
            end = error
        finally:
            self._tell(self._ended, index, first_at and time.monotonic() - first_at, end)

    def _ended(self, index: int, reply_s: float | None, end: Exception | None) -> None:
        """A stream has ended, `reply_s` after its first delta, if it had one."""
        self._site.places.free(reply_s)  # first: who has read the end may count on it
        if reply_s is None and isinstance(end, GeneratorError):
            self._site.places.advise(end)
        self._queue.put_nowait((index, end))

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the reader leaves (HTTPException 499)."""
    doing = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise HTTPException(CLIENT_LEFT, "the reader left")
        return doing.result()
    finally:
        doing.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
