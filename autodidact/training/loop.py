"""The training loop: batches through a `Trainer` until its `Pace` says that it is done.

Whoever trains brings what differs: the trainer with its loss, the feed of batches, the pace, and
whom to tell. Interrupted at any point, the same call goes on where the state was saved last, on the
very next batch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from autodidact.training.feed import Feed
from autodidact.training.pace import Clock, Pace
from autodidact.training.sft import Trainer

Row = TypeVar("Row")
SAVE_EVERY_S = 20.0
RECENT = 40
Follow = Callable[[Clock, Sequence[float]], None]
"""Told after every step: the clock, and what the last steps took, in seconds each."""


def train(
    trainer: Trainer[Row],
    feed: Feed[Row],
    pace: Pace,
    resume: Path,
    follow: Follow,
    stop: threading.Event | None = None,
    before_step: Callable[[], None] = lambda: None,
    clock_s: Callable[[], float] = time.monotonic,
) -> tuple[Clock, bool]:
    """Train to the end, or until `stop` is set; True at the end.

    The state is saved in the folder `resume` every 20 seconds and when stopped. What `before_step`
    takes counts for no step; where it is asked to stop meanwhile, the step is not done. Steps are
    timed by `clock_s`, the seconds that count.
    """
    clock, state = trainer.restore(resume)
    clock = replace(clock, steps=clock.steps or pace.steps, began_at=clock.began_at or time.time())
    feed.restore(state, clock)
    recent: deque[float] = deque(maxlen=RECENT)
    saved, at = time.monotonic(), clock.step
    while (done := pace.fraction(clock)) < 1:
        before_step()
        if stop is not None and stop.is_set():
            if clock.step > at:
                trainer.save(resume, clock, feed.state())
            return clock, False
        first = pace.early(clock)
        begun = clock_s()
        batch = feed.next(early=first)
        loss = trainer.step(batch, done)
        feed.heard(batch, trainer.right)
        recent.append(clock_s() - begun)
        clock = clock.after(loss, recent[-1], early=first)
        clock = replace(clock, steps=pace.corrected(clock, recent))
        follow(clock, recent)
        stopped = stop is not None and stop.is_set()
        if stopped or time.monotonic() - saved > SAVE_EVERY_S:
            trainer.save(resume, clock, feed.state())
            saved, at = time.monotonic(), clock.step
        if stopped:
            return clock, False
    return clock, True
