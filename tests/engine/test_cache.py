"""The slot cache against a plain one: what was written is what a pass reads, wherever it moved."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autodidact.engine.cache import STEP, SlotCache

LAYERS, HEADS, DIM = 2, 2, 3


def made(rows: int, tokens: int, start: float) -> torch.Tensor:
    """(rows, heads, tokens, dim), every number another one."""
    return start + torch.arange(rows * HEADS * tokens * DIM, dtype=torch.float64).view(
        rows, HEADS, tokens, DIM
    )


class Slots(RuleBasedStateMachine):
    """Requests come (from a scratch cache, filled in parts), grow by a token, and leave."""

    def __init__(self) -> None:
        super().__init__()
        self.cache, self.scratch = SlotCache(), SlotCache()
        self.expected: list[list[torch.Tensor]] = []
        self.written = 0.0

    def fresh(self, rows: int, tokens: int) -> torch.Tensor:
        self.written += 1e6
        return made(rows, tokens, self.written)

    @rule(parts=st.lists(st.integers(1, 90), min_size=1, max_size=3))
    def come(self, parts: list[int]) -> None:
        whole: list[list[torch.Tensor]] = [[] for _ in range(LAYERS)]
        end = 0
        for part in parts:
            end += part
            self.scratch.begin(1, end)
            for layer in range(LAYERS):
                key = self.fresh(1, part)
                keys, values = self.scratch.update(key, -key, layer)
                whole[layer].append(key)
                assert torch.equal(keys, torch.cat(whole[layer], 2))
                assert torch.equal(values, -keys)
        self.cache.take(len(self.expected), self.scratch, end)
        self.expected.append([torch.cat(found, 2)[0] for found in whole])

    @precondition(lambda self: self.expected)
    @rule()
    def step(self) -> None:
        lengths = [row[0].shape[1] for row in self.expected]
        seen = -(-(max(lengths) + 1) // STEP) * STEP
        self.cache.begin(len(lengths), seen, torch.tensor(lengths))
        for layer in range(LAYERS):
            key = self.fresh(len(lengths), 1)
            keys, values = self.cache.update(key, -key, layer)
            assert keys.shape == values.shape == (len(lengths), HEADS, seen, DIM)
            for row, one in enumerate(self.expected):
                one[layer] = torch.cat([one[layer], key[row]], 1)
                assert torch.equal(keys[row, :, : lengths[row] + 1], one[layer])
                assert torch.equal(values[row, :, : lengths[row] + 1], -one[layer])
                assert not keys[row, :, lengths[row] + 1 :].any(), "only zeros beyond"

    @precondition(lambda self: self.expected)
    @rule(which=st.randoms(use_true_random=False))
    def leave(self, which) -> None:  # type: ignore[no-untyped-def]
        slot, last = which.randrange(len(self.expected)), len(self.expected) - 1
        moved = self.expected.pop()
        if slot != last:
            self.cache.move(last, slot, moved[0].shape[1])
            self.expected[slot] = moved

    @precondition(lambda self: not self.expected)
    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.scratch.clear()
        assert self.cache.bytes == self.scratch.bytes == 0

    @invariant()
    def memory_is_counted(self) -> None:
        held = sum(row[0].nbytes * 2 * LAYERS for row in self.expected)
        assert self.cache.bytes >= held


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=40)


@given(length=st.integers(1, 5 * STEP))
def test_positions_are_allotted_in_steps(length: int) -> None:
    cache = SlotCache()
    cache.begin(1, length)
    key = made(1, length, 0.0)
    cache.update(key, key, 0)
    a_position = 2 * HEADS * DIM * key.element_size()
    assert cache.bytes == -(-length // STEP) * STEP * a_position


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_a_request_left_never_reaches_the_next(bad: float) -> None:
    """A mask gives such positions the weight 0, and 0 × NaN is NaN."""
    cache, scratch = SlotCache(), SlotCache()
    long = torch.full((1, HEADS, 100, DIM), bad)
    for slot in (0, 1):
        scratch.begin(1, 100)
        scratch.update(long, long, 0)
        cache.take(slot, scratch, 100)
    scratch.begin(1, 3)
    scratch.update(torch.ones(1, HEADS, 3, DIM), torch.ones(1, HEADS, 3, DIM), 0)
    cache.take(1, scratch, 3)
    cache.move(1, 0, 3)
    cache.begin(2, STEP, torch.tensor([3, 3]))
    one = torch.ones(2, HEADS, 1, DIM)
    for read in cache.update(one, one, 0):
        assert torch.isfinite(read).all()
        assert read.sum() == 2 * HEADS * 4 * DIM
