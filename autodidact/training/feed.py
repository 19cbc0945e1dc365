"""Where the training loop gets its batches from.

Contract: `next` gives the rows of the next step; `heard` tells how the model did on them before the
step changed it. `state` holds what is needed to go on with the very next batch, as text; a feed
that is made anew for the same work goes on by `restore`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from autodidact.training.pace import Clock

Row = TypeVar("Row")


class Feed(Protocol[Row]):
    def next(self, *, early: bool) -> Sequence[Row]:
        """The rows of the next step; `early`: on questions alone, where the feed tells them
        apart."""
        ...

    def heard(self, batch: Sequence[Row], right: Sequence[bool]) -> None:
        """Which rows of the batch the model would have said by itself; empty where the loss cannot
        tell."""
        ...

    def state(self) -> str: ...

    def restore(self, state: str, clock: Clock) -> None:
        """Go on where `state` was asked for, at this clock; "" begins anew."""
        ...


class FixedOrder(Generic[Row]):
    """Two fixed orders of batches, one for the beginning. What the model says changes nothing, so
    the clock is all there is to remember."""

    def __init__(self, early: Iterator[Sequence[Row]], batches: Iterator[Sequence[Row]]) -> None:
        self._early = early
        self._batches = batches

    def next(self, *, early: bool) -> Sequence[Row]:
        return next(self._early if early else self._batches)

    def heard(self, batch: Sequence[Row], right: Sequence[bool]) -> None:
        pass

    def state(self) -> str:
        return ""

    def restore(self, state: str, clock: Clock) -> None:
        for stream, count in (
            (self._early, clock.early),
            (self._batches, clock.step - clock.early),
        ):
            next(itertools.islice(stream, count, count), None)  # what was trained on before
