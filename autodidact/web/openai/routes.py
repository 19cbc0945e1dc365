"""`/v1`: the API that OpenAI's clients speak, so that they work with no change but the address.

`POST /v1/chat/completions`, `POST /v1/completions`, `GET /v1/models`, `GET /v1/models/{model}`, as
in OpenAI's API reference (docs/openai.md says what is honoured). Nothing is stored and nothing is
looked up: the dialogue that a client sends is all that the model sees. Errors are OpenAI's, see
`web.openai.errors`.

A reply's status waits for its first token: a server that turns out to be too busy can then still
say 503, upon which clients try again, instead of breaking a stream off.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.sse import format_sse_event
from starlette.exceptions import HTTPException
from starlette.responses import Response

from autodidact.chat.reply import DEFAULT_LENGTH, Generation
from autodidact.errors import AutodidactError, ContextExceeded, GeneratorError, UnknownModel
from autodidact.types.chat import AcceptedRequest, Delta, SamplingParams, ServedModel
from autodidact.types.protocols import ContinuesText, Generator, TellsLogprobs
from autodidact.web.openai.errors import (
    CONTEXT_EXCEEDED,
    PREFIX,
    BadRequest,
    body_of,
    status_of,
    too_long,
)
from autodidact.web.openai.replies import ChatForm, Choice, Form, TextForm
from autodidact.web.openai.requests import (
    DEFAULT_TEXT_TOKENS,
    SEEDS,
    ChatAsked,
    ReplyRequest,
    TextAsked,
    read,
    schema,
)
from autodidact.web.site import Site, site_of
from autodidact.web.sse import EventStream
from autodidact.web.streaming import (
    Streams,
    free_places,
    take_places,
    unless_left,
    version_header,
)

__all__ = ["PREFIX", "error_response", "router"]

DONE = format_sse_event(data_str="[DONE]")
log = logging.getLogger(__name__)
Deltas = AsyncGenerator[tuple[int, Delta], None]
Prepare = Callable[[SamplingParams, str | None], AcceptedRequest]
"""One prompt, to be sampled so by the model of that name."""


def error_response(error: Exception) -> JSONResponse:
    """The answer to any exception that a request under `/v1` ended with."""
    headers = dict(getattr(error, "headers", None) or {})
    wait_s = error.retry_after_s if isinstance(error, GeneratorError) else None
    if wait_s is not None:
        headers |= {"Retry-After": str(wait_s), "retry-after-ms": str(1000 * wait_s)}
    return JSONResponse(body_of(error), status_of(error), headers)


class _Route(APIRoute):
    """A route whose errors have OpenAI's body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except Exception as error:
                if isinstance(error, GeneratorError):
                    site_of(request).places.advise(error)
                elif not isinstance(error, (AutodidactError, BadRequest, HTTPException)):
                    log.exception("%s %s failed", request.method, self.path)
                return error_response(error)

        return answer


router = APIRouter(route_class=_Route)


@router.post("/v1/chat/completions", openapi_extra=schema(ChatAsked))
async def chat_completions(request: Request) -> Response:
    """Answer a dialogue, whole or as a stream of chunks."""
    asked = await read(request, ChatAsked)
    generator = site_of(request).generator
    messages = [message.message() for message in asked.messages]

    def prepare(params: SamplingParams, model: str | None) -> AcceptedRequest:
        return generator.prepare(messages, params, model)

    def form(prepared: Sequence[AcceptedRequest]) -> Form:
        return ChatForm(prepared, asked.explained is not None, asked.usage_wanted)

    return await _answer(request, asked, [prepare], form, DEFAULT_LENGTH)


@router.post("/v1/completions", openapi_extra=schema(TextAsked))
async def completions(request: Request) -> Response:
    """Go on with a text, whole or as a stream of chunks."""
    asked = await read(request, TextAsked)
    generator = site_of(request).generator
    if not isinstance(generator, ContinuesText):
        message = "the model here does not go on with a text; ask at /v1/chat/completions"
        raise BadRequest(message, code="unsupported")

    def preparing(prompt: str) -> Prepare:
        return lambda params, model: generator.prepare_text(prompt, params, model)

    def form(prepared: Sequence[AcceptedRequest]) -> Form:
        explained, usage = asked.explained is not None, asked.usage_wanted
        return TextForm(prepared, explained, usage, asked.prompt, asked.replies)

    prepares = [preparing(prompt) for prompt in asked.prompt]
    return await _answer(request, asked, prepares, form, DEFAULT_TEXT_TOKENS)


@router.get("/v1/models")
async def models(request: Request) -> JSONResponse:
    """What a request may give as `model`: the newest first, the base last."""
    site = site_of(request)
    served = await site.run(site.generator.models)
    return JSONResponse({"object": "list", "data": [_model(one) for one in served]})


@router.get("/v1/models/{model}")
async def one_model(request: Request, model: str) -> JSONResponse:
    """One of them, by its name."""
    site = site_of(request)
    served = await site.run(site.generator.models)
    numbered = {f"autodidact@{one.version}": one for one in served if one.version is not None}
    named = numbered | {one.id: one for one in served}
    if model in named:
        return JSONResponse({**_model(named[model]), "id": model})
    raise UnknownModel(f"no such model; there are {', '.join(one.id for one in served)}")


def _model(served: ServedModel) -> dict[str, Any]:
    return {
        "id": served.id,
        "object": "model",
        "created": int(served.created),
        "owned_by": "autodidact",
        "version": served.version,
        "role": served.role,
    }


def _check_logprobs(asked: ReplyRequest, generator: Generator) -> None:
    """Raises BadRequest for log-probabilities that the generator cannot tell."""
    if asked.explained is None:
        return
    most = generator.most_logprobs if isinstance(generator, TellsLogprobs) else None
    if most is None:
        raise BadRequest(
            "logprobs: the model here tells none; leave it out", "logprobs", "unsupported_value"
        )
    if asked.explained > most:
        raise BadRequest(f"{asked.likeliest}: at most {most} here", asked.likeliest)


async def _answer(
    request: Request,
    asked: ReplyRequest,
    prepares: Sequence[Prepare],
    form_for: Callable[[Sequence[AcceptedRequest]], Form],
    default_length: int,
) -> Response:
    """Replies to each prompt, those to the first one first."""
    site = site_of(request)
    count, most = asked.replies * len(prepares), site.places.limit
    if count > most:
        name = "n" if len(prepares) == 1 else asked.said
        raise BadRequest(f"{name}: this server makes at most {most} replies at a time", name)
    _check_logprobs(asked, site.generator)
    take_places(site, count)
    try:
        prepared = await site.run(lambda: _prepared(asked, prepares))
        seeded = [
            one
            for each in prepared
            for one in _seeded(_fitting(asked, each, default_length), asked.replies)
        ]
        streams = _streams(site, seeded)
    except BaseException:
        free_places(site, count)
        raise
    form, choices = form_for(prepared), [Choice(index) for index in range(count)]
    headers = version_header(prepared[0])
    deltas = streams.deltas()
    try:
        if not asked.stream:
            await unless_left(request, _gather(deltas, choices))
            return JSONResponse(form.reply(choices), headers=headers)
        first = await unless_left(request, _first(deltas))
    except BaseException:
        streams.stop()
        raise
    frames = _frames(form, choices, first, deltas, asked.usage_wanted)
    return EventStream(frames, headers, closed=streams.stop)


def _prepared(asked: ReplyRequest, prepares: Sequence[Prepare]) -> list[AcceptedRequest]:
    """With a length of 1, which says how much room there is. All on the version of the first,
    though a new one go live in between."""
    params, model = asked.params(), asked.model
    prepared: list[AcceptedRequest] = []
    try:
        for prepare in prepares:
            prepared.append(prepare(params, model))
            if prepared[0].version is not None:
                model = prepared[0].answers
        return prepared
    except ContextExceeded as error:
        message = too_long(asked.said, error.context, error.prompt)
        raise BadRequest(message, asked.said, CONTEXT_EXCEEDED) from None


def _fitting(
    asked: ReplyRequest, prepared: AcceptedRequest, default_length: int
) -> AcceptedRequest:
    """With the length that was asked for, or the default if there is room for it. Where the room
    is not known, whether it fits is for the generator to say."""
    name, longest = asked.longest
    room = prepared.room if prepared.room is not None else longest or default_length
    if longest is not None and longest > room:
        prompt = prepared.prompt_tokens
        context = None if prompt is None else prompt + room
        raise BadRequest(too_long(asked.said, context, prompt, longest), name, CONTEXT_EXCEEDED)
    length = longest or min(default_length, room)
    return replace(prepared, params=replace(prepared.params, max_new_tokens=length))


def _seeded(prepared: AcceptedRequest, choices: int) -> list[AcceptedRequest]:
    """The same request for each choice, with seeds that follow each other."""
    seed = prepared.params.seed
    assert seed is not None  # `params` of the request drew one
    return [
        replace(prepared, params=replace(prepared.params, seed=(seed + index) % SEEDS))
        for index in range(choices)
    ]


def _streams(site: Site, prepared: Sequence[AcceptedRequest]) -> Streams:
    replies = [Generation(site.generator, one) for one in prepared]
    return Streams(site, [one.stream for one in replies], [one.cancel for one in replies])


async def _gather(deltas: Deltas, choices: Sequence[Choice]) -> None:
    async with contextlib.aclosing(deltas):
        async for index, delta in deltas:
            choices[index].take(delta)


async def _first(deltas: Deltas) -> tuple[int, Delta] | None:
    return await anext(deltas, None)


async def _frames(
    form: Form,
    choices: Sequence[Choice],
    first: tuple[int, Delta] | None,
    deltas: Deltas,
    usage_wanted: bool,
) -> AsyncGenerator[bytes, None]:
    """The chunks of a streamed answer as server-sent events without a name."""
    try:
        for choice in choices:
            yield _frame(form.opening(choice))
        async with contextlib.aclosing(deltas):
            if first is not None:
                yield _step(form, choices, *first)
            async for index, delta in deltas:
                yield _step(form, choices, index, delta)
        if usage_wanted:
            yield _frame(form.usage(choices))
        yield DONE
    except Exception as error:
        yield _frame(body_of(error))


def _step(form: Form, choices: Sequence[Choice], index: int, delta: Delta) -> bytes:
    """What one delta adds to a stream."""
    choice = choices[index]
    frames = _frame(form.piece(choice, delta))
    choice.take(delta)
    return frames + (_frame(form.closing(choice)) if delta.finish is not None else b"")


def _frame(chunk: dict[str, Any] | None) -> bytes:
    return b"" if chunk is None else format_sse_event(data_str=json.dumps(chunk))
