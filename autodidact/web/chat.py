"""`POST /chat`: a reply as JSON or as a stream of events.

A request takes one of the bounded places for replies or is refused (`Busy`, 503). Its reply then
runs on a thread of its own (`streaming.py`). The generator may still end it before its first
token, when its turn does not come in time: as JSON that is a 503 too, and nothing is stored; in a
stream, whose status has gone out, an `error` event, and the question stays, to be asked again.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import Field, field_validator
from starlette.responses import Response

from autodidact.chat.reply import Ask, Reply, begin
from autodidact.errors import AutodidactError, GeneratorError, StoreBusy
from autodidact.types.chat import SamplingParams
from autodidact.web.guard import Strict, read_body
from autodidact.web.page import citations, words
from autodidact.web.page.knobs import TEMPERATURE, TOP_K, TOP_P
from autodidact.web.page.markdown import Block, Blocks
from autodidact.web.site import Site, site_of
from autodidact.web.sse import EventStream, encode
from autodidact.web.streaming import Streams, unless_left, version_header

MOST_STOPS, LONGEST_STOP = 4, 64
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
    min_p: float = Field(0.0, ge=0, le=1)
    """Only words at least this share as likely as the likeliest; 0 sets no limit."""
    repetition_penalty: float = Field(1.0, ge=0.5, le=2)
    """Divides the score of words that the prompt or the reply has already; 1 changes nothing, less
    than 1 favours them."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Lowers the score of every word that the reply has already, once."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Lowers the score of a word once for each time that the reply has it."""
    stop: list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]] = Field(
        [], max_length=MOST_STOPS
    )
    """The reply ends before the first of these, at most 4 of at most 64 characters."""
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
        given = self.model_dump(exclude={"stream"})
        return Ask(**{**given, "stop": tuple(self.stop)})


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
    site.places.take()
    try:
        reply = await site.run(lambda: begin(asked.ask(), site.store, site.generator, site.library))
        start = _start(reply, site)
        streams = await _begun(reply, site)
    except BaseException:
        site.places.free()
        raise

    def stop() -> None:
        streams.stop()
        reply.cancel()

    headers = version_header(reply.prepared)
    if asked.stream:
        return EventStream(_frames(reply, start, streams), headers, closed=stop)
    try:
        await unless_left(request, _exhaust(streams))
        return JSONResponse(_whole(reply), headers=headers)
    except GeneratorError:
        if not (reply.tokens or reply.text):
            await site.run(reply.withdraw)
        raise
    except (AutodidactError, HTTPException):
        raise
    except Exception as error:
        told = failure(error)
        return JSONResponse({"detail": told.pop("message"), **told}, 500)
    finally:
        stop()


async def _begun(reply: Reply, site: Site) -> Streams:
    """Its stream, on its thread; a reply that cannot begin any more leaves nothing behind."""
    try:
        return Streams(site, [reply.stream])
    except GeneratorError:
        await site.run(reply.withdraw)
        raise


def _whole(reply: Reply) -> dict[str, Any]:
    """The finished reply as JSON."""
    return {
        "reply": reply.text,
        "conversation_id": reply.begun.conversation_id,
        "message_id": reply.begun.reply_id,
        "version": reply.prepared.version,
        "model": reply.prepared.answers,
        "memory": citations.memory(reply.passages),
        "citations": citations.citations(reply.passages),
        **_figures(reply),
        "seed": reply.prepared.params.seed,
        "sampling": _sampling(reply.prepared.params),
    }


async def _exhaust(streams: Streams) -> None:
    async for _ in streams.deltas():
        pass


async def _frames(
    reply: Reply, start: dict[str, Any], streams: Streams
) -> AsyncGenerator[bytes, None]:
    """The chat stream. Markdown is parsed here, block by block, so that the page never has to."""
    params = reply.prepared.params
    yield encode("start", start)
    blocks, numbers, tokens = Blocks(), itertools.count(), 0
    try:
        async for _, delta in streams.deltas():
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
        "model": reply.prepared.answers,
        "name": words.name_of(reply.prepared.version, reply.prepared.answers),
        "memory": citations.memory(reply.passages),
        "citations": citations.citations(reply.passages),
        "badge": citations.badge(reply.passages),
        "sources": sources.strip(),
        "context": reply.context,
        "seed": params.seed,
        "sampling": _sampling(params),
    }


def _sampling(params: SamplingParams) -> dict[str, Any]:
    """How a reply is sampled, under the names that a request gives."""
    return {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "stop": list(params.stop),
        "max_length": params.max_new_tokens,
    }


def _block(block: Block | None, numbers: itertools.count[int]) -> bytes:
    if block is None:
        return b""
    return encode("block", {"i": next(numbers), "html": block.html, "open": block.open})


def _figures(reply: Reply) -> dict[str, Any]:
    return {
        "finish": reply.finish,
        "tokens": reply.tokens,
        "prompt_tokens": reply.prompt_tokens,
        "tok_s": reply.tok_s,
        "first_token_ms": reply.first_token_ms,
        "context": reply.context,
    }


_KINDS = {
    "Busy": "busy",
    "NotReady": "loading",
    "ContextExceeded": "context",
    "UnknownModel": "model",
    "UnknownConversation": "conversation",
    "GoingDown": "stopping",
    "RateExceeded": "rate",
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
    if isinstance(error, (GeneratorError, StoreBusy)) and error.retry_after_s is not None:
        told["retry_after_s"] = error.retry_after_s
    return told
