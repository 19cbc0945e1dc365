"""The arithmetic of the serving benchmark: when clients begin, and figures from what they noted.

Pure: `result` is what `clients` wrote, as its docstring says. Seconds everywhere. A reply that was
still waiting for its first token when a load was cut, longer than is usual, counts with the time it
had waited by then, so that a server which keeps its readers waiting does not look better for it;
`cut` tells how many.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

Result = Mapping[str, Any]


def starts(clients: int, ramp_s: float) -> list[float]:
    """When each client begins: evenly over the ramp, the first at once."""
    return [ramp_s * i / clients for i in range(clients)]


def percentile(values: Iterable[float], q: float) -> float | None:
    """The q-quantile by linear interpolation between order statistics (numpy's default); None of
    nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def tokens_between(result: Result, since: float, until: float) -> int:
    """Tokens that arrived in the half-open window (monotonic seconds)."""
    total = 0
    for reply in result["replies"]:
        before = 0
        for at, count in zip(reply["times"], reply["counts"], strict=True):
            if since <= at < until:
                total += count - before
            before = count
    return total


def first_tokens(result: Result) -> tuple[list[float], int]:
    """Seconds from each request to its first token; the cut waits come last, and how many they are.

    A cut wait says nothing while it is shorter than what is usual: those below the median of the
    waits that ended are left out.
    """
    found, cut = [], []
    for reply in result["replies"]:
        if reply["times"]:
            found.append(reply["times"][0] - reply["sent"])
        elif not reply["fault"] and reply["ended"] is None:
            cut.append(result["ended"] - reply["sent"])
    usual = median(found) if found else 0.0
    cut = [wait for wait in cut if wait >= usual]
    return [*found, *cut], len(cut)


def intervals(result: Result) -> list[tuple[float, float]]:
    """When each stretch between two tokens of a reply began and ended, ordered by the end."""
    found: list[tuple[float, float]] = []
    for reply in result["replies"]:
        arrived, before = [], 0
        for at, count in zip(reply["times"], reply["counts"], strict=True):
            if count > before:
                arrived.append(at)
            before = count
        found += pairwise(arrived)
    return sorted(found, key=lambda interval: interval[1])


def faults(result: Result, reply_tokens: int | None = None) -> list[str]:
    """Why replies failed; with `reply_tokens`, an ended one of another length has failed too."""
    found = []
    for reply in result["replies"]:
        if reply["fault"]:
            found.append(str(reply["fault"]))
        elif reply["ended"] is not None and reply_tokens is not None:
            tokens = reply["counts"][-1] if reply["counts"] else 0
            if tokens != reply_tokens:
                found.append(f"{tokens} tokens instead of {reply_tokens}")
    return found


def figures(result: Result, form: str, ramp_s: float, reply_tokens: int) -> dict[str, Any]:
    """What one load showed.

    `tokens_s`: closed, of the steady window, from the end of the ramp to the cut; open, all tokens
    over the time from the first arrival to the last reply's end.
    """
    begun, ended = result["begun"], result["ended"]
    since = begun + (ramp_s if form == "closed" else 0.0)
    first, cut = first_tokens(result)
    between = [later - earlier for earlier, later in intervals(result) if later >= since]
    failed = faults(result, reply_tokens)
    return {
        "tokens_s": tokens_between(result, since, math.inf) / (ended - since),
        "seconds": ended - since,
        "replies": sum(1 for reply in result["replies"] if reply["ended"] is not None),
        "first_p50": percentile(first, 0.5),
        "first_p99": percentile(first, 0.99),
        "cut": cut,
        "gap_p50": percentile(between, 0.5),
        "gap_p99": percentile(between, 0.99),
        "gap_max": max(between, default=None),
        "failed": len(failed),
        "faults": sorted(set(failed))[:5],
        "client_cpu": result["cpu_s"] / (ended - begun),
    }


def stalls(
    between: Sequence[tuple[float, float]], windows: Iterable[tuple[float, float]]
) -> list[float]:
    """For each window in which a reply ran: the longest of the `intervals` that overlap it."""
    ends = [later for _, later in between]
    longest = max((later - earlier for earlier, later in between), default=0.0)
    found = []
    for since, until in windows:
        first, last = bisect_right(ends, since), bisect_left(ends, until + longest)
        inside = [later - earlier for earlier, later in between[first:last] if earlier < until]
        if inside:
            found.append(max(inside))
    return found


def slope(values: Sequence[float]) -> float:
    """Least squares: growth from one value to the next."""
    n = len(values)
    if n < 2:
        return 0.0
    middle, mean = (n - 1) / 2, sum(values) / n
    above = sum((i - middle) * (value - mean) for i, value in enumerate(values))
    return above / sum((i - middle) ** 2 for i in range(n))


def spread(values: Iterable[float | None]) -> dict[str, Any]:
    """Median, least, most and number of what there is."""
    there = [value for value in values if value is not None]
    if not there:
        return {"median": None, "low": None, "high": None, "n": 0}
    return {"median": median(there), "low": min(there), "high": max(there), "n": len(there)}
