"""`build_app`: the whole web side around a generator. It knows no model and loads none.

The app opens `chat.db` in `home` (it is that file's only writer) and reads `learner.db`,
`passages.db` and the manifests there. Run it with uvicorn; open streams end as soon as SIGTERM or
SIGINT arrives. A server that stops in another way (a test's) calls
`app.state.site.shutdown.begin()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.types import Scope

from autodidact import __version__
from autodidact.chat.retrieval import Library
from autodidact.errors import AutodidactError, GeneratorError, ResourceError
from autodidact.settings import PROJECT, RetrievalSettings, ServerSettings
from autodidact.store.chat import ChatStore
from autodidact.types import Generator
from autodidact.web import chat, citations, learning, pages, words
from autodidact.web.events import Watcher
from autodidact.web.guard import SECURITY_HEADERS, Guard, one_line
from autodidact.web.site import Site, site_of
from autodidact.web.sse import EventStream, Shutdown

STATIC = PROJECT / "static"
WORKERS = 4
# Threads beyond those that replies can hold, so that one request too many is still told so.
SPARE_REPLIES = 4

log = logging.getLogger(__name__)


def build_app(
    settings: ServerSettings,
    home: Path,
    generator: Generator,
    retrieval: RetrievalSettings | None = None,
) -> FastAPI:
    """The app. Raises AutodidactError when `home/chat.db` cannot be opened."""
    site = _site(settings, home, generator, retrieval or RetrievalSettings())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        site.shutdown.bind()
        watching = asyncio.create_task(site.watcher.run())
        with _on_signals(site.shutdown):
            yield
        site.shutdown.begin()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await asyncio.to_thread(_close, site)

    app = FastAPI(
        title="Autodidact",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(Guard),
            Middleware(
                TrustedHostMiddleware,
                allowed_hosts=list(settings.allowed_hosts),
                www_redirect=False,
            ),
        ],
    )
    app.state.site = site
    app.include_router(chat.router)
    app.include_router(pages.router)
    app.include_router(learning.router)
    app.add_api_route("/events", events, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"])
    app.mount("/static", _Static(directory=STATIC))
    app.add_exception_handler(AutodidactError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return app


async def events(request: Request) -> Response:
    """Live events: what the learner does, which version answers (server-sent events)."""
    site = site_of(request)
    return EventStream(site.watcher.hub.frames(site.watcher.hello, site.shutdown))


async def health(request: Request) -> JSONResponse:
    """Whether a reply can be had now: 200, or 503 while the model loads or has failed to."""
    site = site_of(request)
    now = await site.watcher.snapshot()
    model = now.model
    body = {
        "status": "ok" if model.state == "ready" else model.state,
        "version": model.live,
        "base": model.name,
        "fallback": model.fallback,
        "context": model.context,
        "learner": now.learner["state"],
        "rejected": model.rejected,
        "reason": model.reason,
        "active": site.active,
        "uptime_s": round(time.time() - site.started_at, 1),
    }
    headers = {"Cache-Control": "no-store"}
    if model.state == "loading":
        headers["Retry-After"] = "5"
    return JSONResponse(body, 200 if model.state == "ready" else 503, headers)


class _Static(StaticFiles):
    """Files named with their hash (see `address`) are kept for good: the icons of a notice that the
    server is gone must not need the server. Others are kept, but asked about each time."""

    def file_response(
        self, full_path: Any, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        kept = "max-age=31536000, immutable" if scope["query_string"] else "no-cache"
        response.headers["Cache-Control"] = kept
        return response


@functools.cache
def address(name: str) -> str:
    """Where a static file is served, with its hash, so that a new one has a new address."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return f"/static/{name}?v={digest[:10]}"


def _site(
    settings: ServerSettings, home: Path, generator: Generator, retrieval: RetrievalSettings
) -> Site:
    workers = ThreadPoolExecutor(WORKERS, "web")
    pages_ = Environment(
        loader=FileSystemLoader(PROJECT / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    library = Library(home / "passages.db", retrieval)
    pages_.filters["number"] = words.number
    pages_.filters.update(link=citations.link, day=citations.day, summary=citations.summary)
    pages_.globals["static"] = address
    return Site(
        settings=settings,
        home=home,
        generator=generator,
        store=ChatStore(home / "chat.db"),
        library=library,
        watcher=Watcher(home, generator, workers, library.wanted),
        pages=pages_,
        workers=workers,
        replies=ThreadPoolExecutor(
            settings.max_concurrent + settings.max_queue + SPARE_REPLIES, "reply"
        ),
    )


def _close(site: Site) -> None:
    """Let replies store what they have, then close the database."""
    site.replies.shutdown(wait=True, cancel_futures=True)
    site.workers.shutdown(wait=True, cancel_futures=True)
    site.store.close()


@contextlib.contextmanager
def _on_signals(shutdown: Shutdown) -> Iterator[None]:
    """Hear SIGTERM and SIGINT before uvicorn: it runs `lifespan`'s end only once streams ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def heard(number: int, frame: FrameType | None) -> None:
        shutdown.begin()
        then = before[signal.Signals(number)]
        if callable(then):
            then(number, frame)

    for number in before:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number, then in before.items():
            signal.signal(number, then)


async def _told(request: Request, error: Exception) -> JSONResponse:
    told = chat.failure(error)
    status = 500
    if isinstance(error, GeneratorError):
        status = error.status
    elif isinstance(error, ResourceError):
        status = 507
    headers = {}
    if "retry_after_s" in told:
        headers["Retry-After"] = str(told["retry_after_s"])
    if told["kind"] == "busy":
        told["replies"] = site_of(request).active
    return JSONResponse({"detail": told.pop("message"), **told}, status, headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    known = {*request.query_params, *request.path_params}
    return JSONResponse({"detail": one_line(list(error.errors()), known)}, 422)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": "an error on the server"}, 500, SECURITY_HEADERS)
