"""What a trusted proxy says of the request that it passes on: the host that was asked for, the
scheme, and whose address it came from.

A proxy that ends TLS or asks under a name of its own (nginx sends `Host: 127.0.0.1:8000` unless
told otherwise) makes a page's own request look like one of another site. `X-Forwarded-Host`,
`-Proto` and `-For` tell what was asked; they are believed from `server.trusted_proxies` only,
since anybody can send them.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


class TrustedProxies:
    """ASGI middleware, the first of all. `trusted`: addresses and networks."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str]) -> None:
        forwarded: Any = ProxyHeadersMiddleware(app, list(trusted))  # type: ignore[arg-type]
        self._forwarded: ASGIApp = forwarded
        self._trusted = [ip_network(each, strict=False) for each in trusted]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._trusts(scope.get("client")):
            told = Headers(scope=scope).getlist("x-forwarded-host")
            # The last one is the proxy's own; what stands before it may be anybody's.
            host = ", ".join(told).rpartition(",")[2].strip()
            if host:
                rest = [pair for pair in scope["headers"] if pair[0] != b"host"]
                scope = {**scope, "headers": [*rest, (b"host", host.encode("latin-1"))]}
        await self._forwarded(scope, receive, send)

    def _trusts(self, client: tuple[str, int] | None) -> bool:
        try:
            address = ip_address(client[0]) if client else None
        except ValueError:
            return False
        return address is not None and any(address in network for network in self._trusted)
