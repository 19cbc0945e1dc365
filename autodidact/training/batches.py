"""Passes over training sequences in batches, with a share of replay mixed in.

Deterministic for a seed.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Iterator, Sequence

from autodidact.training.sequences import TrainingSequence, Weave

TEXT_SHARE = 0.25


def one_pass(
    new: Sequence[TrainingSequence],
    old: Sequence[TrainingSequence],
    replay: float,
    size: int,
    seed: int,
    weaving: Weave | None = None,
) -> list[list[TrainingSequence]]:
    """One pass over `new` in batches, with `replay` (a share of all) of `old` mixed in, drawn by
    weight.

    Sequences of like length go together, at most `size` of them or 64 tokens each on average.
    """
    order = random.Random(seed)
    rows = _less_text(new, order)
    if old:
        rows += _drawn(old, round(len(rows) * replay / (1 - replay)), order)
    order.shuffle(rows)
    if weaving is not None:
        rows = weaving.apply(rows, order)
        size = max(1, size // 2)  # a conversation holds about two questions
    rows.sort(key=lambda s: len(s.ids) + order.random() * 8)
    made: list[list[TrainingSequence]] = [[]]
    for row in rows:
        last = made[-1]
        if last and (len(last) >= size or (len(last) + 1) * len(row.ids) > size * 64):
            made.append([])
        made[-1].append(row)
    order.shuffle(made)
    return made


def _less_text(new: Sequence[TrainingSequence], order: random.Random) -> list[TrainingSequence]:
    """The rows of a pass, with as much running text as makes `TEXT_SHARE` of their tokens: a long
    document with few facts would otherwise spend the cycle on what teaches least. Where there is
    nothing but text, all of it."""
    texts = [row for row in new if row.kind == "text"]
    rows = [row for row in new if row.kind != "text"]
    if not rows:
        return texts
    room = sum(len(row.ids) for row in rows) * TEXT_SHARE / (1 - TEXT_SHARE)
    for text in order.sample(texts, len(texts)):
        if room <= 0:
            break
        rows.append(text)
        room -= len(text.ids)
    return rows


def _drawn(
    rows: Sequence[TrainingSequence], count: int, order: random.Random
) -> list[TrainingSequence]:
    """`count` rows by systematic resampling: each comes as often as its share of the weight says,
    rounded up or down, so that small draws are even too."""
    if not count:
        return []
    shuffled = order.sample(list(rows), len(rows))
    reached = list(itertools.accumulate(row.weight for row in shuffled))
    first = order.random()
    marks = ((first + i) / count * reached[-1] for i in range(count))
    last = len(shuffled) - 1  # where rounding puts a mark at the very end
    return [shuffled[min(bisect.bisect_right(reached, mark), last)] for mark in marks]


def endless_batches(
    new: Sequence[TrainingSequence],
    old: Sequence[TrainingSequence],
    replay: float,
    size: int,
    seed: int,
    weaving: Weave | None = None,
) -> Iterator[list[TrainingSequence]]:
    """Endless passes, deterministic for a seed."""
    for number in itertools.count():
        yield from one_pass(new, old, replay, size, seed * 1_000_003 + number, weaving)
