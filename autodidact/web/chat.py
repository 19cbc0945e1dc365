"""`POST /chat`: a reply as JSON or as a stream of events.

A reply runs on one thread of its own, from `Reply.stream`'s first delta to its last; the event loop
only hands its deltas on. When the reader leaves, the thread closes the stream at the next delta.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import Field, field_validator
from starlette.responses import Response

from autodidact.chat.reply import Ask, Reply, begin
from autodidact.errors import AutodidactError, Busy, GeneratorError
from autodidact.types import Delta
from autodidact.web import citations, words
from autodidact.web.guard import Strict, read_body
from autodidact.web.knobs import TEMPERATURE, TOP_K, TOP_P
from autodidact.web.markdown import Block, Blocks
from autodidact.web.site import Site, site_of
from autodidact.web.sse import EventStream, Wakeups, encode

REPLY_GRACE_S = 3.0
"""How long a reply may still go on when the server is told to stop."""

log = logging.getLogger(__name__)
router = APIRouter()


class ChatRequest(Strict):
    message: str = Field(min_length=1)
    """What the reader says."""
    temperature: float = Field(TEMPERATURE.default, ge=TEMPERATURE.low, le=TEMPERATURE.high)
    """How freely the next word is chosen; 0 always takes the likeliest."""
    max_length: int | None = Field(None, ge=1)
    """Longest reply, in tokens; omitted: 512, or the room left in the context."""
    top_p: float = Field(TOP_P.default, gt=0, le=TOP_P.high)
    """Only the likeliest words that together make up this share."""
    top_k: int = Field(int(TOP_K.default), ge=TOP_K.low, le=TOP_K.high)
    """Only this many likeliest words; 0 sets no limit."""
    conversation_id: str | None = Field(None, min_length=1, max_length=64)
    """Goes on with a conversation; omitted: begins one."""
    stream: bool = False
    """Answer as server-sent events."""
    seed: int | None = Field(None, ge=0, lt=2**32)
    """Same seed, settings and checkpoint: same reply."""
    model: str | None = Field(None, min_length=1, max_length=200)
    """Which version answers; omitted: the newest."""
    again: bool = False
    """Asks the conversation's last question (which `message` must repeat) once more."""
    retrieval: Literal["on", "off"] | None = None
    """Whether passages are looked up; omitted: as the setting `retrieval.enabled` says, and
    where that is not set, only for models of at least 100 million parameters."""

    @field_validator("message")
    @classmethod
    def _says_something(cls, message: str) -> str:
        if not message.strip():
            raise ValueError("Input should not be empty")
        return message

    def ask(self) -> Ask:
        return Ask(**self.model_dump(exclude={"stream"}))


_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ChatRequest.model_json_schema()}},
    }
}


@router.post("/chat", openapi_extra=_BODY)
async def chat(request: Request) -> Response:
    """Answer a message, as JSON or, with `stream`, as events `start`, `text`, `block`, `done`."""
    site = site_of(request)
    asked = await read_body(request, ChatRequest)
    limit = site.settings.max_concurrent + site.settings.max_queue
    if site.active >= limit:
        raise Busy(f"the server is busy with {site.active} other replies", retry_after_s=4)
    site.active += 1
    try:
        reply = await site.run(lambda: begin(asked.ask(), site.store, site.generator, site.library))
        running = Running(reply, site)
    except BaseException:
        site.active -= 1
        raise
    headers = {"X-Model-Version": str(reply.prepared.version)}
    if asked.stream:
        return EventStream(_frames(running), headers, closed=running.stop)
    try:
        return JSONResponse(await _whole(running, request), headers=headers)
    except (AutodidactError, HTTPException):
        raise
    except Exception as error:
        told = failure(error)
        return JSONResponse({"detail": told.pop("message"), **told}, 500)


class Running:
    """A reply on a thread of its own. It takes one of the site's places until the thread ends."""

    def __init__(self, reply: Reply, site: Site) -> None:
        self.reply = reply
        self.start = _start(reply, site)
        self._site = site
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()
        self._stop = threading.Event()
        site.replies.submit(self._work)

    def stop(self) -> None:
        """Close the reply at its next delta, if it has not ended."""
        self._stop.set()

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """The reply's deltas; raises what ended it. May be read once."""
        going_down = _GoingDown("the server is shutting down", retry_after_s=5)

        def end_soon() -> None:
            self._loop.call_later(REPLY_GRACE_S, self._queue.put_nowait, going_down)

        try:
            async with Wakeups(self._site.shutdown, end_soon):
                while (item := await self._queue.get()) is not None:
                    if isinstance(item, Exception):
                        raise item
                    yield item
        finally:
            self.stop()

    def _work(self) -> None:
        end: Exception | None = None
        deltas = self.reply.stream()
        try:
            for delta in deltas:
                if self._stop.is_set():
                    break
                self._tell(self._queue.put_nowait, delta)
            deltas.close()
        except Exception as error:
            if not isinstance(error, GeneratorError):
                log.exception("reply %d failed", self.reply.begun.reply_id)
            end = error
        self._tell(self._queue.put_nowait, end)
        self._tell(self._free)

    def _free(self) -> None:
        self._site.active -= 1

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *args)


async def _whole(running: Running, request: Request) -> dict[str, Any]:
    """The finished reply as JSON; a reader who leaves stops it."""
    finishing = asyncio.create_task(_exhaust(running))
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({finishing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not finishing.done():
            raise HTTPException(499, "the reader left")
        finishing.result()
    finally:
        running.stop()
        leaving.cancel()
        finishing.cancel()
    reply = running.reply
    return {
        "reply": reply.text,
        "conversation_id": reply.begun.conversation_id,
        "message_id": reply.begun.reply_id,
        "version": reply.prepared.version,
        "memory": citations.memory(reply.passages),
        "citations": citations.citations(reply.passages),
        **_figures(reply),
        "seed": reply.prepared.params.seed,
    }


async def _exhaust(running: Running) -> None:
    async for _ in running.deltas():
        pass


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _frames(running: Running) -> AsyncGenerator[bytes, None]:
    """The chat stream. Markdown is parsed here, block by block, so that the page never has to."""
    reply, params = running.reply, running.reply.prepared.params
    yield encode("start", running.start)
    blocks, numbers, tokens = Blocks(), itertools.count(), 0
    try:
        async for delta in running.deltas():
            tokens += delta.tokens
            if delta.text:
                yield encode("text", {"t": delta.text, "n": tokens})
                yield _block(blocks.feed(delta.text), numbers)
        last, whole = blocks.end()
        yield _block(last, numbers)
        done: dict[str, Any] = {
            **_figures(reply),
            "stats": words.stats(reply.tok_s, reply.first_token_ms),
            "ended": words.ended(reply.finish, reply.text, params.max_new_tokens, reply.tokens),
        }
        yield encode("done", done if whole is None else {**done, "html": whole})
    except Exception as error:
        yield encode("error", failure(error))


def _start(reply: Reply, site: Site) -> dict[str, Any]:
    params = reply.prepared.params
    sources = site.pages.get_template("_sources.html").render(
        id=reply.begun.reply_id, passages=reply.passages
    )
    return {
        "message": reply.begun.reply_id,
        "question": reply.begun.question_id,
        "conversation": reply.begun.conversation_id,
        "version": reply.prepared.version,
        "name": words.name_of(reply.prepared.version),
        "memory": citations.memory(reply.passages),
        "citations": citations.citations(reply.passages),
        "badge": citations.badge(reply.passages),
        "sources": sources.strip(),
        "context": reply.context,
        "seed": params.seed,
        "sampling": {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "max_length": params.max_new_tokens,
        },
    }


def _block(block: Block | None, numbers: itertools.count[int]) -> bytes:
    if block is None:
        return b""
    return encode("block", {"i": next(numbers), "html": block.html, "open": block.open})


def _figures(reply: Reply) -> dict[str, Any]:
    return {
        "finish": reply.finish,
        "tokens": reply.tokens,
        "prompt_tokens": len(reply.prepared.prompt_ids),
        "tok_s": reply.tok_s,
        "first_token_ms": reply.first_token_ms,
        "context": reply.context,
    }


class _GoingDown(GeneratorError):
    status = 503


_KINDS = {
    "Busy": "busy",
    "NotReady": "loading",
    "ContextExceeded": "context",
    "UnknownModel": "model",
    "UnknownConversation": "conversation",
    "_GoingDown": "stopping",
}


def failure(error: Exception) -> dict[str, Any]:
    """What a reader is told about an error: its kind, one line, and when to try again."""
    kind = _KINDS.get(type(error).__name__, "failed")
    if isinstance(error, AutodidactError):
        message = str(error)
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        kind, message = "memory", "out of memory on the server"
    else:
        message = "an error on the server, which its log tells"
    told: dict[str, Any] = {"kind": kind, "message": message}
    if isinstance(error, GeneratorError) and error.retry_after_s is not None:
        told["retry_after_s"] = error.retry_after_s
    return told
