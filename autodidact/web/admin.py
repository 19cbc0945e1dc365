"""The operator's routes: which versions there are, and which one answers.

    GET  /admin/versions                     as `python -m autodidact versions --json` tells them
    POST /admin/pin       {"version": 41}    41 answers whatever is published; 0 is the base
    POST /admin/unpin     {}                 the newest answers again
    POST /admin/rollback  {"version": null}  back to that version; null: the parent of what serves

Each does what the command of that name does. A pin is for the server alone: the learner goes on
from the newest version. After a rollback the learner too goes on from the version that was chosen,
and what was taught since goes back into its queue (a wish in its inbox).

Who may: with `server.admin_key`, whoever sends it as a bearer token (RFC 6750); without, clients
whose connection comes from this machine. A proxy here makes everybody's connection come from this
machine, so behind one a key must be set. A missing version is 404; one that was rejected or is
damaged, or a rollback that leads nowhere, is 409 with the reason.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from autodidact import checkpoints, inbox
from autodidact.checkpoints.listing import listing
from autodidact.errors import CheckpointError
from autodidact.web.guard import Strict, read_body
from autodidact.web.site import Site, site_of

log = logging.getLogger(__name__)
T = TypeVar("T")
Version = Annotated[int, Field(ge=0, lt=2**31)]
_UNKNOWN = {"WWW-Authenticate": 'Bearer realm="admin"'}
_FRESH = {"Cache-Control": "no-store"}


async def admitted(request: Request) -> None:
    """Raises HTTPException 401 or 403 for a client that may not steer the server."""
    key = site_of(request).settings.admin_key.get_secret_value()
    if not key:
        if request.client is None or not _is_loopback(request.client.host):
            raise HTTPException(403, "admin: only from this machine, or with server.admin_key")
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Digests have one length, so that not even the key's is told by the time a comparison takes.
    same = hmac.compare_digest(_digest(given.strip(), "latin-1"), _digest(key, "utf-8"))
    if scheme.lower() != "bearer" or not same:
        said = "admin: the bearer token is not server.admin_key" if given else "admin: needs a key"
        raise HTTPException(401, said, _UNKNOWN)


router = APIRouter(prefix="/admin", include_in_schema=False, dependencies=[Depends(admitted)])


class Chosen(Strict):
    version: Version


class Earlier(Strict):
    version: Version | None = None


class Nothing(Strict):
    pass


@router.get("/versions")
async def versions(request: Request) -> JSONResponse:
    """All versions, the newest number first; `serving` marks the one that answers now."""
    site = site_of(request)
    status = site.generator.status()
    live = status.live if status.state == "ready" else None
    return JSONResponse(
        await _on_disk(site, lambda: listing(site.home, live), None), headers=_FRESH
    )


@router.post("/pin")
async def pin(request: Request) -> JSONResponse:
    """Let a version answer whatever is published."""
    site, chosen = site_of(request), await read_body(request, Chosen)
    await _on_disk(site, lambda: checkpoints.pin(site.home, chosen.version), chosen.version)
    return await _done(request, f"pinned {checkpoints.name(chosen.version)}")


@router.post("/unpin")
async def unpin(request: Request) -> JSONResponse:
    """Let the newest version answer again."""
    site, _ = site_of(request), await read_body(request, Nothing)
    await _on_disk(site, lambda: checkpoints.unpin(site.home), None)
    return await _done(request, "unpinned")


@router.post("/rollback")
async def rollback(request: Request) -> JSONResponse:
    """Let an older version answer, whatever is published, and the learner go on from it."""
    site, chosen = site_of(request), await read_body(request, Earlier)

    def back() -> int:
        _, target = checkpoints.roll_back(site.home, chosen.version)
        inbox.leave(site.home, inbox.Rollback(target))
        return target

    target = await _on_disk(site, back, chosen.version)
    return await _done(request, f"rolled back to {checkpoints.name(target)}")


async def _done(request: Request, what: str) -> JSONResponse:
    """What is to serve from here on, and what still answers; the watcher brings them together."""
    site = site_of(request)
    host = request.client.host if request.client else "an unknown address"
    log.info("%s, asked by %s", what, host)

    def read() -> dict[str, int | None]:
        return {
            "serving": checkpoints.serving(site.home),
            "pinned": checkpoints.pinned(site.home),
            "newest": checkpoints.current(site.home),
        }

    found = await _on_disk(site, read, None)
    return JSONResponse({**found, "live": site.generator.status().live}, headers=_FRESH)


async def _on_disk(site: Site, act: Callable[[], T], version: int | None) -> T:
    """Run on a worker thread; what the versions do not allow becomes 404 or 409."""

    def checked() -> T:
        try:
            return act()
        except CheckpointError as error:
            # 0 is the base, which is always there.
            missing = bool(version) and version not in checkpoints.versions(site.home)
            raise HTTPException(404 if missing else 409, str(error)) from None

    return await site.run(checked)


def _digest(text: str, encoding: str) -> bytes:
    """Of the very bytes: Starlette reads header fields as latin-1, whatever was sent."""
    return hashlib.sha256(text.encode(encoding)).digest()


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
