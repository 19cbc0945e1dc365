"""When a source that fails is tried next, and what the log says about it.

An outage is announced by one line, which names the time of the next try, and ended by another;
the failures between are silent. The waits double from one minute to one hour, each lengthened by
a jitter of up to a quarter that depends only on seed, name and count, so that two sources (or two
machines with different seeds) do not come back in step. Times are Unix times of the given clock.
Nothing is kept across a restart: a new process tries at once. Pure: no sleeping, no logging.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from datetime import datetime

FIRST_S = 60.0
LONGEST_S = 3600.0
JITTER = 0.25


class Outage:
    """The state of one source: well, or failing since some time."""

    def __init__(self, name: str, clock: Callable[[], float] = time.time, seed: int = 0) -> None:
        self._name = name
        self._clock = clock
        self._seed = seed
        self._failures = 0
        self._since = self._last = self._next = 0.0

    def failed(self, error: Exception) -> tuple[float, str | None]:
        """Note a failure: the time of the next try, and the line to log if it is the first."""
        now = self._clock()
        self._failures += 1
        self._last = now
        self._next = now + self._wait()
        if self._failures > 1:
            return self._next, None
        self._since = now
        at = datetime.fromtimestamp(self._next).strftime("%H:%M:%S")
        return self._next, f"{self._name}: {_one_line(error)}; next try at {at}, then less often"

    def recovered(self) -> str | None:
        """Note a success: the line to log if it ended an outage."""
        failures, self._failures = self._failures, 0
        if not failures:
            return None
        away = _duration(self._clock() - self._since)
        tries = "1 failed try" if failures == 1 else f"{failures} failed tries"
        return f"{self._name}: back after {away} and {tries}"

    def due(self, now: float) -> bool:
        """Whether to try. A clock that was put back behind the last failure makes it due."""
        return not self._failures or now >= self._next or now < self._last

    def _wait(self) -> float:
        doubled: float = FIRST_S * 2 ** min(self._failures - 1, 16)
        chance = zlib.crc32(f"{self._seed}:{self._name}:{self._failures}".encode()) / 2**32
        return min(doubled, LONGEST_S / (1 + JITTER)) * (1 + JITTER * chance)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _duration(seconds: float) -> str:
    minutes = round(max(seconds, 0.0) / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
