"""What every request passes: headers, host, origin, size; and what a bad one is told.

Answers to bad input are one line of JSON, `{"detail": "temperature: Input should be ..."}`, and
never repeat the input: neither its values nor the names of its unknown fields.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autodidact.web.openai.errors import PREFIX, error_body

MAX_BODY = 64 * 1024
ADMIN = "/admin/"
# What is read and thrown away of a body that is too large, so that its sender gets to the answer.
_DRAIN = 1024 * 1024
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: browsers then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Strict(BaseModel):
    """Base of request bodies: no coercion, no unknown field, no NaN or Infinity."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


Body = TypeVar("Body", bound=Strict)


async def read_body(request: Request, model: type[Body]) -> Body:
    """The body as `model`; raises HTTPException 400, 413 or 422 with one line."""
    raw = await request.body()
    try:
        given = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise HTTPException(400, "body: not valid UTF-8") from None
    except RecursionError:
        raise HTTPException(400, "body: nested too deeply") from None
    except ValueError:
        raise HTTPException(422, "body: Input should be valid JSON") from None
    if not isinstance(given, dict):
        raise HTTPException(422, "body: Input should be a JSON object")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise HTTPException(422, one_line(error.errors(), set(model.model_fields))) from None


def one_line(errors: list[Any], known: set[str]) -> str:
    """The first error as `field: what it should be`."""
    first = errors[0]
    field = next((str(part) for part in reversed(first["loc"]) if str(part) in known), "body")
    if first["type"] == "extra_forbidden":
        return f"body: unknown field; the fields are {', '.join(sorted(known))}"
    return f"{field}: {str(first['msg']).removeprefix('Value error, ')}"


class KnownHosts:
    """ASGI middleware: Starlette's check of the Host header, told in our words and form."""

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        self.app = app
        self._check = TrustedHostMiddleware(_note_known, list(allowed_hosts), www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._check(scope, receive, _send_nowhere)
            if not scope.pop(_KNOWN, False):
                told = "Host: not a name in server.allowed_hosts; add it there to use it"
                await _refusal(scope, 400, told)(scope, receive, send)
                return
        await self.app(scope, receive, send)


_KNOWN = "autodidact.known_host"


async def _note_known(scope: Scope, receive: Receive, send: Send) -> None:
    scope[_KNOWN] = True


async def _send_nowhere(message: Message) -> None:
    pass


class Guard:
    """ASGI middleware: headers on every response, foreign POSTs refused, bodies bounded.
    `allowed_origins` may post, but for what administers."""

    def __init__(self, app: ASGIApp, allowed_origins: Sequence[str] = ()) -> None:
        self.app = app
        self._allowed = frozenset(origin.lower() for origin in allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        allowed = () if scope["path"].startswith(ADMIN) else self._allowed
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and _is_foreign(headers, allowed):
            told = "refused: sent by another site"
            if scope["path"].startswith(PREFIX):
                told += "; server.allowed_origins lets one in"
            answer = _refusal(scope, 403, told)
            await answer(scope, receive, send_guarded)
            return
        body = await _bounded(headers, receive)
        if body is None:
            answer = _refusal(scope, 413, f"body: larger than {MAX_BODY} bytes")
            await answer(scope, receive, send_guarded)
            return
        await self.app(scope, _replay(body, receive), send_guarded)


def _refusal(scope: Scope, status: int, message: str) -> JSONResponse:
    as_openai = scope["path"].startswith(PREFIX)
    return JSONResponse(error_body(status, message) if as_openai else {"detail": message}, status)


def _is_foreign(headers: Headers, allowed: Collection[str]) -> bool:
    """Whether a browser says that another site (or another port) sent this, and none of `allowed`
    did."""
    if headers.get("origin", "").lower() in allowed:
        return False
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


async def _bounded(headers: Headers, receive: Receive) -> bytes | None:
    """The whole body, or None if it is too large."""
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > _DRAIN:
        return None
    body, size, more = b"", 0, True
    while more and size <= _DRAIN:
        message = await receive()
        if message["type"] != "http.request":
            break
        chunk = message.get("body", b"")
        size += len(chunk)
        body = body + chunk if size <= MAX_BODY else b""
        more = message.get("more_body", False)
    return body if size <= MAX_BODY else None


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out a body that was read already, then listens on."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
