"""Keys and values of the requests that run: one slot each, slots 0 to n − 1 without a gap.

A slot holds a request from position 0 on, so a batch is read as one view (slots, heads, positions,
dim) and written in place: no copy of what is there for each new token, as concatenating caches
make. Positions beyond a request's length hold zeros, which the mask keeps out.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

STEP = 64
"""Positions are allotted in steps of this many."""


class SlotCache(Cache):
    """`begin` says what the next pass writes and reads; the model's layers call `update`."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._slots = 0
        self._length = 0
        self._rows = 0
        self._index: tuple[torch.Tensor, torch.Tensor] | None = None
        self._seen = 0

    @property
    def bytes(self) -> int:
        return sum(t.nbytes for t in (*self._keys, *self._values))

    def begin(self, rows: int, seen: int, positions: torch.Tensor | None = None) -> None:
        """The next pass covers slots 0 to `rows` − 1 and reads their first `seen` positions.

        With `positions` (rows,) it writes one token a slot there; without, it writes as many tokens
        as it is given into slot 0, so that they end at `seen`.
        """
        self._reserve(rows, seen)
        self._rows, self._seen = rows, seen
        self._index = None
        if positions is not None:
            self._index = (torch.arange(rows, device=positions.device), positions)

    def shaped(
        self, blocks: int, heads: int, dim: int
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Keys and values of each block, (slots, heads, positions, dim) in float32, for passes that
        write into them by themselves."""
        if not self._keys:
            like, shape = torch.empty(0), (self._slots, heads, self._length, dim)
            self._keys = [_zeros(like, shape) for _ in range(blocks)]
            self._values = [_zeros(like, shape) for _ in range(blocks)]
        return self._keys, self._values

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store (rows, heads, tokens, dim) and return all that the pass may read."""
        key, value = key_states, value_states
        if layer_idx == len(self._keys):
            shape = (self._slots, key.shape[1], self._length, key.shape[3])
            self._keys.append(_zeros(key, shape))
            self._values.append(_zeros(value, (*shape[:3], value.shape[3])))
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if self._index is None:
            begin = self._seen - key.shape[2]
            keys[0, :, begin : self._seen] = key[0]
            values[0, :, begin : self._seen] = value[0]
        else:
            rows, positions = self._index
            keys[rows, :, positions] = key[:, :, 0]
            values[rows, :, positions] = value[:, :, 0]
        return keys[: self._rows, :, : self._seen], values[: self._rows, :, : self._seen]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are always given with the tokens; nothing is to be inferred from this."""
        return 0

    def room(self, length: int) -> int:
        """Bytes that a slot of so many positions takes in a cache of its own; 0 while this one has
        held nothing."""
        position = sum(
            t.shape[1] * t.shape[3] * t.element_size() for t in (*self._keys, *self._values)
        )
        return position * -(-length // STEP) * STEP

    def take(self, slot: int, other: SlotCache, length: int, source: int = 0) -> None:
        """Copy the first `length` positions of the other cache's slot `source` into `slot`."""
        self._reserve(slot + 1, length)
        if not self._keys:
            for key, value in zip(other._keys, other._values, strict=True):
                shape = (self._slots, key.shape[1], self._length)
                self._keys.append(_zeros(key, (*shape, key.shape[3])))
                self._values.append(_zeros(value, (*shape, value.shape[3])))
        for mine, theirs in zip(
            (*self._keys, *self._values), (*other._keys, *other._values), strict=True
        ):
            mine[slot, :, :length] = theirs[source, :, :length]
            mine[slot, :, length:] = 0  # 0 × NaN is NaN: a mask does not keep those out

    def move(self, source: int, target: int, length: int) -> None:
        """Copy one slot onto another."""
        for tensor in (*self._keys, *self._values):
            tensor[target, :, :length] = tensor[source, :, :length]
            tensor[target, :, length:] = 0

    def clear(self) -> None:
        """Give the memory back."""
        self._keys, self._values = [], []
        self._slots = self._length = 0

    def _reserve(self, slots: int, length: int) -> None:
        """Room for so many slots and positions; what is there stays. Both grow by half at least, so
        that copying is rare."""
        if slots <= self._slots and length <= self._length:
            return
        if slots > self._slots:
            slots = max(slots, self._slots + self._slots // 2)
        if length > self._length:
            length = -(-max(length, self._length + self._length // 2) // STEP) * STEP
        slots, length = max(slots, self._slots), max(length, self._length)
        for tensors in (self._keys, self._values):
            for i, old in enumerate(tensors):
                fresh = _zeros(old, (slots, old.shape[1], length, old.shape[3]))
                fresh[: old.shape[0], :, : old.shape[2]] = old
                tensors[i] = fresh
        self._slots, self._length = slots, length


def _zeros(like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A plain tensor, also where the pass that asks for it makes tensors that only such a pass may
    write to (`torch.inference_mode`): slots are copied between passes."""
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
