"""How much the server takes on: places for replies, requests a minute, connections.

`Places` counts the replies that run or wait and bounds them; `Allowance` bounds how often one
address may ask (a token bucket: Tanenbaum, *Computer Networks*, §5.4). Both say when to try again,
and neither takes a lock: they belong to the event loop. The token bucket is ours because `limits`
(5.8) has none: with its windows, who has spent all waits for a whole minute instead of for the next
share of it, and its memory is not bounded by a number of addresses.

`Places` is the only bound on how many, whatever generator serves: none counts what it is asked. The
waiting itself is not done here but where turns are given: the local model's batch lets the next one
in at the token at which a place in it comes free, and ends with Busy what waited too long
(`server.queue_seconds`). A generator without turns begins each reply at once; for it the two
numbers together are how many run. When to come again is estimated here for all of them.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from autodidact.errors import Busy, GeneratorError, RateExceeded

LONGEST_WAIT_S = 60
"""No one is told to come back later than that: an estimate is not worth more."""
FIRST_GUESS_S = 4.0
"""How long a reply is taken to last before any has ended."""
_WEIGHT = 0.2
OVERLOAD = frozenset({429, 503})
"""The statuses of a refusal that coming again may help."""
ADDRESSES = 10_000
KEEP_ALIVE_S = 130
"""How long an idle connection is kept: longer than clients and proxies keep theirs (httpx 5 s,
nginx 60 s, Caddy 2 minutes), because the one that closes first must be the client, or its next
request may meet a connection that was just closed (RFC 9112 §9.5)."""


class Places:
    """Room for `running` replies at a time and `waiting` more."""

    def __init__(self, running: int, waiting: int) -> None:
        self.limit = running + waiting
        self.taken = 0
        self._running = running
        self._reply_s = FIRST_GUESS_S

    @property
    def full(self) -> bool:
        return self.taken >= self.limit

    def take(self) -> None:
        """Take a place, to be given back by `free`. Raises Busy when there is none."""
        if self.full:
            raise Busy(f"the server is busy with {self.taken} other replies", self.retry_after_s)
        self.taken += 1

    def free(self, reply_s: float | None = None) -> None:
        """Give a place back. `reply_s`: seconds from the reply's first token to its end, if it
        came that far; a moving average of them (weight 0.2 to the newest) is the estimate."""
        self.taken -= 1
        if reply_s is not None:
            self._reply_s += _WEIGHT * (reply_s - self._reply_s)

    def advise(self, error: GeneratorError) -> None:
        """Give a refusal for want of room the time to come again, if it names none itself."""
        if error.retry_after_s is None and error.status in OVERLOAD:
            error.retry_after_s = self.retry_after_s

    @property
    def retry_after_s(self) -> int:
        """When it is worth asking again, in whole seconds from 1 to 60: the average reply, times
        the turns that those who wait and the one who asks have to wait for."""
        ahead = max(0, self.taken - self._running) + 1
        return min(LONGEST_WAIT_S, max(1, math.ceil(self._reply_s * ahead / self._running)))


class Allowance:
    """Requests that each address may make: `per_minute` at once after a rest, then one whenever a
    share of a minute has passed. 0 allows any number.

    An IPv6 address stands for its /64, which is what one customer gets (RFC 6177). Memory is
    bounded: of more than `addresses` the longest unseen is forgotten, and begins anew.
    """

    def __init__(
        self,
        per_minute: int,
        addresses: int = ADDRESSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = per_minute
        self._addresses = addresses
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def spend(self, address: str) -> None:
        """Count a request. Raises RateExceeded, and counts nothing, when none is left."""
        if not self._per_minute:
            return
        now, who = self._clock(), network(address)
        left, since = self._left.pop(who, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - since) * self._per_minute / 60)
        allowed = left >= 1
        self._left[who] = (left - 1 if allowed else left, now)
        if len(self._left) > self._addresses:
            self._left.popitem(last=False)
        if not allowed:
            raise RateExceeded(
                f"too many requests from your address: {self._per_minute} a minute are allowed",
                max(1, math.ceil((1 - left) * 60 / self._per_minute)),
            )


def network(address: str) -> str:
    """What counts as one client: an IPv4 address, an IPv6 /64, or the text as it is."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


def connections(places: int) -> int:
    """Connections to accept for that many places for replies.

    Far more than places: beyond this number uvicorn itself answers a bare 503 without
    `Retry-After`, so whoever comes too many should be told by us. Open pages hold one each.
    """
    return 512 + 16 * places
