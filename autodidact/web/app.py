"""`build_app`: the whole web side around a generator. It knows no model and loads none.

The app opens `chat.db` in `home` (it is that file's only writer) and reads `learner.db`,
`passages.db` and the manifests there. Run it with uvicorn; open streams end as soon as SIGTERM or
SIGINT arrives. A server that stops in another way (a test's) calls
`app.state.site.shutdown.begin()`.

Overload is answered here, for every generator: a request for a reply beyond the places there are
gets a 503 (`web.limits`), one beyond its address's share a 429, both with `Retry-After` in whole
seconds (RFC 9110, §10.2.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Scope

from autodidact import __version__
from autodidact.chat.retrieval import Library
from autodidact.errors import AutodidactError, GeneratorError, ResourceError, StoreBusy
from autodidact.settings import PROJECT, RetrievalSettings, ServerSettings
from autodidact.store.chat import ChatStore
from autodidact.store.connection import explained
from autodidact.types.protocols import Generator
from autodidact.web import admin, chat, metrics
from autodidact.web.dashboard import routes as dashboard
from autodidact.web.events import Watcher
from autodidact.web.guard import SECURITY_HEADERS, Guard, KnownHosts, one_line
from autodidact.web.limits import Allowance, Places
from autodidact.web.metrics import Counting, Metrics
from autodidact.web.openai import routes as openai
from autodidact.web.page import citations, words
from autodidact.web.page import routes as page
from autodidact.web.proxies import TrustedProxies
from autodidact.web.site import Site, site_of
from autodidact.web.sse import EventStream, Shutdown
from autodidact.web.streaming import VERSION_HEADER

STATIC = PROJECT / "static"
WORKERS = 4
# A place is free a moment before its thread is.
SPARE_REPLIES = 4
LOADING_RETRY_S = 5
STOPPING_RETRY_S = 5
GENERATING = frozenset({"/chat", "/v1/chat/completions", "/v1/completions"})
"""Routes that make a reply, which `server.requests_per_minute` bounds."""

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
            Middleware(Counting, metrics=site.metrics),
            *_between(settings),
            Middleware(Guard, allowed_origins=settings.allowed_origins),
            Middleware(KnownHosts, allowed_hosts=settings.allowed_hosts),
        ],
    )
    app.state.site = site
    app.include_router(chat.router, dependencies=[Depends(within_allowance)])
    app.include_router(openai.router, dependencies=[Depends(within_allowance)])
    app.include_router(admin.router)
    app.include_router(page.router)
    app.include_router(dashboard.router)
    app.add_api_route("/events", events, methods=["GET"])
    app.add_api_route("/health", health, methods=["GET"])
    app.add_api_route("/ready", ready, methods=["GET"])
    app.add_api_route("/metrics", tell_metrics, methods=["GET"])
    app.mount("/static", _Static(directory=STATIC))
    app.add_exception_handler(AutodidactError, _told)
    app.add_exception_handler(sqlite3.Error, _stored)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return app


def _between(settings: ServerSettings) -> Iterator[Middleware]:
    """For what stands between a browser and this server, where the settings name it."""
    if settings.trusted_proxies:
        yield Middleware(TrustedProxies, trusted=settings.trusted_proxies)
    if settings.allowed_origins:
        yield Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("Retry-After", VERSION_HEADER),
        )


async def events(request: Request) -> Response:
    """Live events: what the learner does, which version answers (server-sent events)."""
    site = site_of(request)
    return EventStream(site.watcher.hub.frames(site.watcher.hello, site.shutdown))


async def within_allowance(request: Request) -> None:
    """Raises RateExceeded (429) when an address asks for replies too often. The address is that of
    the connection, or what a trusted proxy says."""
    if request.url.path in GENERATING:
        client = request.client
        site_of(request).allowance.spend(client.host if client else "")


async def ready(request: Request) -> JSONResponse:
    """Whether to send a request for a reply here now, for a load balancer.

    200 while a model answers and a place is free; 503 with `Retry-After` while the model loads or
    has failed to, while as many replies run and wait as may, and once the server shuts down.
    `/health` is about the model only: a full server is healthy.
    """
    site = site_of(request)
    model = site.generator.status()
    if site.shutdown.begun:
        status, wait_s = "stopping", STOPPING_RETRY_S
    elif model.state != "ready":
        status, wait_s = model.state, LOADING_RETRY_S
    elif site.places.full:
        status, wait_s = "full", site.places.retry_after_s
    else:
        status, wait_s = "ready", 0
    body = {
        "status": status,
        "version": model.live,
        "active": site.places.taken,
        "places": site.places.limit,
    }
    headers = {"Cache-Control": "no-store"}
    if wait_s:
        headers["Retry-After"] = str(wait_s)
    return JSONResponse(body, 503 if wait_s else 200, headers)


async def tell_metrics(request: Request) -> Response:
    """Counters, gauges and histograms for Prometheus, in its text format 0.0.4 (see `metrics`)."""
    site = site_of(request)
    body = await site.run(site.metrics.render)
    return Response(body, headers={"Cache-Control": "no-store"}, media_type=metrics.CONTENT_TYPE)


async def health(request: Request) -> JSONResponse:
    """Whether the model can answer: 200, or 503 while it loads or has failed to."""
    site = site_of(request)
    now = await site.watcher.snapshot()
    model = now.model
    body = {
        "status": "ok" if model.state == "ready" else model.state,
        "version": model.live,
        "base": model.name,
        "fallback": model.fallback,
        "origin": model.origin,
        "choice": model.choice,
        "runtime": model.runtime,
        "context": model.context,
        "learner": now.learner.state,
        "rejected": model.rejected,
        "reason": model.reason,
        "active": site.active,
        "uptime_s": round(time.monotonic() - site.started_at, 1),
    }
    headers = {"Cache-Control": "no-store"}
    if model.state == "loading":
        headers["Retry-After"] = str(LOADING_RETRY_S)
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
    watcher = Watcher(home, generator, workers, library.wanted)
    places = Places(settings.max_concurrent, settings.max_queue)
    return Site(
        settings=settings,
        home=home,
        generator=generator,
        store=ChatStore(home / "chat.db"),
        library=library,
        watcher=watcher,
        pages=pages_,
        workers=workers,
        replies=ThreadPoolExecutor(places.limit + SPARE_REPLIES, "reply"),
        places=places,
        allowance=Allowance(settings.requests_per_minute),
        metrics=Metrics(generator, watcher.look, places),
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


def _as_openai(request: Request) -> bool:
    """Whether the answer goes to a client of OpenAI's API, whose errors have another body."""
    return request.url.path.startswith(openai.PREFIX)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if _as_openai(request):
        return openai.error_response(error)
    return await http_exception_handler(request, error)


async def _told(request: Request, error: Exception) -> Response:
    if _as_openai(request):
        return openai.error_response(error)
    site = site_of(request)
    status = 500
    if isinstance(error, GeneratorError):
        site.places.advise(error)
        status = error.status
    elif isinstance(error, StoreBusy):
        status = 503
    elif isinstance(error, ResourceError):
        status = 507
    told = chat.failure(error)
    headers = {}
    if "retry_after_s" in told:
        headers["Retry-After"] = str(told["retry_after_s"])
    if told["kind"] == "busy":
        told["replies"] = site.active
    return JSONResponse({"detail": told.pop("message"), **told}, status, headers)


async def _stored(request: Request, error: Exception) -> Response:
    """What went wrong in a database while it was read; writing tells by itself."""
    assert isinstance(error, sqlite3.Error)
    told = explained(error, "a database of this server")
    return await (_told(request, told) if told else _failed(request, error))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if _as_openai(request):
        return openai.error_response(error)
    known = {*request.query_params, *request.path_params}
    return JSONResponse({"detail": one_line(list(error.errors()), known)}, 422)


async def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    if _as_openai(request):
        answer = openai.error_response(error)
        answer.headers.update(SECURITY_HEADERS)
        return answer
    return JSONResponse({"detail": "an error on the server"}, 500, SECURITY_HEADERS)
