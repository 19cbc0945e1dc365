"""The study waits while a reply is being made, and keeps the time that it works.

It is asked before every training step and every pass of the study's engine, so a reply has the
processor to itself within one of those. Three bounds keep a constant chat from starving it:

- after `MOST_WAIT_S` at a stretch the one step or pass is done anyway, at the lowest priority;
- in all it waits as long as a cycle at most, or as long as it has worked where that is longer: a
  cycle takes at most about twice its time;
- what it waits is no time of the cycle, nor what a reply took from a step that it fell into:
  whatever fits into the cycle is timed by `worked_s`. For a home's first cycle, which somebody
  waits to see, that holds for a third of its time only.

Nothing grows while it waits. Held are the model, the adapter and its optimiser, and within a reply
or a score that the engine is at, the keys and values of that one batch (`engine.core`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from autodidact.types.events import WaitEvent

MOST_WAIT_S = 20.0
LOOK_S = 0.05
"""How often it looks meanwhile; a pause of the chat shorter than this is mostly none."""
SAY_AFTER_S = 1.0
"""A shorter wait is not worth a word."""


class Waiting:
    """Called before each piece of work. `replying` tells whether to wait, `patience_s` how long in
    all; a wait that takes a while is told to `tell`, and ends at once when `stop` is set. Of what
    it waits at most `back_s` is no time of the cycle; None is all of it."""

    def __init__(
        self,
        replying: Callable[[], bool] = lambda: False,
        patience_s: float = 0.0,
        stop: threading.Event | None = None,
        tell: Callable[[WaitEvent], None] = lambda event: None,
        back_s: float | None = None,
    ) -> None:
        self._replying = replying
        self._patience_s = patience_s
        self._stop = stop or threading.Event()
        self._tell = tell
        self._back_s = back_s
        self._lock = threading.Lock()
        self._begun = self._at = time.monotonic()
        self._waited_s = 0.0
        self._counts = False
        """Whether the time since `_at` is waited."""
        self._waits = False

    @property
    def waited_s(self) -> float:
        """The seconds in which it waited, or got nothing done beside a reply."""
        with self._lock:
            return self._until(time.monotonic())

    @property
    def worked_s(self) -> float:
        """The seconds since the beginning, without those that it waited and that are given back."""
        with self._lock:
            now = time.monotonic()
            back_s = self._until(now)
            if self._back_s is not None:
                back_s = min(back_s, self._back_s)
            return now - self._begun - back_s

    def __call__(self) -> None:
        left_s = self._left_s()
        if left_s <= 0 or not self._replying():
            return
        begun, told = time.monotonic(), False
        self._turn(waits=True)
        while not self._stop.wait(LOOK_S):
            waited_s = time.monotonic() - begun
            if waited_s >= min(left_s, MOST_WAIT_S) or not self._replying():
                break
            if waited_s >= SAY_AFTER_S and not told:
                self._tell(WaitEvent(True))
                told = True
        self._turn(waits=False)
        if told:
            self._tell(WaitEvent(False))

    def follow(self) -> None:
        """Look by itself from now on."""
        threading.Thread(target=self._looks, daemon=True).start()

    def look(self) -> None:
        """A reply that begins within a step has the processor, too: at the lowest priority the step
        gets next to nothing done until it ends, and that time is no time of the cycle either.
        From one look to the next it counts as it was at the first."""
        starved = self._left_s() > 0 and self._replying()
        with self._lock:
            if not self._waits:
                self._count(starved)

    def _looks(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.look()

    def _left_s(self) -> float:
        """Of its patience."""
        return max(self._patience_s, self.worked_s) - self.waited_s

    def _turn(self, *, waits: bool) -> None:
        with self._lock:
            self._waits = waits
            self._count(waits)

    def _count(self, counts: bool) -> None:
        """From now on. Whoever calls holds the lock."""
        now = time.monotonic()
        self._waited_s, self._at, self._counts = self._until(now), now, counts

    def _until(self, now: float) -> float:
        return self._waited_s + (now - self._at if self._counts else 0.0)
